"""Which backend serves: the fastest that this CPU offers among those that reproduce the model's recorded answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import llvmlite.binding
import numpy as np
from numpy.typing import NDArray

from app.strategic.agents import BARS, FEATURES, SIGNAL_WIDTH, prepare
from app.strategic.answers import ANSWER_WIDTH
from app.strategic.backends import (
    BLOCK,
    Backend,
    BlasBackend,
    NativeBackend,
    OpenVinoBackend,
    ProductPrecision,
    block_size,
)
from app.strategic.kernels import conclude
from app.strategic.model import FAMILIAR, ModelError, Probe, StrategicModel

Float32 = NDArray[np.float32]
IntArray = NDArray[np.int64]
Precision = Literal["auto", "float32"]

TOLERANCE: Final = 5e-4
"""Greatest difference of any answer to a familiar matrix from the recorded float32 answer."""

_INSTRUCTION_SETS: Final = ("avx2", "fma", "avx512f", "avx512vnni", "avx512bf16", "amx-bf16", "amx-int8", "neon", "sve")


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What was chosen at start-up and why, for the log and the metrics.

    Attributes:
        backend: that serves batches: "openvino" or "blas"; a few matrices go through compiled loops.
        precision: of the first product of batches, which is three quarters of the work: "float32" or "bfloat16".
        threads: that share a batch.
        few: up to how many matrices go through the compiled loops.
        instruction_sets: of the CPU, those that matter here.
        largest_error: greatest difference of an answer from the model's recorded float32 answers.
        samples_per_second: of each candidate on one thread, measured at start-up.
        rejected: candidates that were not eligible, with the reason.
        seconds: that choosing and compiling took.
    """

    backend: str
    precision: ProductPrecision
    threads: int
    few: int
    instruction_sets: tuple[str, ...]
    largest_error: float
    samples_per_second: dict[str, float]
    rejected: dict[str, str]
    seconds: float

    def labels(self) -> dict[str, str]:
        """Short strings for a log line or the labels of an info metric."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "threads": str(self.threads),
            "instruction_sets": ",".join(self.instruction_sets),
        }


class Lane:
    """What one thread needs to answer: a backend for batches, one for a few matrices, and buffers between them."""

    def __init__(self, model: StrategicModel, backend: Backend, native: Backend | None, few: int) -> None:
        self._input = model.weights.input_weights()
        self._output = model.weights.output_weights()
        self._backend = backend
        self._native = native
        self._few = few if native is not None else 0
        if isinstance(backend, OpenVinoBackend):
            self._windows, self._signals = backend.inputs
        else:
            self._windows = np.zeros((BLOCK, BARS * FEATURES), np.float32)
            self._signals = np.zeros((BLOCK, 2 * SIGNAL_WIDTH), np.float32)

    def answer(self, matrices: Float32, answers: Float32, choices: IntArray) -> None:
        """Fill ``answers`` (N, 43) and ``choices`` (N, 3) for contiguous float32 ``matrices`` (N, 48, 13)."""
        count = len(matrices)
        if count <= self._few and self._native is not None:
            self._block(self._native, matrices, answers, choices)
            return
        start = 0
        while start < count:
            block = slice(start, start + block_size(count - start))
            self._block(self._backend, matrices[block], answers[block], choices[block])
            start = block.stop

    def _block(self, backend: Backend, matrices: Float32, answers: Float32, choices: IntArray) -> None:
        windows, signals = self._windows[: len(matrices)], self._signals[: len(matrices)]
        prepare(matrices, self._input, windows, signals)
        heads, roots = backend.products(windows, signals)
        conclude(heads, roots, self._output, answers, choices)


@dataclass(frozen=True)
class _Candidate:
    name: str
    precision: ProductPrecision
    backend: Backend
    another: Callable[[], Backend]
    """Makes a backend for one more thread."""


def instruction_sets() -> tuple[str, ...]:
    """The CPU's instruction sets that decide how fast products are."""
    features = llvmlite.binding.get_host_cpu_features()
    return tuple(name for name in _INSTRUCTION_SETS if features.get(name))


def _candidates(
    model: StrategicModel, precision: Precision, found: tuple[str, ...], rejected: dict[str, str]
) -> Iterator[_Candidate]:
    weights = model.weights
    wanted: list[ProductPrecision] = ["float32"] if precision == "float32" else ["bfloat16", "float32"]
    for each in wanted:
        name = f"openvino-{each}"
        if each == "bfloat16" and not {"avx512bf16", "amx-bf16"} & set(found):
            rejected[name] = "the CPU has no bfloat16 products"
            continue
        another = partial(OpenVinoBackend, weights, each)
        try:
            backend = another()
        except (ImportError, RuntimeError) as error:
            rejected[name] = str(error).splitlines()[0]
            continue
        yield _Candidate("openvino", each, backend, another)
    yield _Candidate("blas", "float32", BlasBackend(weights), partial(BlasBackend, weights))


def measure_error(lane: Lane, probe: Probe) -> float:
    """Greatest difference from the recorded answers to familiar matrices; infinite if any answer is NaN."""
    answers = np.empty((len(probe.matrices), ANSWER_WIDTH), np.float32)
    lane.answer(probe.matrices, answers, np.empty((len(answers), 3), np.int64))
    if not np.isfinite(answers).all():
        return float("inf")
    return float(np.abs(answers - probe.answers)[:FAMILIAR].max())


def _seconds(lane: Lane, matrices: Float32, runs: int) -> float:
    """The shortest of ``runs``: what else the machine does only makes a run longer."""
    answers = np.empty((len(matrices), ANSWER_WIDTH), np.float32)
    choices = np.empty((len(matrices), 3), np.int64)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        lane.answer(matrices, answers, choices)
        taken.append(time.perf_counter() - start)
    return min(taken)


def choose(model: StrategicModel, *, threads: int, precision: Precision) -> tuple[list[Lane], RuntimeReport]:
    """Compile, check and time what can serve ``model``; return a lane for each of ``threads`` and the report.

    Raises:
        ModelError: Not even NumPy's float32 products reproduce the recorded answers: the model is not what was saved.
    """
    started = time.perf_counter()
    found = instruction_sets()
    rejected: dict[str, str] = {}
    speeds: dict[str, float] = {}
    best: tuple[float, float, _Candidate] | None = None
    block = np.resize(model.probe.matrices[:FAMILIAR], (BLOCK, BARS, FEATURES))
    for candidate in _candidates(model, precision, found, rejected):
        name = f"{candidate.name}-{candidate.precision}"
        lane = Lane(model, candidate.backend, None, 0)
        error = measure_error(lane, model.probe)
        if not error <= TOLERANCE:
            rejected[name] = f"misses the recorded answers by {error:.2g}"
            continue
        speeds[name] = BLOCK / _seconds(lane, block, 15)
        if best is None or speeds[name] > best[0]:
            best = (speeds[name], error, candidate)
    if best is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
        raise ModelError(f"model {model.version} cannot be served: {reasons}")
    _, error, chosen = best
    native = NativeBackend(model.weights)
    native_lane = Lane(model, native, None, 0)
    native_error = measure_error(native_lane, model.probe)
    few = 0
    if native_error <= TOLERANCE:
        batch_lane = Lane(model, chosen.backend, None, 0)
        few = max(1, int(_seconds(batch_lane, block[:8], 9) / _seconds(native_lane, block[:1], 9)))
    else:
        rejected["native"] = f"misses the recorded answers by {native_error:.2g}"
    backends = [chosen.backend, *(chosen.another() for _ in range(threads - 1))]
    lanes = [Lane(model, each, NativeBackend(model.weights) if few else None, min(few, 16)) for each in backends]
    return lanes, RuntimeReport(
        backend=chosen.name,
        precision=chosen.precision,
        threads=threads,
        few=min(few, 16),
        instruction_sets=found,
        largest_error=max(error, native_error if few else 0.0),
        samples_per_second=speeds,
        rejected=rejected,
        seconds=time.perf_counter() - started,
    )


def reference_lane(model: StrategicModel) -> Lane:
    """The lane that records a probe: NumPy's float32 products."""
    return Lane(model, BlasBackend(model.weights), None, 0)
