"""The ``Idempotency-Key`` of a request, and what is refused of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Self

from app.service.problems import FieldError, ProblemError, unprocessable

HEADER: Final = "Idempotency-Key"
MAXIMUM_KEY: Final = 255


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An ``Idempotency-Key`` of a client, and the SHA-256 of the request that it came with."""

    subject: str
    key: str
    request_hash: bytes

    @classmethod
    def of(cls, subject: str, header: str, asked: bytes) -> Self:
        """The key of a request.

        Args:
            subject: of the client.
            header: the header's value; white space and quotes around it do not count.
            asked: what must be the same in a repetition.

        Raises:
            ProblemError: 422, the key is empty, longer than 255 characters or not printable.
        """
        key = header.strip().strip('"')
        if not 0 < len(key) <= MAXIMUM_KEY or not key.isprintable():
            detail = f"must be 1 to {MAXIMUM_KEY} printable characters"
            raise unprocessable(f"The {HEADER} is not valid.", [FieldError(f"header {HEADER}", detail)])
        return cls(subject, key, hashlib.sha256(asked).digest())


def reused() -> ProblemError:
    """422: the key came with another request before."""
    detail = f"This {HEADER} came with another request before; use a new key."
    return ProblemError(422, "idempotency-key-reused", detail)


def forgotten() -> ProblemError:
    """409: the key was used, and what was answered then is gone."""
    return ProblemError(409, "conflict", f"The answer to this {HEADER} is no longer kept.")
