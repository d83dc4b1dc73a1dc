"""Routes served ahead of FastAPI's router: no routing, no pydantic, no dependency injection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.service.permissions import Permission, Principal
from app.service.problems import Answer, ProblemError
from app.service.runtime import Runtime
from app.service.settings import RateLimitUnit


@dataclass(slots=True)
class HotRequest:
    """What a hot route is called with."""

    headers: Mapping[bytes, bytes]
    """By lower-case name; of a repeated header the last."""
    body: bytes
    principal: Principal
    request_id: str
    query: bytes
    _runtime: Runtime

    async def charge(self, samples: int) -> None:
        """Count ``samples`` against the client's minute, where the settings count samples; one is already counted.

        Raises:
            ProblemError: 429, the minute is used up.
        """
        if not self.is_paid(samples):
            limiter = self._runtime.limiter
            if not limiter.try_admit(self.principal.subject, samples - 1):
                await limiter.admit(self.principal.subject, samples - 1)

    def is_paid(self, samples: int) -> bool:
        """Whether the one that is counted already pays for ``samples``."""
        return samples <= 1 or self._runtime.settings.rate_limit_unit is not RateLimitUnit.SAMPLES


class Reply(Protocol):
    """Where the answer to a request goes that was begun without a task. Called once, at any later time."""

    @property
    def gone(self) -> bool:
        """Whether the client has gone, so that nobody waits for the answer."""

    def __call__(self, answer: Answer | ProblemError, /) -> None:
        """Send the answer."""


HotHandler = Callable[[HotRequest], Awaitable[Answer]]
HotStart = Callable[[HotRequest, Reply], bool]


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route served ahead of FastAPI's router."""

    method: str
    path: str
    permission: Permission
    handler: HotHandler
    openapi: Mapping[str, Any] = field(hash=False)
    """OpenAPI operation object, with ``requestBody`` and ``responses``; schemas inline or in ``schemas``."""
    schemas: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Schemas that the operation refers to, to be added to ``components``."""
    body_limit: int | None = None
    """Bytes; the service's limit if None."""
    start: HotStart | None = None
    """Begins an ordinary request without a task (`hot_lane`) and returns True; False leaves it to ``handler``, with
    nothing done. It must not raise."""
