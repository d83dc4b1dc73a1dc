from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from app.service import rate_limit
from app.service.cache import Cache
from app.service.problems import ProblemError
from app.service.rate_limit import RateLimiter
from app.service.settings import ServiceSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shared(make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[Cache]:
    client = Cache(make_settings())
    await client.open()
    await client.execute("FLUSHDB")
    yield client
    await client.close()


async def admitted(limiter: RateLimiter, client: str, attempts: int, cost: int = 1) -> int:
    count = 0
    for _ in range(attempts):
        with contextlib.suppress(ProblemError):
            await limiter.admit(client, cost)
            count += 1
    return count


async def test_a_client_gets_exactly_its_limit_within_a_minute(shared: Cache) -> None:
    limiter = RateLimiter(shared, 1000, name="requests")
    assert await admitted(limiter, "client", 1200) == 1000
    with pytest.raises(ProblemError) as error:
        await limiter.admit("client")
    assert error.value.status_code == 429
    assert error.value.headers is not None
    assert 1 <= int(error.value.headers["Retry-After"]) <= 60


async def test_replicas_together_admit_no_more_than_the_limit(shared: Cache) -> None:
    replicas = [RateLimiter(shared, 300, name="requests") for _ in range(3)]
    counts = await asyncio.gather(*(admitted(replica, "client", 200) for replica in replicas for _ in range(2)))
    # What one replica has leased and not spent another cannot have: at most a share for each of the others.
    assert 300 - 2 * 15 <= sum(counts) <= 300


async def test_clients_do_not_pay_for_each_other(shared: Cache) -> None:
    limiter = RateLimiter(shared, 10, name="requests")
    assert await admitted(limiter, "greedy", 50) == 10
    assert await admitted(limiter, "modest", 5) == 5


async def test_a_batch_pays_for_each_sample(shared: Cache) -> None:
    limiter = RateLimiter(shared, 1000, name="samples")
    assert await admitted(limiter, "client", 100, cost=64) == 15
    with pytest.raises(ProblemError) as error:
        await limiter.admit("client", 1001)
    assert error.value.status_code == 413


async def test_a_new_minute_begins_with_the_whole_limit(shared: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "WINDOW_SECONDS", 0.3)
    limiter = RateLimiter(shared, 20, name="requests")
    assert await admitted(limiter, "client", 30) == 20
    await asyncio.sleep(0.35)
    assert await admitted(limiter, "client", 30) == 20


async def test_without_the_cache_each_process_admits_the_limit_by_itself(
    make_settings: Callable[..., ServiceSettings],
) -> None:
    client = Cache(make_settings(REDIS_URL="redis://127.0.0.1:1"))
    limiter = RateLimiter(client, 100, name="requests")
    assert await admitted(limiter, "client", 150) == 100
    await client.close()


async def test_the_number_of_clients_remembered_is_bounded(shared: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAXIMUM_CLIENTS", 5)
    limiter = RateLimiter(shared, 100, name="requests")
    for number in range(20):
        await limiter.admit(f"client-{number}")
    assert len(limiter._buckets) == 5
