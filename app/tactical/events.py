"""A job's story as server-sent events (HTML Living Standard, section 9.2), resumed after ``Last-Event-ID``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import orjson

from app.service.problems import ProblemError, unavailable
from app.tactical.job_store import FINAL_STATES, Event, JobStore

POLL_SECONDS: Final = 0.5
HEARTBEAT_SECONDS: Final = 15.0
RETRY_MILLISECONDS: Final = 1000
MAXIMUM_STREAMS: Final = 256
MAXIMUM_EVENT_ID: Final = 2**63 - 1


def last_event_id(header: str | None) -> int:
    """Where to go on; 0 for the beginning.

    Raises:
        ProblemError: 400, it is no id that this service gave.
    """
    if header is None or header == "":
        return 0
    if not (header.isascii() and header.isdigit()) or int(header) > MAXIMUM_EVENT_ID:
        raise ProblemError(400, "invalid-event-id", "Last-Event-ID must be the id of an event of this job.")
    return int(header)


class EventStreams:
    """Streams of job events, bounded in number."""

    def __init__(self, jobs: JobStore, draining: asyncio.Event) -> None:
        self._jobs = jobs
        self._draining = draining
        self._open = 0

    def stream(self, job_id: UUID, after: int) -> AsyncIterator[bytes]:
        """Every event after ``after``, as it comes, until the job has ended or the service stops.

        A client whose stream breaks off reconnects by itself and misses nothing.

        Raises:
            ProblemError: 503, too many streams are open.
        """
        if self._open >= MAXIMUM_STREAMS:
            raise unavailable("Too many event streams are open.", 5.0)
        return self._lines(job_id, after)

    async def _lines(self, job_id: UUID, after: int) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            yield b"retry: %d\n\n" % RETRY_MILLISECONDS
            spoke_at = time.monotonic()
            while not self._draining.is_set():
                events = await self._next(job_id, after)
                for event in events:
                    yield _encoded(event)
                    after = event.id
                    if event.event in FINAL_STATES:
                        return
                if events:
                    spoke_at = time.monotonic()
                elif time.monotonic() - spoke_at > HEARTBEAT_SECONDS:
                    yield b": still here\n\n"
                    spoke_at = time.monotonic()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._open -= 1

    async def _next(self, job_id: UUID, after: int) -> list[Event]:
        try:
            return await self._jobs.events(job_id, after=after)
        except ProblemError:
            return []  # the database is away: the stream goes on when it is back


def _encoded(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.event.encode(), orjson.dumps(event.data))
