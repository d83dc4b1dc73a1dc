from __future__ import annotations

import copy
import hashlib
from typing import Any

import httpx
import jwt
import numpy as np
import psycopg
import pytest
import torch

from app.service.tokens import mint_token

SECRET = "a secret of thirty-two bytes and more"


def window(seed: int = 1) -> list[list[Any]]:
    values: list[list[Any]] = np.random.default_rng(seed).uniform(-0.5, 0.5, (30, 7)).round(3).tolist()
    return values


def training(**changes: Any) -> dict[str, Any]:
    return {"training_data": {"episodes": 3, "data": window(), **changes}}


def observation(**changes: Any) -> dict[str, Any]:
    return {"market_data": {"timestamp": "2026-11-23T10:00:00Z", "data": window()}, **changes}


def assert_problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:grandmodel:problem:{kind}", document
    return document


def rows(server: Any, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.database_url) as connection:
        return connection.execute(query, values).fetchall()


def counts(server: Any) -> list[int]:
    tables = ("training_data", "model_versions", "agent_actions", "training_jobs", "access_audit")
    return [rows(server, f"SELECT count(*) FROM {table}")[0][0] for table in tables]  # noqa: S608


def test_a_training_is_committed_before_it_is_answered(tactical_server: Any) -> None:
    response = tactical_server.post("train", training())
    assert response.status_code == 200
    answer = response.json()
    version = answer["model_version"]
    assert answer["episodes"] == 3
    assert answer["steps"] == 90
    assert len(answer["policy_loss"]) == 3
    assert any(loss != 0 for loss in answer["policy_loss"])
    found = rows(
        tactical_server, "SELECT model_path, checksum, size_bytes FROM model_versions WHERE version = %s", version
    )
    (path, checksum, size) = found[0]
    content = (tactical_server.models / path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == checksum
    assert len(content) == size
    points = rows(
        tactical_server,
        "SELECT episode_number FROM training_data WHERE training_metrics ->> 'model_version' = %s ORDER BY 1",
        version,
    )
    assert [row[0] for row in points] == [1, 2, 3]
    audited = rows(tactical_server, "SELECT subject, action FROM access_audit WHERE resource = %s", version)
    assert audited == [("tester", "models.train")]


def test_the_same_seed_learns_the_same(tactical_server: Any) -> None:
    one, other = (tactical_server.post("train", training(seed=7)).json() for _ in range(2))
    assert one["return_after"] == other["return_after"]
    assert one["policy_loss"] == other["policy_loss"]
    assert one["model_version"] != other["model_version"]


def _with_cell(value: object) -> list[list[object]]:
    data = window()
    data[3][2] = value
    return data


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"data": []}, "/training_data/data"),
        ({"data": window()[:29]}, "/training_data/data"),
        ({"data": [*window(), window()[0]]}, "/training_data/data"),
        ({"data": [row[:6] if i == 4 else row for i, row in enumerate(window())]}, "/training_data/data/4"),
        ({"data": _with_cell("0.1")}, "/training_data/data/3/2"),
        ({"data": _with_cell(None)}, "/training_data/data/3/2"),
        ({"data": _with_cell(True)}, "/training_data/data/3/2"),
        ({"data": _with_cell([1])}, "/training_data/data/3/2"),
        ({"data": "AAAA"}, "/training_data/data"),
        ({"episodes": 0}, "/training_data/episodes"),
        ({"episodes": -1}, "/training_data/episodes"),
        ({"episodes": 1_000_000_000}, "/training_data/episodes"),
        ({"episodes": 10**30}, "/training_data/episodes"),
        ({"episodes": 2.5}, "/training_data/episodes"),
        ({"episodes": "10"}, "/training_data/episodes"),
        ({"seed": -1}, "/training_data/seed"),
        ({"unknown": 1}, "/training_data/unknown"),
    ],
)
def test_what_cannot_be_trained_on_is_pointed_to_and_nothing_is_stored(
    tactical_server: Any, changes: dict[str, Any], pointer: str
) -> None:
    before = counts(tactical_server)
    document = assert_problem(tactical_server.post("train", training(**changes)), 422, "invalid-content")
    assert pointer in [error["pointer"] for error in document["errors"]]
    assert counts(tactical_server) == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("path", ["train", "act"])
def test_numbers_that_are_not_finite_are_refused(tactical_server: Any, path: str, number: str) -> None:
    whole = training() if path == "train" else observation()
    member = "training_data" if path == "train" else "market_data"
    text = str(copy.deepcopy(whole)).replace("'", '"').replace(str(window()[3][2]), number)
    with tactical_server.client() as client:
        response = client.post(f"/api/tactical/{path}", content=text, headers={"Content-Type": "application/json"})
    document = assert_problem(response, 422, "invalid-content")
    assert document["errors"][0]["pointer"] == f"/{member}/data/3/2"


@pytest.mark.parametrize("document", [[], {}, None, 1, "text", {"training_data": None}, {"training_data": []}])
def test_what_is_no_training_at_all_is_refused(tactical_server: Any, document: object) -> None:
    assert_problem(tactical_server.post("train", document), 422, "invalid-content")


def test_a_body_of_101_megabytes_is_refused(tactical_server: Any) -> None:
    with tactical_server.client() as client:
        response = client.post(
            "/api/tactical/train", content=b" " * 101_000_000, headers={"Content-Type": "application/json"}
        )
        assert_problem(response, 413, "content-too-large")
        response = client.post(
            "/api/tactical/jobs",
            content=(b" " * 1_000_000 for _ in range(106)),
            headers={"Content-Type": "application/json"},
        )
        assert_problem(response, 413, "content-too-large")


@pytest.mark.parametrize(
    "token",
    [
        None,
        "nonsense",
        jwt.encode({"sub": "x", "roles": ["admin"]}, "", algorithm="none"),
        jwt.encode({"sub": "x", "roles": ["admin"]}, "w" * 32, algorithm="HS256"),
        mint_token(SECRET, subject="x", roles=["admin"], lifetime=-120.0),
        mint_token(SECRET, subject="x", roles=["admin"], issuer="another"),
        mint_token(SECRET, subject="x", roles=["admin"], audience="another"),
    ],
    ids=["none", "nonsense", "unsigned", "another key", "expired", "another issuer", "another audience"],
)
def test_without_a_valid_token_nothing_is_answered(tactical_server: Any, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for path in ("train", "act", "jobs"):
        url = f"http://127.0.0.1:{tactical_server.port}/api/tactical/{path}"
        assert_problem(httpx.post(url, json=training(), headers=headers), 401, "unauthorized")


def test_each_role_may_do_its_part(tactical_server: Any) -> None:
    assert_problem(tactical_server.post("train", training(), "viewer"), 403, "forbidden")
    assert_problem(tactical_server.post("train", training(), "trader"), 403, "forbidden")
    assert_problem(tactical_server.post("act", observation(), "viewer"), 403, "forbidden")
    assert_problem(tactical_server.post("models/rollback", {}, "quant"), 403, "forbidden")
    assert tactical_server.get("models", "viewer").status_code == 200


def test_agents_act_and_their_actions_are_committed(tactical_server: Any) -> None:
    version = tactical_server.post("train", training()).json()["model_version"]
    response = tactical_server.post("act", observation(version=version))
    assert response.status_code == 200
    answer = response.json()
    assert answer["model_version"] == version
    assert [action["agent"] for action in answer["actions"]] == ["tactical", "risk", "execution"]
    for action in answer["actions"]:
        assert sum(action["probabilities"]) == pytest.approx(1.0, abs=1e-5)
        assert action["action"] == int(np.argmax(action["probabilities"]))
        assert action["log_probability"] == pytest.approx(np.log(max(action["probabilities"])), abs=1e-5)
    stored = rows(
        tactical_server,
        "SELECT agent_type, action_data, timestamp FROM agent_actions "
        "WHERE action_data ->> 'model_version' = %s ORDER BY id",
        version,
    )
    assert [row[0] for row in stored] == ["tactical", "risk", "execution"]
    assert stored[0][1]["name"] == answer["actions"][0]["name"]
    assert stored[0][2].isoformat() == "2026-11-23T10:00:00+00:00"


def test_drawn_actions_repeat_with_a_seed(tactical_server: Any) -> None:
    version = tactical_server.post("train", training()).json()["model_version"]

    def draw(seed: int) -> list[int]:
        answer = tactical_server.post("act", observation(version=version, deterministic=False, seed=seed)).json()
        return [action["action"] for action in answer["actions"]]

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(12)}) > 1


@pytest.mark.parametrize(
    ("document", "status", "pointer"),
    [
        ({"market_data": {"data": window()[:5]}}, 422, "/market_data/data"),
        ({"market_data": {"data": _with_cell("x")}}, 422, "/market_data/data/3/2"),
        ({"market_data": {"data": window(), "timestamp": "yesterday"}}, 422, "/market_data/timestamp"),
        (observation(deterministic="yes"), 422, "/deterministic"),
        (observation(version="../../etc/passwd"), 422, "/version"),
    ],
)
def test_what_cannot_be_acted_on_is_pointed_to(
    tactical_server: Any, document: dict[str, Any], status: int, pointer: str
) -> None:
    problem = assert_problem(tactical_server.post("act", document), status, "invalid-content")
    assert problem["errors"][0]["pointer"] == pointer


def test_an_unknown_version_is_not_found(tactical_server: Any) -> None:
    assert_problem(tactical_server.post("act", observation(version="never-made")), 404, "unknown-model")
    assert_problem(tactical_server.post("models/never-made/activate", {}), 404, "unknown-model")


def test_a_corrupt_or_foreign_model_file_is_never_used(tactical_server: Any) -> None:
    version = tactical_server.post("train", training()).json()["model_version"]
    path = tactical_server.models / "models" / f"{version}.safetensors"
    size = path.stat().st_size
    for content in (path.read_bytes()[:-1] + b"x", path.read_bytes()[:1000], b"", b"PK\x03\x04 something else"):
        path.write_bytes(content)
        with psycopg.connect(tactical_server.database_url, autocommit=True) as connection:
            clone = f"{version}-{len(content)}"
            connection.execute(
                "INSERT INTO model_versions (version, model_type, model_path, checksum, size_bytes) "
                "SELECT %s, model_type, model_path, checksum, size_bytes FROM model_versions WHERE version = %s",
                (clone, version),
            )
            document = assert_problem(tactical_server.post("act", observation(version=clone)), 500, "model-unusable")
            assert "SHA-256" in document["detail"]
            assert_problem(tactical_server.post(f"models/{clone}/activate", {}), 500, "model-unusable")
            if len(content) == size:
                continue
            connection.execute(  # a file of another program, whole and with the right checksum
                "UPDATE model_versions SET checksum = %s WHERE version = %s",
                (hashlib.sha256(content).hexdigest(), clone),
            )
            document = assert_problem(tactical_server.post("act", observation(version=clone)), 500, "model-unusable")
            assert "safetensors" in document["detail"]


def test_versions_are_activated_and_rolled_back(tactical_server: Any) -> None:
    first, second = (tactical_server.post("train", training(seed=seed)).json()["model_version"] for seed in (1, 2))
    for version in (first, second):
        assert tactical_server.post(f"models/{version}/activate", {}).json()["version"] == version
        assert tactical_server.post("act", observation()).json()["model_version"] == version
    listed = tactical_server.get("models?limit=1").json()
    assert listed["active"] == second
    assert listed["models"][0]["active"]
    assert listed["next"] == listed["models"][0]["version"]
    assert tactical_server.get(f"models?limit=1&before={listed['next']}").json()["models"][0]["version"] == first
    back = tactical_server.post("models/rollback", {})
    assert back.json() == {"version": first, "previous": second}
    assert tactical_server.post("act", observation()).json()["model_version"] == first
    actions = rows(
        tactical_server, "SELECT action FROM access_audit WHERE action LIKE 'models.%%' ORDER BY id DESC LIMIT 3"
    )
    assert [row[0] for row in actions] == ["models.roll_back", "models.activate", "models.activate"]


def test_readiness_pushes_a_window_through_the_active_model(tactical_server: Any) -> None:
    response = tactical_server.client().get("/ready")
    assert response.status_code == 200
    health = tactical_server.client().get("/api/tactical/health").json()
    assert health["status"] == "ready"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_machine_without_a_gpu_says_so_once_and_trains_on_the_cpu(tactical_server: Any) -> None:
    version = tactical_server.post("train", training()).json()["model_version"]
    assert tactical_server.log.read_text().count("no GPU found: trainings run on the CPU") == 1
    (metrics,) = rows(tactical_server, "SELECT performance_metrics FROM model_versions WHERE version = %s", version)[0]
    assert metrics["device"] == "cpu"


def test_metrics_tell_of_trainings(tactical_server: Any) -> None:
    tactical_server.post("train", training())
    text = tactical_server.client().get("/metrics").text
    for series in (
        "tactical_training_time ",
        "tactical_training_steps_total ",
        'tactical_training_return{when="after"}',
        'tactical_training_loss{network="value"}',
        'tactical_training_queue_depth{kind="job"}',
        "tactical_process_memory_bytes",
        'dependency_up{dependency="database"} 1.0',
    ):
        assert series in text
