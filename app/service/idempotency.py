"""Changes that a client may repeat: ``Idempotency-Key`` on routes that answer with one JSON document.

The answer is committed in the transaction of the change, under the client's key. A repetition finds it there and
changes nothing. That holds across processes and restarts, because the primary key of ``idempotency_keys`` decides;
within one process repetitions also wait for each other, so that nothing is computed twice. Maintenance drops keys
after a day.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar
from weakref import WeakValueDictionary

from fastapi import Header, Request, Response
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from app.service.application import principal_of
from app.service.database import Connection, Database
from app.service.request_key import HEADER, MAXIMUM_KEY, RequestKey, forgotten, reused

REPLAYED_HEADER: Final = "Idempotent-Replayed"
RESPONSE_HEADERS: Final[dict[str, Any]] = {
    REPLAYED_HEADER: {"description": "`true` when this key had been answered before.", "schema": {"type": "string"}}
}
"""For the OpenAPI description of such a route's answer."""

A = TypeVar("A", bound=BaseModel)
R = TypeVar("R")
Within = Callable[[Connection, R], Awaitable[None]]
"""What a change calls with its open transaction and its result, just before it commits."""


class AlreadyAnsweredError(Exception):
    """A request with the same key was committed first; rolls the change back."""


async def request_key(
    request: Request,
    header: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="Of the client's choice. A retry with the same key and body changes nothing and gets the same "
            "answer for 24 hours.",
            json_schema_extra={"minLength": 1, "maxLength": MAXIMUM_KEY},
        ),
    ] = None,
) -> RequestKey | None:
    """A route's dependency: the key of the request, None without one.

    Raises:
        ProblemError: 422, it is empty, longer than 255 characters or not printable.
    """
    if header is None:
        return None
    asked = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return RequestKey.of(principal_of(request).subject, header, asked)


async def keep_answer(connection: Connection, key: RequestKey | None, answer: BaseModel) -> None:
    """Keep ``answer`` under ``key`` in the transaction that ``connection`` is in; nothing without a key.

    Waits for another transaction that is about to commit the same key.

    Raises:
        AlreadyAnsweredError: the key is taken. Let it pass, so that the transaction is rolled back.
    """
    if key is None:
        return
    cursor = await connection.execute(
        "INSERT INTO idempotency_keys (subject, key, request_hash, response) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING RETURNING key",
        (key.subject, key.key, key.request_hash, Jsonb(answer.model_dump(mode="json"))),
    )
    if await cursor.fetchone() is None:
        raise AlreadyAnsweredError(key.key)


class AnsweredRequests:
    """What was answered under keys before, and who is about to answer now."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def once(
        self, key: RequestKey | None, kind: type[A], change: Callable[[], Awaitable[A]], response: Response
    ) -> A:
        """The answer of ``change``, or that of an earlier request with the same key.

        Args:
            key: None makes the change whatever was before.
            kind: of the answer.
            change: makes the change and calls ``keep_answer`` in its transaction.
            response: gets ``Idempotent-Replayed: true`` when the answer is an earlier one.

        Raises:
            ProblemError: 422, the key came with another request before.
        """
        if key is None:
            return await change()
        async with self._turn(key):
            earlier = await self._recall(key, kind)
            if earlier is None:
                try:
                    return await change()
                except AlreadyAnsweredError:  # in another process
                    earlier = await self._recall(key, kind)
        if earlier is None:
            raise forgotten()
        response.headers[REPLAYED_HEADER] = "true"
        return earlier

    @contextlib.asynccontextmanager
    async def _turn(self, key: RequestKey) -> AsyncIterator[None]:
        lock = self._turns.setdefault((key.subject, key.key), asyncio.Lock())
        async with lock:
            yield

    async def _recall(self, key: RequestKey, kind: type[A]) -> A | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT request_hash, response FROM idempotency_keys WHERE subject = %s AND key = %s",
                (key.subject, key.key),
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        if row[0] != key.request_hash:
            raise reused()
        return kind.model_validate(row[1])
