"""What waits together is computed and committed together, in bounds, and nobody suffers for another's sample.

The engine is replaced by a function of the same interface whose time and answers the tests can choose; database and
statement are the real ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import psycopg
import pytest

from app.service.database import Database
from app.service.problems import ProblemError
from app.service.request_key import RequestKey
from app.service.settings import ServiceSettings, load_settings
from app.strategic.answers import Decisions
from app.strategic.batcher import Batcher
from app.strategic.codec import Float32, Samples
from tests.app.strategic.conftest import SECRET, as_application

WHEN = 1_767_623_400_000_000


class Decider:
    """Answers with the first number of each matrix; a matrix that begins with -1 has no finite answer."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []

    def process(self, matrices: Float32) -> Decisions:
        time.sleep(self.seconds)
        self.batches.append(len(matrices))
        answers = np.full((len(matrices), 43), 0.2, np.float32)
        answers[:, 23] = np.where(matrices[:, 0, 0] < 0, np.nan, matrices[:, 0, 0])
        return Decisions(answers, np.zeros((len(matrices), 3), np.int64), "test")


def samples(first: float, count: int = 1) -> Samples:
    return Samples(np.full(count, WHEN), np.full((count, 48, 13), first, np.float32))


@asynccontextmanager
async def running(url: str, cache: str, decider: Decider, **limits: float) -> AsyncIterator[Batcher]:
    overrides = {"DATABASE_URL": as_application(url), "REDIS_URL": cache, "JWT_SECRET": SECRET}
    database = Database(load_settings(ServiceSettings, overrides), application_name="test")
    await database.open()
    batcher = Batcher(lambda: decider, database, **limits)  # type: ignore[arg-type]
    await batcher.open()
    while await batcher.check() is not None:  # noqa: ASYNC110 - asked as readiness asks it
        await asyncio.sleep(0.01)
    try:
        yield batcher
    finally:
        await batcher.close()
        await database.close()


def stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM samples").fetchone()
    assert row is not None
    return int(row[0])


def test_what_waits_is_committed_together_and_answered_apart(strategic_database: str, cache: str) -> None:
    decider = Decider(seconds=0.02)

    async def work() -> None:
        async with running(strategic_database, cache, decider, connections=1) as batcher:
            answers = await asyncio.gather(*[batcher.decide(samples(number / 100)) for number in range(100)])
            scores = [float(answer.outcomes.outcome[0, 23]) for answer in answers]
            assert scores == pytest.approx([number / 100 for number in range(100)])
            assert len({answer.outcomes.first_id for answer in answers}) == 100

    asyncio.run(work())
    assert len(decider.batches) <= 3, "requests that arrived together were computed apart"
    assert stored(strategic_database) == 100


def test_a_batch_is_bounded_but_a_request_is_never_split(strategic_database: str, cache: str) -> None:
    decider = Decider()

    async def work() -> None:
        async with running(strategic_database, cache, decider, connections=1, batch_samples=10) as batcher:
            await asyncio.gather(batcher.decide(samples(0.5, 25)), *[batcher.decide(samples(0.5, 4)) for _ in range(5)])

    asyncio.run(work())
    assert decider.batches[0] == 25
    assert max(decider.batches[1:]) <= 10
    assert stored(strategic_database) == 45


def test_a_full_queue_refuses_at_once_and_the_others_are_answered(strategic_database: str, cache: str) -> None:
    async def work() -> tuple[int, int]:
        limits = {"connections": 1, "batch_samples": 5, "queue_samples": 20}
        async with running(strategic_database, cache, Decider(seconds=0.01), **limits) as batcher:
            results = await asyncio.gather(*[batcher.decide(samples(0.5)) for _ in range(100)], return_exceptions=True)
        refused = [result for result in results if isinstance(result, ProblemError)]
        assert all(error.status_code == 503 and "Retry-After" in (error.headers or {}) for error in refused)
        return len(results) - len(refused), len(refused)

    answered, refused = asyncio.run(work())
    assert answered == stored(strategic_database) >= 20
    assert refused > 0


def test_clients_that_ask_together_again_are_committed_together_again(strategic_database: str, cache: str) -> None:
    """Half of them would wait for the other half's commit for ever, if a batch took only what is there."""
    decider = Decider()

    async def client(batcher: Batcher) -> None:
        for _ in range(20):
            await batcher.decide(samples(0.5))

    async def work() -> None:
        async with running(strategic_database, cache, decider) as batcher:
            await asyncio.gather(*[client(batcher) for _ in range(16)])

    asyncio.run(work())
    assert stored(strategic_database) == sum(decider.batches) == 320
    assert float(np.median(decider.batches)) == 16


def test_what_waits_too_long_is_refused_and_not_stored(strategic_database: str, cache: str) -> None:
    async def work() -> list[object]:
        async with running(strategic_database, cache, Decider(seconds=1.2), connections=1, patience=0.5) as batcher:
            first = asyncio.create_task(batcher.decide(samples(0.5)))
            await asyncio.sleep(0.05)
            requests = [batcher.decide(samples(0.5, 200)) for _ in range(4)]  # more than one batch
            return list(await asyncio.gather(first, *requests, return_exceptions=True))

    results = asyncio.run(work())
    refused = [result for result in results if isinstance(result, ProblemError)]
    assert refused
    assert all(error.status_code == 503 for error in refused)
    assert stored(strategic_database) == 1 + 200 * (4 - len(refused))


def test_a_client_that_fails_costs_the_others_nothing(strategic_database: str, cache: str) -> None:
    class Broken:
        gone = False

        def take(self, _word: object) -> None:
            raise RuntimeError("its connection is in a state that nobody thought of")

        refuse = take

    async def work() -> None:
        async with running(strategic_database, cache, Decider(), connections=1) as batcher:
            for _ in range(2):  # the connection goes on, too
                batcher.submit(samples(0.5), None, Broken())
                await asyncio.wait_for(asyncio.gather(*[batcher.decide(samples(0.5)) for _ in range(3)]), 10)

    asyncio.run(work())
    assert stored(strategic_database) == 8


def test_a_matrix_without_an_answer_fails_alone(strategic_database: str, cache: str) -> None:
    async def work() -> list[object]:
        async with running(strategic_database, cache, Decider(), connections=1) as batcher:
            requests = [batcher.decide(samples(-1 if number == 3 else 0.5)) for number in range(8)]
            return list(await asyncio.gather(*requests, return_exceptions=True))

    results = asyncio.run(work())
    refused = results.pop(3)
    assert isinstance(refused, ProblemError)
    assert refused.status_code == 422
    assert not any(isinstance(result, BaseException) for result in results)
    assert stored(strategic_database) == 7


def test_the_same_key_twice_in_one_batch_is_stored_once(strategic_database: str, cache: str) -> None:
    key = RequestKey("tester", "once", b"h" * 32)

    async def work() -> None:
        async with running(strategic_database, cache, Decider(seconds=0.02), connections=1) as batcher:
            answers = await asyncio.gather(
                batcher.decide(samples(0.1)), *[batcher.decide(samples(0.5, 2), key) for _ in range(3)]
            )
            assert len({answer.outcomes.first_id for answer in answers[1:]}) == 1
            assert [answer.replayed for answer in answers] == [False, False, True, True]

    asyncio.run(work())
    assert stored(strategic_database) == 3
