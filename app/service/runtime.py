"""The parts of a running service, and whether it is ready for work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import structlog

from app.contract import Env, ServiceContract
from app.service import metrics
from app.service.audit import AuditLog
from app.service.authentication import TokenVerifier
from app.service.cache import Cache
from app.service.database import Database, DatabaseSettingError
from app.service.keys import IssuerKeys, KeySource, SharedSecret
from app.service.problems import ProblemError, unavailable
from app.service.rate_limit import RateLimiter
from app.service.revocation import RevocationList
from app.service.settings import Environment, ServiceSettings, current_secret

ReadinessCheck = Callable[[], Awaitable[str | None]]
"""Answers None when its part is ready, else what is missing in one line."""

DURABILITY_CHECK_SECONDS: Final = 30.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Runtime:
    """What a request may need. Open from the server's start to its end."""

    contract: ServiceContract
    settings: ServiceSettings
    database: Database
    cache: Cache
    verifier: TokenVerifier
    limiter: RateLimiter
    audit: AuditLog
    revocation: RevocationList
    http: httpx.AsyncClient
    checks: dict[str, ReadinessCheck] = field(default_factory=dict)
    """Further conditions of readiness, by what they check."""
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service was told to stop: streams end, readiness fails, requests in flight finish."""
    started: bool = False
    """Set when warm-up is over."""
    in_flight: int = 0
    """Requests being answered now."""
    _sampler: asyncio.Task[None] | None = None
    _durable_until: float = 0.0

    async def open(self) -> None:
        """Connect everything; returns whether or not the other sides are there."""
        await self.audit.open()
        await self.database.open()
        await self.cache.open()
        await self.revocation.open()
        self._sampler = asyncio.create_task(self._keep_sampling(), name="metrics-sampler")

    async def close(self) -> None:
        """Release everything; the audit log last."""
        if self._sampler is not None:
            self._sampler.cancel()
        for part in (self.revocation, self.cache, self.database):
            with contextlib.suppress(Exception):
                await part.close()
        await self.http.aclose()
        await self.audit.close()

    @property
    def multi_factor_required(self) -> bool:
        """Whether changes need a token that tells of a second factor."""
        return self.settings.environment is Environment.PRODUCTION

    def demand_writable(self) -> None:
        """Refuse what stores something while the database or the cache is away.

        Raises:
            ProblemError: 503 with Retry-After.
        """
        if not self.database.available:
            raise unavailable("The database is away; nothing was stored.")
        if not self.cache.available:
            raise unavailable("The cache is away; nothing was stored.")

    async def missing(self) -> dict[str, str]:
        """What keeps the service from being ready, by part; empty when it is ready."""
        missing: dict[str, str] = {}
        if self.draining.is_set():
            missing["service"] = "is stopping"
        elif not self.started:
            missing["service"] = "is starting"
        if not self.database.available:
            missing["database"] = self.database.reason
        elif (reason := await self._not_durable()) is not None:
            missing["database"] = reason
        if not self.cache.available:
            missing["cache"] = self.cache.reason
        elif not self.revocation.loaded:
            missing["revocation_list"] = "has not been read yet"
        if not self.audit.accepts:
            missing["audit"] = "the log cannot be written"
        for name, check in self.checks.items():
            reason = await check() if self.started else None
            if reason is not None:
                missing[name] = reason
        return missing

    def sample_metrics(self) -> None:
        """Bring the gauges of shared parts up to date, before a scrape."""
        metrics.DEPENDENCY_UP.labels("database").set(self.database.available)
        metrics.DEPENDENCY_UP.labels("cache").set(self.cache.available)
        statistics = self.database.pool_statistics()
        size, idle = statistics.get("pool_size", 0), statistics.get("pool_available", 0)
        metrics.POOL_CONNECTIONS.labels("used").set(size - idle)
        metrics.POOL_CONNECTIONS.labels("idle").set(idle)
        metrics.POOL_WAITING.set(statistics.get("requests_waiting", 0))
        metrics.AUDIT_BACKLOG.set(self.audit.backlog)
        metrics.HTTP_IN_FLIGHT.set(self.in_flight)

    async def _keep_sampling(self) -> None:
        """With several workers a scrape reaches one of them; the others' gauges must be fresh all the same."""
        while True:
            self.sample_metrics()
            await asyncio.sleep(1.0)

    async def _not_durable(self) -> str | None:
        if time.monotonic() < self._durable_until:
            return None
        try:
            await self.database.assert_durable()
        except DatabaseSettingError as error:
            return str(error)
        except ProblemError as error:
            return str(error.detail)
        self._durable_until = time.monotonic() + DURABILITY_CHECK_SECONDS
        return None


def create_runtime(contract: ServiceContract, settings: ServiceSettings) -> Runtime:
    """The parts of the service ``contract`` as ``settings`` describe them, not yet open."""
    http = httpx.AsyncClient(follow_redirects=False)
    keys: KeySource
    if settings.jwt_jwks_url is not None:
        keys = IssuerKeys(settings.jwt_jwks_url.get_secret_value(), settings.jwt_algorithm, http)
    elif settings.jwt_secret is not None:
        loaded = settings.jwt_secret
        keys = SharedSecret(
            lambda: current_secret(Env.JWT_SECRET, loaded).encode(), overlap=float(settings.jwt_expiration)
        )
    else:  # the settings' own validation excludes it
        raise AssertionError("no key to verify tokens with")
    verifier = TokenVerifier(
        keys, algorithm=settings.jwt_algorithm, issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )
    cache = Cache(settings)
    return Runtime(
        contract=contract,
        settings=settings,
        database=Database(settings, application_name=f"grandmodel-{contract.service}"),
        cache=cache,
        verifier=verifier,
        limiter=RateLimiter(
            cache, settings.rate_limit_per_minute, name=f"{settings.rate_limit_unit} ({contract.service})"
        ),
        audit=AuditLog(contract.service),
        revocation=RevocationList(cache, verifier.revoked),
        http=http,
    )
