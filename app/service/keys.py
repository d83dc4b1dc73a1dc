"""Keys that verify tokens: the shared secret, or the issuer's published keys (JWKS, RFC 7517), cached and rotated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import httpx
import jwt
import structlog

MAXIMUM_AGE_SECONDS: Final = 3600.0
"""A withdrawn key stops verifying after this time at the latest."""
REFETCH_SECONDS: Final = 10.0
"""Least time between two fetches, however many unknown key ids arrive."""
MAXIMUM_DOCUMENT_BYTES: Final = 256 * 1024

_log = structlog.stdlib.get_logger(__name__)

VerificationKey = jwt.PyJWK | bytes


class KeyUnavailableError(Exception):
    """The issuer's keys cannot be had at the moment."""


class UnknownKeyError(Exception):
    """The issuer publishes no such key."""


class KeySource(Protocol):
    """Gives the keys that may verify a token."""

    async def keys(self, key_id: str | None) -> Sequence[VerificationKey]:
        """The keys for ``kid``, to be tried in order.

        Raises:
            UnknownKeyError: there is no such key.
            KeyUnavailableError: the keys cannot be fetched.
        """
        ...


class SharedSecret:
    """One secret that signs and verifies (HS256). After a rotation the one before verifies for ``overlap`` seconds."""

    def __init__(self, current: Callable[[], bytes], *, overlap: float = 3600.0) -> None:
        self._current = current
        self._overlap = overlap
        self._latest = current()
        self._previous: bytes | None = None
        self._rotated_at = float("-inf")

    async def keys(self, key_id: str | None) -> Sequence[VerificationKey]:  # noqa: ARG002 - it carries no name
        """The present secret, and the one before it for a while."""
        secret = self._current()
        if secret != self._latest:
            _log.info("token secret rotated")
            self._previous, self._latest, self._rotated_at = self._latest, secret, time.monotonic()
        if self._previous is not None and time.monotonic() - self._rotated_at < self._overlap:
            return self._latest, self._previous
        return (self._latest,)


class IssuerKeys:
    """The issuer's key set, fetched when first needed, when an unknown ``kid`` arrives, and when an hour old."""

    def __init__(self, url: str, algorithm: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._algorithm = algorithm
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._lock = asyncio.Lock()

    async def keys(self, key_id: str | None) -> Sequence[VerificationKey]:
        """The published key ``key_id``; see ``KeySource``."""
        if key_id is None:
            raise UnknownKeyError("the token's header has no 'kid'")
        if time.monotonic() - self._fetched_at < MAXIMUM_AGE_SECONDS and key_id in self._keys:
            return (self._keys[key_id],)
        await self._refresh(key_id)
        if time.monotonic() - self._fetched_at >= MAXIMUM_AGE_SECONDS:
            raise KeyUnavailableError("the issuer's keys cannot be fetched")
        try:
            return (self._keys[key_id],)
        except KeyError:
            raise UnknownKeyError(f"the issuer publishes no key {key_id!r}") from None

    async def _refresh(self, key_id: str) -> None:
        async with self._lock:
            fresh = time.monotonic() - self._fetched_at < MAXIMUM_AGE_SECONDS
            if (fresh and key_id in self._keys) or time.monotonic() - self._attempted_at < REFETCH_SECONDS:
                return
            self._attempted_at = time.monotonic()
            try:
                response = await self._client.get(self._url, timeout=5.0)
                response.raise_for_status()
                if len(response.content) > MAXIMUM_DOCUMENT_BYTES:
                    raise ValueError("the key set is too long")  # noqa: TRY301 - one place handles every failure
                published = jwt.PyJWKSet.from_dict(response.json()).keys
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                _log.warning("key set not fetched", url=self._url, error=str(error))
                return
            self._keys = {
                key.key_id: key
                for key in published
                if key.key_id and key.algorithm_name == self._algorithm and key.public_key_use in {None, "sig"}
            }
            self._fetched_at = time.monotonic()
            _log.info("key set fetched", keys=sorted(self._keys))
