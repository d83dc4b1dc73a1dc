"""The queue of trainings in PostgreSQL: leases instead of locks, turns instead of first come, events for watchers.

A job belongs to the process that holds its lease. The lease is renewed every few seconds; when it runs out, the process
is taken for dead and the job goes to another, from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from app.service.audit import record_change
from app.service.database import Connection, Database
from app.service.idempotency import Within
from app.tactical.registry import StoredFile
from app.tactical.store import NewModel, Requester, insert_model

MAXIMUM_CRASHES: Final = 3
"""A job whose process died this often without a checkpoint in between is given up."""
FINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its client sees it."""

    id: UUID
    client: str
    state: str
    parameters: dict[str, Any]
    progress: dict[str, Any]
    model_version: str | None
    error: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(slots=True)
class ClaimedJob:
    """A job that this process may run; the checkpoint moves on while it does."""

    id: UUID
    client: str
    request_id: str
    parameters: dict[str, Any]
    bars: bytes
    checkpoint_path: str | None
    checkpoint_checksum: str | None
    crashes: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What the database answered to a renewal."""

    cancel_requested: bool
    others_wait: bool
    """Whether a job of another client waits for a device."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's story."""

    id: int
    event: str
    data: dict[str, Any]


_JOB_COLUMNS: Final = (
    "id, client, state, parameters, progress, model_version, error, cancel_requested, "
    "created_at, started_at, finished_at"
)
_INSERT_EVENT: Final = "INSERT INTO training_job_events (job_id, event, data) VALUES (%s, %s, %s)"

_CLAIM: Final = """
WITH next AS (
    SELECT job.id, job.state = 'running' AS crashed
    FROM training_jobs AS job
    WHERE job.state = 'queued' OR (job.state = 'running' AND job.lease_expires_at < now())
    ORDER BY (SELECT max(turn.turn_started_at) FROM training_jobs AS turn WHERE turn.client = job.client) NULLS FIRST,
             job.created_at, job.id
    FOR UPDATE OF job SKIP LOCKED
    LIMIT 1
)
UPDATE training_jobs AS job
SET state = 'running', lease_owner = %(owner)s, lease_expires_at = now() + %(lease)s * interval '1 second',
    turn_started_at = clock_timestamp(), started_at = coalesce(started_at, now()),
    crashes = crashes + next.crashed::integer
FROM next WHERE job.id = next.id
RETURNING job.id, client, request_id, parameters, bars, checkpoint_path, checkpoint_checksum, crashes
"""

_RENEW: Final = """
UPDATE training_jobs AS job
SET lease_expires_at = now() + %(lease)s * interval '1 second', progress = progress || %(progress)s
WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'running'
RETURNING cancel_requested,
    EXISTS (SELECT FROM training_jobs AS other WHERE other.state = 'queued' AND other.client <> job.client)
"""

_CHECKPOINT: Final = """
UPDATE training_jobs SET checkpoint_path = %(path)s, checkpoint_checksum = %(checksum)s, crashes = 0
WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'running' RETURNING id
"""

_RELEASE: Final = """
UPDATE training_jobs SET state = 'queued', lease_owner = NULL, lease_expires_at = NULL
WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'running' RETURNING id
"""

_END: Final = """
UPDATE training_jobs
SET state = %(state)s, error = %(error)s, model_version = %(version)s, finished_at = now(),
    progress = progress || %(progress)s, lease_owner = NULL, lease_expires_at = NULL,
    checkpoint_path = NULL, checkpoint_checksum = NULL, bars = ''
WHERE id = %(id)s AND lease_owner = %(owner)s AND state = 'running' RETURNING id
"""


class JobStore:
    """The queue, for one process whose leases carry ``owner``."""

    def __init__(self, database: Database, *, owner: str, lease_seconds: float) -> None:
        self._database = database
        self._owner = owner
        self._lease_seconds = lease_seconds

    async def add(
        self, requester: Requester, parameters: dict[str, Any], bars: bytes, within: Within[JobRow]
    ) -> JobRow:
        """Queue a job, and commit with it what ``within`` adds."""
        async with self._database.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(JobRow))
            await cursor.execute(
                "INSERT INTO training_jobs (client, request_id, parameters, bars) "  # noqa: S608 - constants
                f"VALUES (%s, %s, %s, %s) RETURNING {_JOB_COLUMNS}",
                (requester.subject, requester.request_id, Jsonb(parameters), bars),
            )
            job = await cursor.fetchone()
            assert job is not None  # noqa: S101 - RETURNING gives a row
            await connection.execute(_INSERT_EVENT, (job.id, "queued", Jsonb({})))
            await _audit(connection, requester, "jobs.create", job.id)
            await within(connection, job)
        return job

    async def get(self, job_id: UUID) -> JobRow | None:
        """One job."""
        async with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(JobRow))
            await cursor.execute(f"SELECT {_JOB_COLUMNS} FROM training_jobs WHERE id = %s", (job_id,))  # noqa: S608 - constants
            return await cursor.fetchone()

    async def page(self, *, client: str | None, state: str | None, limit: int, before: UUID | None) -> list[JobRow]:
        """Jobs of ``client`` (of all if None), newest first, older than ``before``."""
        async with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(JobRow))
            await cursor.execute(
                f"SELECT {_JOB_COLUMNS} FROM training_jobs "  # noqa: S608 - constants
                "WHERE (%(client)s::text IS NULL OR client = %(client)s) "
                "AND (%(state)s::text IS NULL OR state = %(state)s) "
                "AND (%(before)s::uuid IS NULL "
                "     OR (created_at, id) < (SELECT created_at, id FROM training_jobs WHERE id = %(before)s)) "
                "ORDER BY created_at DESC, id DESC LIMIT %(limit)s",
                {"client": client, "state": state, "before": before, "limit": limit},
            )
            return await cursor.fetchall()

    async def events(self, job_id: UUID, *, after: int, limit: int = 500) -> list[Event]:
        """What happened after the event ``after``, in order."""
        async with self._database.connection() as connection:
            cursor = connection.cursor(row_factory=class_row(Event))
            await cursor.execute(
                "SELECT id, event, data FROM training_job_events WHERE job_id = %s AND id > %s ORDER BY id LIMIT %s",
                (job_id, after, limit),
            )
            return await cursor.fetchall()

    async def cancel(self, job_id: UUID, requester: Requester) -> None:
        """End a queued job now, and ask the process of a running one to end it."""
        async with self._database.transaction() as connection:
            row = await (
                await connection.execute(
                    "UPDATE training_jobs SET cancel_requested = true, "
                    "state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END, "
                    "finished_at = CASE state WHEN 'queued' THEN now() END, "
                    "bars = CASE state WHEN 'queued' THEN '' ELSE bars END "
                    "WHERE id = %s AND state IN ('queued', 'running') RETURNING state",
                    (job_id,),
                )
            ).fetchone()
            if row is None:
                return
            if row[0] == "cancelled":
                await connection.execute(_INSERT_EVENT, (job_id, "cancelled", Jsonb({})))
            await _audit(connection, requester, "jobs.cancel", job_id)

    async def waiting(self) -> int:
        """Jobs that wait for a device."""
        async with self._database.connection() as connection:
            row = await (
                await connection.execute("SELECT count(*) FROM training_jobs WHERE state = 'queued'")
            ).fetchone()
            return 0 if row is None else int(row[0])

    async def claim(self) -> ClaimedJob | None:
        """The next job: of the client whose last turn is the longest ago, or one whose process died."""
        async with self._database.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(ClaimedJob))
            await cursor.execute(_CLAIM, {"owner": self._owner, "lease": self._lease_seconds})
            job = await cursor.fetchone()
            if job is not None:
                resumed = {"from_checkpoint": job.checkpoint_path is not None, "crashes": job.crashes}
                await connection.execute(_INSERT_EVENT, (job.id, "started", Jsonb(resumed)))
            return job

    async def renew(self, job_id: UUID, progress: dict[str, Any], *, tell: bool) -> Lease | None:
        """Keep the lease; None when it is lost. ``tell`` adds the progress to the events."""
        async with self._database.transaction() as connection:
            values = {"owner": self._owner, "lease": self._lease_seconds, "id": job_id, "progress": Jsonb(progress)}
            row = await (await connection.execute(_RENEW, values)).fetchone()
            if row is None:
                return None
            if tell:
                await connection.execute(_INSERT_EVENT, (job_id, "progress", Jsonb(progress)))
            return Lease(*row)

    async def keep_checkpoint(self, job_id: UUID, file: StoredFile) -> bool:
        """Resume from ``file`` from now on; False when the lease is lost."""
        async with self._database.transaction() as connection:
            values = {"id": job_id, "owner": self._owner, "path": file.path, "checksum": file.checksum}
            if await (await connection.execute(_CHECKPOINT, values)).fetchone() is None:
                return False
            await connection.execute(_INSERT_EVENT, (job_id, "checkpoint", Jsonb({"size_bytes": file.size})))
            return True

    async def tell(self, job_id: UUID, event: str, data: dict[str, Any]) -> None:
        """Add an event."""
        async with self._database.connection() as connection:
            await connection.execute(_INSERT_EVENT, (job_id, event, Jsonb(data)))

    async def release(self, job_id: UUID, reason: str) -> None:
        """Give the job back to the queue."""
        async with self._database.transaction() as connection:
            values = {"id": job_id, "owner": self._owner}
            if await (await connection.execute(_RELEASE, values)).fetchone() is not None:
                await connection.execute(_INSERT_EVENT, (job_id, "queued", Jsonb({"reason": reason})))

    async def succeed(self, job: ClaimedJob, model: NewModel, progress: dict[str, Any]) -> bool:
        """Commit the model and the job's end together; False when the lease is lost and nothing was stored."""
        async with self._database.transaction() as connection:
            known = await (
                await connection.execute("SELECT FROM model_versions WHERE version = %s", (model.version,))
            ).fetchone()
            if known is not None:
                return True  # an earlier try was committed though its answer was lost
            await insert_model(connection, model, Requester(job.client, job.request_id))
            if not await self._end(connection, job.id, "succeeded", None, model.version, progress):
                raise psycopg.Rollback
            return True
        return False

    async def end(self, job_id: UUID, state: str, error: str | None = None) -> bool:
        """Commit that the job has failed or was cancelled; False when the lease is lost."""
        async with self._database.transaction() as connection:
            return await self._end(connection, job_id, state, error, None, {})

    async def _end(
        self,
        connection: Connection,
        job_id: UUID,
        state: str,
        error: str | None,
        version: str | None,
        progress: dict[str, Any],
    ) -> bool:
        values = {
            "id": job_id,
            "owner": self._owner,
            "state": state,
            "error": error,
            "version": version,
            "progress": Jsonb(progress),
        }
        if await (await connection.execute(_END, values)).fetchone() is None:
            return False
        told = {name: value for name, value in (("model_version", version), ("error", error)) if value is not None}
        await connection.execute(_INSERT_EVENT, (job_id, state, Jsonb(told)))
        return True


async def _audit(connection: Connection, requester: Requester, action: str, job_id: UUID) -> None:
    await record_change(
        connection,
        request_id=requester.request_id,
        subject=requester.subject,
        action=action,
        resource=str(job_id),
        detail={},
    )
