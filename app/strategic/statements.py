"""Prepared statements that go to PostgreSQL through libpq itself, with parameters that are already encoded.

psycopg's cursors adapt and check every parameter and make several objects for an execution, a third of the client's
time of a small commit. Everything else about a connection stays psycopg's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from psycopg import errors
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from app.service.database import Connection

Encoded = bytes | memoryview | None
"""A value in PostgreSQL's binary form; None is NULL."""

_PARAMETER: Final = re.compile(r"\$([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement and the types of its parameters.

    Attributes:
        name: under which a connection knows it.
        text: with ``$1``, ``$2`` and so on.
        parameters: their names, in that order.
        types: their OIDs, in that order.
    """

    name: bytes
    text: bytes
    parameters: tuple[str, ...]
    types: tuple[int, ...]

    @classmethod
    def of(cls, name: str, text: str, types: Mapping[str, int]) -> Self:
        """A statement whose ``text`` names its parameters: ``$timestamps``, for example."""
        parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        numbers = {parameter: number for number, parameter in enumerate(parameters, start=1)}
        numbered = _PARAMETER.sub(lambda found: f"${numbers[found.group(1)]}", text)
        return cls(name.encode(), numbered.encode(), parameters, tuple(types[parameter] for parameter in parameters))

    async def prepare(self, connection: Connection) -> None:
        """Make the statement known to a connection.

        Raises:
            psycopg.Error: the server refuses it, or has gone.
        """
        connection.pgconn.send_prepare(self.name, self.text, self.types)
        await _result(connection.pgconn)

    async def run(self, connection: Connection, values: Mapping[str, Encoded]) -> PGresult:
        """Execute the statement on a connection that has prepared it and does nothing else.

        A connection whose ``run`` was cancelled is of no more use.

        Args:
            connection: in autocommit mode, or in a transaction.
            values: of the parameters, by name.

        Returns:
            Rows in binary form.

        Raises:
            psycopg.Error: the server refuses it, or has gone.
        """
        encoded = [values[parameter] for parameter in self.parameters]
        formats = [Format.BINARY] * len(encoded)
        connection.pgconn.send_query_prepared(self.name, encoded, param_formats=formats, result_format=Format.BINARY)
        return await _result(connection.pgconn)


async def _result(pgconn: PGconn) -> PGresult:
    """Wait for the result of what was sent.

    Raises:
        psycopg.Error: it is an error, or the server has gone.
    """
    loop = asyncio.get_running_loop()
    complete: asyncio.Future[None] = loop.create_future()
    descriptor = pgconn.socket

    def progress() -> None:
        try:
            pgconn.consume_input()
            if pgconn.flush() == 0:
                loop.remove_writer(descriptor)
            if not pgconn.is_busy():
                _finish(complete)
        except errors.Error as error:
            _finish(complete, error)

    loop.add_reader(descriptor, progress)
    try:
        if pgconn.flush():
            loop.add_writer(descriptor, progress)
        await complete
    finally:
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)
    return _checked(list(iter(pgconn.get_result, None)))


def _checked(results: list[PGresult]) -> PGresult:
    """The only result; of several errors, the first tells what went wrong and the next that nothing goes any more."""
    failed = [result for result in results if result.status not in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}]
    if not results:
        raise errors.OperationalError("the server gave no result")
    if not failed:
        return results[-1]
    error = errors.error_from_result(failed[0])
    # libpq's own complaints have no state: the server has gone without a word.
    raise error if error.sqlstate is not None else errors.OperationalError(str(error))


def _finish(future: asyncio.Future[None], error: Any = None) -> None:  # noqa: ANN401 - psycopg.Error or None
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
