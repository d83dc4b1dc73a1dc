"""The strategic service as its clients see it: a real process with two workers, a real database and cache."""

from __future__ import annotations

import asyncio
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql

from app.strategic.codec import ANSWER_RECORD, RECORD
from app.strategic.engine import Engine
from tests.app.strategic.conftest import PROCESS, StrategicServer

RNG = np.random.default_rng(11)
TABLES = ("samples", "uncertainty_data", "regime_data", "vector_patterns")
WHEN = "2026-01-05T14:30:00Z"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def body(matrix: np.ndarray[Any, Any] | None = None, timestamp: object = WHEN) -> dict[str, Any]:
    data = np.zeros((48, 13), np.float32) if matrix is None else matrix
    return {"market_data": {"timestamp": timestamp, "data": data.tolist()}}


def matrices(count: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal((count, 48, 13)).astype(np.float32)


def binary(values: np.ndarray[Any, Any]) -> bytes:
    records = np.empty(len(values), RECORD)
    records["timestamp"] = 1_767_623_400_000_000
    records["matrix"] = values
    return records.tobytes()


def counts(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        rows = {
            name: connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))) for name in TABLES
        }
        return {name: row[0] for name, cursor in rows.items() if (row := cursor.fetchone()) is not None}


def test_one_matrix_is_answered_and_stored_in_all_four_tables(
    server: StrategicServer, module_database: str, engine: Engine
) -> None:
    matrix = matrices(1)[0]
    before = counts(module_database)
    with server.client() as client:
        answer = client.post(PROCESS, json=body(matrix)).raise_for_status().json()
    assert counts(module_database) == {table: count + 1 for table, count in before.items()}
    expected = engine.process(matrix[None])
    assert list(answer["probabilities"].values()) == pytest.approx(expected.action_probabilities[0].tolist(), abs=6e-3)
    assert sum(answer["regime"]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    with psycopg.connect(module_database) as connection:
        stored = connection.execute(
            "SELECT s.matrix, m.matrix_data, u.confidence_level, r.regime_classification, p.pattern_vector::real[], "
            "d.decision, s.timestamp FROM samples s JOIN matrix_data m USING (id) JOIN uncertainty_data u USING (id) "
            "JOIN regime_data r USING (id) JOIN vector_patterns p USING (id) JOIN decisions d USING (id) WHERE id = %s",
            [answer["id"]],
        ).fetchone()
    assert stored is not None
    assert stored[0] == matrix.tobytes()
    np.testing.assert_array_equal(np.array(stored[1], np.float32), matrix)
    assert stored[2] == answer["confidence"]["level"]
    assert stored[3] == answer["regime"]["classification"]
    assert stored[4] == pytest.approx(answer["pattern"], abs=1e-6)
    assert stored[5] == answer["decision"]
    assert stored[6].isoformat() == "2026-01-05T14:30:00+00:00"


def test_everybody_gets_the_answer_to_his_own_matrix(server: StrategicServer, engine: Engine) -> None:
    asked = matrices(200)
    expected = engine.answers(asked)[:, 30:]

    async def ask_all() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", headers=server.headers(), timeout=60
        ) as client:
            answers = await asyncio.gather(*[client.post(PROCESS, json=body(matrix)) for matrix in asked])
        return [answer.raise_for_status().json() for answer in answers]

    answers = asyncio.run(ask_all())
    assert len({answer["id"] for answer in answers}) == 200
    for answer, pattern in zip(answers, expected, strict=True):
        assert answer["pattern"] == pytest.approx(pattern.tolist(), abs=6e-3)


def test_lists_and_binary_say_what_single_requests_say(server: StrategicServer) -> None:
    asked = matrices(5)
    with server.client() as client:
        listed = client.post(PROCESS, json=[body(matrix) for matrix in asked]).raise_for_status().json()
        headers = {"Content-Type": "application/octet-stream"}
        columns = client.post(PROCESS, content=binary(asked), headers=headers).raise_for_status().json()
        headers["Accept"] = "application/octet-stream"
        raw = client.post(PROCESS, content=binary(asked), headers=headers).raise_for_status()
    records = np.frombuffer(raw.content, ANSWER_RECORD)
    assert raw.headers["x-model-version"] == columns["model_version"] == listed[0]["model_version"]
    assert columns["count"] == len(records) == 5
    for row, answer in enumerate(listed):
        assert columns["pattern"][row] == pytest.approx(answer["pattern"], abs=6e-3)
        assert records["pattern"][row].tolist() == pytest.approx(answer["pattern"], abs=6e-3)


def test_a_retry_with_its_key_gets_the_same_answer_and_stores_nothing(
    server: StrategicServer, module_database: str
) -> None:
    asked = [body(matrix) for matrix in matrices(3)]
    with server.client() as client:
        first = client.post(PROCESS, json=asked, headers={"Idempotency-Key": "retry-1"}).raise_for_status()
        before = counts(module_database)
        second = client.post(PROCESS, json=asked, headers={"Idempotency-Key": "retry-1"}).raise_for_status()
        assert second.content == first.content
        assert second.headers["idempotent-replayed"] == "true"
        assert counts(module_database) == before
        other = client.post(PROCESS, json=asked[:1], headers={"Idempotency-Key": "retry-1"})
        assert (other.status_code, other.json()["type"]) == (422, "urn:grandmodel:problem:idempotency-key-reused")
    with server.client(subject="somebody else") as client:
        theirs = client.post(PROCESS, json=asked, headers={"Idempotency-Key": "retry-1"}).raise_for_status()
        assert theirs.json()[0]["id"] != first.json()[0]["id"]


def test_twenty_retries_at_once_store_one_sample(server: StrategicServer, module_database: str) -> None:
    before = counts(module_database)["samples"]

    def send(_: int) -> bytes:
        with server.client() as client:
            return client.post(PROCESS, json=body(), headers={"Idempotency-Key": "race"}).raise_for_status().content

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(send, range(20)))) == 1
    assert counts(module_database)["samples"] == before + 1


def test_one_bad_matrix_fails_alone(server: StrategicServer, module_database: str) -> None:
    before = counts(module_database)["samples"]

    async def send() -> list[int]:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", headers=server.headers(), timeout=60
        ) as client:
            bad = body()
            bad["market_data"]["data"][1] = bad["market_data"]["data"][1][:12]
            requests = [client.post(PROCESS, json=body() if n % 5 else bad) for n in range(40)]
            return [answer.status_code for answer in await asyncio.gather(*requests)]

    statuses = asyncio.run(send())
    assert (statuses.count(200), statuses.count(422)) == (32, 8)
    assert counts(module_database)["samples"] == before + 32


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"Content-Type": "text/csv"}, 415),
        (b"{}", {"Content-Type": "application/json", "Accept": "text/html"}, 406),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"x" * 2503, {"Content-Type": "application/octet-stream"}, 422),
        (b"", {"Content-Type": "application/octet-stream"}, 422),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "br"}, 415),
        (b"no gzip", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b" " * 200_000_000), {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 413),
        (json.dumps(body()).encode(), {"Content-Type": "application/json", "Idempotency-Key": "x" * 256}, 422),
        (json.dumps(body()).encode(), {"Content-Type": "application/json", "Idempotency-Key": ""}, 422),
    ],
    ids=["type", "accept", "json", "truncated", "empty", "encoding", "not-gzip", "gzip-bomb", "long-key", "empty-key"],
)
def test_bad_input_is_refused(server: StrategicServer, content: bytes, headers: dict[str, str], status: int) -> None:
    with server.client() as client:
        answer = client.post(PROCESS, content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        client.post(PROCESS, json=body()).raise_for_status()


def test_extreme_numbers_are_answered_or_refused_but_never_nan(server: StrategicServer) -> None:
    matrix = np.full((48, 13), 3e38, np.float32)
    with server.client() as client:
        answer = client.post(PROCESS, json=body(matrix))
    assert answer.status_code in {200, 422}
    assert "NaN" not in answer.text
    assert "null" not in answer.text


def test_gzip_is_taken(server: StrategicServer) -> None:
    with server.client() as client:
        content = gzip.compress(json.dumps(body()).encode())
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        client.post(PROCESS, content=content, headers=headers).raise_for_status()


def test_permissions(server: StrategicServer) -> None:
    with server.client("viewer") as viewer:
        assert viewer.post(PROCESS, json=body()).status_code == 403
        assert viewer.get("/api/strategic/decisions").status_code == 200
    assert httpx.post(f"http://127.0.0.1:{server.port}{PROCESS}", json=body()).status_code == 401
    assert httpx.get(f"http://127.0.0.1:{server.port}/api/strategic/decisions").status_code == 401


def test_a_stored_pattern_is_found_again(server: StrategicServer) -> None:
    with server.client() as client:
        answer = client.post(PROCESS, json=body(matrices(1)[0])).raise_for_status().json()
        query = {"pattern": answer["pattern"], "k": 3}
        matches = client.post("/api/strategic/patterns/search", json=query).raise_for_status().json()["matches"]
        assert matches[0]["id"] == answer["id"]
        assert matches[0]["distance"] < 1e-4
        assert matches[0]["metadata"]["decision"] == answer["decision"]
        assert [match["distance"] for match in matches] == sorted(match["distance"] for match in matches)
        wrong = client.post("/api/strategic/patterns/search", json={"pattern": [1, 2], "k": 0})
        assert [error["pointer"] for error in wrong.json()["errors"]] == ["/pattern", "/k"]


def test_decisions_are_paged_without_gap_or_repetition(server: StrategicServer) -> None:
    with server.client() as client:
        sent = [client.post(PROCESS, json=body(timestamp=f"2027-03-0{n + 1}T00:00:00Z")).json()["id"] for n in range(7)]
        seen: list[int] = []
        parameters: dict[str, Any] = {"limit": 3, "since": "2027-03-01T00:00:00Z", "until": "2027-03-08T00:00:00Z"}
        while True:
            page = client.get("/api/strategic/decisions", params=parameters).raise_for_status().json()
            seen += [decision["id"] for decision in page["decisions"]]
            if page["next_cursor"] is None:
                break
            parameters["cursor"] = page["next_cursor"]
        assert seen == sorted(sent, reverse=True)
        assert client.get("/api/strategic/decisions", params={"since": "2027-03-01T00:00:00"}).status_code == 422
        assert client.get("/api/strategic/decisions", params={"cursor": "x"}).status_code == 422
        only = client.get("/api/strategic/decisions", params={"decision": "HOLD"}).raise_for_status().json()
        assert {decision["decision"] for decision in only["decisions"]} <= {"HOLD"}


def test_the_series_tell_what_was_done(server: StrategicServer) -> None:
    with server.client() as client:
        client.post(PROCESS, json=[body() for _ in range(10)]).raise_for_status()
        text = client.get("/metrics").text
    for series in (
        "strategic_throughput",
        "strategic_samples_total",
        "strategic_latency_seconds_bucket",
        "strategic_queue_samples",
        "strategic_batch_samples_bucket",
        "strategic_commit_seconds_bucket",
        "strategic_regimes_total{regime=",
        "strategic_confidence_bucket",
        "strategic_input_drift_ratio",
        "strategic_model_info{",
    ):
        assert series in text, series


def test_the_hot_route_is_described(server: StrategicServer) -> None:
    with server.client() as client:
        document = client.get("/openapi.json").json()
    operation = document["paths"][PROCESS]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert {"200", "400", "401", "403", "413", "415", "422", "429", "503"} <= set(operation["responses"])
