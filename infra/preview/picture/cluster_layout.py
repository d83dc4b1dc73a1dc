"""Place the cluster: node groups side by side, what runs on them inside, add-ons below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infra.preview.picture.facts import Facts, NodeGroup, Workload
from infra.preview.picture.scene import Arrow, ArrowRole, Box, Scene, Text, fit, text_width

_GAP: Final = 12
_FOOT: Final = 20
_HEAD: Final = 36
_GROUP_HEAD: Final = 30
_SERVED: Final = 58


def _split(facts: Facts) -> tuple[list[Workload], list[Workload]]:
    """Workloads that serve requests, and all others."""
    served = [w for w in facts.workloads if w.kind == "Deployment" and _listener_of(facts, w) is not None]
    return served, [w for w in facts.workloads if w not in served]


def _listener_of(facts: Facts, workload: Workload) -> str | None:
    for listener in facts.listeners:
        words = {word for word in listener.target.lower().split() if len(word) > 3}
        if any(word in workload.name.lower() for word in words):
            return listener.urn
    return None


def _rows(units: Sequence[str], room: float) -> list[list[int]]:
    """Which chips go into which row."""
    rows: list[list[int]] = [[]]
    used = 0.0
    for index, label in enumerate(units):
        width = text_width(label, 11) + 20
        if rows[-1] and used + width > room:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width + 6
    return rows


def _others_label(workload: Workload) -> str:
    return f"{workload.name}" + (f" x{workload.replicas}" if workload.replicas not in ("", "1") else "")


def _chip_rows(facts: Facts) -> int:
    others = [_others_label(w) for w in _split(facts)[1]]
    return len(_rows(others, _INNER - 130)) if others else 0


def _addon_rows(facts: Facts) -> int:
    return len(_rows([unit.title for unit in facts.add_ons], _INNER - 130)) if facts.add_ons else 0


_INNER: Final = 1080.0  # narrower than any cluster that is drawn, so that a height computed with it always suffices


def cluster_height(facts: Facts) -> float:
    """How high the cluster's box is."""
    served = _split(facts)[0]
    groups = _GROUP_HEAD + (_SERVED + 12 if served else 6) if facts.node_groups else (_SERVED + 8 if served else 0)
    chips = 26 * (_chip_rows(facts) + _addon_rows(facts)) + (8 if facts.workloads or facts.add_ons else 0)
    return _HEAD + groups + chips + 4 + _FOOT


def place_cluster(scene: Scene, facts: Facts, band: Box, anchors: dict[str, Box]) -> Box:
    """Draw the cluster into ``band`` and the request's way from the listeners into it; returns the cluster's box."""
    assert facts.cluster is not None  # noqa: S101 - the caller checked
    height = cluster_height(facts)
    bottom = band.y + 30 + height
    cluster = Box(
        "cluster",
        band.x + 8,
        band.y + 30,
        band.width - 16,
        height,
        "compute",
        inside=band.key,
        urns=(facts.cluster.urn,),
        style="outline",
        texts=(
            Text(band.x + 22, band.y + 52, facts.cluster.title, 14, bold=True, colour="compute"),
            # Below, since requests come in from above.
            Text(band.right - 22, bottom - 10, facts.cluster.note, 12, colour="soft", anchor="end"),
        ),
    )
    scene.add(cluster)
    served, others = _split(facts)
    y = cluster.y + _HEAD
    y = _node_groups(scene, facts, cluster, served, y, anchors)
    y = _chips(scene, cluster, "Also running", [(w.urn, _others_label(w)) for w in others], y, "workload")
    _chips(scene, cluster, "Add-ons", [(unit.urn, unit.title) for unit in facts.add_ons], y, "addon")
    for listener in facts.listeners:
        source = anchors.get(f"listener-{listener.urn}")
        if source is None:
            continue
        target = anchors.get(f"served-{listener.urn}")
        role: ArrowRole = "trusted" if listener.trusted_only else "request"
        if target is None:
            scene.arrows.append(Arrow(((source.centre, source.bottom + 2), (source.centre, cluster.y - 3)), role))
        else:
            middle = (source.bottom + cluster.y) / 2 + 14
            end = target.centre
            points = ((source.centre, source.bottom + 2), (source.centre, middle), (end, middle), (end, target.y - 3))
            straight = abs(source.centre - end) < 2
            scene.arrows.append(Arrow((points[0], points[3]) if straight else points, role))
    return cluster


def _node_groups(
    scene: Scene, facts: Facts, cluster: Box, served: list[Workload], y: float, anchors: dict[str, Box]
) -> float:
    groups = list(facts.node_groups)
    if not groups:
        return y
    height = _GROUP_HEAD + (_SERVED + 4 if served else 0)
    on: dict[str, list[Workload]] = {group.urn: [] for group in groups}
    for workload in served:
        on[_group_of(workload, groups).urn].append(workload)
    shares = [max(1, len(on[group.urn])) for group in groups]
    room = cluster.width - 28 - _GAP * (len(groups) - 1)
    x = cluster.x + 14
    for group, share in zip(groups, shares, strict=True):
        width = room * share / sum(shares)
        role = "gpu" if group.gpu else "compute"
        title = "GPU nodes" if group.gpu else "CPU nodes"
        note = " · ".join(part for part in (group.instances, group.sizes) if part)
        head = Text(x + 12, y + height - 10, title, 13, bold=True, colour=role)
        texts = (
            head,
            Text(
                x + width - 12, y + height - 10, fit(note, 12, width - head.width - 40), 12, colour="soft", anchor="end"
            ),
        )
        box = scene.add(
            Box(
                f"nodes-{group.urn}",
                x,
                y,
                width,
                height,
                role,
                inside="cluster",
                urns=(group.urn,),
                style="tint",
                texts=texts,
            )
        )
        inner = (width - 24 - _GAP * (max(1, len(on[group.urn])) - 1)) / max(1, len(on[group.urn]))
        for index, workload in enumerate(on[group.urn]):
            left = x + 12 + index * (inner + _GAP)
            placed = scene.add(_served(workload, left, y + 10, inner, role, box.key))
            listener = _listener_of(facts, workload)
            if listener is not None:
                anchors.setdefault(f"served-{listener}", placed)
        x += width + _GAP
    return y + height + 8


def _group_of(workload: Workload, groups: list[NodeGroup]) -> NodeGroup:
    wanted = [group for group in groups if group.gpu == workload.gpu]
    return (wanted or groups)[0]


def _served(workload: Workload, x: float, y: float, width: float, role: str, inside: str) -> Box:
    note = " · ".join(
        part for part in (workload.namespace, f"{workload.replicas} replicas" if workload.replicas else "") if part
    )
    texts = (
        Text(x + 12, y + 23, fit(workload.name, 14, width - 24), 14, bold=True),
        Text(x + 12, y + 42, fit(note, 12, width - 24), 12, colour="soft"),
    )
    return Box(
        f"workload-{workload.urn}",
        x,
        y,
        width,
        _SERVED - 6,
        role,
        inside=inside,
        urns=(workload.urn,),
        style="filled",
        texts=texts,
    )


def _chips(scene: Scene, cluster: Box, title: str, units: list[tuple[str, str]], y: float, kind: str) -> float:
    if not units:
        return y
    scene.texts.append(Text(cluster.x + 16, y + 16, title, 12, bold=True, colour="compute"))
    for row in _rows([label for _, label in units], _INNER - 130):
        x = cluster.x + 116
        for index in row:
            urn, label = units[index]
            width = text_width(label, 11) + 20
            scene.add(
                Box(
                    f"{kind}-{urn}",
                    x,
                    y + 2,
                    width,
                    20,
                    "compute",
                    inside="cluster",
                    urns=(urn,),
                    style="outline",
                    texts=(Text(x + width / 2, y + 16, label, 11, colour="compute", anchor="middle"),),
                )
            )
            x += width + 6
        y += 26
    return y
