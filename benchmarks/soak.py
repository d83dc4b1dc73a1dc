"""Whether a worker's memory grows under load: ten minutes of a fixed mix, and the slope of what each worker keeps.

``python -m benchmarks soak``; ``python -m benchmarks.soak 60`` takes 60 seconds instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from app.contract import STRATEGIC, Env, Service
from app.strategic.codec import RECORD
from benchmarks.figures import Figure
from benchmarks.wrk import WrkError
from ops.local import process
from ops.local.stack import RunningStack, StackOptions, running_stack

SECONDS: Final = 600.0
WARM_UP_SHARE: Final = 0.2
INTERVAL: Final = 1.0
BLOCKS: Final = 20
"""Readings are averaged over so many stretches of time: neighbouring ones are not independent."""
LIST_SIZE: Final = 64
CONNECTIONS: Final = 8
PAUSE_MS: Final = 15
"""Of each connection after an answer: eight connections then send some 500 requests a second on two cores."""
PEAK_LIMIT_MIB: Final = 1.2 * 1024
_KIBIBYTES: Final = 1024.0

_SCRIPT: Final = """
local function read(name)
  local file = io.open("{directory}/" .. name, "rb")
  local all = file:read("*a")
  file:close()
  return all
end
local function post(name, kind)
  local headers = {["Content-Type"] = kind, ["Authorization"] = "Bearer {token}", ["Host"] = "localhost"}
  return wrk.format("POST", "{path}", headers, read(name))
end
local requests = {}
for _ = 1, 8 do requests[#requests + 1] = post("single", "application/json") end
requests[#requests + 1] = post("list", "application/json")
requests[#requests + 1] = post("binary", "application/octet-stream")
local sent = 0
request = function() sent = sent + 1; return requests[sent % #requests + 1] end
delay = function() return {pause} end
done = function(summary, latency, _)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  failed = failed + summary.errors.status
  io.write(string.format("RESULT %d %d %.3f\\n", summary.requests, failed, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True)
class Reading:
    """Memory of one worker at one moment, in MiB."""

    seconds: float
    resident: float
    anonymous: float
    """Heap and stacks. The share of what is mapped from files moves when other processes come and go."""


@dataclass(frozen=True)
class Slope:
    """Growth in MiB an hour with its standard error."""

    value: float
    error: float


def measure(seconds: float = SECONDS) -> list[Figure]:
    """Slope and peak of each worker's memory; takes ``seconds`` and a few more."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-soak-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        options = StackOptions(
            directory=directory / "stack",
            environment={Env.RATE_LIMIT_PER_MINUTE: "1000000000", Env.LOG_LEVEL: "WARNING"},
            services=(Service.STRATEGIC,),
            tls=False,
        )
        with running_stack(options) as (stack, (service,)):
            if service.pid is None:
                raise RuntimeError("the service does not run")
            workers = worker_processes(service.pid)
            load = _start_load(stack, directory, seconds)
            readings = _watch(workers, load, seconds)
            output, _ = load.communicate(timeout=60)
            if worker_processes(service.pid) != workers:
                raise RuntimeError("a worker was replaced during the soak")
            peaks = [_status(worker, "VmHWM") for worker in workers]
    return _figures(readings, peaks, output, seconds)


def worker_processes(supervisor: int) -> list[int]:
    """Process ids of the workers under a service's supervisor."""
    started = process.children(supervisor)
    return sorted(child for child in started if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes())


def slope_of(readings: Sequence[Reading]) -> Slope:
    """Least squares through the mean anonymous memory of each of `BLOCKS` stretches of the time after warm-up."""
    times = np.array([reading.seconds for reading in readings])
    memory = np.array([reading.anonymous for reading in readings])
    warm = times >= WARM_UP_SHARE * times[-1]
    blocks = np.array_split(np.flatnonzero(warm), BLOCKS)
    hours = np.array([times[block].mean() for block in blocks if len(block)]) / 3600
    means = np.array([memory[block].mean() for block in blocks if len(block)])
    centred = hours - hours.mean()
    value = float(centred @ means / (centred @ centred))
    left = means - means.mean() - value * centred
    error = float(np.sqrt(left @ left / (len(means) - 2) / (centred @ centred)))
    return Slope(value, error)


def _figures(readings: dict[int, list[Reading]], peaks: list[float], output: str, seconds: float) -> list[Figure]:
    line = next((line for line in output.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        raise WrkError(f"wrk said: {output}")
    requests, failed, p99 = line.split()[1:]
    rate = float(requests) / seconds
    mix = f"{rate:.0f} requests/s: 8 single, 1 list of {LIST_SIZE}, 1 binary of {LIST_SIZE}"
    load = f"{mix}; {failed} failed, p99 {float(p99):.1f} ms; {seconds:.0f} s, the first fifth left out"
    figures = []
    for number, found in enumerate(readings.values(), start=1):
        slope = slope_of(found)
        last = found[-1]
        figures.append(
            Figure(
                name=f"soak, growth of worker {number}",
                value=slope.value,
                unit="MiB/h",
                spread=slope.error,
                note=f"anonymous memory, spread is the standard error; at the end {last.anonymous:.0f} MiB, "
                f"RSS {last.resident:.0f} MiB; {load}",
            )
        )
    return [
        *figures,
        Figure(name="soak, peak memory of a worker", value=max(peaks), unit="MiB", bar=PEAK_LIMIT_MIB, note=load),
    ]


def _start_load(stack: RunningStack, directory: Path, seconds: float) -> subprocess.Popen[str]:
    matrices = np.random.default_rng(3).standard_normal((LIST_SIZE, 48, 13)).astype(np.float32)
    documents = [
        {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": np.round(matrix.astype(float), 6).tolist()}}
        for matrix in matrices
    ]
    records = np.empty(LIST_SIZE, RECORD)
    records["timestamp"], records["matrix"] = 1_767_623_400_000_000, matrices
    (directory / "single").write_text(json.dumps(documents[0]))
    (directory / "list").write_text(json.dumps(documents))
    (directory / "binary").write_bytes(records.tobytes())
    values = {
        "{directory}": str(directory),
        "{path}": f"{STRATEGIC.api_prefix}/process",
        "{token}": stack.token,
        "{pause}": str(PAUSE_MS),
    }
    script = _SCRIPT
    for name, value in values.items():
        script = script.replace(name, value)
    (directory / "mix.lua").write_text(script)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}", "--latency", "-s", str(directory / "mix.lua")]
    return subprocess.Popen([*command, str(stack.strategic)], stdout=subprocess.PIPE, text=True)


def _watch(workers: list[int], load: subprocess.Popen[str], seconds: float) -> dict[int, list[Reading]]:
    """Read every worker's memory at a fixed interval until the load ends."""
    readings: dict[int, list[Reading]] = {worker: [] for worker in workers}
    started = time.monotonic()
    while load.poll() is None and time.monotonic() < started + seconds:
        for worker, found in readings.items():
            fields = _rollup(worker)
            found.append(Reading(time.monotonic() - started, fields["Rss"], fields["Anonymous"]))
        time.sleep(INTERVAL)
    return readings


def _rollup(worker: int) -> dict[str, float]:
    """MiB by field of ``smaps_rollup``."""
    lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()[1:]
    return {line.partition(":")[0]: float(line.split()[1]) / _KIBIBYTES for line in lines}


def _status(worker: int, name: str) -> float:
    """MiB of a field of ``status``."""
    lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    return next(float(line.split()[1]) / _KIBIBYTES for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    for row in measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS):
        sys.stdout.write(f"{row.name:35s} {row.value:10.2f} {row.unit:8s} +- {row.spread:8.2f}  {row.note}\n")
