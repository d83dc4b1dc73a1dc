"""Write a scene as SVG: colours, strokes and type; nothing here decides where anything stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args
from xml.sax.saxutils import escape, quoteattr

from infra.preview.picture.scene import Arrow, ArrowRole, Box, Scene, Text

_FONT: Final = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
_COLOURS: Final = {
    "paper": "#ffffff",
    "ink": "#17212b",
    "soft": "#4d5b69",
    "network": "#1d5a94",
    "public": "#1d5a94",
    "private": "#0d6b63",
    "database": "#5a3d9e",
    "cache": "#9a3412",
    "balancer": "#123f6b",
    "compute": "#0d6b63",
    "gpu": "#41701b",
    "security": "#a01f52",
    "data": "#5a3d9e",
    "operations": "#3c4f63",
    "cost": "#8a5a00",
    "request": "#0b62b8",
    "trusted": "#a34700",
    "replication": "#5a3d9e",
    "column": "#f6f8f9",
    "production": "#a01f52",
    "staging": "#0d6b63",
}
"""Dark enough for text on white and on a tint of itself (WCAG AA, 4.5 to 1). Hue never stands alone: labels do."""


def to_svg(scene: Scene) -> str:
    """The document."""
    width, height = _number(scene.width), _number(scene.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        f'role="img" font-family="{_FONT}">',
        f"<title>{escape(scene.title)}</title>",
        f"<desc>{escape(scene.description)}</desc>",
        "<defs>",
        *(_arrow_head(role) for role in get_args(ArrowRole)),
        "</defs>",
        f'<rect width="100%" height="100%" fill="{_COLOURS["paper"]}"/>',
    ]
    for box in scene.boxes:
        lines.extend(_box(box))
    lines.extend(_arrow(arrow) for arrow in scene.arrows)
    lines.extend(_text(text) for text in scene.texts)
    lines.extend(_text(arrow.label, halo=True) for arrow in scene.arrows if arrow.label)
    return "\n".join([*lines, "</svg>", ""])


def tint(role: str, strength: float) -> str:
    """The role's colour mixed with white; ``strength`` from 0 (white) to 1."""
    colour = _COLOURS[role]
    channels = [int(colour[index : index + 2], 16) for index in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - channel) * strength):02x}" for channel in channels)


def _box(box: Box) -> Iterator[str]:
    colour = _COLOURS[box.role]
    style = {
        "filled": f'fill="{tint(box.role, 0.09)}" stroke="{colour}" stroke-width="1.5" rx="7"',
        "outline": f'fill="{_COLOURS["paper"]}" stroke="{colour}" stroke-width="1.3" rx="7"',
        "dashed": f'fill="{_COLOURS["paper"]}" stroke="{colour}" stroke-width="1.5" stroke-dasharray="6 4" rx="7"',
        "tint": f'fill="{colour}" fill-opacity="0.06" stroke="{tint(box.role, 0.25)}" stroke-width="1" rx="8"',
        "column": f'fill="{_COLOURS["column"]}" rx="8"',
        "chip": f'fill="{colour}" rx="{_number(min(box.height / 2, 13))}"',
        "group": f'fill="{_COLOURS["paper"]}" stroke="{tint(box.role, 0.35)}" stroke-width="1.2" rx="8"',
    }[box.style]
    urns = f" data-urn={quoteattr(' '.join(urn.replace(' ', '%20') for urn in box.urns))}" if box.urns else ""
    yield f"<g data-key={quoteattr(box.key)}{urns}>"
    if box.urns:
        yield f"<title>{escape(chr(10).join(urn.rpartition('::')[2] for urn in box.urns[:20]))}</title>"
    yield f"<rect {_area(box.x, box.y, box.width, box.height)} {style}/>"
    if box.style == "group":
        yield f'<rect {_area(box.x + 1, box.y + 12, 4, box.height - 24)} rx="2" fill="{colour}"/>'
    for text in box.texts:
        yield _text(text)
    yield "</g>"


def _text(text: Text, *, halo: bool = False) -> str:
    if not text.content:
        return ""
    weight = ' font-weight="600"' if text.bold else ""
    anchor = f' text-anchor="{text.anchor}"' if text.anchor != "start" else ""
    outline = (
        f' paint-order="stroke" stroke="{_COLOURS["paper"]}" stroke-width="4" stroke-linejoin="round"' if halo else ""
    )
    return (
        f'<text x="{_number(text.x)}" y="{_number(text.y)}" font-size="{_number(text.size)}" '
        f'fill="{_COLOURS[text.colour]}"'
        f"{weight}{anchor}{outline}>{escape(text.content)}</text>"
    )


def _arrow_head(role: str) -> str:
    return (
        f'<marker id="head-{role}" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse">'
        f'<path d="M 0 0.6 L 9.4 5 L 0 9.4 z" fill="{_COLOURS[role]}"/></marker>'
    )


def _arrow(arrow: Arrow) -> str:
    path = " ".join(
        f"{'M' if index == 0 else 'L'} {_number(x)} {_number(y)}" for index, (x, y) in enumerate(arrow.points)
    )
    width = 2.6 if arrow.role in ("request", "trusted") else 1.8
    dash = ' stroke-dasharray="5 4"' if arrow.role == "replication" else ""
    start = f' marker-start="url(#head-{arrow.role})"' if arrow.both else ""
    return (
        f'<path d="{path}" fill="none" stroke="{_COLOURS[arrow.role]}" stroke-width="{width}" stroke-linejoin="round"'
        f'{dash}{start} marker-end="url(#head-{arrow.role})"/>'
    )


def _area(x: float, y: float, width: float, height: float) -> str:
    return f'x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" height="{_number(height)}"'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
