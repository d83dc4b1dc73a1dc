"""PostgreSQL for a service: a pool that heals itself and refuses at once while the server is away.

A watch connects once a second. While it fails, ``connection`` raises a 503 problem without waiting; as soon as it
succeeds, connections broken meanwhile are thrown out of the pool and work goes on. psycopg's own settings come from
the URL (``sslmode=verify-full``, ``sslrootcert=...``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from app.contract import Env
from app.service.iam import database_url_with_token
from app.service.problems import ProblemError, unavailable
from app.service.settings import ServiceSettings, current_secret

Connection = AsyncConnection[tuple[Any, ...]]

WATCH_SECONDS: Final = 1.0
PROBE_TIMEOUT_SECONDS: Final = 3.0
NOT_MIGRATED: Final = "database-not-migrated"
# A cut network shows itself only by silence: give up on unacknowledged data after 5 s instead of the kernel's 15
# minutes.
_CONNECTION_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    "autocommit": True,
}

_log = structlog.stdlib.get_logger(__name__)


class DatabaseSettingError(Exception):
    """The server runs with a setting under which a commit is not durable."""


class Database:
    """Pool of connections in autocommit mode; ``transaction()`` of a connection opens a transaction."""

    def __init__(self, settings: ServiceSettings, *, application_name: str) -> None:
        self._timeout = settings.database_pool_timeout
        self._settings = settings
        self._kwargs = {**_CONNECTION_DEFAULTS, "application_name": application_name}
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._conninfo,
            kwargs=self._kwargs,
            min_size=min(settings.database_pool_size, 4),
            max_size=settings.database_pool_size + settings.database_pool_max_overflow,
            timeout=settings.database_pool_timeout,
            max_lifetime=settings.database_pool_recycle,
            reconnect_timeout=10.0,
            open=False,
            name=application_name,
        )
        self._watch: asyncio.Task[None] | None = None
        self._suspect = asyncio.Event()
        self.available = False
        """Whether the last probe reached the server."""
        self.reason = "not connected yet"
        """Why it is not available; empty while it is."""

    async def open(self) -> None:
        """Open the pool and start the watch; returns after the first probe, whether the server is there or not."""
        await self._pool.open(wait=False)
        await self._probe()
        self._watch = asyncio.create_task(self._keep_watch(), name="database-watch")

    async def close(self) -> None:
        """Stop the watch and close every connection."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A pooled connection.

        Raises:
            ProblemError: 503 when the server is away or no connection became free in time.
        """
        if not self.available:
            raise unavailable("The database is away; nothing was stored.")
        try:
            async with self._pool.connection(timeout=self._timeout) as connection:
                yield connection
        except PoolTimeout as error:
            self._suspect.set()
            raise unavailable("No database connection became free in time.") from error
        except psycopg.OperationalError as error:
            if error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}:
                self.mark_away(error)
                raise unavailable("The database went away during the request.") from error
            if error.sqlstate[:2] == "53":  # insufficient resources: disk full, too many connections
                raise unavailable(
                    f"The database has run out of resources: {error.diag.message_primary}", 5.0
                ) from error
            raise
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege) as error:
            detail = f"The database is not migrated for this service: {error.diag.message_primary}."
            raise ProblemError(503, NOT_MIGRATED, detail, retry_after=10.0) from error

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A pooled connection inside a transaction that commits at the end of the block, before control returns."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    def mark_away(self, error: BaseException) -> None:
        """Refuse requests from now until the watch reaches the server again."""
        if self.available:
            _log.warning("database away", error=_first_line(error))
        self.available = False
        self.reason = _first_line(error)
        self._suspect.set()

    def pool_statistics(self) -> dict[str, int]:
        """Counters of psycopg: ``pool_size``, ``pool_available``, ``requests_waiting`` and more."""
        return self._pool.get_stats()

    async def dedicated_connection(self) -> Connection:
        """A connection outside the pool, which the caller closes."""
        return await AsyncConnection.connect(await self._conninfo(), **self._kwargs)

    async def assert_durable(self) -> None:
        """Check that a commit survives a crash of the server.

        Raises:
            DatabaseSettingError: ``fsync`` or ``synchronous_commit`` is off.
        """
        async with self.connection() as connection:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                row = await (await connection.execute(f"SHOW {name}")).fetchone()
                if row is None or row[0] == "off":
                    raise DatabaseSettingError(f"{name} is off: a commit would not be durable")

    async def _conninfo(self) -> str:
        """Made anew for each connection: a rotated password in a mounted file takes hold, and an IAM token is fresh."""
        url = current_secret(Env.DATABASE_URL, self._settings.database_url)
        region = self._settings.database_iam_region
        return url if region is None else await asyncio.to_thread(database_url_with_token, url, region)

    async def _keep_watch(self) -> None:
        while True:
            self._suspect.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._suspect.wait()
                    await asyncio.sleep(0.05 if self.available else 0.2)
            await self._probe()

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                if self.available:
                    async with self._pool.connection(timeout=PROBE_TIMEOUT_SECONDS) as connection:
                        await connection.execute("SELECT 1")
                    return
                connection = await self.dedicated_connection()
                await connection.close()
                await self._pool.check()
        except PoolTimeout:
            return  # busy is not away
        except (psycopg.Error, OSError, TimeoutError) as error:
            self.mark_away(error)
            return
        _log.info("database available")
        self.available = True
        self.reason = ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
