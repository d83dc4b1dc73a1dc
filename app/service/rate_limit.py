"""1,000 requests a minute a client, over all replicas, for 0.3 microseconds a request.

A client's minute begins with its first request. The count lives in the cache; one Lua script leases a share of what
is left to a process, which spends it from a local bucket and asks for the next share in the background before it runs
out. The sum over all replicas never exceeds the limit. What is leased and not spent is lost with the minute.

While the cache is away each process admits the limit by itself (reads only: changes are refused then, see
``readiness``).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from app.service.cache import Cache, CacheUnavailableError
from app.service.problems import ProblemError

WINDOW_SECONDS: Final = 60.0
LEASES_PER_WINDOW: Final = 20
MAXIMUM_CLIENTS: Final = 50_000

# KEYS[1] the client's count; ARGV: limit, wanted, window in milliseconds. Returns what is granted and how long the
# window still lasts.
_LEASE_SCRIPT: Final = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local remaining = redis.call('PTTL', KEYS[1])
if remaining < 0 then used = 0; remaining = tonumber(ARGV[3]) end
local granted = math.min(tonumber(ARGV[2]), tonumber(ARGV[1]) - used)
if granted > 0 then redis.call('SET', KEYS[1], used + granted, 'PX', remaining) else granted = 0 end
return {granted, remaining}
"""


@dataclass(slots=True)
class _Bucket:
    tokens: float = 0.0
    window_ends: float = 0.0
    exhausted: bool = False
    lease: asyncio.Task[None] | None = None


class RateLimiter:
    """Admits or refuses requests by client."""

    def __init__(self, cache: Cache, limit: int, *, name: str) -> None:
        """Limit every client.

        Args:
            cache: where the counts are shared.
            limit: requests (or samples) a minute.
            name: what the count is of; services of different names count apart.
        """
        self._cache = cache
        self._limit = limit
        self._name = name
        self._share = max(1, limit // LEASES_PER_WINDOW)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def try_admit(self, client: str, cost: int = 1) -> bool:
        """Whether the local bucket pays for ``cost`` at once; if not, ``admit`` decides."""
        bucket = self._buckets.get(client)
        if bucket is None or bucket.tokens < cost or bucket.window_ends <= time.monotonic():
            return False
        bucket.tokens -= cost
        if bucket.tokens < self._share / 4 and bucket.lease is None and not bucket.exhausted:
            self._start_lease(client, bucket, self._share)
        return True

    def give_back(self, client: str, cost: int = 1) -> None:
        """Undo a ``try_admit`` of the same turn of the event loop: what it paid for was not done."""
        self._buckets[client].tokens += cost

    async def admit(self, client: str, cost: int = 1) -> None:
        """Pay for ``cost`` units.

        Raises:
            ProblemError: 429 with Retry-After when the client's minute is used up, 413 when ``cost`` can never be
            admitted.
        """
        if cost > self._limit:
            raise ProblemError(413, "batch-exceeds-rate-limit", f"Send at most {self._limit} units in one request.")
        while not self.try_admit(client, cost):
            bucket = self._bucket(client)
            if bucket.exhausted and bucket.window_ends > time.monotonic() and bucket.tokens < cost:
                raise self._refusal(bucket)
            if bucket.lease is None:
                self._start_lease(client, bucket, max(self._share, cost))
            if bucket.lease is not None:
                await asyncio.shield(bucket.lease)

    def _refusal(self, bucket: _Bucket) -> ProblemError:
        seconds = bucket.window_ends - time.monotonic()
        detail = f"The limit of {self._limit} {self._name} a minute is used up."
        return ProblemError(429, "rate-limited", detail, retry_after=seconds)

    def _bucket(self, client: str) -> _Bucket:
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket()
            if len(self._buckets) > MAXIMUM_CLIENTS:
                self._buckets.popitem(last=False)
        return bucket

    def _start_lease(self, client: str, bucket: _Bucket, wanted: int) -> None:
        bucket.lease = asyncio.create_task(self._lease(client, bucket, wanted))

    async def _lease(self, client: str, bucket: _Bucket, wanted: int) -> None:
        started = time.monotonic()
        try:
            granted, remaining = await self._cache.execute(
                "EVAL",
                _LEASE_SCRIPT,
                1,
                f"rate:{self._name}:{client}",
                self._limit,
                wanted,
                int(WINDOW_SECONDS * 1000),
            )
        except CacheUnavailableError:
            granted, remaining = 0, WINDOW_SECONDS * 1000
            if bucket.window_ends <= started:
                granted = self._limit
            else:
                remaining = (bucket.window_ends - started) * 1000
        finally:
            bucket.lease = None
        now = time.monotonic()
        if bucket.window_ends <= now:
            bucket.tokens = 0.0
        bucket.tokens += granted
        bucket.exhausted = granted < wanted
        bucket.window_ends = now + remaining / 1000
