"""Requests that arrive together are computed and committed together.

A free connection takes everything that waits, in the order of arrival, computes it in one pass and commits it in one
transaction; what arrives meanwhile forms the next batch. A request that comes alone waits for nobody.

Clients that were answered together ask again together: while they do, a batch waits for as many requests as there were
when the last one was answered, a millisecond at most, since commits and wake-ups cost more than the numbers do. Where
clients come independently of each other nobody is waited for, and a second connection commits beside the first
(`python -m benchmarks strategic` has a row for either kind of client).

The queue is bounded; beyond it requests are refused at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np
import psycopg
import structlog
from numpy.typing import NDArray

from app.service.database import Connection, Database
from app.service.problems import FieldError, ProblemError, unavailable, unprocessable
from app.service.request_key import RequestKey, forgotten, reused
from app.strategic import metrics, store
from app.strategic.answers import Decisions
from app.strategic.codec import Answers, Float32, Int64, Samples
from app.strategic.outcomes import Outcomes
from app.strategic.store import Batch

INLINE_SAMPLES: Final = 256
"""A batch up to this size is computed on the event loop (1 ms); a larger one in a thread, so that the loop goes on."""
JOIN_SAMPLES: Final = 128
"""While one connection commits, another one takes what waits only from here on: few large commits cost less."""
JOIN_SAMPLES_APART: Final = 8
"""The same while clients come independently of each other: they would wait longer than a commit of their own takes."""
APART_BATCHES: Final = 16
"""For how many batches clients count as independent after two waits in vain."""
RECONNECT_SECONDS: Final = 0.2
COMPANY_SECONDS: Final = 0.001
"""The longest that a batch waits for as many requests as there were at the end of the last one."""

T = TypeVar("T")
Number = TypeVar("Number", np.float32, np.int64)

_log = structlog.stdlib.get_logger(__name__)


class Decider(Protocol):
    """What computes decisions (`app.strategic.engine.Engine`)."""

    def process(self, matrices: Float32) -> Decisions:
        """Decisions for matrices (N, 48, 13)."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a request is answered with, once it is durable."""

    batch: Answers
    rows: range
    """Where the request's samples lie in the batch."""
    replayed: bool = False
    """Whether its Idempotency-Key had been answered before."""

    @property
    def outcomes(self) -> Outcomes:
        """Of the request's own samples."""
        return self.batch.outcomes.part(self.rows.start, len(self.rows))

    @property
    def timestamps(self) -> Int64:
        """Of the request's own samples."""
        return self.batch.timestamps[self.rows.start : self.rows.stop]


class Client(Protocol):
    """Who waits for a decision. Told once, by ``take`` or by ``refuse``."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""

    def take(self, decided: Decided) -> None:
        """Here is the decision; it is durable."""

    def refuse(self, error: ProblemError) -> None:
        """There is none."""


class _Awaiting:
    """A client that awaits a future."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        return self.answer.done()

    def take(self, decided: Decided) -> None:
        if not self.gone:
            self.answer.set_result(decided)

    def refuse(self, error: ProblemError) -> None:
        if not self.gone:
            self.answer.set_exception(error)


@dataclass(slots=True, eq=False)
class _Waiting:
    samples: Samples
    key: RequestKey | None
    client: Client
    arrived: float = field(default_factory=time.perf_counter)
    told: bool = False

    def take(self, decided: Decided) -> None:
        self._tell(lambda: self.client.take(decided))

    def refuse(self, error: ProblemError) -> None:
        self._tell(lambda: self.client.refuse(error))

    def _tell(self, word: Callable[[], None]) -> None:
        """Tell the client, once; one that fails must cost neither the others of its batch nor the connection."""
        if self.told:
            return
        self.told = True
        try:
            word()
        except Exception as error:  # noqa: BLE001 - see above
            _log.error("a client could not be told", exc_info=error)


class Batcher:
    """Takes samples and gives back durable decisions."""

    def __init__(
        self,
        decider: Callable[[], Decider],
        database: Database,
        *,
        connections: int = 2,
        batch_samples: int = 512,
        queue_samples: int = 8192,
        commit_timeout: float = 10.0,
        patience: float = 30.0,
    ) -> None:
        """Describe the queue; `open` starts it.

        Args:
            decider: gives the engine to use for the next batch.
            database: whose availability decides whether requests are taken.
            connections: commits under way at the same time.
            batch_samples: most samples gathered from several requests.
            queue_samples: most samples that wait.
            commit_timeout: seconds after which a silent database counts as away.
            patience: seconds after which a request that still waits is refused.
        """
        self._decider = decider
        self._database = database
        self._connections = connections
        self._batch_samples = batch_samples
        self._queue_samples = queue_samples
        self._commit_timeout = commit_timeout
        self._patience = patience
        self._queue: deque[_Waiting] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._busy = 0
        self._company = 1
        self._waits_in_vain = 0
        self._apart = 0
        """Batches for which clients still count as independent of each other; 0 while they come in company."""
        self._complete: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = 0
        self._observer = metrics.Observer()
        self.queued = 0
        """Samples that wait."""

    async def open(self) -> None:
        """Start the committing connections; they connect, and reconnect, by themselves."""
        self._tasks = [asyncio.create_task(self._serve(), name=f"commit-{n}") for n in range(self._connections)]
        self._tasks.append(asyncio.create_task(self._look_after(), name="batch-watch"))

    async def close(self) -> None:
        """Commit what waits, for at most the commit timeout, then stop."""
        deadline = time.monotonic() + self._commit_timeout
        while self._queue and self._connected and time.monotonic() < deadline:  # noqa: ASYNC110 - at the very end
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_all("The service stops.")

    async def check(self) -> str | None:
        """What is missing for a commit, for readiness."""
        return None if self._connected else "no connection to the database can commit"

    async def decide(self, samples: Samples, key: RequestKey | None = None) -> Decided:
        """Decide and store ``samples``; returns once they are durable. Raises as `submit` does, or refuses."""
        client = _Awaiting()
        self.submit(samples, key, client)
        return await client.answer

    def submit(self, samples: Samples, key: RequestKey | None, client: Client) -> None:
        """Have ``samples`` decided and stored, and ``client`` told.

        The client may be refused later: 422 the numbers are too extreme to be answered or the key came with another
        body before, 503 they could not be stored.

        Raises:
            ProblemError: 503 the queue is full or the database away; the client hears nothing more.
        """
        count = len(samples)
        if self.queued and self.queued + count > self._queue_samples:
            metrics.REFUSED.inc(count)
            raise unavailable("Too many samples are waiting.")
        if not self._connected:
            raise unavailable("The database is away; nothing was stored.")
        self._queue.append(_Waiting(samples, key, client))
        self.queued += count
        if self._complete is not None and len(self._queue) >= self._company:
            _finish(self._complete)
        self._wake_one()

    async def _serve(self) -> None:
        """One connection: connect, commit batch after batch, and start again when it breaks."""
        while True:
            try:
                connection = await self._database.dedicated_connection()
            except (psycopg.Error, OSError):
                if not self._connected:
                    self._refuse_all("The database is away; nothing was stored.")
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            try:
                await store.prepare(connection)
                committer = _Committer(connection, self._commit_timeout)
                with self._counted():
                    while True:
                        await self._commit_next(committer)
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._database.mark_away(error)
                _log.warning("store connection lost", error=str(error).split("\n", 1)[0] or type(error).__name__)
            finally:
                if not self._connected:
                    self._refuse_all("The database is away; nothing was stored.")
                with contextlib.suppress(Exception):
                    await connection.close()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._connected += 1
        try:
            yield
        finally:
            self._connected -= 1

    async def _commit_next(self, committer: _Committer) -> None:
        while not self._is_due():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            await turn
        self._busy += 1
        requests: list[_Waiting] = []
        try:
            if self._apart:
                self._apart -= 1
            elif len(self._queue) < self._company:
                self._waits_in_vain = 0 if await self._gather() else self._waits_in_vain + 1
                self._apart = APART_BATCHES if self._waits_in_vain >= 2 else 0
            requests = self._take()
            await self._process(committer, requests)
            self._company = len(requests) + len(self._queue)
        except BaseException as error:
            refusal = unavailable("The database could not store the samples; send the request again.")
            for request in requests:
                request.refuse(refusal)
            if not _is_survivable(error):
                raise
            _log.error("batch refused by the database", error=str(error).split("\n", 1)[0])
        finally:
            self._busy -= 1
            self._wake_one()

    def _is_due(self) -> bool:
        """Whether a free connection shall commit: a further one joins only when much waits."""
        enough = JOIN_SAMPLES_APART if self._apart else JOIN_SAMPLES
        return bool(self._queue) and (self._busy == 0 or (self.queued >= enough and self._complete is None))

    async def _gather(self) -> bool:
        """Wait until as many requests have come as the last batch had, or the time for that is over.

        Returns:
            Whether three quarters of the missing ones have come.
        """
        loop, before = asyncio.get_running_loop(), len(self._queue)
        self._complete = loop.create_future()
        timer = loop.call_later(COMPANY_SECONDS, _finish, self._complete)
        try:
            await self._complete
        finally:
            timer.cancel()
            self._complete = None
        return 4 * (len(self._queue) - before) >= 3 * (self._company - before)

    def _wake_one(self) -> None:
        while self._idle and self._is_due():
            turn = self._idle.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _take(self) -> list[_Waiting]:
        """The oldest requests, as many as fit a batch; at least one."""
        taken: list[_Waiting] = []
        total = 0
        while self._queue and (not taken or total + len(self._queue[0].samples) <= self._batch_samples):
            request = self._queue.popleft()
            self.queued -= len(request.samples)
            if request.client.gone:
                request.refuse(unavailable("The client has gone."))
                continue
            taken.append(request)
            total += len(request.samples)
        return taken

    async def _process(self, committer: _Committer, requests: list[_Waiting]) -> None:
        if not requests:
            return
        started = time.perf_counter()
        matrices = np.ascontiguousarray(_join([request.samples.matrices for request in requests]), np.float32)
        decider = self._decider()
        if len(matrices) > INLINE_SAMPLES:
            decisions = await asyncio.to_thread(decider.process, matrices)
        else:
            decisions = decider.process(matrices)
        outcomes = Outcomes.of(decisions)
        if not np.isfinite(outcomes.numbers).all():
            await self._process(committer, _without_extremes(requests, outcomes))
            return
        decided = time.perf_counter()
        counts = [len(request.samples) for request in requests]
        milliseconds = np.repeat(
            np.array([1000 * (decided - request.arrived) for request in requests], np.float32), counts
        )
        timestamps = _join([request.samples.timestamps for request in requests])
        numbered = outcomes.numbered(await committer.ids(len(outcomes)))
        keys = [request.key for request in requests]
        stored = await committer.commit(Batch(numbered, timestamps, matrices, milliseconds, counts, keys))
        now = time.perf_counter()
        self._observer.batch(numbered, decided - started, now - decided)
        metrics.LATENCY.observe_all([now - request.arrived for request in requests])
        answers, start = Answers(numbered, timestamps), 0
        for request, count, fresh in zip(requests, counts, stored, strict=True):
            if fresh:
                request.take(Decided(answers, range(start, start + count)))
            else:
                await _replay(committer, request)
            start += count

    def _refuse_all(self, reason: str) -> None:
        while self._queue:
            request = self._queue.popleft()
            self.queued -= len(request.samples)
            request.refuse(unavailable(reason))

    async def _look_after(self) -> None:
        """Once a second: metrics, and a refusal for those that have waited too long."""
        while True:
            self._observer.sample(self.queued)
            horizon = time.perf_counter() - self._patience
            while self._queue and self._queue[0].arrived < horizon:
                request = self._queue.popleft()
                self.queued -= len(request.samples)
                request.refuse(unavailable("The samples waited too long and were not stored."))
            await asyncio.sleep(1.0)


class _Committer:
    """One connection with the ids that it has leased."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._ids = range(0)

    async def ids(self, count: int) -> int:
        """First of ``count`` consecutive ids."""
        if len(self._ids) < count:
            self._ids = await self._bounded(store.lease_ids(self._connection))
        first = self._ids.start
        self._ids = self._ids[count:]
        return first

    async def commit(self, batch: Batch) -> list[bool]:
        return await self._bounded(store.commit(self._connection, batch))

    async def recall(self, key: RequestKey) -> store.Stored | None:
        return await self._bounded(store.recall(self._connection, key))

    async def _bounded(self, work: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timeout):
            return await work


async def _replay(committer: _Committer, request: _Waiting) -> None:
    """Answer a request whose key was used before with what was stored then."""
    key = request.key
    known = await committer.recall(key) if key is not None else None
    if key is None or known is None:
        request.refuse(forgotten())
    elif known.request_hash != key.request_hash:
        request.refuse(reused())
    else:
        metrics.REPLAYED.inc()
        answers = Answers(known.outcomes, known.timestamps)
        request.take(Decided(answers, range(len(known.outcomes)), replayed=True))


def _without_extremes(requests: list[_Waiting], outcomes: Outcomes) -> list[_Waiting]:
    """Refuse the requests that hold a matrix without an answer; the others go on without them."""
    sound = outcomes.sound
    start, rest = 0, []
    for request in requests:
        own = sound[start : start + len(request.samples)]
        start += len(request.samples)
        if own.all():
            rest.append(request)
            continue
        rows = np.flatnonzero(~own)[:20].tolist()
        errors = [FieldError(f"/{row}", "holds numbers so extreme that the model has no answer") for row in rows]
        request.refuse(unprocessable("Some matrices cannot be answered.", errors))
    return rest


def _is_survivable(error: BaseException) -> bool:
    """Whether the connection works on: the server refused the statement (a full disk, for example) and said so."""
    return isinstance(error, psycopg.Error) and error.sqlstate is not None and error.sqlstate[:2] not in {"08", "57"}


def _join(parts: list[NDArray[Number]]) -> NDArray[Number]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
