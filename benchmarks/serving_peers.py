"""The same engine behind other servers, under the load of `benchmarks.strategic`: what they do for what they leave out.

They neither authenticate, nor limit, nor audit, nor store: a request is lost with the process. The service's own
figures, durable and authenticated, are those of `benchmarks.strategic`; both in one run by
``python -m benchmarks strategic serving_peers``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from benchmarks import wrk
from benchmarks.figures import Figure, summarise
from ops.local.process import free_port, last_line

RUNS: Final = 3
SECONDS: Final = 3
LIST_SIZE: Final = 64
PEERS: Final = {"LitServe": "benchmarks.peers.litserve_server", "FastAPI + pydantic": "benchmarks.peers.fastapi_server"}
_ROOT: Final = Path(__file__).parents[1]


def measure() -> list[Figure]:
    """Rates and latencies of each peer: one matrix a request, and lists of 64."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        directory = Path(name)
        for peer, module in PEERS.items():
            with _running(module, directory) as url:
                figures += _figures(peer, f"{url}/one", json.dumps(_document(0)).encode(), directory, 64, 1)
                body = json.dumps([_document(row) for row in range(LIST_SIZE)]).encode()
                figures += _figures(peer, f"{url}/list", body, directory, 8, LIST_SIZE)
    return figures


def _figures(peer: str, url: str, body: bytes, directory: Path, connections: int, samples: int) -> list[Figure]:
    request = wrk.Request(url, body, {"Content-Type": "application/json"})
    wrk.send(request, directory, connections=connections, seconds=1)
    loads = [wrk.send(request, directory, connections=connections, seconds=SECONDS) for _ in range(RUNS)]
    rate, rate_spread = summarise([load.rate * samples for load in loads])
    p99, p99_spread = summarise([load.p99 for load in loads])
    kind = "one matrix a request" if samples == 1 else f"JSON lists of {samples}"
    name = f"{peer}, {kind}, {connections} connections"
    note = f"peer: 2 workers, no authentication, not durable; {sum(load.failed for load in loads)} failed"
    return [
        Figure(name=name, value=rate, unit="samples/s", spread=rate_spread, better="higher", note=note),
        Figure(name=f"{name}: p99", value=p99, unit="ms", spread=p99_spread, note=note),
    ]


@contextmanager
def _running(module: str, directory: Path) -> Iterator[str]:
    """The peer's address, once each of its routes has answered."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    log = directory / f"{module}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(port)], cwd=_ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    streak = 0
    while streak < 20:  # both workers have loaded their engines
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the peer does not serve: {last_line(log)}")
        try:
            answers = (
                httpx.post(f"{url}/one", json=_document(0), timeout=30),
                httpx.post(f"{url}/list", json=[_document(0)], timeout=30),
            )
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        streak = streak + 1 if all(answer.status_code == 200 for answer in answers) else 0


def _document(row: int) -> dict[str, Any]:
    matrices = np.random.default_rng(3).standard_normal((LIST_SIZE, 48, 13)).astype(np.float32)
    data = np.round(matrices[row].astype(np.float64), 6).tolist()
    return {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": data}}
