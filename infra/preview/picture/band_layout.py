"""Place the band of regional services below the VPC, and the line that counts what is not drawn."""

from __future__ import annotations

from typing import Final

from infra.preview.picture.facts import Facts
from infra.preview.picture.scene import GAP, MARGIN, WIDTH, Box, Scene, Text, fit, wrap
from infra.preview.picture.services import Card

_CARD_HEIGHT: Final = 104
_CARDS_IN_A_ROW: Final = 4


def place_services(scene: Scene, facts: Facts, top: float) -> float:
    """One card for each concern, in full rows; returns where the band ends."""
    if not facts.cards:
        return top
    scene.texts.append(Text(MARGIN, top + 16, "Regional services", 15, bold=True))
    rows = -(-len(facts.cards) // _CARDS_IN_A_ROW)
    per_row, wider = divmod(len(facts.cards), rows)
    y = top + 28
    cards = list(facts.cards)
    for row in range(rows):
        count = per_row + (1 if row < wider else 0)
        width = (WIDTH - 2 * MARGIN - GAP * (count - 1)) / count
        for index in range(count):
            scene.add(_card(cards.pop(0), MARGIN + index * (width + GAP), y, width, _CARD_HEIGHT))
        y += _CARD_HEIGHT + GAP
    return y


def _card(card: Card, x: float, y: float, width: float, height: float) -> Box:
    texts = [Text(x + 16, y + 26, fit(card.title, 14, width - 32), 14, bold=True, colour=card.role)]
    texts.append(Text(x + 16, y + 44, fit(card.count, 12, width - 32), 12, bold=True))
    texts += [
        Text(x + 16, y + 62 + 15 * n, line, 11, colour="soft")
        for n, line in enumerate(wrap(card.names, 11, width - 32, 3))
    ]
    return Box(f"card-{card.title}", x, y, width, height, card.role, urns=card.urns, style="group", texts=tuple(texts))


def place_wiring(scene: Scene, facts: Facts, top: float) -> float:
    """Count by type what no box stands for; returns where the lines end."""
    if not facts.also:
        return top
    total = sum(facts.also.values())
    head = Text(MARGIN, top + 16, f"And {total} resources of wiring", 12, bold=True, colour="soft")
    left = MARGIN + head.width + 14
    lines = wrap([f"{count} {kind}" for kind, count in facts.also.items()], 11, WIDTH - MARGIN - left, 2, " · ")
    scene.texts.append(head)
    scene.texts.extend(Text(left, top + 16 + 16 * n, line, 11, colour="soft") for n, line in enumerate(lines))
    return top + 16 * len(lines) + 4
