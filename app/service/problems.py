"""Problem answers (RFC 9457): every refusal says what, where and what to do, in one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

PROBLEM_JSON: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:grandmodel:problem:"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One element of the request that is wrong.

    ``pointer`` is a JSON pointer (RFC 6901) into the body, or names a parameter or header.
    """

    pointer: str
    detail: str


class ProblemError(HTTPException):
    """A refusal on its way to the client.

    It is an ``HTTPException`` so that FastAPI lets it pass wherever it is raised, in reading the body too.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the refusal.

        Args:
            status: HTTP status, 400 to 599.
            kind: stable slug that programs compare, for example ``rate-limited``.
            detail: one line for a person, without secrets.
            errors: the offending elements.
            retry_after: seconds after which the same request may succeed.
            headers: more headers of the answer.
        """
        merged = dict(headers or {})
        if retry_after is not None:
            merged["Retry-After"] = str(max(1, round(retry_after + 0.499)))
        super().__init__(status_code=status, detail=detail, headers=merged)
        self.kind = kind
        self.errors = tuple(errors)


def unprocessable(detail: str, errors: Sequence[FieldError]) -> ProblemError:
    """422: the body is well-formed but its content is wrong at ``errors``."""
    return ProblemError(422, "invalid-content", detail, errors=errors)


def unavailable(detail: str, retry_after: float = 1.0) -> ProblemError:
    """503: something the request needs is away; it may be repeated after ``retry_after`` seconds."""
    return ProblemError(503, "unavailable", detail, retry_after=retry_after)


def json_pointer(path: Iterable[str | int]) -> str:
    """JSON pointer (RFC 6901) to the element at ``path``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def problem_body(error: HTTPException, request_id: str) -> bytes:
    """The JSON document for ``error``."""
    kind = (
        error.kind
        if isinstance(error, ProblemError)
        else HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    )
    document: dict[str, object] = {
        "type": TYPE_PREFIX + kind,
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        "instance": f"urn:request:{request_id}",
    }
    if isinstance(error, ProblemError) and error.errors:
        document["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in error.errors]
    return orjson.dumps(document)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the raw (pre-router) side."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())


def problem_answer(error: HTTPException, request_id: str) -> Answer:
    """``error`` as an answer ready to send."""
    headers = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in (error.headers or {}).items())
    return Answer(error.status_code, problem_body(error, request_id), PROBLEM_JSON.encode(), headers)


class ProblemElement(BaseModel):
    """One offending element, as OpenAPI shows it."""

    pointer: str = Field(examples=["/training_data/data/3/2"])
    detail: str = Field(examples=["Input should be a finite number"])


class ProblemDocument(BaseModel):
    """A problem answer, as OpenAPI shows it."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["urn:grandmodel:problem:invalid-content"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422], ge=400, le=599)
    detail: str = Field(examples=["1 element of the request is wrong"])
    instance: str = Field(examples=["urn:request:6f1c0a52b0d84c55"])
    errors: list[ProblemElement] | None = None
