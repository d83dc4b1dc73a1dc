"""The offline preview as a user starts it: wall time and peak memory of the whole process tree, policies included.

Cold is the first run with no bytecode anywhere (a fresh clone before `make` has compiled it); warm is every later one.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, summarise

ROOT = Path(__file__).resolve().parents[1]
STACKS = ("staging", "production")
WARM_RUNS = 5
_POLL_SECONDS = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Run:
    """One preview: seconds on the clock, seconds of processor time, and bytes at the peak."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def measure() -> list[Figure]:
    """Both stacks, cold once and warm several times."""
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        for stack in STACKS:
            cold = {"PYTHONPYCACHEPREFIX": str(Path(scratch) / stack), "PYTHONDONTWRITEBYTECODE": ""}
            first = _preview(stack, Path(scratch), cold)
            note = "first run, nothing compiled; one run"
            figures.append(Figure(name=f"preview {stack}, cold", value=first.seconds, unit="s", note=note))
            _preview(stack, Path(scratch), {})
            runs = [_preview(stack, Path(scratch), {}) for _ in range(WARM_RUNS)]
            median, spread = summarise([run.seconds for run in runs])
            processor, _ = summarise([run.processor_seconds for run in runs])
            note = f"{processor:.1f} s of processor time in all processes"
            figures.append(
                Figure(
                    name=f"preview {stack}, warm", value=median, unit="s", spread=spread, bar=5.0, aim=2.5, note=note
                )
            )
            memory, spread = summarise([run.peak_bytes / 2**20 for run in runs])
            figures.append(
                Figure(name=f"preview {stack}, peak memory", value=memory, unit="MiB", spread=spread, bar=1024)
            )
    return figures


def _preview(stack: str, output: Path, environment: Mapping[str, str]) -> Run:
    """Preview once.

    Raises:
        RuntimeError: it did not preview (a violated policy is no failure here).
    """
    command = [sys.executable, "-m", "infra.preview", "--stack", stack, "--output-dir", str(output / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - start
        error = process.stderr.read().decode() if process.stderr else ""
    if process.returncode not in (0, 1):
        raise RuntimeError(f"the preview of {stack} failed: {error.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, processor, peak)


def resident(pid: int) -> int:
    """Resident bytes of a process and all its descendants, shared pages counted in each: an upper bound."""
    try:
        pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
        children = [
            int(child)
            for task in (Path("/proc") / str(pid) / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (OSError, IndexError):
        return 0  # it ended between two looks
    return pages * _PAGE + sum(resident(child) for child in children)
