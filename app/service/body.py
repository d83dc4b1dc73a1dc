"""Request bodies: counted while they stream in, decompressed within bounds, held within one budget of the process."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from app.service.problems import ProblemError, unavailable

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_FREE_BYTES: Final = 64 * 1024


class ClientDisconnectedError(Exception):
    """The client went away before the request was complete."""


class BodyBudget:
    """Bytes of request bodies that a process holds at one time; small bodies are not counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Reserve ``size`` bytes.

        Raises:
            ProblemError: 503, the other requests hold too much; come again.
        """
        if self.used + size > self._limit:
            raise unavailable("Too many large request bodies at the same time.")
        self.used += size

    def give_back(self, size: int) -> None:
        """Return bytes that ``take`` reserved."""
        self.used -= size


def too_large(limit: int) -> ProblemError:
    """413 for a body above ``limit`` bytes."""
    # The rest of the body is not read: the connection cannot carry another request.
    return ProblemError(
        413, "content-too-large", f"The body is longer than {limit} bytes.", headers={"Connection": "close"}
    )


async def read_body(receive: Receive, *, limit: int, encoding: bytes, budget: BodyBudget) -> tuple[bytes, int]:
    """The whole body, decompressed, and how much of ``budget`` it holds; the caller gives that back.

    Args:
        receive: ASGI's receive.
        limit: most bytes, before and after decompression.
        encoding: the Content-Encoding header, empty if absent.
        budget: from which bytes are taken.

    Raises:
        ProblemError: 400 not gzip or truncated, 413 too long, 415 unknown encoding, 503 budget used up.
        ClientDisconnectedError: the client is gone.
    """
    if encoding not in {b"", b"identity", b"gzip"}:
        raise ProblemError(
            415, "unsupported-encoding", "Content-Encoding must be gzip or absent.", headers={"Accept-Encoding": "gzip"}
        )
    message = await receive()
    if encoding != b"gzip" and not message.get("more_body", False) and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        return body, 0  # one piece, already in the server's buffer
    gathered = _Gathered(limit, gzip=encoding == b"gzip", budget=budget)
    try:
        while gathered.add(message):
            message = await receive()
        return gathered.complete(), gathered.reserved
    except BaseException:
        budget.give_back(gathered.reserved)
        raise


class _Gathered:
    """The pieces of a body so far."""

    def __init__(self, limit: int, *, gzip: bool, budget: BodyBudget) -> None:
        self._limit = limit
        self._budget = budget
        self._inflate = zlib.decompressobj(_GZIP_WINDOW) if gzip else None
        self._pieces: list[bytes] = []
        self._size = 0
        self.reserved = 0

    def add(self, message: Message) -> bool:
        """Take one message; whether more follow."""
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        piece: bytes = message.get("body", b"")
        if self._inflate is not None:
            try:
                piece = self._inflate.decompress(piece, self._limit + 1 - self._size)
            except zlib.error:
                raise ProblemError(400, "invalid-encoding", "The body is not gzip.") from None
        self._size += len(piece)
        if self._size > self._limit:
            raise too_large(self._limit)
        if self._size - self.reserved > _FREE_BYTES:
            self._budget.take(self._size - self.reserved)
            self.reserved = self._size
        self._pieces.append(piece)
        return bool(message.get("more_body", False))

    def complete(self) -> bytes:
        if self._inflate is not None and (not self._inflate.eof or self._inflate.unused_data):
            raise ProblemError(400, "invalid-encoding", "The body is not one complete gzip stream.")
        return b"".join(self._pieces)
