"""Series of the tactical service beyond those that every service exports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch
from prometheus_client import Counter, Gauge, Histogram

from app.contract import METRIC_TACTICAL_TRAINING_STEPS, METRIC_TACTICAL_TRAINING_TIME

TRAINING_TIME: Final = Gauge(
    METRIC_TACTICAL_TRAINING_TIME,
    "Seconds of the newest synchronous training, from request to commit.",
    multiprocess_mode="mostrecent",
)
TRAINING_DURATION: Final = Histogram(
    "tactical_training_duration_seconds",
    "Seconds of synchronous trainings, from request to commit.",
    buckets=(0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0),
)
TRAINING_STEPS: Final = Counter(METRIC_TACTICAL_TRAINING_STEPS, "Environment steps learned from.")
TRAININGS: Final = Counter(
    "tactical_trainings_total", "Trainings that ended, by kind and outcome.", ("kind", "outcome")
)
TRAINING_RETURN: Final = Gauge(
    "tactical_training_return",
    "Mean return of the newest training's policy in percent of equity, by when.",
    ("when",),
    multiprocess_mode="mostrecent",
)
TRAINING_LOSS: Final = Gauge(
    "tactical_training_loss", "Loss of the newest update, by network.", ("network",), multiprocess_mode="mostrecent"
)
QUEUE_DEPTH: Final = Gauge(
    "tactical_training_queue_depth", "Trainings that wait for a device, by kind.", ("kind",), multiprocess_mode="max"
)
ACTIONS: Final = Counter("tactical_actions_total", "Decisions answered and committed, by agent.", ("agent",))
ACT_BATCH: Final = Histogram(
    "tactical_act_batch_size", "Decisions computed and committed together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
PROCESS_MEMORY: Final = Gauge(
    "tactical_process_memory_bytes", "Resident memory of the service.", multiprocess_mode="livesum"
)
GPU_MEMORY: Final = Gauge(
    "tactical_gpu_memory_bytes", "Memory that tensors hold on a GPU.", ("device",), multiprocess_mode="livesum"
)
GPU_UTILISATION: Final = Gauge(
    "tactical_gpu_utilisation_ratio", "Share of time a GPU was busy.", ("device",), multiprocess_mode="max"
)

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def sample_memory() -> None:
    """Bring the gauges of memory and GPU up to date."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    PROCESS_MEMORY.set(resident_pages * _PAGE_BYTES)
    if not torch.cuda.is_available():
        return
    for index in range(torch.cuda.device_count()):
        GPU_MEMORY.labels(f"cuda:{index}").set(torch.cuda.memory_allocated(index))
        try:
            GPU_UTILISATION.labels(f"cuda:{index}").set(torch.cuda.utilization(index) / 100)
        except (RuntimeError, ModuleNotFoundError):  # needs NVIDIA's management library
            continue
