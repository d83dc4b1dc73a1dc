"""Requests that arrive together are worked on together. No timer: whatever waits when a batch ends is the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.service.problems import unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """A bounded first-in-first-out queue in front of a function of batches."""

    def __init__(
        self,
        process: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_batch: int,
        max_queue: int,
        concurrency: int = 1,
    ) -> None:
        """Batch for ``process``.

        Args:
            process: gives a result, or an exception for that item alone, for each item in order; what it raises
                itself fails the whole batch.
            max_batch: most items of one call.
            max_queue: items that may wait; more are refused.
            concurrency: calls at the same time, so that one batch is computed while another commits.
        """
        self._process = process
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._concurrency = concurrency
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def depth(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """The result for ``item``.

        Raises:
            ProblemError: 503, too many wait.
            Exception: what ``process`` gave or raised.
        """
        if len(self._waiting) >= self._max_queue:
            raise unavailable("Too many requests wait.", 0.1)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running < self._concurrency:
            self._running += 1
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
                batch = [entry for entry in batch if not entry[1].done()]  # its client has gone
                if batch:
                    await self._run(batch)
        finally:
            self._running -= 1

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results: Sequence[Result | Exception] = await self._process([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - each waiting request gets it
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
