"""Keys that verify tokens: the shared secret, or the issuer's published keys (JWKS, RFC 7517), cached and rotated."""

from __future__ import annotations

import asyncio
import time
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
    """Gives the key that a token's header names."""

    async def key(self, key_id: str | None) -> VerificationKey:
        """The key for ``kid``.

        Raises:
            UnknownKeyError: there is no such key.
            KeyUnavailableError: the keys cannot be fetched.
        """
        ...


class SharedSecret:
    """One secret for signing and verifying (HS256)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def key(self, key_id: str | None) -> VerificationKey:  # noqa: ARG002 - there is only one
        """The secret, whatever ``kid`` says."""
        return self._secret


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

    async def key(self, key_id: str | None) -> VerificationKey:
        """The published key ``key_id``; see ``KeySource.key``."""
        if key_id is None:
            raise UnknownKeyError("the token's header has no 'kid'")
        if time.monotonic() - self._fetched_at < MAXIMUM_AGE_SECONDS and key_id in self._keys:
            return self._keys[key_id]
        await self._refresh(key_id)
        if time.monotonic() - self._fetched_at >= MAXIMUM_AGE_SECONDS:
            raise KeyUnavailableError("the issuer's keys cannot be fetched")
        try:
            return self._keys[key_id]
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
