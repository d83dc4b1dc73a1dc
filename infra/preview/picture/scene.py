"""What a layout is made of: boxes inside boxes, texts in them, and arrows between them. Lengths are in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

WIDTH: Final = 1400
MARGIN: Final = 28
OUTSIDE: Final = 172  # the column of the callers
GAP: Final = 12

# Advance widths of Helvetica's ASCII glyphs in thousandths of the size (Adobe font metrics, 0x20 to 0x7e).
_WIDTHS: Final = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 "
    "556 556 278 278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 "
    "667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 "
    "556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584"
)
_TABLE: Final = tuple(int(width) for width in _WIDTHS.split())
_MARGIN: Final = 1.12  # other sans-serif fonts run up to an eighth wider ...
_BOLD: Final = 1.16  # ... and DejaVu, which a machine without others has, another sixth when bold
ArrowRole = Literal["request", "trusted", "data", "replication"]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Text:
    """One line of text; ``x`` and ``y`` are the anchor on the baseline."""

    x: float
    y: float
    content: str
    size: float = 12
    bold: bool = False
    colour: str = "ink"
    anchor: Anchor = "start"

    @property
    def width(self) -> float:
        """How wide it is at most."""
        return text_width(self.content, self.size, bold=self.bold)

    @property
    def left(self) -> float:
        """Where it begins."""
        return self.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * self.width


@dataclass(frozen=True)
class Box:
    """A rectangle that stands for ``urns``; ``inside`` is the key of the box around it."""

    key: str
    x: float
    y: float
    width: float
    height: float
    role: str
    inside: str = ""
    urns: tuple[str, ...] = ()
    style: Literal["filled", "outline", "dashed", "tint", "chip", "group", "column"] = "filled"
    texts: tuple[Text, ...] = ()
    tooltip: str = ""

    @property
    def right(self) -> float:
        """The x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.y + self.height

    @property
    def centre(self) -> float:
        """The x of the middle."""
        return self.x + self.width / 2

    def overlaps(self, other: Box) -> bool:
        """Whether the two share an area."""
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies within."""
        return self.x <= other.x and self.y <= other.y and other.right <= self.right and other.bottom <= self.bottom


@dataclass(frozen=True)
class Arrow:
    """A way from the first point to the last, with an optional label beside it."""

    points: tuple[tuple[float, float], ...]
    role: ArrowRole
    label: Text | None = None
    both: bool = False


@dataclass
class Scene:
    """Everything that is drawn, in drawing order."""

    width: float
    height: float = 0
    title: str = ""
    description: str = ""
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def add(self, box: Box) -> Box:
        """Add ``box`` and return it."""
        self.boxes.append(box)
        return box


def text_width(content: str, size: float, *, bold: bool = False) -> float:
    """The width of ``content`` at ``size``, with some margin for fonts wider than Helvetica."""
    units = sum(_TABLE[ord(char) - 32] if 32 <= ord(char) < 127 else 600 for char in content)
    return units * size / 1000 * _MARGIN * (_BOLD if bold else 1)


def fit(content: str, size: float, room: float) -> str:
    """``content``, shortened with an ellipsis until it fits ``room``."""
    if text_width(content, size) <= room:
        return content
    while content and text_width(content + "…", size) > room:
        content = content[:-1]
    return content.rstrip(" ,·-") + "…" if content else ""


def wrap(words: Sequence[str], size: float, room: float, lines: int, separator: str = ", ") -> list[str]:
    """``words`` joined into at most ``lines`` lines of ``room``; what does not fit is counted at the end."""
    result: list[str] = []
    for position, word in enumerate(words):
        rest = len(words) - position
        candidate = f"{result[-1]}{separator}{word}" if result else word
        last = len(result) == lines
        suffix = f"{separator}+{rest - 1}" if rest > 1 and last else ""
        if result and text_width(candidate + suffix, size) <= room:
            result[-1] = candidate
        elif len(result) < lines:
            result.append(fit(word, size, room))
        else:
            result[-1] = fit(result[-1], size, room - text_width(f"{separator}+{rest}", size)) + f"{separator}+{rest}"
            break
    return result
