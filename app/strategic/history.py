"""Reads what was stored: nearest patterns and past decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from app.service.database import Database
from app.service.problems import FieldError, unprocessable
from app.strategic.answers import ACTIONS, LEVELS, REGIMES
from app.strategic.outcomes import ALEATORIC, CONFIDENCE, EPISTEMIC, OUTCOME_WIDTH, PROBABILITIES, Outcomes

EF_SEARCH: Final = 40
LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Selection:
    """Which decisions are asked for."""

    limit: int
    cursor: str | None
    since: datetime | None
    until: datetime | None
    decision: int | None


async def nearest_patterns(
    database: Database, pattern: Sequence[float], k: int, *, probes: int
) -> list[dict[str, Any]]:
    """The ``k`` stored patterns with the smallest Euclidean distance from ``pattern`` (13 numbers), nearest first.

    Args:
        database: of the service.
        pattern: 13 finite numbers.
        k: at least 1.
        probes: lists that are read of an IVFFlat index; more where they hold fewer than ``k`` patterns, as those of a
            young index do.
    """
    text = "[" + ",".join(map(repr, pattern)) + "]"
    async with database.connection() as connection, connection.pipeline(), connection.transaction():
        await connection.execute(f"SET LOCAL ivfflat.probes = {int(probes)}")
        await connection.execute("SET LOCAL ivfflat.iterative_scan = relaxed_order")
        await connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(EF_SEARCH, k))}")
        cursor = await connection.execute(
            # Further lists come in an order of their own. The outer query puts all into one; + 0 keeps the planner from
            # taking the inner order for granted.
            "WITH nearest AS MATERIALIZED (SELECT id, timestamp, pattern_vector <-> %(pattern)s::vector AS distance, "
            "pattern_vector::real[] AS pattern, metadata FROM vector_patterns "
            "ORDER BY pattern_vector <-> %(pattern)s::vector LIMIT %(k)s) SELECT * FROM nearest ORDER BY distance + 0",
            {"pattern": text, "k": k},
            binary=True,
        )
        rows = await cursor.fetchall()
    names = ("id", "timestamp", "distance", "pattern", "metadata")
    return [dict(zip(names, row, strict=True)) for row in rows]


async def list_decisions(database: Database, selection: Selection) -> tuple[list[dict[str, Any]], str | None]:
    """A page of decisions in descending order of their ids, and the cursor of the next page."""
    for name, moment in (("since", selection.since), ("until", selection.until)):
        if moment is not None and moment.tzinfo is None:
            raise unprocessable("A time zone is missing.", [FieldError(f"query {name}", "must end in Z or an offset")])
    below = LARGEST_ID if selection.cursor is None else min(int(selection.cursor), LARGEST_ID)
    conditions = ["decision IS NOT NULL", "id < %(below)s"]
    conditions += ["timestamp >= %(since)s"] if selection.since else []
    conditions += ["timestamp < %(until)s"] if selection.until else []
    conditions += ["decision = %(decision)s"] if selection.decision is not None else []
    parameters = {
        "below": below,
        "since": selection.since,
        "until": selection.until,
        "decision": selection.decision,
        "limit": selection.limit + 1,
    }
    statement = (
        "SELECT id, timestamp, created_at, outcome, model_version FROM samples "  # noqa: S608 - fixed conditions
        f"WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT %(limit)s"
    )
    async with database.connection() as connection:
        rows = await (await connection.execute(statement, parameters, binary=True)).fetchall()
    page = rows[: selection.limit]
    cursor = str(page[-1][0]) if len(rows) > selection.limit else None
    return [_decision(row) for row in page], cursor


def _decision(row: Sequence[Any]) -> dict[str, Any]:
    number, timestamp, created_at, raw, version = row
    outcome = np.frombuffer(raw, "<f4").reshape(1, OUTCOME_WIDTH)
    packed = Outcomes.read(number, outcome, version)
    values = [round(float(value), 6) for value in outcome[0]]
    regime = int(packed.regime[0])
    return {
        "id": number,
        "timestamp": timestamp.astimezone(UTC),
        "created_at": created_at.astimezone(UTC),
        "decision": ACTIONS[int(packed.decision[0])],
        "probabilities": dict(zip(ACTIONS, values[PROBABILITIES], strict=True)),
        "confidence": {"score": values[CONFIDENCE], "level": LEVELS[int(packed.level[0])]},
        "uncertainty": {"epistemic": values[EPISTEMIC], "aleatoric": values[ALEATORIC]},
        "regime": {"classification": REGIMES[regime], "confidence": values[26 + regime]},
        "model_version": version,
    }
