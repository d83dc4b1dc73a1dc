from __future__ import annotations

import time
from typing import Any

import numpy as np
import psycopg
import pytest

from app.market.bars import Bars
from app.market.simulator import simulate


def job(**changes: Any) -> dict[str, Any]:
    return {"simulation": {"bars": 400, "seed": 1}, "episodes": 256, **changes}


def bars(count: int = 400) -> dict[str, list[Any]]:
    made: Bars = simulate(series=1, length=count, seed=3).bars.series(0)
    columns = {name: getattr(made, name).tolist() for name in ("open", "high", "low", "close", "volume")}
    return {"time": np.datetime_as_string(made.time, unit="s", timezone="UTC").tolist(), **columns}


def queue(server: Any, document: dict[str, Any], subject: str = "tester") -> str:
    response = server.post("jobs", document, subject=subject)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def events(server: Any, job_id: str, last_seen: str | None = None) -> list[tuple[int, str]]:
    headers = {} if last_seen is None else {"Last-Event-ID": last_seen}
    found: list[tuple[int, str]] = []
    number = 0
    with (
        server.client() as client,
        client.stream("GET", f"/api/tactical/jobs/{job_id}/events", headers=headers) as lines,
    ):
        assert lines.headers["content-type"].startswith("text/event-stream")
        for line in lines.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            if line.startswith("event: "):
                found.append((number, line[7:]))
    return found


def test_a_job_trains_and_its_model_acts(tactical_server: Any) -> None:
    job_id = queue(tactical_server, job())
    done = tactical_server.wait_for_job(job_id, "succeeded")
    assert done["progress"]["episodes"] >= 256
    version = done["model_version"]
    models = tactical_server.get("models").json()["models"]
    metrics = next(model["performance_metrics"] for model in models if model["version"] == version)
    assert metrics["kind"] == "bars"
    assert metrics["return_before"] != metrics["return_after"]
    assert tactical_server.post(f"models/{version}/activate", {}).status_code == 200


def test_bars_of_the_client_are_trained_on(tactical_server: Any) -> None:
    job_id = queue(tactical_server, {"bars": bars(), "episodes": 256})
    assert tactical_server.wait_for_job(job_id, "succeeded")["parameters"]["source"] == "bars"


def test_a_stream_of_events_goes_on_where_it_broke_off(tactical_server: Any) -> None:
    job_id = queue(tactical_server, job(episodes=1024))
    whole = events(tactical_server, job_id)
    names = [name for _, name in whole]
    assert names[:2] == ["queued", "started"]
    assert names[-1] == "succeeded"
    assert "progress" in names
    assert events(tactical_server, job_id, str(whole[1][0])) == whole[2:]
    with tactical_server.client() as client:
        response = client.get(f"/api/tactical/jobs/{job_id}/events", headers={"Last-Event-ID": "-1"})
    assert response.status_code == 400


def test_a_running_job_is_cancelled_and_leaves_nothing(tactical_server: Any) -> None:
    before = len(tactical_server.get("models?limit=200").json()["models"])
    job_id = queue(tactical_server, job(episodes=500_000))
    tactical_server.wait_for_job(job_id, "running")
    assert tactical_server.post(f"jobs/{job_id}/cancel", {}).status_code == 202
    done = tactical_server.wait_for_job(job_id, "cancelled")
    assert done["model_version"] is None
    assert len(tactical_server.get("models?limit=200").json()["models"]) == before
    assert not list((tactical_server.models / "checkpoints").rglob(f"{job_id}/*"))
    again = tactical_server.post(f"jobs/{job_id}/cancel", {})
    assert again.json()["state"] == "cancelled"


def test_clients_take_turns_whoever_queued_more(tactical_server: Any) -> None:
    blocker = queue(tactical_server, job(episodes=500_000), "blocker")
    tactical_server.wait_for_job(blocker, "running")
    greedy = [queue(tactical_server, job(), "greedy") for _ in range(3)]
    modest = queue(tactical_server, job(), "modest")
    tactical_server.post(f"jobs/{blocker}/cancel", {})
    for job_id in (*greedy, modest):
        tactical_server.wait_for_job(job_id, "succeeded")
    with psycopg.connect(tactical_server.database_url) as connection:
        order = connection.execute(
            "SELECT client FROM training_jobs WHERE client IN ('greedy', 'modest') ORDER BY turn_started_at"
        ).fetchall()
    assert [row[0] for row in order] == ["greedy", "modest", "greedy", "greedy"]


def test_short_trainings_and_decisions_are_answered_while_a_job_runs(tactical_server: Any) -> None:
    window = np.zeros((30, 7)).tolist()
    job_id = queue(tactical_server, job(episodes=500_000))
    tactical_server.wait_for_job(job_id, "running")
    trained = tactical_server.post("train", {"training_data": {"episodes": 1, "data": window}})
    assert trained.status_code == 200
    acted = tactical_server.post("act", {"market_data": {"data": window}, "version": trained.json()["model_version"]})
    assert acted.status_code == 200
    assert tactical_server.get(f"jobs/{job_id}").json()["state"] == "running"
    tactical_server.post(f"jobs/{job_id}/cancel", {})
    tactical_server.wait_for_job(job_id, "cancelled")


def test_a_client_sees_its_own_jobs_only(tactical_server: Any) -> None:
    job_id = queue(tactical_server, job(), "owner")
    assert tactical_server.get(f"jobs/{job_id}", "quant", subject="owner").status_code == 200
    assert tactical_server.get(f"jobs/{job_id}", "quant", subject="stranger").status_code == 404
    assert tactical_server.post(f"jobs/{job_id}/cancel", {}, "quant", subject="stranger").status_code == 404
    assert tactical_server.get("jobs", "quant", subject="stranger").json()["jobs"] == []
    listed = tactical_server.get("jobs?limit=1", "quant", subject="owner").json()
    assert [entry["id"] for entry in listed["jobs"]] == [job_id]
    tactical_server.wait_for_job(job_id, "succeeded")


def _bars_with(**columns: list[Any]) -> dict[str, Any]:
    return {"bars": {**bars(), **columns}}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({}, ""),
        (job(episodes=0), "/episodes"),
        (job(episodes=1_000_000_000), "/episodes"),
        (job(simulation={"bars": 5}), "/simulation/bars"),
        (job(bars=bars()), ""),
        ({"bars": bars(40)}, "/bars"),
        (_bars_with(close=[1.0] * 399), "/bars"),
        (_bars_with(high=[0.5] * 400), "/bars"),
        (_bars_with(volume=[-1.0] * 400), "/bars/volume/0"),
        (_bars_with(close=[0.0] * 400), "/bars/close/0"),
        (_bars_with(open=["1.0"] * 400), "/bars/open/0"),
        (_bars_with(time=bars()["time"][::-1]), "/bars"),
        (_bars_with(time=["soon"] * 400), "/bars/time/0"),
        (_bars_with(time=[1e300] * 400), "/bars/time/0"),
    ],
)
def test_bars_that_cannot_be_true_are_refused(tactical_server: Any, document: dict[str, Any], pointer: str) -> None:
    response = tactical_server.post("jobs", document)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer


def test_a_stopped_service_gives_its_job_back_and_another_goes_on(tactical_server: Any) -> None:
    job_id = queue(tactical_server, job(episodes=1536))
    tactical_server.wait_for_job(job_id, "running")
    deadline = time.monotonic() + 30
    while not tactical_server.get(f"jobs/{job_id}").json()["progress"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert tactical_server.stop() in {0, -15}
    with psycopg.connect(tactical_server.database_url) as connection:
        state, checkpoint = connection.execute(
            "SELECT state, checkpoint_path FROM training_jobs WHERE id = %s", (job_id,)
        ).fetchone() or (None, None)
    assert state == "queued"
    assert checkpoint is not None
    tactical_server.start()
    assert tactical_server.wait_for_job(job_id, "succeeded")["model_version"]
    names = [name for _, name in events(tactical_server, job_id)]
    assert names.count("started") == 2
