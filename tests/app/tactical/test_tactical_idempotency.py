"""A client that repeats a change because the answer was lost gets that answer, and the change happens once."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import psycopg
import pytest

from app.contract import Service
from ops.maintain import Tasks, maintain

WINDOW = np.random.default_rng(1).uniform(-0.5, 0.5, (30, 7)).round(3).tolist()
TRAINING = {"training_data": {"episodes": 2, "data": WINDOW}}
JOB = {"simulation": {"bars": 400, "seed": 1}, "episodes": 64}


def new_key() -> str:
    return f"retry-{uuid4().hex}"


def post(server: Any, path: str, document: object, key: str, subject: str = "tester") -> httpx.Response:
    with server.client(subject=subject) as client:
        answer: httpx.Response = client.post(
            f"/api/tactical/{path}", json=document, headers={"Idempotency-Key": key}, timeout=60.0
        )
    return answer


def count(server: Any, query: str, *values: object) -> int:
    with psycopg.connect(server.database_url) as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


def versions(server: Any) -> int:
    return count(server, "SELECT count(*) FROM model_versions")


def model_files(server: Any) -> set[Path]:
    return {file for file in (server.models / "models").glob("*") if file.is_file()}


def test_a_repeated_training_is_answered_with_the_first_and_trains_no_second(tactical_server: Any) -> None:
    key = new_key()
    first = post(tactical_server, "train", TRAINING, key)
    before, files = versions(tactical_server), model_files(tactical_server)
    second = post(tactical_server, "train", TRAINING, key)
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert versions(tactical_server) == before
    assert model_files(tactical_server) == files
    version = first.json()["model_version"]
    assert count(tactical_server, "SELECT count(*) FROM access_audit WHERE resource = %s", version) == 1


def test_without_a_key_a_repetition_trains_again(tactical_server: Any) -> None:
    first, second = (tactical_server.post("train", TRAINING).json() for _ in range(2))
    assert first["model_version"] != second["model_version"]


def test_a_repeated_job_is_queued_once(tactical_server: Any) -> None:
    key = new_key()
    first = post(tactical_server, "jobs", JOB, key)
    assert first.status_code == 202
    tactical_server.wait_for_job(first.json()["id"], "succeeded")
    second = post(tactical_server, "jobs", JOB, key)
    assert (second.status_code, second.content) == (202, first.content)
    assert second.headers["idempotent-replayed"] == "true"
    assert count(tactical_server, "SELECT count(*) FROM training_jobs WHERE id = %s", first.json()["id"]) == 1


def test_a_repeated_rollback_goes_back_one_version_and_not_two(tactical_server: Any) -> None:
    one, two, three = (tactical_server.post("train", TRAINING).json()["model_version"] for _ in range(3))
    for version in (one, two, three):
        assert post(tactical_server, f"models/{version}/activate", {}, new_key()).status_code == 200
    key = new_key()
    first = post(tactical_server, "models/rollback", {}, key)
    second = post(tactical_server, "models/rollback", {}, key)
    assert first.json() == second.json() == {"version": two, "previous": three}
    assert tactical_server.get("models").json()["active"] == two


@pytest.mark.parametrize(
    ("path", "document"),
    [("train", {"training_data": {"episodes": 1, "data": WINDOW}}), ("jobs", JOB), ("models/rollback", {})],
    ids=["another body", "another route", "a route without a body"],
)
def test_a_key_that_came_with_another_request_is_refused(tactical_server: Any, path: str, document: object) -> None:
    key = new_key()
    assert post(tactical_server, "train", TRAINING, key).status_code == 200
    answer = post(tactical_server, path, document, key)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:grandmodel:problem:idempotency-key-reused"


def test_another_clients_key_is_its_own(tactical_server: Any) -> None:
    key = new_key()
    mine, theirs = (post(tactical_server, "train", TRAINING, key, subject) for subject in ("one", "other"))
    assert mine.json()["model_version"] != theirs.json()["model_version"]
    assert "idempotent-replayed" not in theirs.headers


def test_a_refused_request_leaves_its_key_free(tactical_server: Any) -> None:
    key = new_key()
    assert post(tactical_server, "train", {"training_data": {"episodes": 0, "data": WINDOW}}, key).status_code == 422
    assert post(tactical_server, "train", TRAINING, key).status_code == 200


@pytest.mark.parametrize("key", ["", '""', "x" * 256, b"a\xadb", b"\xa0"])
def test_a_key_that_is_none_is_refused_and_nothing_is_trained(tactical_server: Any, key: str | bytes) -> None:
    before = versions(tactical_server)
    with tactical_server.client() as client:
        answer = client.post(
            "/api/tactical/train",
            content=json.dumps(TRAINING),
            headers=[(b"Content-Type", b"application/json"), (b"Idempotency-Key", key)],
        )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == "header Idempotency-Key"
    assert versions(tactical_server) == before


@pytest.mark.parametrize(("path", "document", "status"), [("train", TRAINING, 200), ("jobs", JOB, 202)])
def test_requests_at_the_same_time_with_one_key_change_once(
    tactical_server: Any, path: str, document: object, status: int
) -> None:
    key, before = new_key(), versions(tactical_server)
    jobs = count(tactical_server, "SELECT count(*) FROM training_jobs")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(tactical_server, path, document, key), range(8)))
    assert {answer.status_code for answer in answers} == {status}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    if path == "train":
        assert versions(tactical_server) == before + 1
    else:
        assert count(tactical_server, "SELECT count(*) FROM training_jobs") == jobs + 1
        tactical_server.wait_for_job(answers[0].json()["id"], "succeeded")


def test_two_replicas_asked_at_the_same_time_keep_one_model(
    new_database: Any, cache: str, tmp_path: Path, tactical_server_class: Any
) -> None:
    url = new_database(Service.TACTICAL)
    replicas = [tactical_server_class(url, cache, tmp_path) for _ in range(2)]
    try:
        for replica in replicas:
            replica.start()
        for _ in range(5):
            key, before = new_key(), versions(replicas[0])
            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(lambda replica, key=key: post(replica, "train", TRAINING, key), replicas))
            assert [answer.status_code for answer in answers] == [200, 200]
            assert answers[0].content == answers[1].content
            assert versions(replicas[0]) == before + 1
            assert len(model_files(replicas[0])) == before + 1, "the model that came second was removed"
    finally:
        for replica in replicas:
            replica.kill()


def test_a_key_is_forgotten_a_day_later_and_no_sooner(tactical_server: Any) -> None:
    old, young = new_key(), new_key()
    for key in (old, young):
        assert post(tactical_server, "train", TRAINING, key).status_code == 200
    with psycopg.connect(tactical_server.database_url) as connection:
        for key, age in ((old, "24 hours 1 minute"), (young, "23 hours 59 minutes")):
            connection.execute(
                "UPDATE idempotency_keys SET created_at = now() - %s::interval WHERE key = %s", (age, key)
            )
    report = maintain(tactical_server.database_url, Service.TACTICAL, Tasks(vacuum=False), dry_run=False)
    assert report.idempotency_keys_expired == 1
    assert post(tactical_server, "train", TRAINING, young).headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in post(tactical_server, "train", TRAINING, old).headers


@pytest.mark.slow
def test_a_client_that_retries_through_kills_has_one_model_a_key(
    new_database: Any, cache: str, tmp_path: Path, tactical_server_class: Any
) -> None:
    """``kill -9`` at moments spread over the training and its commit; the client repeats until it is answered."""
    server = tactical_server_class(new_database(Service.TACTICAL), cache, tmp_path)
    server.start()
    random = np.random.default_rng(2)
    answered: dict[str, str] = {}
    try:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(10):
                key = new_key()
                asked = pool.submit(_retry, server, key)
                time.sleep(float(random.uniform(0.0, 0.25)))
                server.kill()
                server.start()
                answered[key] = asked.result(timeout=90)
        for key, version in answered.items():
            assert post(server, "train", TRAINING, key).json()["model_version"] == version
        assert versions(server) == len(answered)
        assert server.post("act", {"market_data": {"data": WINDOW}, "version": version}).status_code == 200
    finally:
        server.kill()


def _retry(server: Any, key: str) -> str:
    while True:
        try:
            answer = post(server, "train", TRAINING, key)
        except httpx.TransportError:
            time.sleep(0.02)
            continue
        if answer.status_code == 200:
            return str(answer.json()["model_version"])
        assert answer.status_code in {503, 408}, answer.text
        time.sleep(0.05)


def test_the_document_tells_of_the_key(tactical_server: Any) -> None:
    paths = tactical_server.client().get("/openapi.json").json()["paths"]
    for path, status in (("train", "200"), ("jobs", "202"), ("models/{version}/activate", "200")):
        operation = paths[f"/api/tactical/{path}"]["post"]
        header = next(parameter for parameter in operation["parameters"] if parameter["name"] == "Idempotency-Key")
        assert (header["in"], header["required"], header["schema"]["maxLength"]) == ("header", False, 255)
        assert "Idempotent-Replayed" in operation["responses"][status]["headers"]
