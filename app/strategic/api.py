"""The routes of the strategic service."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.contract import STRATEGIC
from app.service.application import require
from app.service.hot_route import HotRequest, HotRoute, Reply
from app.service.permissions import Permission
from app.service.problems import Answer, ProblemError
from app.service.request_key import RequestKey
from app.service.runtime import Runtime
from app.strategic import codec, history, openapi
from app.strategic.answers import ACTIONS, PATTERN_SIZE
from app.strategic.batcher import Batcher, Decided

PROCESS_PATH: Final = f"{STRATEGIC.api_prefix}/process"
JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
_TAKE_JSON: Final = (None, b"*/*", JSON)
_DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


class ProcessRoute:
    """``POST /api/strategic/process``: decisions for market data, answered once they are durable."""

    def __init__(self) -> None:
        self.batcher: Batcher | None = None
        """Set while the service runs."""

    async def __call__(self, request: HotRequest) -> Answer:
        """Answer one request."""
        if self.batcher is None:
            raise ProblemError(503, "unavailable", "The service is starting.", retry_after=1.0)
        wants_binary = _wants_binary(request.headers.get(b"accept"))
        samples, shape = _decode(request.headers.get(b"content-type", JSON), request.body)
        await request.charge(len(samples))
        decided = await self.batcher.decide(samples, _key(request))
        return _answer(decided, "binary" if wants_binary else shape)

    def start(self, request: HotRequest, reply: Reply) -> bool:
        """Begin an ordinary request, one that is well-formed and takes JSON; `hot_route.HotStart`."""
        headers = request.headers
        if self.batcher is None or headers.get(b"accept") not in _TAKE_JSON:
            return False
        try:
            decoded = _decode_ordinary(headers.get(b"content-type", JSON), request.body)
            if decoded is None or not request.is_paid(len(decoded[0])):
                return False
            samples, shape = decoded
            self.batcher.submit(samples, _key(request), _Client(reply, shape))
        except ProblemError:
            return False
        return True


class _Client:
    """Passes a decision on as the answer to a request."""

    __slots__ = ("_reply", "_shape")

    def __init__(self, reply: Reply, shape: str) -> None:
        self._reply = reply
        self._shape = shape

    @property
    def gone(self) -> bool:
        return self._reply.gone

    def take(self, decided: Decided) -> None:
        self._reply(_answer(decided, self._shape))

    def refuse(self, error: ProblemError) -> None:
        self._reply(error)


def _decode(content_type: bytes, body: bytes) -> tuple[codec.Samples, str]:
    """Samples of a body, and the shape that its answer has.

    Raises:
        ProblemError: 415 another content type, or as `codec` says.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == JSON:
        samples, is_list = codec.decode_json(body)
        return samples, "list" if is_list else "single"
    if kind == BINARY:
        return codec.decode_binary(body), "columns"
    detail = "Content-Type must be application/json or application/octet-stream."
    raise ProblemError(415, "unsupported-media-type", detail)


def _decode_ordinary(content_type: bytes, body: bytes) -> tuple[codec.Samples, str] | None:
    """As `_decode`; None for JSON that takes long to read, be it right or wrong, so that it is read once.

    Raises:
        ProblemError: as `_decode`.
    """
    if content_type != JSON:
        return _decode(content_type, body)
    decoded = codec.decode_ordinary_json(body)
    return None if decoded is None else (decoded[0], "list" if decoded[1] else "single")


def _wants_binary(accept: bytes | None) -> bool:
    """Whether the answer shall be binary; JSON where the client does not say.

    Raises:
        ProblemError: 406, it takes neither.
    """
    if accept is None or accept == b"*/*":
        return False
    kinds = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    if kinds & {JSON, b"*/*", b"application/*"}:
        return False
    if BINARY in kinds:
        return True
    raise ProblemError(406, "not-acceptable", "Answers are application/json or application/octet-stream.")


def _key(request: HotRequest) -> RequestKey | None:
    header = request.headers.get(b"idempotency-key")
    if header is None:
        return None
    return RequestKey.of(request.principal.subject, header.decode("latin-1"), request.body)


def _answer(decided: Decided, shape: str) -> Answer:
    headers: tuple[tuple[bytes, bytes], ...] = ((b"idempotent-replayed", b"true"),) if decided.replayed else ()
    if shape in {"single", "list"}:
        return Answer(200, codec.encode_json(decided.batch, decided.rows, as_list=shape == "list"), JSON, headers)
    outcomes = decided.outcomes
    if shape == "binary":
        headers = (*headers, (b"x-model-version", outcomes.model_version.encode("latin-1")))
        return Answer(200, codec.encode_binary(outcomes), BINARY, headers)
    return Answer(200, codec.encode_columns(outcomes, decided.timestamps), JSON, headers)


def process_route(handler: ProcessRoute) -> HotRoute:
    """The hot route with its description."""
    return HotRoute(
        method="POST",
        path=PROCESS_PATH,
        permission=Permission.PROCESS,
        handler=handler,
        openapi=openapi.PROCESS,
        schemas=openapi.SCHEMAS,
        start=handler.start,
    )


Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False, strict=True)]
"""Stored patterns lie in (-1, 1); the bound keeps distances within float32."""


def _not_a_number(value: object) -> object:
    """Leave a number to nobody's guess: pydantic would read it as seconds or milliseconds."""
    if isinstance(value, str) and not _DATE_TIME.match(value):
        raise ValueError("must be an RFC 3339 date-time")
    return value


DateTime = Annotated[datetime, BeforeValidator(_not_a_number)]


class PatternQuery(BaseModel):
    """A pattern whose neighbours are asked for."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"pattern": [0.1] * PATTERN_SIZE, "k": 10}]}
    )

    pattern: Annotated[list[Number], Field(min_length=PATTERN_SIZE, max_length=PATTERN_SIZE)]
    k: int = Field(default=10, ge=1, le=1000)


class PatternMatch(BaseModel):
    """A stored pattern."""

    id: int
    timestamp: datetime
    distance: float = Field(description="Euclidean distance from the pattern asked for.")
    pattern: list[float]
    metadata: dict[str, Any]


class PatternMatches(BaseModel):
    """The nearest stored patterns, the nearest first."""

    matches: list[PatternMatch]


class StoredDecision(BaseModel):
    """A decision as it was stored."""

    id: int
    timestamp: datetime
    created_at: datetime
    decision: str = Field(examples=["BUY"])
    probabilities: dict[str, float]
    confidence: dict[str, Any]
    uncertainty: dict[str, float]
    regime: dict[str, Any]
    model_version: str


class DecisionPage(BaseModel):
    """Decisions, the newest first."""

    decisions: list[StoredDecision]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


def router(search_probes: int) -> APIRouter:
    """The routes behind FastAPI's router."""
    routes = APIRouter(tags=["strategic"])
    may_read = [Depends(require(Permission.READ))]

    @routes.post("/patterns/search", summary="The k nearest stored patterns", dependencies=may_read)
    async def search_patterns(request: Request, query: PatternQuery) -> PatternMatches:
        runtime: Runtime = request.app.state.runtime
        found = await history.nearest_patterns(runtime.database, query.pattern, query.k, probes=search_probes)
        return PatternMatches(matches=[PatternMatch(**match) for match in found])

    @routes.get("/decisions", summary="Stored decisions, the newest first", dependencies=may_read)
    async def list_decisions(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=64, pattern=r"^[0-9]{1,19}$")] = None,
        since: Annotated[DateTime | None, Query(description="Earliest timestamp, inclusive.")] = None,
        until: Annotated[DateTime | None, Query(description="Latest timestamp, exclusive.")] = None,
        decision: Annotated[str | None, Query(pattern=f"^({'|'.join(ACTIONS)})$")] = None,
    ) -> DecisionPage:
        runtime: Runtime = request.app.state.runtime
        selection = history.Selection(
            limit, cursor, since, until, None if decision is None else ACTIONS.index(decision)
        )
        rows, next_cursor = await history.list_decisions(runtime.database, selection)
        return DecisionPage(decisions=[StoredDecision(**row) for row in rows], next_cursor=next_cursor)

    return routes
