"""The Redis-compatible cache of a service: one client, watched, never waited for when it is away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from app.contract import Env
from app.service.iam import cache_token
from app.service.settings import ServiceSettings, current_secret

WATCH_SECONDS: Final = 1.0
COMMAND_TIMEOUT_SECONDS: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


class CacheUnavailableError(Exception):
    """The cache did not answer."""


class _FreshCredentials(CredentialProvider):
    """Made anew for each connection: a rotated password in a file takes hold, and an IAM token is fresh."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._user = urlsplit(settings.redis_url.get_secret_value()).username or ""

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        group, region = self._settings.redis_iam_replication_group, self._settings.aws_region
        if group is not None and region is not None:
            return self._user, cache_token(self._user, group, region)
        loaded = self._settings.redis_password
        password = "" if loaded is None else current_secret(Env.REDIS_PASSWORD, loaded)
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)


class Cache:
    """Runs commands on the cache; ``available`` tells whether the last one reached it."""

    def __init__(self, settings: ServiceSettings) -> None:
        url = settings.redis_url.get_secret_value()
        options: dict[str, Any] = {}
        if settings.redis_password is not None or settings.redis_iam_replication_group is not None:
            parts = urlsplit(url)
            url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
            options["credential_provider"] = _FreshCredentials(settings)
        self._client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            url,
            socket_timeout=COMMAND_TIMEOUT_SECONDS,
            socket_connect_timeout=COMMAND_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once, on a fresh connection: the pooled one may have died with the server
            max_connections=32,
            **options,
        )
        self._watch: asyncio.Task[None] | None = None
        self.available = False
        """Whether the last command reached the cache."""
        self.reason = "not connected yet"
        """Why it is not available; empty while it is."""

    async def open(self) -> None:
        """Probe once, then keep watching."""
        await self._probe()
        self._watch = asyncio.create_task(self._keep_watch(), name="cache-watch")

    async def close(self) -> None:
        """Stop the watch and close the connections."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._client.aclose()

    async def execute(self, *command: str | bytes | float) -> Any:  # noqa: ANN401 - depends on the command
        """Run one command.

        Raises:
            CacheUnavailableError: it did not answer in time, or refused.
        """
        try:
            reply = await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            if self.available:
                _log.warning("cache away", error=str(error))
            self.available = False
            self.reason = str(error) or type(error).__name__
            raise CacheUnavailableError(self.reason) from error
        if not self.available:
            _log.info("cache available")
            self.available = True
            self.reason = ""
        return reply

    async def _probe(self) -> None:
        with contextlib.suppress(CacheUnavailableError):
            await self.execute("PING")

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS if self.available else 0.2)
            await self._probe()
