from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from app.service.problems import ProblemError
from app.tactical import device as device_module
from app.tactical.device import TrainingDevice, training_devices

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def device() -> Iterator[TrainingDevice]:
    made = TrainingDevice("cpu")
    yield made
    made.close()


async def test_one_training_runs_at_a_time(device: TrainingDevice) -> None:
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.005)
        running -= 1

    await asyncio.gather(*(device.run_short(f"client-{number % 3}", work) for number in range(12)))
    assert most == 1


async def test_clients_take_turns_whoever_asked_more(device: TrainingDevice) -> None:
    gate, order = threading.Event(), list[str]()
    first = asyncio.create_task(device.run_short("first", gate.wait))
    await asyncio.sleep(0.02)
    asked = ["greedy"] * 4 + ["modest"] * 2
    waiting = [asyncio.create_task(device.run_short(client, partial(order.append, client))) for client in asked]
    await asyncio.sleep(0.02)
    assert device.waiting == 6
    gate.set()
    await asyncio.gather(first, *waiting)
    assert order == ["greedy", "modest", "greedy", "modest", "greedy", "greedy"]


async def test_short_trainings_run_between_the_updates_of_a_long_one(device: TrainingDevice) -> None:
    stop = threading.Event()

    def long() -> str:
        while not stop.is_set():
            device.serve_short()
            time.sleep(0.002)
        return "done"

    job = asyncio.ensure_future(device.run_long(long))
    assert await asyncio.wait_for(device.run_short("client", lambda: 7), 5) == 7
    assert not job.done()
    stop.set()
    assert await job == "done"


async def test_short_trainings_never_run_beside_an_update_of_a_long_one(device: TrainingDevice) -> None:
    inside, overlaps = threading.Lock(), list[str]()

    def alone(name: str, seconds: float) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(name)
            return
        time.sleep(seconds)
        inside.release()

    def long() -> None:
        for _ in range(20):
            alone("update", 0.004)
            device.serve_short()

    job = asyncio.ensure_future(device.run_long(long))
    await asyncio.gather(*(device.run_short(f"client-{n % 3}", partial(alone, "short", 0.001)) for n in range(30)))
    await job
    assert overlaps == []


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
async def test_a_long_training_has_a_lower_priority_than_a_short_one(device: TrainingDevice) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    long, short = await device.run_long(niceness), await device.run_short("client", niceness)
    assert long == device_module.JOB_NICENESS
    assert short == niceness()


async def test_an_error_reaches_whoever_waits_and_the_device_goes_on(device: TrainingDevice) -> None:
    def fail() -> None:
        raise ArithmeticError("diverged")

    with pytest.raises(ArithmeticError, match="diverged"):
        await device.run_short("client", fail)
    assert await device.run_short("client", lambda: 1) == 1


async def test_too_many_waiting_trainings_are_refused(device: TrainingDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "MAXIMUM_WAITING", 2)
    gate = threading.Event()
    running = asyncio.create_task(device.run_short("a", gate.wait))
    await asyncio.sleep(0.02)
    waiting = [asyncio.create_task(device.run_short("a", lambda: None)) for _ in range(2)]
    await asyncio.sleep(0.02)
    with pytest.raises(ProblemError) as error:
        await device.run_short("a", lambda: None)
    assert error.value.status_code == 503
    gate.set()
    await asyncio.gather(running, *waiting)


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match="TACTICAL_DEVICES"):
        training_devices("cuda:7")
    with pytest.raises(ValueError, match="TACTICAL_DEVICES"):
        training_devices("toaster")
