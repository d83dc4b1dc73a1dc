"""Revoked tokens, shared through the cache and consulted without a round trip.

The list is a sorted set (member: ``jti``, score: when the token expires by itself). Every process copies what it does
not know yet every ``POLL_SECONDS``, so a revocation takes hold everywhere within that time. What a process has copied
it keeps when the cache is away or loses its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from app.service.authentication import RevokedTokens
from app.service.cache import Cache, CacheUnavailableError

POLL_SECONDS: Final = 2.0
REVOKED_KEY: Final = "auth:revoked"
VERSION_KEY: Final = "auth:revoked:version"


async def revoke(cache: Cache, token_id: str, expires_at: float) -> None:
    """Refuse the token ``token_id``, which expires at ``expires_at`` (seconds since the epoch), from now on.

    Raises:
        CacheUnavailableError: nothing was revoked, or it is not known whether.
    """
    await cache.execute("ZADD", REVOKED_KEY, expires_at, token_id)
    await cache.execute("ZREMRANGEBYSCORE", REVOKED_KEY, "-inf", time.time() - 60.0)
    await cache.execute("INCR", VERSION_KEY)


class RevocationList:
    """Keeps a process's copy up to date."""

    def __init__(self, cache: Cache, revoked: RevokedTokens) -> None:
        self._cache = cache
        self._revoked = revoked
        self._version: bytes | None = b"never read"
        self._task: asyncio.Task[None] | None = None
        self.loaded = False
        """Whether the list was read at least once."""

    async def open(self) -> None:
        """Read the list, then follow it."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow(), name="revocation-list")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Copy the list if it has changed; keeps the old copy when the cache is away."""
        with contextlib.suppress(CacheUnavailableError):
            version = await self._cache.execute("GET", VERSION_KEY)
            if version != self._version:
                entries = await self._cache.execute("ZRANGE", REVOKED_KEY, time.time(), "+inf", "BYSCORE", "WITHSCORES")
                for token_id, expires_at in _pairs(entries):
                    self._revoked.add(token_id, expires_at)
                self._version = version
            self._revoked.forget_expired()
            self.loaded = True

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS if self.loaded else 0.2)
            await self.refresh()


def _pairs(reply: list[Any]) -> list[tuple[str, float]]:
    """Members and scores of a reply, which is flat in RESP2 and nested in RESP3."""
    nested = not reply or isinstance(reply[0], (list, tuple))
    pairs = reply if nested else list(zip(reply[::2], reply[1::2], strict=True))
    return [(member.decode(), float(score)) for member, score in pairs]
