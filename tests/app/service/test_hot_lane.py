"""An ordinary request to a hot route takes the short way, and nobody can tell by its answer."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.service import http_protocol
from app.service.http_protocol import LaneProtocol
from app.service.revocation import revoke
from ops.local.process import free_port

pytestmark = pytest.mark.anyio

StartService = Callable[..., AbstractAsyncContextManager[Any]]
PATH = "/api/strategic/bytes"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def took_the_lane(self) -> bool:
        return self.headers.get("x-way") == "lane"


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Reply(int(status.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))


@contextlib.asynccontextmanager
async def listening(application: Any, protocol: type[HttpToolsProtocol]) -> AsyncIterator[int]:
    """The port on which a real server serves ``application``."""
    port = free_port()
    config = uvicorn.Config(
        application, port=port, http=protocol, lifespan="off", log_config=None, proxy_headers=False
    )  # as `server.serve`
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server tells in no other way
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await serving


def request(
    headers: dict[str, str], body: bytes = b"abc", *, version: str = "1.1", path: str = PATH, method: str = "POST"
) -> bytes:
    lines = {"Host": "service", "Content-Type": "application/octet-stream", **headers}
    if "Transfer-Encoding" not in lines:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + body


async def ask(port: int, *pieces: bytes) -> Reply:
    """Send ``pieces`` apart, so that the server sees each by itself, and read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for place, piece in enumerate(pieces):
        if place:
            await asyncio.sleep(0.05)
        writer.write(piece)
        await writer.drain()
    try:
        return await read_reply(reader)
    finally:
        writer.close()


async def test_the_second_request_of_a_known_client_takes_the_lane(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        first, second = [await ask(port, request({**headers, "X-Request-ID": "mine"})) for _ in range(2)]
        assert (first.took_the_lane, second.took_the_lane) == (False, True)  # the token is verified once
        assert first.status == second.status == 200
        assert first.body == second.body == b'{"bytes":3}'
        assert second.headers["x-request-id"] == "mine"
        assert second.headers.keys() - first.headers.keys() == {"x-way"}
        assert first.headers.keys() <= second.headers.keys()
        service.runtime.audit.flush()
        lines = [orjson.loads(line) for line in service.log.getvalue().splitlines()]
        assert [(line["status"], line["path"], line["subject"]) for line in lines] == [(200, PATH, "tester")] * 2
        metrics = (await service.client.get("/metrics")).text
        assert re.search(rf'http_requests_total{{[^}}]*route="{PATH}",status="200"}} [2-9]', metrics)
        assert service.runtime.in_flight == 0


NOT_ORDINARY: dict[str, Callable[[Any], tuple[bytes, ...]]] = {
    "no token": lambda _s: (request({}),),
    "a token of another secret": lambda _s: (request({"Authorization": "Bearer a.b.c"}),),
    "a role that may not": lambda s: (request(s.headers("viewer")),),
    "a body above the limit": lambda s: (request(s.headers("trader"), b"a" * 100_001),),
    "a body in two pieces": lambda s: (request(s.headers("trader"), b"abcdef")[:-3], b"def"),
    "a head in two pieces": lambda s: (request(s.headers("trader"))[:30], request(s.headers("trader"))[30:]),
    "a body in chunks": lambda s: (
        request({**s.headers("trader"), "Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n0\r\n\r\n"),
    ),
    "a compressed body": lambda s: (
        request({**s.headers("trader"), "Content-Encoding": "gzip"}, gzip.compress(b"abc")),
    ),
    "no gzip": lambda s: (request({**s.headers("trader"), "Content-Encoding": "gzip"}, b"abc"),),
    "another origin": lambda s: (request({**s.headers("trader"), "Origin": "https://elsewhere"}),),
    "a connection for one request": lambda s: (request({**s.headers("trader"), "Connection": "close"}),),
    "HTTP/1.0": lambda s: (request(s.headers("trader"), version="1.0"),),
    "a query": lambda s: (request(s.headers("trader"), path=f"{PATH}?a=b"),),
    "another method": lambda s: (request(s.headers("trader"), method="PUT"),),
    "what the route itself leaves alone": lambda s: (request(s.headers("trader"), b"a,b"),),
}


@pytest.mark.parametrize("name", NOT_ORDINARY)
async def test_what_is_not_ordinary_is_answered_as_without_the_lane(start_service: StartService, name: str) -> None:
    async with (
        start_service() as service,
        listening(service.application, LaneProtocol) as with_lane,
        listening(service.application, HttpToolsProtocol) as without,
    ):
        await ask(with_lane, request(service.headers("trader")))  # tokens of this kind are known from now on
        pieces = NOT_ORDINARY[name](service)
        one, other = await ask(with_lane, *pieces), await ask(without, *pieces)
        assert one.status == other.status
        assert re.sub(b"urn:request:[0-9a-f]+", b"", one.body) == re.sub(b"urn:request:[0-9a-f]+", b"", other.body)
        assert one.headers.keys() - {"x-way"} == other.headers.keys()
        assert service.runtime.in_flight == 0


async def test_the_limit_of_a_client_is_exact_on_both_ways_together(start_service: StartService) -> None:
    async with (
        start_service(RATE_LIMIT_PER_MINUTE="40") as service,
        listening(service.application, LaneProtocol) as port,
    ):
        headers = service.headers("trader")
        bodies = [b"abc" if number % 3 else b"a,b" for number in range(60)]  # every third is left to the edge
        statuses = [(await ask(port, request(headers, body))).status for body in bodies]
        assert statuses == [200] * 40 + [429] * 20


async def test_a_revoked_token_is_refused_on_the_lane_too(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        replies = [await ask(port, request(headers)) for _ in range(2)]
        assert replies[1].took_the_lane
        principal = service.runtime.verifier.cached(headers["Authorization"].encode())
        await revoke(service.runtime.cache, principal.token_id, principal.expires_at)
        await service.runtime.revocation.refresh()
        assert (await ask(port, request(headers))).status == 401


async def test_while_the_database_is_away_the_lane_takes_nothing(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        await ask(port, request(headers))
        service.runtime.database.available = False
        reply = await ask(port, request(headers))
        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"


async def test_requests_sent_at_once_on_one_connection_are_answered_in_order(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        await ask(port, request(headers))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bodies = [b"later", b"a", b"a,b", b"later", b"ab", b"abc"]
        writer.write(b"".join(request(headers, body) for body in bodies))
        replies = [await read_reply(reader) for _ in bodies]
        assert [orjson.loads(reply.body)["bytes"] for reply in replies] == [len(body) for body in bodies]
        assert replies[0].took_the_lane
        writer.close()


async def test_a_body_that_comes_in_pieces_takes_the_lane_unless_it_is_slow(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        await ask(port, request(headers))
        whole = request(headers, b"a" * 90_000)
        prompt = await ask(port, whole[:40_000], whole[40_000:80_000], whole[80_000:])
        assert (prompt.status, prompt.took_the_lane) == (200, True)
        slow = await ask(port, *[whole[start : start + 9_050] for start in range(0, len(whole), 9_050)])
        assert (slow.status, slow.took_the_lane) == (200, False)
        assert prompt.body == slow.body == b'{"bytes":90000}'
        assert http_protocol._Held.together == 0


async def test_a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_held(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        await ask(port, request(headers))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(headers, b"a" * 50_000)[:30_000])
        await writer.drain()
        async with asyncio.timeout(5):
            while http_protocol._Held.together == 0:  # noqa: ASYNC110 - until the server holds it
                await asyncio.sleep(0.002)
            writer.close()
            while http_protocol._Held.together:  # noqa: ASYNC110 - until it has noticed
                await asyncio.sleep(0.002)


async def test_a_client_that_leaves_costs_nothing_more(start_service: StartService) -> None:
    async with start_service() as service, listening(service.application, LaneProtocol) as port:
        headers = service.headers("trader")
        await ask(port, request(headers))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(headers, b"later"))
        await writer.drain()
        while service.runtime.in_flight == 0:  # noqa: ASYNC110 - until the server has begun it
            await asyncio.sleep(0.005)
        writer.close()
        async with asyncio.timeout(5):
            while service.runtime.in_flight:  # noqa: ASYNC110 - until its answer has gone nowhere
                await asyncio.sleep(0.005)
        service.runtime.audit.flush()
        assert orjson.loads(service.log.getvalue().splitlines()[-1])["status"] == 499


async def test_a_server_that_stops_answers_what_it_has_begun(start_service: StartService) -> None:
    async with start_service() as service:
        async with listening(service.application, LaneProtocol) as port:
            headers = service.headers("trader")
            await ask(port, request(headers))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request(headers, b"later"))
            await writer.drain()
            while service.runtime.in_flight == 0:  # noqa: ASYNC110 - until the server has begun it
                await asyncio.sleep(0.005)
        reply = await read_reply(reader)
        assert reply.took_the_lane
        assert reply.headers["connection"] == "close"
        assert await reader.read() == b""
        writer.close()
