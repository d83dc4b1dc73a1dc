from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.service.batching import MicroBatcher
from app.service.problems import ProblemError

pytestmark = pytest.mark.anyio


class Doubler:
    """Doubles numbers, slowly; zero is a mistake of its sender alone."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await asyncio.sleep(0.01)
        if 99 in items:
            raise RuntimeError("the whole batch")
        return [ValueError("zero") if item == 0 else item * 2 for item in items]


async def test_requests_that_arrive_together_are_worked_on_together_in_order() -> None:
    double = Doubler()
    batcher: MicroBatcher[int, int] = MicroBatcher(double, max_batch=4, max_queue=100)
    assert await asyncio.gather(*(batcher.submit(number) for number in range(1, 11))) == list(range(2, 22, 2))
    assert double.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


async def test_one_bad_item_fails_alone() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(Doubler(), max_batch=8, max_queue=100)
    answers = await asyncio.gather(*(batcher.submit(number) for number in (1, 0, 3)), return_exceptions=True)
    assert answers[0] == 2
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 6


async def test_a_failed_batch_fails_each_of_its_requests_and_no_other() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(Doubler(), max_batch=2, max_queue=100)
    answers = await asyncio.gather(*(batcher.submit(number) for number in (1, 99, 3)), return_exceptions=True)
    assert isinstance(answers[0], RuntimeError)
    assert isinstance(answers[1], RuntimeError)
    assert answers[2] == 6


async def test_a_full_queue_refuses() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(Doubler(), max_batch=1, max_queue=2)
    waiting = [asyncio.create_task(batcher.submit(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(ProblemError) as error:
        await batcher.submit(3)
    assert error.value.status_code == 503
    await asyncio.gather(*waiting)


async def test_what_nobody_waits_for_is_not_worked_on() -> None:
    double = Doubler()
    batcher: MicroBatcher[int, int] = MicroBatcher(double, max_batch=1, max_queue=10)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await tasks[2] == 6
    assert double.batches == [[1], [3]]
