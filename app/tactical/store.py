"""What the tactical service keeps in PostgreSQL: trainings, model versions, activations, actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from app.service.audit import record_change
from app.service.database import Connection, Database
from app.service.idempotency import Within
from app.tactical.registry import StoredFile

MODEL_TYPE: Final = "mappo"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model version; its file is known to have been written before the row was."""

    version: str
    model_type: str
    model_path: str
    performance_metrics: dict[str, Any]
    checksum: str
    size_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asked for a change, for the audit."""

    subject: str
    request_id: str


@dataclass(frozen=True, slots=True)
class NewModel:
    """A trained model whose file is in the store."""

    version: str
    file: StoredFile
    metrics: dict[str, Any]
    """Of the whole training."""
    episodes: Sequence[dict[str, Any]]
    """Of each update, in order; ``episode`` counts the episodes so far."""


@dataclass(frozen=True, slots=True)
class Activated:
    """A change of the version that acts."""

    version: str
    previous: str | None
    """What acted until then."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the three agents decided for one window."""

    timestamp: datetime
    agents: Sequence[str]
    data: Sequence[dict[str, Any]]
    """One for each agent."""


_MODEL_COLUMNS: Final = "version, model_type, model_path, performance_metrics, checksum, size_bytes, created_at"
_LOCK_ACTIVATIONS: Final = "SELECT pg_advisory_xact_lock(hashtext('model_activations'))"
_ACTIVE: Final = "SELECT version FROM model_activations WHERE model_type = %s ORDER BY id DESC LIMIT 1"


async def insert_model(connection: Connection, model: NewModel, requester: Requester) -> None:
    """Add a version, what its training told, and who asked for it, in the caller's transaction."""
    await connection.execute(
        "INSERT INTO model_versions (version, model_type, model_path, performance_metrics, checksum, size_bytes) "
        "VALUES (%s, %s, %s, %s, %s, %s)",
        (model.version, MODEL_TYPE, model.file.path, Jsonb(model.metrics), model.file.checksum, model.file.size),
    )
    await connection.execute(
        "INSERT INTO training_data (episode_number, training_metrics) "
        "SELECT (metrics ->> 'episode')::integer, metrics || jsonb_build_object('model_version', %s::text) "
        "FROM jsonb_array_elements(%s) AS metrics",
        (model.version, Jsonb(list(model.episodes))),
    )
    await record_change(
        connection,
        request_id=requester.request_id,
        subject=requester.subject,
        action="models.train",
        resource=model.version,
        detail={"checksum": model.file.checksum},
    )


class ModelStore:
    """Versions and activations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, model: NewModel, requester: Requester, within: Within[NewModel]) -> None:
        """Commit a version, and what ``within`` adds."""
        async with self._database.transaction() as connection, connection.pipeline():
            await insert_model(connection, model, requester)
            await within(connection, model)

    async def get(self, version: str) -> ModelRow | None:
        """One version."""
        async with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ModelRow))
            await cursor.execute(f"SELECT {_MODEL_COLUMNS} FROM model_versions WHERE version = %s", (version,))  # noqa: S608 - constants
            return await cursor.fetchone()

    async def page(self, *, limit: int, before: str | None) -> list[ModelRow]:
        """Versions, newest first, older than ``before``."""
        async with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(ModelRow))
            await cursor.execute(
                f"SELECT {_MODEL_COLUMNS} FROM model_versions WHERE %(before)s::text IS NULL "  # noqa: S608 - constants
                "OR id < (SELECT id FROM model_versions WHERE version = %(before)s) ORDER BY id DESC LIMIT %(limit)s",
                {"before": before, "limit": limit},
            )
            return await cursor.fetchall()

    async def known_paths(self) -> set[str]:
        """Paths of all files that the database knows, checkpoints of unfinished jobs included."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT model_path FROM model_versions UNION ALL SELECT checkpoint_path FROM training_jobs "
                "WHERE checkpoint_path IS NOT NULL AND state IN ('queued', 'running')"
            )
            return {row[0] for row in await cursor.fetchall()}

    async def active(self) -> str | None:
        """The version that acts; None before the first activation."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(_ACTIVE, (MODEL_TYPE,))).fetchone()
            return None if row is None else str(row[0])

    async def activate(self, version: str, requester: Requester, within: Within[Activated]) -> Activated:
        """Let ``version`` act from now on."""
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_ACTIVATIONS)
            row = await (await connection.execute(_ACTIVE, (MODEL_TYPE,))).fetchone()
            await self._activate(connection, version, requester, "models.activate")
            change = Activated(version, None if row is None else str(row[0]))
            await within(connection, change)
        return change

    async def roll_back(self, requester: Requester, within: Within[Activated]) -> Activated | None:
        """Let the version act that acted before the present one; None when there is none.

        Going back twice goes back two versions: activations that were rolled back do not count.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_ACTIVATIONS)
            cursor = await connection.execute(
                "SELECT version FROM model_activations WHERE model_type = %s ORDER BY id", (MODEL_TYPE,)
            )
            history = [str(row[0]) for row in await cursor.fetchall()]
            previous = _before_present(history)
            if previous is None:
                return None
            await self._activate(connection, previous, requester, "models.roll_back")
            change = Activated(previous, history[-1])
            await within(connection, change)
        return change

    async def _activate(self, connection: Connection, version: str, requester: Requester, action: str) -> None:
        await connection.execute(
            "INSERT INTO model_activations (model_type, version, activated_by) VALUES (%s, %s, %s)",
            (MODEL_TYPE, version, requester.subject),
        )
        await record_change(
            connection,
            request_id=requester.request_id,
            subject=requester.subject,
            action=action,
            resource=version,
            detail={},
        )


def _before_present(history: Sequence[str]) -> str | None:
    """The version to return to, from the versions in the order of their activation.

    A version that acts again closes everything activated since it last acted, as a browser's back button would.
    """
    stack: list[str] = []
    for version in history:
        if version in stack:
            del stack[stack.index(version) + 1 :]
        else:
            stack.append(version)
    return stack[-2] if len(stack) > 1 else None


_INSERT_ACTIONS: Final = (
    "INSERT INTO agent_actions (timestamp, agent_type, action_data) "
    "SELECT (row ->> 0)::timestamptz, row ->> 1, row -> 2 FROM jsonb_array_elements(%s) AS row"
)


async def insert_decisions(database: Database, decisions: Sequence[Decision]) -> None:
    """Commit the actions of every decision in one statement."""
    rows = [
        (decision.timestamp, agent, data)
        for decision in decisions
        for agent, data in zip(decision.agents, decision.data, strict=True)
    ]
    async with database.connection() as connection:
        await connection.execute(_INSERT_ACTIONS, (Jsonb(rows, dumps=orjson.dumps),), prepare=True)
