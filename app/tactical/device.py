"""One training at a time on each device, short ones between the updates of a long one, fair between clients.

A job (minutes) holds the device and calls ``serve_short`` after each update: synchronous trainings (a fraction of a
second) that have arrived meanwhile run there and then, client after client. On a CPU jobs have a thread of lower
priority, so that decisions and short trainings go first; they cannot share it, since no thread may raise its own
priority again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import torch

from app.service.problems import unavailable

T = TypeVar("T")
MAXIMUM_WAITING: Final = 64
JOB_NICENESS: Final = 10
"""A tenth of another thread's weight. Not less: one that starves while it holds the interpreter stops all others."""


class TrainingDevice:
    """A torch device, the two threads that train on it, and the turn that only one of them has."""

    def __init__(self, name: str) -> None:
        self.name = name
        lower = _lower_priority if torch.device(name).type == "cpu" and sys.platform == "linux" else None
        self._short_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"training-{name}")
        self._long_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"job-{name}", initializer=lower)
        self._turn = threading.Lock()
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._lock = threading.Lock()
        self._count = 0

    @property
    def waiting(self) -> int:
        """Short trainings that wait."""
        return self._count

    def close(self) -> None:
        """Let the running work end, and take no more."""
        for thread in (self._long_thread, self._short_thread):
            thread.shutdown(wait=True, cancel_futures=True)

    async def run_short(self, client: str, work: Callable[[], T]) -> T:
        """The result of ``work``, run when it is ``client``'s turn.

        Raises:
            ProblemError: 503, too many wait.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._count >= MAXIMUM_WAITING:
                raise unavailable("Too many trainings wait for a device.")
            self._waiting.setdefault(client, deque()).append(run)
            self._count += 1
        self._short_thread.submit(self._run_waiting)
        return await asyncio.wrap_future(future)

    def run_long(self, work: Callable[[], T]) -> Awaitable[T]:
        """The result of ``work``, which must call ``serve_short`` every now and then."""

        def run() -> T:
            with self._turn:
                return work()

        return asyncio.wrap_future(self._long_thread.submit(run))

    def serve_short(self) -> None:
        """Let what waits run, one training of each client in turn; only called by the work of ``run_long``."""
        if not self._count:
            return
        self._turn.release()
        try:
            self._short_thread.submit(self._run_waiting).result()
        finally:
            self._turn.acquire()

    def _run_waiting(self) -> None:
        with self._turn:
            while (run := self._next()) is not None:
                run()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if not self._waiting:
                return None
            client, queue = self._waiting.popitem(last=False)
            run = queue.popleft()
            self._count -= 1
            if queue:
                self._waiting[client] = queue  # to the end of the round
            return run


def _lower_priority() -> None:
    """Of this thread alone, which is what Linux takes a thread's id for."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), JOB_NICENESS)


def training_devices(names: str) -> list[TrainingDevice]:
    """The devices of ``TACTICAL_DEVICES``: those named, or every GPU, or the CPU.

    Raises:
        ValueError: torch knows no such device.
    """
    if names == "auto":
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        return [TrainingDevice(name) for name in gpus or ["cpu"]]
    devices = []
    for name in names.split(","):
        try:
            kind = torch.device(name.strip())
        except RuntimeError as error:
            raise ValueError(f"TACTICAL_DEVICES: {name!r} is no device: {error}") from error
        if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"TACTICAL_DEVICES: this machine has no {name.strip()}")
        devices.append(TrainingDevice(name.strip()))
    return devices
