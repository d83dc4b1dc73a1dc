"""Place the picture: outside on the left, the VPC by tier and zone beside it, the regional services below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infra.preview.picture.band_layout import place_services, place_wiring
from infra.preview.picture.cluster_layout import cluster_height, place_cluster
from infra.preview.picture.facts import TIERS, Facts, Listener, Store, Subnet
from infra.preview.picture.path_layout import place_callers, place_data_paths, place_legend
from infra.preview.picture.scene import GAP, MARGIN, OUTSIDE, WIDTH, Arrow, Box, Scene, Text, fit, text_width, wrap
from infra.preview.picture.services import Unit

_TIER_NAMES: Final = {
    "public": "Public subnets",
    "private": "Private subnets",
    "database": "Database subnets",
    "cache": "Cache subnets",
}
_NO_ZONE: Final = "one zone"


def lay_out(facts: Facts) -> Scene:
    """The whole scene."""
    scene = Scene(WIDTH, title=f"{facts.project} · {facts.stack}")
    top = _title(scene, facts)
    bottom = _network(scene, facts, top) if facts.vpc else top
    bottom = place_services(scene, facts, bottom + 22)
    bottom = place_wiring(scene, facts, bottom)
    scene.height = bottom + MARGIN
    scene.description = (
        f"{facts.counts['resources']} resources of the stack {facts.stack}, drawn from what the program declares."
    )
    return scene


def _title(scene: Scene, facts: Facts) -> float:
    scene.texts.append(Text(MARGIN, 54, facts.project, 30, bold=True))
    x = MARGIN + text_width(facts.project, 30, bold=True) + 6
    name = facts.stack
    pill = Box(
        "stack",
        x,
        31,
        text_width(name, 15, bold=True) + 28,
        30,
        "production" if name == "production" else "staging",
        style="chip",
    )
    scene.add(
        Box(**{**vars(pill), "texts": (Text(pill.centre, 51, name, 15, bold=True, colour="paper", anchor="middle"),)})
    )
    counts = facts.counts
    parts = [facts.region, f"{counts['resources']} resources in {counts['components']} components"]
    names = {"aws": "AWS", "kubernetes": "Kubernetes", "docker-build": "images", "random": "random"}
    parts += [
        f"{number} {names.get(key, key)}" for key, number in counts.items() if key not in ("resources", "components")
    ]
    scene.texts.append(Text(MARGIN, 84, "  ·  ".join(part for part in parts if part), 14, colour="soft"))
    return 108


def _network(scene: Scene, facts: Facts, top: float) -> float:
    x = MARGIN + OUTSIDE + 26
    width = WIDTH - MARGIN - x
    vpc_at = len(scene.boxes)
    zones = facts.zones or (_NO_ZONE,)
    inner = width - 32
    column = (inner - GAP * (len(zones) - 1)) / len(zones)
    columns = {zone: x + 16 + index * (column + GAP) for index, zone in enumerate(zones)}
    y = top + 44
    zones_at = len(scene.boxes)
    y += 28
    used = [tier for tier in TIERS if any(subnet.tier == tier for subnet in facts.subnets)]
    anchors: dict[str, Box] = {}
    for tier in used:
        height = _tier_height(facts, tier)
        band = Box(
            f"tier-{tier}",
            x + 8,
            y,
            width - 16,
            height,
            tier,
            inside="vpc",
            style="tint",
            texts=(Text(x + 18, y + 17, _TIER_NAMES[tier], 12, bold=True, colour=tier),),
        )
        scene.add(band)
        _subnets(scene, band, [subnet for subnet in facts.subnets if subnet.tier == tier], columns, column)
        if tier == "public":
            _public(scene, facts, band, columns, column, anchors)
        elif tier == "private" and facts.cluster:
            anchors["cluster"] = place_cluster(scene, facts, band, anchors)
        elif tier in ("database", "cache"):
            _stores(
                scene, facts.databases if tier == "database" else facts.caches, band, columns, column, tier, anchors
            )
        y = band.bottom + 10
    for zone, left in columns.items():
        label = Text(left + column / 2, top + 59, zone, 12, bold=True, colour="soft", anchor="middle")
        box = Box(
            f"zone-{zone}", left, top + 42, column, y - top - 46, "column", inside="vpc", style="column", texts=(label,)
        )
        scene.boxes.insert(zones_at, box)
    y = _endpoints(scene, facts.endpoints, x + 8, y, width - 16)
    assert facts.vpc is not None  # noqa: S101 - the caller checked
    title = f"VPC  {facts.vpc.title}".strip()
    vpc = Box(
        "vpc",
        x,
        top,
        width,
        y - top + 2,
        "network",
        urns=(facts.vpc.urn,),
        style="outline",
        texts=(Text(x + 18, top + 25, title, 15, bold=True, colour="network"),),
    )
    scene.boxes.insert(vpc_at, vpc)
    if facts.internet_gateway:
        chip = text_width(facts.internet_gateway.title, 12, bold=True) + 24
        scene.add(
            Box(
                "internet-gateway",
                vpc.right - chip - 16,
                top + 9,
                chip,
                24,
                "network",
                inside="vpc",
                urns=(facts.internet_gateway.urn,),
                style="chip",
                texts=(
                    Text(
                        vpc.right - chip / 2 - 16,
                        top + 25,
                        facts.internet_gateway.title,
                        12,
                        bold=True,
                        colour="paper",
                        anchor="middle",
                    ),
                ),
            )
        )
    place_callers(scene, facts, anchors)
    place_legend(scene, vpc.bottom - 100)
    place_data_paths(scene, anchors)
    return vpc.bottom


def _tier_height(facts: Facts, tier: str) -> float:
    if tier == "public":
        return 62 + (118 if facts.balancer else 0)
    if tier == "private":
        return 30 + (cluster_height(facts) + 30 if facts.cluster else 0)
    stores = facts.databases if tier == "database" else facts.caches
    return 32 + len(stores) * 82


def _subnets(scene: Scene, band: Box, subnets: Sequence[Subnet], columns: dict[str, float], column: float) -> None:
    """One strip per zone at the top of the band, with the subnet's range."""
    taken: dict[str, int] = {}
    for subnet in subnets:
        left = columns.get(subnet.zone or _NO_ZONE, next(iter(columns.values())))
        index = taken.get(subnet.zone, 0)
        taken[subnet.zone] = index + 1
        label = subnet.cidr or "subnet"
        width = text_width(label, 11) + 18
        # Requests come down in the middle of the upper tiers, data at the right end of the lower ones.
        lower = band.role in ("database", "cache")
        x = left + 132 + index * (width + 6) if lower else left + column - 8 - (index + 1) * (width + 6) + 6
        scene.add(
            Box(
                f"subnet-{subnet.urn}",
                x,
                band.y + 5,
                width,
                19,
                band.role,
                inside=band.key,
                urns=(subnet.urn,),
                style="outline",
                texts=(Text(x + width / 2, band.y + 18.5, label, 11, colour=band.role, anchor="middle"),),
            )
        )


def _public(
    scene: Scene, facts: Facts, band: Box, columns: dict[str, float], column: float, anchors: dict[str, Box]
) -> None:
    for urn, zone in sorted(facts.nats.items(), key=lambda item: item[1]):
        left = columns.get(zone or _NO_ZONE, next(iter(columns.values())))
        width = text_width("NAT gateway", 12) + 28
        x = left + column / 2 - width / 2
        box = Box(
            f"nat-{urn}",
            x,
            band.y + 29,
            width,
            26,
            "network",
            inside=band.key,
            urns=(urn,),
            style="chip",
            texts=(Text(x + width / 2, band.y + 46.5, "NAT gateway", 12, bold=True, colour="paper", anchor="middle"),),
        )
        scene.add(box)
    if not facts.balancer:
        return
    y = band.y + 64
    bar = Box(
        "balancer",
        band.x + 8,
        y,
        band.width - 16,
        106,
        "balancer",
        inside=band.key,
        urns=(facts.balancer.urn,),
        style="filled",
        texts=(
            Text(band.x + 22, y + 22, facts.balancer.title, 14, bold=True, colour="balancer"),
            Text(band.right - 22, y + 22, facts.balancer.note, 12, colour="soft", anchor="end"),
        ),
    )
    scene.add(bar)
    anchors["balancer"] = bar
    if not facts.listeners:
        return
    width = (bar.width - 28 - GAP * (len(facts.listeners) - 1)) / len(facts.listeners)
    for index, listener in enumerate(facts.listeners):
        x = bar.x + 14 + index * (width + GAP)
        anchors[f"listener-{listener.urn}"] = scene.add(_listener(listener, x, y + 34, width))


def _listener(listener: Listener, x: float, y: float, width: float) -> Box:
    target = f"to {listener.target}" if listener.target else "no target"
    check = f", health {listener.health_check}" if listener.health_check else ""
    sources = wrap(listener.sources, 11, width - 24, 1)
    texts = (
        Text(x + 12, y + 20, f"{listener.protocol} {listener.port}", 14, bold=True),
        Text(x + 12, y + 37, fit(f"{target}{check}", 12, width - 24), 12, colour="soft"),
        Text(x + 12, y + 53, fit(f"from {sources[0]}", 11, width - 24) if sources else "", 11, colour="soft"),
    )
    return Box(
        f"listener-{listener.urn}",
        x,
        y,
        width,
        62,
        "trusted" if listener.trusted_only else "request",
        inside="balancer",
        urns=(listener.urn, *((listener.target_urn,) if listener.target_urn else ())),
        style="outline",
        texts=texts,
    )


def _stores(
    scene: Scene,
    stores: Sequence[Store],
    band: Box,
    columns: dict[str, float],
    column: float,
    tier: str,
    anchors: dict[str, Box],
) -> None:
    lefts = list(columns.values())
    # The right end of a database's column stays free: the way to the cache goes down there.
    width = column - 56 if tier == "database" else column - 16
    for row, store in enumerate(stores):
        y = band.y + 30 + row * 82
        previous: Box | None = None
        copies = min(store.copies, len(lefts))
        for index in range(copies):
            role = (
                ("primary" if store.copies > 1 else "single zone")
                if index == 0
                else "standby"
                if tier == "database"
                else "replica"
            )
            x = lefts[index] + 8
            lines = [
                Text(
                    x + 14, y + 22, fit(store.title, 14, width - 40 - text_width(role, 11)), 14, bold=True, colour=tier
                )
            ]
            lines.append(Text(x + width - 12, y + 21, role, 11, colour="soft", anchor="end"))
            lines += [
                Text(x + 14, y + 40 + 16 * n, fit(line, 12, width - 28), 12, colour="soft")
                for n, line in enumerate(store.lines[:2])
            ]
            box = scene.add(
                Box(
                    f"{tier}-{row}-{index}",
                    x,
                    y,
                    width,
                    72,
                    tier,
                    inside=band.key,
                    urns=(store.urn,),
                    style="filled" if index == 0 else "dashed",
                    texts=tuple(lines),
                )
            )
            if index == 0:
                anchors.setdefault(tier, box)
            if previous is not None:
                middle = y + 36
                scene.arrows.append(
                    Arrow(((previous.right + 3, middle), (x - 3, middle)), "replication", both=tier == "database")
                )
            previous = box


def _endpoints(scene: Scene, endpoints: Sequence[Unit], x: float, y: float, width: float) -> float:
    if not endpoints:
        return y
    head = Text(x + 10, y + 18, "VPC endpoints", 12, bold=True, colour="network")
    left = x + 10 + head.width + 12
    cursor, line = left, y
    chips = []
    for unit in endpoints:
        size = text_width(unit.title, 11) + 18
        if cursor + size > x + width - 10:
            cursor, line = left, line + 26
        chips.append(
            Box(
                f"endpoint-{unit.urn}",
                cursor,
                line + 4,
                size,
                20,
                "network",
                inside="endpoints",
                urns=(unit.urn,),
                style="outline",
                texts=(Text(cursor + size / 2, line + 18, unit.title, 11, colour="network", anchor="middle"),),
            )
        )
        cursor += size + 6
    scene.add(Box("endpoints", x, y, width, line + 29 - y, "network", inside="vpc", style="tint", texts=(head,)))
    for chip in chips:
        scene.add(chip)
    return line + 29 + 8
