"""Statements through libpq: what is encoded arrives, what the server refuses is raised, what breaks is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from app.service.database import Connection
from app.strategic import wire
from app.strategic.statements import Statement

T = TypeVar("T")
ECHO = Statement.of(
    "echo",
    "SELECT $number::text, $smalls::text, $bigs::text, $reals::text, $moments::text, to_json($texts)::text, "
    "$strings::text",
    {
        "number": wire.BIGINT,
        "smalls": wire.SMALLINT_ARRAY,
        "bigs": wire.BIGINT_ARRAY,
        "reals": wire.REAL_ARRAY,
        "moments": wire.TIMESTAMPTZ_ARRAY,
        "texts": wire.TEXT_ARRAY,
        "strings": wire.BYTEA_ARRAY,
    },
)
LENGTH = Statement.of("length", "SELECT length($bytes) / $divisor", {"bytes": wire.BYTEA, "divisor": wire.BIGINT})


def connected(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    async def whole() -> T:
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("SET timezone = 'UTC'")
            return await work(connection)

    return asyncio.run(whole())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.integers(-(2**15), 2**15 - 1), max_size=5),
    st.lists(
        st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))), max_size=5
    ),
)
def test_the_server_reads_what_was_encoded(
    postgres: str, number: int, smalls: list[int], texts: list[str | None]
) -> None:
    values = {
        "number": wire.bigint(number),
        "smalls": wire.smallints(np.array(smalls, np.int64)),
        "bigs": wire.bigints(np.array(smalls, np.int64) * 2**40),
        "reals": wire.reals(np.array(smalls, np.float32) / 4),
        "moments": wire.timestamps(np.array([0, 1_767_623_400_000_001])),
        "texts": wire.texts(texts),
        "strings": wire.byte_strings([b"\0a", None]),
    }

    async def work(connection: Connection) -> list[bytes | None]:
        await ECHO.prepare(connection)
        result = await ECHO.run(connection, values)
        return [result.get_value(0, column) for column in range(7)]

    def array(numbers: list[str]) -> str:
        return "{" + ",".join(numbers) + "}"

    found = [None if value is None else bytes(value).decode() for value in connected(postgres, work)]
    assert found[:3] == [str(number), array([str(one) for one in smalls]), array([str(one * 2**40) for one in smalls])]
    assert found[3] == array([f"{one / 4:g}" for one in smalls])
    assert found[4] == '{"1970-01-01 00:00:00+00","2026-01-05 14:30:00.000001+00"}'
    assert found[5] is not None
    assert json.loads(found[5]) == texts
    assert found[6] == '{"\\\\x0061",NULL}'


def test_a_statement_longer_than_the_socket_takes_at_once_is_sent_whole(postgres: str) -> None:
    async def work(connection: Connection) -> int:
        await LENGTH.prepare(connection)
        result = await LENGTH.run(connection, {"bytes": memoryview(bytes(32 << 20)), "divisor": wire.bigint(2)})
        return int.from_bytes(bytes(result.get_value(0, 0) or b""), "big")

    assert connected(postgres, work) == 16 << 20


def test_what_the_server_refuses_is_raised_and_the_connection_works_on(postgres: str) -> None:
    async def work(connection: Connection) -> int:
        await LENGTH.prepare(connection)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await LENGTH.run(connection, {"bytes": b"abcd", "divisor": wire.bigint(0)})
        with pytest.raises(psycopg.errors.UndefinedTable):
            await Statement.of("wrong", "SELECT FROM nowhere", {}).prepare(connection)
        result = await LENGTH.run(connection, {"bytes": b"abcd", "divisor": wire.bigint(1)})
        assert (await (await connection.execute("SELECT 7")).fetchone()) == (7,)
        return int.from_bytes(bytes(result.get_value(0, 0) or b""), "big")

    assert connected(postgres, work) == 4


def test_a_connection_that_the_server_ends_is_an_operational_error(postgres: str) -> None:
    sleep = Statement.of("sleep", "SELECT pg_sleep(30)::text", {})

    async def work(connection: Connection) -> None:
        await sleep.prepare(connection)
        asyncio.get_running_loop().call_later(0.2, terminate, connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            await sleep.run(connection, {})

    def terminate(backend: int) -> None:
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [backend])

    connected(postgres, work)
