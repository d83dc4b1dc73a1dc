"""The picture of an estate: an SVG drawn from the capture alone, without any other program.

``facts`` reads the capture, ``layout`` places boxes and arrows, ``drawing`` writes them as SVG.
"""

from __future__ import annotations

from infra.preview.model import Capture
from infra.preview.picture.drawing import to_svg
from infra.preview.picture.facts import read_facts
from infra.preview.picture.layout import lay_out


def draw(capture: Capture) -> str:
    """The picture of ``capture`` as an SVG document."""
    return to_svg(lay_out(read_facts(capture)))
