from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import jwt
import orjson
import pytest

from app.service.revocation import revoke

pytestmark = pytest.mark.anyio

StartService = Callable[..., AbstractAsyncContextManager[Any]]
MATRICES = "/api/strategic/matrices"
BYTES = "/api/strategic/bytes"


def assert_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:grandmodel:problem:{kind}"
    assert document["status"] == status
    assert document["detail"]
    return document


async def test_probes_need_no_token_and_everything_else_does(start_service: StartService) -> None:
    async with start_service() as service:
        for path in ("/health", "/ready", "/metrics", "/api/strategic/health", "/openapi.json"):
            assert (await service.client.get(path)).status_code == 200
        for path in (MATRICES, BYTES, "/anything"):
            response = await service.client.post(path)
            assert_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")


async def test_routes_answer_those_who_are_permitted(start_service: StartService) -> None:
    async with start_service() as service:
        trader, viewer = service.headers("trader"), service.headers("viewer")
        response = await service.client.post(MATRICES, json={"data": [[1, 2.5]]}, headers=trader)
        assert response.json() == {"data": [[1.0, 2.5]]}
        assert (await service.client.post(BYTES, content=b"abc", headers=trader)).json() == {"bytes": 3}
        assert_problem(await service.client.post(MATRICES, json={"data": [[1]]}, headers=viewer), 403, "forbidden")
        assert_problem(await service.client.post(BYTES, content=b"abc", headers=viewer), 403, "forbidden")


async def test_in_production_changes_need_a_second_factor_and_reads_do_not(start_service: StartService) -> None:
    async with start_service(ENVIRONMENT="production") as service:
        weak, strong = service.headers(multi_factor=False), service.headers()
        assert_problem(await service.client.post(BYTES, content=b"a", headers=weak), 403, "multi-factor-required")
        response = await service.client.post(MATRICES, json={"data": [[1]]}, headers=weak)
        assert_problem(response, 403, "multi-factor-required")
        assert (await service.client.get("/api/strategic/slow?seconds=0", headers=weak)).status_code == 200
        assert (await service.client.post(BYTES, content=b"a", headers=strong)).status_code == 200


async def test_problems_point_to_the_offending_element(start_service: StartService) -> None:
    async with start_service() as service:
        response = await service.client.post(MATRICES, json={"data": [[1, 2], [3, "x"]]}, headers=service.headers())
        document = assert_problem(response, 422, "invalid-content")
        assert [error["pointer"] for error in document["errors"]] == ["/data/1/1"]
        response = await service.client.get("/api/strategic/slow?seconds=soon", headers=service.headers())
        assert assert_problem(response, 422, "invalid-content")["errors"][0]["pointer"] == "query seconds"


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "kind"),
    [
        ("GET", "/nowhere", None, {}, 404, "not-found"),
        ("DELETE", MATRICES, None, {}, 405, "method-not-allowed"),
        ("POST", MATRICES, b"{", {"Content-Type": "application/json"}, 400, "invalid-json"),
        ("POST", MATRICES, b"a=1", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        ("POST", MATRICES, b"{}", {"Content-Encoding": "br"}, 415, "unsupported-encoding"),
        ("POST", MATRICES, b"{}", {"Content-Encoding": "gzip"}, 400, "invalid-encoding"),
        ("POST", BYTES, b"x" * 100_001, {}, 413, "content-too-large"),
        ("GET", "/api/strategic/broken", None, {}, 500, "internal-error"),
    ],
)
async def test_every_refusal_is_a_problem_document(
    start_service: StartService,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
    kind: str,
) -> None:
    async with start_service() as service:
        response = await service.client.request(method, path, content=content, headers=service.headers() | headers)
        assert_problem(response, status, kind)
        assert "secret detail" not in response.text
        assert response.headers["x-request-id"] in response.text


async def test_compressed_bodies_are_read_and_bombs_are_refused(start_service: StartService) -> None:
    async with start_service() as service:
        headers = service.headers() | {"Content-Encoding": "gzip"}
        response = await service.client.post(BYTES, content=gzip.compress(b"x" * 5000), headers=headers)
        assert response.json() == {"bytes": 5000}
        bomb = gzip.compress(b"\0" * 50_000_000)
        assert_problem(await service.client.post(BYTES, content=bomb, headers=headers), 413, "content-too-large")
        truncated = gzip.compress(b"x" * 5000)[:-4]
        assert_problem(await service.client.post(BYTES, content=truncated, headers=headers), 400, "invalid-encoding")


async def test_a_body_is_counted_as_it_streams_in(start_service: StartService) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    async with start_service() as service:
        response = await service.client.post(BYTES, content=endless(), headers=service.headers())
        assert_problem(response, 413, "content-too-large")


async def test_large_bodies_are_held_within_one_budget(start_service: StartService) -> None:
    arrived = asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"x" * 90_000
        arrived.set()
        await asyncio.sleep(0.3)
        yield b"x"

    async def second_body() -> AsyncIterator[bytes]:
        yield b"x" * 45_000
        yield b"x" * 45_000

    async with start_service(BODY_MEMORY=150_000) as service:
        first = asyncio.create_task(service.client.post(BYTES, content=slow_body(), headers=service.headers()))
        await arrived.wait()
        await asyncio.sleep(0.05)
        crowded = await service.client.post(BYTES, content=second_body(), headers=service.headers())
        assert_problem(crowded, 503, "unavailable")
        assert (await first).status_code == 200
        assert (await service.client.post(BYTES, content=second_body(), headers=service.headers())).status_code == 200


async def test_a_request_that_takes_too_long_is_ended(start_service: StartService) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(5)
        yield b"x"

    async with start_service(REQUEST_TIMEOUT=0.2) as service:
        response = await service.client.post(BYTES, content=stalled(), headers=service.headers())
        assert_problem(response, 408, "request-timeout")
        response = await service.client.get("/api/strategic/slow?seconds=5", headers=service.headers())
        assert_problem(response, 408, "request-timeout")


async def test_the_rate_limit_answers_429_with_the_time_to_wait(start_service: StartService) -> None:
    async with start_service(RATE_LIMIT_PER_MINUTE=5) as service:
        path = "/api/strategic/slow?seconds=0"
        for _ in range(5):
            assert (await service.client.get(path, headers=service.headers())).status_code == 200
        response = await service.client.get(path, headers=service.headers())
        assert_problem(response, 429, "rate-limited")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await service.client.get(path, headers=service.headers(subject="another"))).status_code == 200


async def test_the_rate_limit_can_count_samples(start_service: StartService) -> None:
    async with start_service(RATE_LIMIT_PER_MINUTE=100, RATE_LIMIT_UNIT="samples") as service:
        assert (await service.client.post(BYTES, content=b"x" * 60, headers=service.headers())).status_code == 200
        response = await service.client.post(BYTES, content=b"x" * 60, headers=service.headers())
        assert_problem(response, 429, "rate-limited")


async def test_every_access_is_in_the_audit_log(start_service: StartService) -> None:
    async with start_service() as service:
        headers = service.headers("viewer", subject="alice") | {"X-Request-ID": "trace-1"}
        await service.client.post(BYTES, content=b"x", headers=headers)
        await service.client.get("/nowhere")
        await service.client.get("/health")
        service.runtime.audit.flush()
        lines = [orjson.loads(line) for line in service.log.getvalue().splitlines()]
    assert [(line["subject"], line["method"], line["path"], line["status"]) for line in lines] == [
        ("alice", "POST", BYTES, 403),
        ("-", "GET", "/nowhere", 401),
    ]
    assert lines[0]["request_id"] == "trace-1"
    assert lines[0]["client"]


async def test_no_request_is_taken_that_cannot_be_audited(
    start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_service() as service:
        monkeypatch.setattr("app.service.audit.MAXIMUM_BACKLOG", 0)
        assert_problem(await service.client.get("/nowhere", headers=service.headers()), 503, "unavailable")
        assert (await service.client.get("/ready")).json()["missing"] == {"audit": "the log cannot be written"}


async def test_without_the_database_changes_are_refused_at_once_and_readiness_names_it(
    start_service: StartService,
) -> None:
    async with start_service(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none") as service:
        started = time.monotonic()
        response = await service.client.post(BYTES, content=b"x", headers=service.headers())
        assert_problem(response, 503, "unavailable")
        response = await service.client.post(MATRICES, json={"data": [[1]]}, headers=service.headers())
        assert_problem(response, 503, "unavailable")
        assert response.headers["retry-after"] == "1"
        assert time.monotonic() - started < 0.5
        ready = await service.client.get("/ready")
        assert ready.status_code == 503
        assert list(ready.json()["missing"]) == ["database"]
        assert (await service.client.get("/health")).status_code == 200
        assert 'dependency_up{dependency="database"} 0.0' in (await service.client.get("/metrics")).text


async def test_without_the_cache_changes_are_refused_and_reads_go_on(start_service: StartService) -> None:
    async with start_service(REDIS_URL="redis://127.0.0.1:1") as service:
        assert_problem(await service.client.post(BYTES, content=b"x", headers=service.headers()), 503, "unavailable")
        response = await service.client.get("/api/strategic/slow?seconds=0", headers=service.headers())
        assert response.status_code == 200


async def test_a_revoked_token_is_refused(start_service: StartService) -> None:
    async with start_service() as service:
        headers = service.headers()
        path = "/api/strategic/slow?seconds=0"
        assert (await service.client.get(path, headers=headers)).status_code == 200
        claims = jwt.decode(headers["Authorization"].split()[1], options={"verify_signature": False})
        await revoke(service.runtime.cache, claims["jti"], claims["exp"])
        await service.runtime.revocation.refresh()
        assert_problem(await service.client.get(path, headers=headers), 401, "unauthorized")
        assert (await service.client.get(path, headers=service.headers())).status_code == 200


async def test_origins_from_the_settings_may_call_from_a_browser(start_service: StartService) -> None:
    async with start_service(CORS_ORIGINS="https://desk.example") as service:
        preflight = {"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
        response = await service.client.options(MATRICES, headers=preflight)
        assert response.headers["access-control-allow-origin"] == "https://desk.example"
        response = await service.client.options(MATRICES, headers=preflight | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


async def test_openapi_describes_hot_routes_refusals_and_the_token(start_service: StartService) -> None:
    async with start_service() as service:
        document = (await service.client.get("/openapi.json")).json()
    hot = document["paths"][BYTES]["post"]
    assert hot["security"] == [{"bearer": []}]
    assert {"200", "401", "413", "422", "429", "503"} <= set(hot["responses"])
    assert "security" not in document["paths"]["/health"]["get"]
    assert document["components"]["schemas"]["Problem"]["title"] == "Problem"


async def test_metrics_name_routes_by_their_template(start_service: StartService) -> None:
    async with start_service() as service:
        for number in range(3):
            await service.client.get(f"/unknown-{number}", headers=service.headers())
        await service.client.post(BYTES, content=b"x", headers=service.headers())
        text = (await service.client.get("/metrics")).text
    assert "unknown-1" not in text
    assert f'http_requests_total{{method="POST",route="{BYTES}",status="200"}}' in text
    assert "http_request_duration_seconds_bucket" in text
