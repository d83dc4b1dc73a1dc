"""Place who calls and what the arrows mean on the left, and the ways between callers, cluster and data stores."""

from __future__ import annotations

from typing import Literal

from infra.preview.picture.facts import Facts, Listener
from infra.preview.picture.scene import MARGIN, OUTSIDE, Arrow, ArrowRole, Box, Scene, Text, wrap


def place_callers(scene: Scene, facts: Facts, anchors: dict[str, Box]) -> None:
    """Who sends requests, and their way to the load balancer."""
    bar = anchors.get("balancer")
    if bar is None:
        return
    groups: list[tuple[str, Literal["request", "trusted"], list[Listener]]] = [
        ("Internet", "request", [item for item in facts.listeners if not item.trusted_only]),
        ("Trusted networks", "trusted", [item for item in facts.listeners if item.trusted_only]),
    ]
    shown = [(title, role, listeners) for title, role, listeners in groups if listeners]
    height = 84
    y = bar.y + bar.height / 2 - (len(shown) * height + (len(shown) - 1) * 16) / 2
    for index, (title, role, listeners) in enumerate(shown):
        sources = list(dict.fromkeys(source for listener in listeners for source in listener.sources))
        ports = ", ".join(str(listener.port) for listener in listeners)
        lines = [Text(MARGIN + 14, y + 24, title, 14, bold=True)]
        lines.append(Text(MARGIN + 14, y + 42, f"TLS to {ports}", 12, colour="soft"))
        lines += [
            Text(MARGIN + 14, y + 58 + 15 * n, line, 11, colour="soft")
            for n, line in enumerate(wrap(sources, 11, OUTSIDE - 26, 2))
        ]
        box = scene.add(Box(f"outside-{role}", MARGIN, y, OUTSIDE, height, role, style="filled", texts=tuple(lines)))
        middle = min(max(box.y + height / 2, bar.y + 12), bar.bottom - 12) + (
            0 if len(shown) == 1 else (-8 if index == 0 else 8)
        )
        scene.arrows.append(Arrow(((box.right + 2, middle), (bar.x - 3, middle)), role))
        y += height + 16


def place_legend(scene: Scene, y: float) -> None:
    """What the arrows mean, in the left column."""
    scene.texts.append(Text(MARGIN, y, "Legend", 12, bold=True, colour="soft"))
    legend: tuple[tuple[ArrowRole, str], ...] = (
        ("request", "request"),
        ("trusted", "request, trusted only"),
        ("data", "data"),
        ("replication", "replication"),
    )
    for row, (role, label) in enumerate(legend):
        line = y + 20 + 20 * row
        scene.arrows.append(Arrow(((MARGIN, line - 4), (MARGIN + 28, line - 4)), role))
        scene.texts.append(Text(MARGIN + 36, line, label, 11, colour="soft"))
    line = y + 20 + 20 * len(legend)
    scene.add(Box("legend-standby", MARGIN, line - 11, 28, 14, "database", style="dashed"))
    scene.texts.append(Text(MARGIN + 36, line, "standby or replica", 11, colour="soft"))


def place_data_paths(scene: Scene, anchors: dict[str, Box]) -> None:
    """From the cluster down to the database and the cache."""
    cluster, database, cache = anchors.get("cluster"), anchors.get("database"), anchors.get("cache")
    if cluster is None:
        return
    if database is not None:
        x = database.right - 70
        label = Text(x - 8, cluster.bottom + 17, "PostgreSQL", 11, colour="database", anchor="end")
        scene.arrows.append(Arrow(((x, cluster.bottom + 2), (x, database.y - 3)), "data", label))
    if cache is not None:
        x = (database.right if database is not None else cache.centre) + 24
        label = Text(x + 8, cluster.bottom + 17, "Valkey", 11, colour="cache")
        scene.arrows.append(Arrow(((x, cluster.bottom + 2), (x, cache.y - 3)), "data", label))
