"""A model file is replaced under a running service with two workers, while clients ask."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.strategic.model import DEFAULT_MODEL, load_model
from tests.app.strategic.conftest import PROCESS, StrategicServer, as_application
from tests.app.strategic.test_hot_swap import write_other_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIST_SIZE = 40
CLIENTS = 4
PATIENCE_SECONDS = 60.0
SHIPPED = load_model(DEFAULT_MODEL)
MATRICES = SHIPPED.probe.matrices[:LIST_SIZE]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return Path(shutil.copy(DEFAULT_MODEL, tmp_path / "model.safetensors"))


@pytest.fixture
def swapping(strategic_database: str, cache: str, tmp_path: Path, model_file: Path) -> Iterator[StrategicServer]:
    """A service with two workers that serves ``model_file``."""
    environment = {"STRATEGIC_MODEL_PATH": str(model_file)}
    server = StrategicServer(as_application(strategic_database), cache, tmp_path, workers=2, environment=environment)
    server.start()
    try:
        server.wait_until_ready()
        yield server
        assert server.stop() == 0
    finally:
        server.kill()


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """As an operator should: write beside it, then rename."""
    beside = path.with_suffix(".new")
    write(beside)
    beside.replace(path)


class Clients:
    """Clients that send lists until told to stop; whatever is not a 200 of one model is a failure."""

    def __init__(self, server: StrategicServer, weights: dict[str, list[list[float]]]) -> None:
        self.server = server
        self.versions: list[str] = []
        """Of the answers, in the order of their arrival."""
        self.failures: list[str] = []
        self._weights = weights
        document = [
            {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": matrix.tolist()}} for matrix in MATRICES
        ]
        self._body = json.dumps(document).encode()
        self._stop = asyncio.Event()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._ask())
            try:
                yield
            finally:
                self._stop.set()

    async def _ask(self) -> None:
        url = f"http://127.0.0.1:{self.server.port}"
        # One connection a client: each stays with one worker.
        async with httpx.AsyncClient(base_url=url, headers=self.server.headers(), timeout=30) as client:
            while not self._stop.is_set():
                answer = await client.post(PROCESS, content=self._body, headers={"Content-Type": "application/json"})
                self._judge(answer)

    def _judge(self, answer: httpx.Response) -> None:
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code}: {answer.text[:200]}")
            return
        documents = answer.json()
        versions = {document["model_version"] for document in documents}
        if len(versions) != 1:
            self.failures.append(f"one list was answered by {versions}")
            return
        (version,) = versions
        given = [[agent["weight"] for agent in document["agents"].values()] for document in documents]
        if not np.allclose(given, self._weights[version], atol=6e-3):
            self.failures.append(f"answers named {version} are not that model's")
        self.versions.append(version)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen; {self.failures} {self.server.log.read_text()}"
            await asyncio.sleep(0.05)


def served_versions(server: StrategicServer) -> dict[str, float]:
    """Version to value of ``strategic_model_info``, as a scrape shows it."""
    with server.client() as client:
        text = client.get("/metrics").text
    found = re.findall(r'^strategic_model_info\{[^}]*version="([^"]+)"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {version: float(value) for version, value in found}


def test_a_new_model_takes_over_without_an_error_and_an_unsound_one_is_refused(
    swapping: StrategicServer, model_file: Path
) -> None:
    other_weights = np.zeros((LIST_SIZE, 3))
    other_weights[:, 2] = 1.0  # the other model trusts its third agent alone
    shipped_weights = SHIPPED.probe.answers[:LIST_SIZE, 20:23]
    other = write_other_model(model_file.with_suffix(".other"))
    half = DEFAULT_MODEL.read_bytes()[: DEFAULT_MODEL.stat().st_size // 2]
    weights = {SHIPPED.version: shipped_weights.tolist(), other.version: other_weights.tolist()}

    async def scenario() -> Clients:
        clients = Clients(swapping, weights)
        async with clients.asking():
            await clients.until(lambda: len(clients.versions) >= 3 * CLIENTS, "answering")
            assert set(clients.versions) == {SHIPPED.version}

            replace_atomically(model_file, lambda path: shutil.copy(model_file.with_suffix(".other"), path))
            await clients.until(
                lambda: swapping.log.read_text().count(f'"version":"{other.version}"') >= 2, "a swap in both workers"
            )
            answered = len(clients.versions)
            await clients.until(lambda: len(clients.versions) >= answered + 3 * CLIENTS, "answering after the swap")
            assert set(clients.versions[-CLIENTS:]) == {other.version}

            replace_atomically(model_file, lambda path: path.write_bytes(half))
            await clients.until(
                lambda: swapping.log.read_text().count("new model refused") >= 2, "a refusal in both workers"
            )
            answered = len(clients.versions)
            await clients.until(lambda: len(clients.versions) >= answered + 3 * CLIENTS, "answering after the refusal")
            assert set(clients.versions[-CLIENTS:]) == {other.version}
        return clients

    clients = asyncio.run(scenario())
    assert clients.failures == []
    assert served_versions(swapping) == {SHIPPED.version: 0.0, other.version: 1.0}
    refusals = [line for line in swapping.log.read_text().splitlines() if "new model refused" in line]
    assert all(f"{other.version} still serves" in line for line in refusals), refusals
    with swapping.client() as client:
        assert client.get("/ready").status_code == 200
