"""What a broken client sends to the running service: a 4xx that points to the mistake, and service for the others."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from app.strategic.codec import RECORD
from tests.app.strategic.conftest import PROCESS, StrategicServer

WHEN = "2026-01-05T14:30:00Z"
JSON = "application/json"
BINARY = "application/octet-stream"

Data = list[list[Any]]


def zeros() -> Data:
    return [[0.0] * 13 for _ in range(48)]


def with_cell(value: object) -> Data:
    data = zeros()
    data[7][3] = value
    return data


def document(data: object = None, timestamp: object = WHEN) -> dict[str, Any]:
    return {"market_data": {"timestamp": timestamp, "data": zeros() if data is None else data}}


def records(count: int = 1) -> np.ndarray[Any, Any]:
    made = np.zeros(count, RECORD)
    made["timestamp"] = 1_767_623_400_000_000
    return made


def post(server: StrategicServer, content: bytes, content_type: str = JSON, **headers: str) -> httpx.Response:
    with server.client() as client:
        return client.post(PROCESS, content=content, headers={"Content-Type": content_type, **headers})


def assert_refused(answer: httpx.Response, status: int, *pointers: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem["status"] == status
    assert [error["pointer"] for error in problem.get("errors", [])] == list(pointers)


def assert_served(server: StrategicServer) -> None:
    post(server, json.dumps(document()).encode()).raise_for_status()


RAGGED = zeros()
RAGGED[47] = RAGGED[47][:12]


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (RAGGED, "/market_data/data/47"),
        ([*zeros(), [0.0] * 13], "/market_data/data"),
        (zeros()[:47], "/market_data/data"),
        ([], "/market_data/data"),
        ([0.0] * 624, "/market_data/data"),
        (None, "/market_data/data"),
        ("a string", "/market_data/data"),
        (with_cell("1.0"), "/market_data/data/7/3"),
        (with_cell(None), "/market_data/data/7/3"),
        (with_cell(True), "/market_data/data/7/3"),
        (with_cell([1.0]), "/market_data/data/7/3"),
        (with_cell({}), "/market_data/data/7/3"),
        (with_cell(1e308), "/market_data/data/7/3"),
        (with_cell(-1e308), "/market_data/data/7/3"),
        (with_cell(10**400), "/market_data/data/7/3"),
    ],
    ids=[
        "ragged", "a bar too many", "a bar too few", "empty", "flat", "null", "no list", "text cell", "null cell",
        "boolean cell", "list cell", "object cell", "1e308", "-1e308", "huge integer",
    ],
)  # fmt: skip
def test_a_wrong_matrix_is_pointed_to(server: StrategicServer, data: object, pointer: str) -> None:
    content = json.dumps({"market_data": {"timestamp": WHEN, "data": data}}).encode()
    answer = post(server, content)
    if answer.status_code == 400:  # a JSON library may refuse the number itself
        assert data == with_cell(10**400)
        assert_refused(answer, 400)
    else:
        assert_refused(answer, 422, pointer)
    listed = json.dumps([document(), document(data)] if data is not None else [document(), json.loads(content)])
    answer = post(server, listed.encode())
    if answer.status_code != 400:
        assert_refused(answer, 422, f"/1{pointer}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_of_json_is_no_json(server: StrategicServer, value: float) -> None:
    assert_refused(post(server, json.dumps(document(with_cell(value))).encode()), 400)


@pytest.mark.parametrize(
    "timestamp",
    [
        None, True, 1.5, "", "yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z", -1, 10**18, [], {},
        "9" * 10_000,
    ],
    ids=[
        "null", "boolean", "fraction", "empty", "word", "month 13", "year 1", "negative", "huge", "list", "object",
        "long",
    ],
)  # fmt: skip
def test_an_absurd_timestamp_is_pointed_to(server: StrategicServer, timestamp: object) -> None:
    content = json.dumps({"market_data": {"timestamp": timestamp, "data": zeros()}}).encode()
    assert_refused(post(server, content), 422, "/market_data/timestamp")


def test_equal_timestamps_are_samples_of_their_own(server: StrategicServer, module_database: str) -> None:
    """Several instruments share a bar's time: the service must not guess that one of them is a mistake."""
    answer = post(server, json.dumps([document(), document()]).encode()).raise_for_status().json()
    ids = [sample["id"] for sample in answer]
    with psycopg.connect(module_database) as connection:
        stored = connection.execute("SELECT count(DISTINCT id) FROM samples WHERE id = ANY(%s)", [ids]).fetchone()
    assert stored == (2,)


@pytest.mark.parametrize(
    ("content", "status", "pointers"),
    [
        (b"", 400, []),
        (b"null", 422, [""]),
        (b"[]", 422, [""]),
        (b"[null]", 422, ["/0"]),
        (b"{}", 422, ["/market_data"]),
        (b'{"market_data": []}', 422, ["/market_data"]),
        (b"\xff\xfe{}", 400, []),
        (b'{"market_data":', 400, []),
        (b"[" * 100_000, 400, []),
        (b"[" * 100_000 + b"]" * 100_000, 400, []),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, []),
    ],
    ids=[
        "empty", "null", "no items", "null item", "no member", "list member", "not UTF-8", "cut off", "open brackets",
        "nested lists", "nested objects",
    ],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(
    server: StrategicServer, content: bytes, status: int, pointers: list[str]
) -> None:
    assert_refused(post(server, content), status, *pointers)
    assert_served(server)


@pytest.mark.parametrize(
    "change", [-2504, -1, 1, 2503], ids=["nothing", "truncated", "oversized", "half a record more"]
)
def test_binary_bodies_are_whole_records(server: StrategicServer, change: int) -> None:
    content = records().tobytes()
    content = content[:change] if change < 0 else content + b"\0" * change
    assert_refused(post(server, content, BINARY), 422, "")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_binary_cell_that_is_not_finite_is_pointed_to(server: StrategicServer, value: float) -> None:
    made = records(3)
    made["matrix"][2, 7, 3] = value
    assert_refused(post(server, made.tobytes(), BINARY), 422, "/2/data/7/3")


@pytest.mark.parametrize("timestamp", [-1, 2**62, -(2**63)])
def test_an_absurd_binary_timestamp_is_pointed_to(server: StrategicServer, timestamp: int) -> None:
    made = records(2)
    made["timestamp"][1] = timestamp
    assert_refused(post(server, made.tobytes(), BINARY), 422, "/1/timestamp")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "multipart/form-data", "", "application/jsonp"]
)
def test_another_content_type_is_refused(server: StrategicServer, content_type: str) -> None:
    assert_refused(post(server, json.dumps(document()).encode(), content_type), 415)
