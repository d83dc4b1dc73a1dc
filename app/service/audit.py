"""The audit log: who did what, from where, and what came of it.

Two places, by what is at stake:

- Every access, granted or refused, is a line in the log. Lines are gathered and written in batches by a thread, so
that no request waits for standard output; at most ``FLUSH_SECONDS`` of them are lost when the process is killed. When
the log cannot be written, lines wait; beyond ``MAXIMUM_BACKLOG`` the service takes no more requests (503) instead of
working unrecorded.
- What changes a model (training, jobs, activation) is also a row of the table ``access_audit``, written by
``record_change`` in the transaction of the change: neither exists without the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, NamedTuple

import orjson
from psycopg.types.json import Jsonb

from app.service.database import Connection

FLUSH_SECONDS: Final = 0.05  # few lines at a time: writing a fifth of a second of them held up requests for 4 ms
MAXIMUM_BACKLOG: Final = 100_000


class Access(NamedTuple):
    """One request, as the audit log tells it."""

    timestamp: float
    request_id: str
    subject: str
    client: str
    method: str
    path: str
    status: int
    seconds: float


class AuditLog:
    """Gathers accesses and writes them as JSON lines."""

    def __init__(self, service: str, stream: BinaryIO | None = None) -> None:
        self._service = service
        self._stream = stream if stream is not None else sys.stdout.buffer
        self._pending: list[Access] = []
        self._writing = threading.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def backlog(self) -> int:
        """Lines that wait to be written."""
        return len(self._pending)

    @property
    def accepts(self) -> bool:
        """Whether another access can be recorded."""
        return len(self._pending) < MAXIMUM_BACKLOG

    def record(self, access: Access) -> None:
        """Add one line; returns at once."""
        self._pending.append(access)

    async def open(self) -> None:
        """Begin to write in the background."""
        self._task = asyncio.create_task(self._keep_writing(), name="audit-log")

    async def close(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write every pending line; those that could not be written stay pending."""
        with self._writing:
            count = len(self._pending)
            if not count:
                return
            lines = b"".join(self._line(access) for access in self._pending[:count])
            self._stream.write(lines)
            self._stream.flush()
            del self._pending[:count]

    def _line(self, access: Access) -> bytes:
        document = {
            "timestamp": datetime.fromtimestamp(access.timestamp, UTC),
            "event": "access",
            "logger": "audit",
            "level": "info",
            "service": self._service,
            "request_id": access.request_id,
            "subject": access.subject,
            "client": access.client,
            "method": access.method,
            "path": access.path,
            "status": access.status,
            "milliseconds": round(access.seconds * 1000, 3),
        }
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if self._pending:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(self.flush)


async def record_change(
    connection: Connection, *, request_id: str, subject: str, action: str, resource: str, detail: dict[str, Any]
) -> None:
    """Add a row to ``access_audit`` in the transaction that ``connection`` is in.

    Args:
        connection: has an open transaction, the one that makes the change.
        request_id: of the request that asked for it.
        subject: who asked.
        action: what was done, for example ``models.activate``.
        resource: to what, for example the model's version.
        detail: whatever else a reviewer needs; no secrets.
    """
    await connection.execute(
        "INSERT INTO access_audit (request_id, subject, action, resource, detail) VALUES (%s, %s, %s, %s, %s)",
        (request_id, subject, action, resource, Jsonb(detail)),
    )
