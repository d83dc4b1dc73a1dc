"""Series of the strategic service. Children are looked up once; nothing here is done per sample in Python."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from app.contract import METRIC_STRATEGIC_THROUGHPUT
from app.service.metrics import BatchHistogram
from app.strategic.answers import ACTIONS, REGIMES
from app.strategic.outcomes import CONFIDENCE, EPISTEMIC, Outcomes

THROUGHPUT_WINDOW_SECONDS: Final = 10.0
CONFIDENCE_BUCKETS: Final = tuple(np.linspace(0.1, 1.0, 10).round(1).tolist())

THROUGHPUT: Final = Gauge(
    METRIC_STRATEGIC_THROUGHPUT,
    "Samples answered a second, all of them durable; mean of the last 10 seconds.",
    multiprocess_mode="livesum",
)
SAMPLES: Final = Counter("strategic_samples_total", "Samples answered, all of them durable.")
LATENCY: Final = BatchHistogram(
    "strategic_latency_seconds",
    "Seconds from a request's arrival to its durable answer.",
    buckets=(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
BATCH_SIZE: Final = BatchHistogram(
    "strategic_batch_samples",
    "Samples committed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536),
)
QUEUE: Final = Gauge("strategic_queue_samples", "Samples that wait to be processed.", multiprocess_mode="livesum")
ENGINE_SECONDS: Final = BatchHistogram(
    "strategic_engine_seconds",
    "Seconds that the engine takes for a batch.",
    buckets=(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0),
)
COMMIT_SECONDS: Final = BatchHistogram(
    "strategic_commit_seconds",
    "Seconds until a batch is durable.",
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
)
REFUSED: Final = Counter("strategic_refused_samples_total", "Samples refused because the queue was full.")
REPLAYED: Final = Counter("strategic_replayed_requests_total", "Requests answered from their Idempotency-Key.")
DECISIONS: Final = Counter("strategic_decisions_total", "Samples by decision.", ("decision",))
REGIME_SAMPLES: Final = Counter("strategic_regimes_total", "Samples by regime.", ("regime",))
CONFIDENCES: Final = BatchHistogram("strategic_confidence", "Confidence scores.", buckets=CONFIDENCE_BUCKETS)
UNCERTAINTY: Final = Gauge(
    "strategic_epistemic_uncertainty",
    "Mean epistemic uncertainty of the last batches: it rises when inputs drift from what the model was trained on.",
    multiprocess_mode="livemax",
)
DRIFT: Final = Gauge(
    "strategic_input_drift_ratio",
    "Share of the last samples that are more uncertain than 99 % of the training data; 0.01 without drift.",
    multiprocess_mode="livemax",
)
MODEL: Final = Gauge(
    "strategic_model_info",
    "1 for the model and the runtime that answer.",
    ("version", "backend", "precision", "threads"),
    multiprocess_mode="livemax",
)

_DECISION_CHILDREN: Final = [DECISIONS.labels(name) for name in ACTIONS]
_REGIME_CHILDREN: Final = [REGIME_SAMPLES.labels(name) for name in REGIMES]
_DRIFT_SMOOTHING: Final = 2000.0
"""Samples over which the drift gauges look back."""
_NINETY_NINTH_PERCENTILE: Final = 0.5
"""Epistemic uncertainty that 1 % of the training data exceed (`Decisions.epistemic`)."""


class Observer:
    """Counts what was answered: noted batch by batch, counted once a second for all batches since."""

    def __init__(self) -> None:
        self._noted: list[tuple[Outcomes, float, float]] = []
        self._finished: deque[tuple[float, int]] = deque()
        self._in_window = 0
        self._uncertainty = 0.0
        self._drift = 0.01

    def batch(self, outcomes: Outcomes, engine_seconds: float, commit_seconds: float) -> None:
        """Note one durable batch."""
        self._noted.append((outcomes, engine_seconds, commit_seconds))

    def sample(self, queued: int) -> None:
        """Bring all series up to date; called once a second."""
        if self._noted:
            outcomes, engine_seconds, commit_seconds = zip(*self._noted, strict=True)
            self._noted.clear()
            self._count(
                [len(batch) for batch in outcomes],
                np.concatenate([batch.numbers[:, [CONFIDENCE, EPISTEMIC]] for batch in outcomes]),
                np.concatenate([batch.choices for batch in outcomes]),
            )
            ENGINE_SECONDS.observe_all(engine_seconds)
            COMMIT_SECONDS.observe_all(commit_seconds)
        horizon = time.monotonic() - THROUGHPUT_WINDOW_SECONDS
        while self._finished and self._finished[0][0] < horizon:
            self._in_window -= self._finished.popleft()[1]
        THROUGHPUT.set(self._in_window / THROUGHPUT_WINDOW_SECONDS)
        QUEUE.set(queued)
        UNCERTAINTY.set(self._uncertainty)
        DRIFT.set(self._drift)

    def _count(self, sizes: list[int], scores: NDArray[np.float32], choices: NDArray[np.int64]) -> None:
        """Count batches of these sizes; confidence and epistemic uncertainty (N, 2) and choices (N, 3) of them all."""
        count = len(scores)
        SAMPLES.inc(count)
        BATCH_SIZE.observe_all(sizes)
        _count(_DECISION_CHILDREN, choices[:, 0])
        _count(_REGIME_CHILDREN, choices[:, 1])
        CONFIDENCES.observe_all(scores[:, 0].tolist())
        epistemic = scores[:, 1]
        weight = min(1.0, count / _DRIFT_SMOOTHING)
        self._uncertainty += weight * (float(epistemic.mean()) - self._uncertainty)
        self._drift += weight * (float((epistemic > _NINETY_NINTH_PERCENTILE).mean()) - self._drift)
        self._finished.append((time.monotonic(), count))
        self._in_window += count


def _count(children: list[Counter], index: NDArray[np.int64]) -> None:
    for child, count in zip(children, np.bincount(index, minlength=len(children)).tolist(), strict=True):
        if count:
            child.inc(count)
