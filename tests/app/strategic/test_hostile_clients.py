"""What an enemy does to the running service: it stays within its memory and serves the others."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.app.strategic.conftest import PROCESS, StrategicServer, as_application
from tests.app.strategic.test_bad_input import BINARY, JSON, assert_served, post

GIBIBYTE = 1 << 30
MEMORY_LIMIT = int(1.2 * GIBIBYTE)


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: StrategicServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        token = server.headers()["Authorization"]
        head = f"POST {PROCESS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: {BINARY}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b"\0" * 0x100000 + b"\r\n"
        with contextlib.suppress(ConnectionError):  # refused while we still send
            for _ in range(110):
                connection.sendall(piece)
        answer = connection.recv(64)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert_served(server)


@pytest.mark.slow
def test_many_gzip_bombs_at_once_stay_within_the_memory_of_a_worker(server: StrategicServer) -> None:
    bomb = gzip.compress(b" " * 400_000_000)

    def throw(_: int) -> int:
        return post(server, bomb, **{"Content-Encoding": "gzip"}).status_code

    with ThreadPoolExecutor(16) as threads:
        statuses = set(threads.map(throw, range(48)))
    assert statuses <= {413, 503}
    assert 413 in statuses
    assert server.peak_memory() < MEMORY_LIMIT
    assert_served(server)


@pytest.fixture
def impatient_server(strategic_database: str, cache: str, tmp_path: Path) -> Iterator[StrategicServer]:
    """A service with one worker that waits two seconds for a request and holds 4 MB of bodies."""
    environment = {"REQUEST_TIMEOUT": "2", "BODY_MEMORY": "4000000"}
    running = StrategicServer(as_application(strategic_database), cache, tmp_path, environment=environment)
    running.start()
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()


@pytest.mark.slow
def test_a_body_that_dribbles_in_is_cut_off_in_time(impatient_server: StrategicServer) -> None:
    server = impatient_server
    token = server.headers()["Authorization"]
    head = (
        f"POST {PROCESS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: {JSON}\r\n"
        "Content-Length: 1000000\r\n\r\n"
    ).encode()

    async def dribble() -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        started = time.monotonic()
        writer.write(head)
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b" ")
                await writer.drain()
            await asyncio.wait([answer], timeout=0.1)
        writer.close()
        return answer.result(), time.monotonic() - started

    async def attack() -> list[tuple[bytes, float]]:
        dribbling = [asyncio.create_task(dribble()) for _ in range(200)]
        await asyncio.to_thread(assert_served, server)
        return await asyncio.gather(*dribbling)

    for line, seconds in asyncio.run(attack()):
        assert line.startswith(b"HTTP/1.1 408 ")
        assert seconds < 10
    assert_served(server)


@pytest.mark.slow
def test_clients_that_hold_back_large_bodies_cannot_fill_the_memory(impatient_server: StrategicServer) -> None:
    server = impatient_server
    token = server.headers()["Authorization"]
    head = (
        f"POST {PROCESS} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: {BINARY}\r\n"
        "Content-Length: 3000000\r\n\r\n"
    ).encode()

    async def hold_back() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(ConnectionError):
            writer.write(head + b"\0" * 2_900_000)
            await writer.drain()
        line = await reader.readline()
        writer.close()
        return line[:12]

    async def attack() -> set[bytes]:
        return set(await asyncio.gather(*[hold_back() for _ in range(100)]))

    assert asyncio.run(attack()) == {b"HTTP/1.1 408", b"HTTP/1.1 503"}
    assert server.peak_memory() < MEMORY_LIMIT / 2
    assert_served(server)


@pytest.fixture
def many_files() -> Iterator[int]:
    """Open files that this process may have, raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_ten_thousand_idle_and_slow_clients_do_not_stop_the_others(server: StrategicServer, many_files: int) -> None:
    assert many_files > 10_500, "raise the limit of open files: ulimit -n 20000"
    before = server.peak_memory()
    with contextlib.ExitStack() as idle:
        for number in range(10_000):
            connection = idle.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            if number % 100 == 0:
                connection.send(b"POST /api/strategic/process HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n")
        started = time.monotonic()
        for _ in range(20):
            assert_served(server)
        assert time.monotonic() - started < 20
        assert server.peak_memory() - before < 0.2 * GIBIBYTE
