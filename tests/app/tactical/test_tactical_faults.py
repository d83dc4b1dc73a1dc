"""What was acknowledged survives; what was not leaves nothing behind. Real servers, really killed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import psycopg
import pytest

from app.contract import Service
from app.service.migrations import migrate
from ops.local.cache import EmbeddedCache
from ops.local.postgres import EmbeddedPostgres, replace_database

pytestmark = pytest.mark.slow

WINDOW = np.random.default_rng(1).uniform(-0.5, 0.5, (30, 7)).round(3).tolist()
TRAINING = {"training_data": {"episodes": 2, "data": WINDOW}}
ROUNDS = 8


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres")
    server.start()
    yield server
    server.destroy()


@pytest.fixture
def own_cache(tmp_path: Path) -> Iterator[EmbeddedCache]:
    server = EmbeddedCache(tmp_path / "cache")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fragile_server(
    own_postgres: EmbeddedPostgres, own_cache: EmbeddedCache, tmp_path: Path, tactical_server_class: Any
) -> Iterator[Any]:
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fragile")
    url = replace_database(own_postgres.url, "fragile")
    migrate(url, Service.TACTICAL)
    server = tactical_server_class(url, own_cache.url, tmp_path)
    server.start()
    yield server
    server.kill()


class Load:
    """Clients that train and act without pause, and keep what was acknowledged."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4)
        self.versions: list[str] = []
        self.decisions = 0
        self.statuses: set[int] = set()

    def __enter__(self) -> Self:
        for work in (self._train, self._train, self._act, self._act):
            self._pool.submit(work)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def _train(self) -> None:
        for response in self._answers("train", TRAINING):
            self.versions.append(response["model_version"])

    def _act(self) -> None:
        question = {"market_data": {"data": WINDOW}, "version": self.versions[0] if self.versions else None}
        while not self._stop.is_set() and question["version"] is None:
            time.sleep(0.05)
            question["version"] = self.versions[0] if self.versions else None
        for _ in self._answers("act", question):
            self.decisions += 1

    def _answers(self, path: str, document: object) -> Iterator[dict[str, Any]]:
        with self._server.client() as client:
            while not self._stop.is_set():
                try:
                    response = client.post(f"/api/tactical/{path}", json=document)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                self.statuses.add(response.status_code)
                if response.status_code == 200:
                    yield response.json()
                else:
                    time.sleep(0.05)


def assert_nothing_acknowledged_is_lost(server: Any, load: Load) -> None:
    with psycopg.connect(server.database_url) as connection:
        stored = {row[0] for row in connection.execute("SELECT version FROM model_versions").fetchall()}
        actions = connection.execute("SELECT count(*) FROM agent_actions").fetchone() or (0,)
        half = connection.execute(
            "SELECT count(*) FROM model_versions AS model WHERE NOT EXISTS (SELECT FROM training_data "
            "WHERE training_metrics ->> 'model_version' = model.version)"
        ).fetchone()
    assert load.versions
    assert set(load.versions) <= stored
    assert actions[0] >= 3 * load.decisions > 0
    assert actions[0] % 3 == 0
    assert half == (0,)
    for version in stored:  # every finished version loads, acknowledged or not
        answer = server.post("act", {"market_data": {"data": WINDOW}, "version": version})
        assert answer.status_code == 200, answer.text


def test_nothing_acknowledged_is_lost_when_the_service_is_killed(fragile_server: Any) -> None:
    random = np.random.default_rng(0)
    with Load(fragile_server) as load:
        for _ in range(ROUNDS):
            before = len(load.versions)
            while len(load.versions) < before + 2:
                time.sleep(0.05)
            time.sleep(float(random.uniform(0.0, 0.3)))
            fragile_server.kill()
            fragile_server.start()
    assert_nothing_acknowledged_is_lost(fragile_server, load)


def test_nothing_acknowledged_is_lost_when_postgresql_is_killed(
    fragile_server: Any, own_postgres: EmbeddedPostgres
) -> None:
    random = np.random.default_rng(1)
    with Load(fragile_server) as load:
        for _ in range(ROUNDS):
            before = len(load.versions)
            while len(load.versions) < before + 1:
                time.sleep(0.05)
            time.sleep(float(random.uniform(0.0, 0.2)))
            own_postgres.kill()
            time.sleep(0.3)
            own_postgres.start()
            fragile_server.wait_until_ready()
    assert load.statuses <= {200, 503}
    assert_nothing_acknowledged_is_lost(fragile_server, load)


def queue_job(server: Any, episodes: int) -> str:
    response = server.post("jobs", {"simulation": {"bars": 400, "seed": 1}, "episodes": episodes})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def wait_for_checkpoint(server: Any, job_id: str, than: str | None = None) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with psycopg.connect(server.database_url) as connection:
            row = connection.execute("SELECT checkpoint_path FROM training_jobs WHERE id = %s", (job_id,)).fetchone()
        if row is not None and row[0] is not None and row[0] != than:
            return str(row[0])
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


def curve_of(server: Any, version: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.database_url) as connection:
        return connection.execute(
            "SELECT episode_number, training_metrics ->> 'policy_loss', training_metrics ->> 'episode_return' "
            "FROM training_data WHERE training_metrics ->> 'model_version' = %s ORDER BY 1",
            (version,),
        ).fetchall()


def test_a_killed_job_goes_on_from_its_checkpoint_to_the_same_model(fragile_server: Any) -> None:
    episodes = 4096
    undisturbed = queue_job(fragile_server, episodes)
    expected = fragile_server.wait_for_job(undisturbed, "succeeded", timeout=200)["model_version"]
    job_id = queue_job(fragile_server, episodes)
    checkpoint = None
    for _ in range(2):
        checkpoint = wait_for_checkpoint(fragile_server, job_id, checkpoint)
        fragile_server.kill()
        fragile_server.start()
    found = fragile_server.wait_for_job(job_id, "succeeded", timeout=200)["model_version"]
    assert curve_of(fragile_server, found) == curve_of(fragile_server, expected)
    checkpoints = [path for path in (fragile_server.models / "checkpoints").rglob("*") if path.is_file()]
    assert len(checkpoints) <= 2  # one write that each kill cut short; the sweep removes it


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing"])
def test_a_job_whose_checkpoint_is_damaged_says_so_and_begins_anew(fragile_server: Any, damage: str) -> None:
    job_id = queue_job(fragile_server, 4096)
    wait_for_checkpoint(fragile_server, job_id)
    fragile_server.kill()
    with psycopg.connect(fragile_server.database_url) as connection:
        row = connection.execute("SELECT checkpoint_path FROM training_jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None
    file = fragile_server.models / row[0]
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "truncated" else b"PK\x03\x04 another program's")
    fragile_server.start()
    version = fragile_server.wait_for_job(job_id, "succeeded", timeout=200)["model_version"]
    with psycopg.connect(fragile_server.database_url) as connection:
        told = connection.execute(
            "SELECT data ->> 'error' FROM training_job_events WHERE job_id = %s AND event = 'checkpoint_lost'",
            (job_id,),
        ).fetchall()
    assert len(told) == 1
    assert row[0] in told[0][0], "the message names the file"
    assert [number for number, *_ in curve_of(fragile_server, version)][-1] == 4096


def test_a_job_whose_process_always_dies_says_that_it_failed(fragile_server: Any) -> None:
    job_id = queue_job(fragile_server, 900_000)
    fragile_server.wait_for_job(job_id, "running")
    fragile_server.kill()
    with psycopg.connect(fragile_server.database_url) as connection:
        connection.execute("UPDATE training_jobs SET crashes = 3 WHERE id = %s", (job_id,))
    fragile_server.start()
    assert "died 4 times" in fragile_server.wait_for_job(job_id, "failed")["error"]


def test_a_job_survives_a_stop_of_postgresql(fragile_server: Any, own_postgres: EmbeddedPostgres) -> None:
    job_id = queue_job(fragile_server, 4096)
    wait_for_checkpoint(fragile_server, job_id)
    own_postgres.stop()
    deadline = time.monotonic() + 5
    while fragile_server.client().get("/ready").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    answer = fragile_server.client().get("/ready")
    assert answer.status_code == 503
    assert "database" in answer.json()["missing"]
    began = time.monotonic()
    refused = fragile_server.post("train", TRAINING)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert time.monotonic() - began < 1.0
    time.sleep(2.0)
    own_postgres.start()
    fragile_server.wait_until_ready()
    assert fragile_server.post("train", TRAINING).status_code == 200
    assert fragile_server.wait_for_job(job_id, "succeeded", timeout=200)["model_version"]


def test_without_the_cache_changes_wait_and_reads_go_on(fragile_server: Any, own_cache: EmbeddedCache) -> None:
    own_cache.stop()
    deadline = time.monotonic() + 5
    while fragile_server.client().get("/ready").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "cache" in fragile_server.client().get("/ready").json()["missing"]
    assert fragile_server.post("train", TRAINING).status_code == 503
    assert fragile_server.get("models").status_code == 200
    own_cache.start()
    fragile_server.wait_until_ready()
    assert fragile_server.post("train", TRAINING).status_code == 200


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # writes beyond fail as on a full disk
sys.argv[0] = "tactical"
from app.tactical.main import main
sys.exit(main([]))
"""


def test_a_full_disk_is_told_and_nothing_half_written_is_left(fragile_server: Any) -> None:
    fragile_server.kill()
    fragile_server.launcher = (sys.executable, "-c", LIMITED)
    fragile_server.start()
    answer = fragile_server.post("train", TRAINING)
    assert answer.status_code == 507, answer.text
    assert answer.json()["type"] == "urn:grandmodel:problem:storage-full"
    assert "cannot write models/" in answer.json()["detail"]
    job_id = queue_job(fragile_server, 512)
    error = fragile_server.wait_for_job(job_id, "failed")["error"]
    assert "cannot be written" in error or "could not be kept" in error
    assert [path for path in fragile_server.models.rglob("*") if path.is_file()] == []
    assert fragile_server.get("models").json()["models"] == []
    assert fragile_server.client().get("/ready").status_code == 200
