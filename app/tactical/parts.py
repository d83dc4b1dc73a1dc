"""What the tactical service consists of besides the shared runtime, and its life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import numpy as np
import structlog
import torch

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.service.idempotency import AnsweredRequests
from app.service.problems import ProblemError
from app.service.runtime import Runtime
from app.tactical import metrics
from app.tactical.acting import Acting
from app.tactical.device import TrainingDevice, training_devices
from app.tactical.events import EventStreams
from app.tactical.job_store import JobStore
from app.tactical.jobs import CHECKPOINTS, MODELS, JobRunner
from app.tactical.policies import Policies
from app.tactical.registry import FileStore, StorageError, open_store
from app.tactical.settings import TacticalSettings
from app.tactical.store import ModelStore
from app.tactical.training import train_on_window

# The training's thread hands the interpreter over between two torch calls; 5 ms would be the whole budget of an answer.
SWITCH_INTERVAL_SECONDS: Final = 0.0005
ORPHAN_SECONDS: Final = 24 * 3600.0
"""Age at which a file that the database does not know was never acknowledged."""
SWEEP_SECONDS: Final = 3600.0
SAMPLE_SECONDS: Final = 1.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Parts:
    """Made before the service starts, opened with it."""

    settings: TacticalSettings
    files: FileStore
    devices: list[TrainingDevice]
    models: ModelStore
    policies: Policies
    acting: Acting
    jobs: JobStore
    runner: JobRunner
    streams: EventStreams
    answered: AnsweredRequests


def create_parts(settings: TacticalSettings, runtime: Runtime) -> Parts:
    """The parts, not yet open.

    Raises:
        StorageError: the model store cannot be used.
        ValueError: ``TACTICAL_DEVICES`` names what is not there.
    """
    files = open_store(settings.model_store_url)
    devices = training_devices(settings.devices)
    if settings.devices == "auto" and devices[0].name == "cpu":
        _log.info("no GPU found: trainings run on the CPU")
    models = ModelStore(runtime.database)
    policies = Policies(models, files)
    owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    jobs = JobStore(runtime.database, owner=owner, lease_seconds=settings.job_lease_seconds)
    return Parts(
        settings=settings,
        files=files,
        devices=devices,
        models=models,
        policies=policies,
        acting=Acting(policies, runtime.database),
        jobs=jobs,
        runner=JobRunner(jobs, files, devices, settings),
        streams=EventStreams(jobs, runtime.draining),
        answered=AnsweredRequests(runtime.database),
    )


@contextlib.asynccontextmanager
async def running(parts: Parts, runtime: Runtime) -> AsyncIterator[None]:
    """From warm-up to the last saved checkpoint."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    torch.set_num_threads(1)  # products this small gain nothing from a second thread
    await asyncio.gather(*(_warm_up(device) for device in parts.devices))
    await parts.policies.open()
    runtime.checks["model"] = parts.policies.readiness

    async def store_check() -> str | None:
        return await asyncio.to_thread(parts.files.check)

    runtime.checks["model_store"] = store_check
    parts.runner.start()
    tasks = [asyncio.create_task(_sample(parts)), asyncio.create_task(_sweep(parts))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await parts.runner.stop()
        await parts.policies.close()
        for device in parts.devices:
            await asyncio.to_thread(device.close)


async def _warm_up(device: TrainingDevice) -> None:
    """The first training in a process imports and allocates for seconds; it must not be a client's."""
    window = np.random.default_rng(0).uniform(-1.0, 1.0, (WINDOW_BARS, WINDOW_FEATURES)).astype(np.float32)

    def train() -> float:
        trained = train_on_window(window, episodes=2, seed=0, device=device.name)
        return float(trained.metrics["seconds"])

    first = await device.run_short("warm-up", train)
    second = await device.run_short("warm-up", train)
    _log.info("device warm", device=device.name, first_seconds=round(first, 3), second_seconds=round(second, 3))


async def _sample(parts: Parts) -> None:
    while True:
        metrics.QUEUE_DEPTH.labels("synchronous").set(sum(device.waiting for device in parts.devices))
        metrics.sample_memory()
        await asyncio.sleep(SAMPLE_SECONDS)


async def _sweep(parts: Parts) -> None:
    """Remove files that were written and never committed."""
    while True:
        with contextlib.suppress(StorageError, ProblemError):
            removed = await sweep_orphans(parts, older_than=ORPHAN_SECONDS)
            if removed:
                _log.info("files without a row removed", count=removed)
        await asyncio.sleep(SWEEP_SECONDS)


async def sweep_orphans(parts: Parts, *, older_than: float) -> int:
    """Delete files older than ``older_than`` seconds that the database does not know; how many there were."""
    candidates = [
        path
        for prefix in (MODELS, CHECKPOINTS)
        for path in await asyncio.to_thread(parts.files.paths, prefix, older_than=older_than)
    ]
    if not candidates:
        return 0
    known = await parts.models.known_paths()
    orphans = [path for path in candidates if path not in known]
    for path in orphans:
        await asyncio.to_thread(parts.files.delete, path)
    return len(orphans)
