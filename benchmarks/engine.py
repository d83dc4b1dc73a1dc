"""The strategic engine: samples a second and microseconds of one sample, beside the same model in other runtimes.

The engine's figures are the whole way from float32 matrices to answers. The peers compute the model's four products
only, without the agents' signals before and the distributions after them: they have less to do. Each has a process of
its own (`benchmarks.peers.products`); they take turns, so that a disturbance meets all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure, summarise
from benchmarks.peers.products import ENGINES, PEERS, THREADS

BATCHES: Final = (256, 512, 1024)
ROUNDS: Final = 9
SECONDS: Final = 0.1
_ROOT: Final = Path(__file__).parents[1]
_SLOWING: Final = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make OpenBLAS choose kernels of another CPU."""


class Contender:
    """A child process that runs one runtime when it is its turn."""

    def __init__(self, name: str) -> None:
        """Start it; `wait` for it before the first turn."""
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key not in _SLOWING}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.products", name],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.described: dict[str, Any] = {}

    def wait(self) -> None:
        """Until it is loaded and warm."""
        self.described = self._read()

    def seconds(self, batch: int) -> float:
        """Let it run for `SECONDS`; median seconds of a call."""
        if self._process.stdin is None:
            raise RuntimeError("started without a pipe")
        self._process.stdin.write(json.dumps({"batch": batch, "seconds": SECONDS}) + "\n")
        self._process.stdin.flush()
        return float(self._read())

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:  # noqa: ANN401 - whatever JSON it says
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"{self.name} ended: run python -m benchmarks.peers.products {self.name!r}")
        return json.loads(line)


@contextmanager
def _contenders() -> Iterator[list[Contender]]:
    """All of them, loaded and warm."""
    started: list[Contender] = []
    try:
        started += [Contender(name) for name in PEERS]
        for each in started:
            each.wait()
        for name in ENGINES:  # what an engine finds fastest at its start must not depend on who loads beside it
            started.append(Contender(name))
            started[-1].wait()
        yield started
    finally:
        for each in started:
            each.end()


def _rounds(contenders: list[Contender], batch: int) -> dict[str, list[float]]:
    """Seconds of a call by contender, in each of `ROUNDS`."""
    found: dict[str, list[float]] = {each.name: [] for each in contenders}
    for _ in range(ROUNDS):
        for each in contenders:
            found[each.name].append(each.seconds(batch))
    return found


def _throughput(contenders: list[Contender], batch: int) -> list[Figure]:
    described = {each.name: each.described for each in contenders}
    figures = []
    for name, seconds in _rounds(contenders, batch).items():
        median, spread = summarise([batch / second for second in seconds])
        ours = name in ENGINES
        aim = 300_000 if name == "engine float32" else 520_000
        figures.append(
            Figure(
                name=f"{name}, batch {batch}" if ours else f"products alone, batch {batch}, {name}",
                value=median,
                unit="samples/s",
                spread=spread,
                bar=250_000 if ours else None,
                aim=aim if ours else None,
                better="higher",
                note=_describe(described[name]) if ours else "peer, without signals and distributions",
            )
        )
    return figures


def _describe(described: dict[str, Any]) -> str:
    return (
        f"{described['backend']}, {THREADS} threads, {described['megaflops']:.2f} MFLOP a sample, "
        f"answers within {described['error']:.1e} of float32"
    )


def _one_sample(contenders: list[Contender]) -> list[Figure]:
    figures = []
    for name, seconds in _rounds([each for each in contenders if each.name != "engine float32"], 1).items():
        median, spread = summarise([second * 1e6 for second in seconds])
        ours = name in ENGINES
        figures.append(
            Figure(
                name="engine, one sample" if ours else f"products alone, one sample, {name}",
                value=median,
                unit="us",
                spread=spread,
                bar=45 if ours else None,
                aim=30 if ours else None,
                note="float32 arithmetic, weights kept as bfloat16 without loss (aim for reduced precision: 22)"
                if ours
                else "peer, without signals and distributions",
            )
        )
    return figures


_START = """
import json, time
start = time.perf_counter()
from app.strategic.engine import Engine
imported = time.perf_counter()
engine = Engine.load(threads=2)
loaded = time.perf_counter()
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"import": imported - start, "load": loaded - imported, "peak": peak}))
"""


def _start_up() -> list[Figure]:
    """Start-up and memory of fresh processes whose compiled code is cached, as it is from the second start on."""
    runs = []
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True, cwd=_ROOT)
        runs.append(json.loads(done.stdout))
    warm = runs[1:]
    seconds, seconds_spread = summarise([run["import"] + run["load"] for run in warm])
    memory, memory_spread = summarise([run["peak"] for run in warm])
    note = "fresh process, import and Engine.load, compiled code cached, no torch"
    return [
        Figure(name="engine, start-up", value=seconds, unit="s", spread=seconds_spread, note=note),
        Figure(name="engine, peak memory of a process", value=memory, unit="MiB", spread=memory_spread, note=note),
    ]


def measure() -> list[Figure]:
    """All figures of the engine; about 75 seconds."""
    with _contenders() as contenders:
        figures = [row for batch in BATCHES for row in _throughput(contenders, batch)]
        figures += _one_sample(contenders)
    return figures + _start_up()
