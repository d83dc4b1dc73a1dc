"""Runs queued trainings on this process's devices: claims, renews, checkpoints, resumes, ends.

The training itself runs in the device's thread; everything that touches the database runs in the event loop. When the
database goes away the training goes on; when it comes back the lease is renewed, or found lost, and the run given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar
from uuid import uuid4

import structlog

from app.service.problems import ProblemError
from app.tactical import metrics
from app.tactical.checkpoint import CheckpointError
from app.tactical.device import TrainingDevice
from app.tactical.job_store import MAXIMUM_CRASHES, ClaimedJob, JobStore
from app.tactical.registry import FileStore, StorageError, StoredFile
from app.tactical.settings import TacticalSettings
from app.tactical.store import NewModel
from app.tactical.trainer import Progress, TrainingCancelledError
from app.tactical.training import JobTraining, TrainedModel, decode_bars, job_plan

T = TypeVar("T")
StopReason = Literal["cancelled", "lease lost", "another client's turn", "the service stops"]

POLL_SECONDS: Final = 1.0
TELL_SECONDS: Final = 1.0
CHECKPOINTS: Final = "checkpoints"
MODELS: Final = "models"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Run:
    """A job while it runs: what its thread and the event loop tell each other."""

    job: ClaimedJob
    stop: StopReason | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    fresh_checkpoint: StoredFile | None = None
    """Written, not yet known to the database."""
    checkpoint_error: str | None = None
    began: float = field(default_factory=time.monotonic)


class JobRunner:
    """Keeps every device busy while jobs wait."""

    def __init__(
        self, jobs: JobStore, files: FileStore, devices: list[TrainingDevice], settings: TacticalSettings
    ) -> None:
        self._jobs = jobs
        self._files = files
        self._devices = devices
        self._settings = settings
        self._wake = asyncio.Event()
        self._runs: dict[str, _Run] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begin to claim jobs."""
        self._tasks = [asyncio.create_task(self._serve(device), name=f"jobs-{device.name}") for device in self._devices]

    def wake(self) -> None:
        """A job was queued: look now instead of at the next poll."""
        self._wake.set()

    async def stop(self) -> None:
        """Let each running job save its state, and give it back to the queue."""
        self._stopping = True
        for run in self._runs.values():
            run.stop = run.stop or "the service stops"
        self._wake.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, device: TrainingDevice) -> None:
        while not self._stopping:
            job = None
            try:
                job = await self._jobs.claim()
                metrics.QUEUE_DEPTH.labels("job").set(await self._jobs.waiting())
            except ProblemError:
                pass  # the database is away: look again later
            except Exception:  # noqa: BLE001 - a device must never stop looking for work
                _log.exception("no job claimed")
            if job is not None:
                await self._run(device, job)
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def _run(self, device: TrainingDevice, job: ClaimedJob) -> None:
        run = self._runs[device.name] = _Run(job)
        log = _log.bind(job=str(job.id), device=device.name)
        log.info("job started", resumed=job.checkpoint_path is not None, crashes=job.crashes)
        renewing = asyncio.create_task(self._keep_lease(run))
        try:
            outcome = await self._train_and_end(device, run)
        except Exception as error:
            log.exception("job failed")
            outcome = await self._end(run, "failed", f"{type(error).__name__}: {error}")
        finally:
            renewing.cancel()
            del self._runs[device.name]
        metrics.TRAININGS.labels("job", outcome).inc()
        log.info("job left the device", outcome=outcome)

    async def _train_and_end(self, device: TrainingDevice, run: _Run) -> str:
        job = run.job
        if job.crashes > MAXIMUM_CRASHES:
            return await self._end(run, "failed", f"its process died {job.crashes} times without a checkpoint between")
        state = await self._last_checkpoint(run)
        training = JobTraining(
            decode_bars(job.bars),
            job_plan(job.parameters, device.name, jit=self._settings.jit_enabled),
            resume_from=state,
            checkpoint_seconds=self._settings.checkpoint_seconds,
        )
        try:
            trained = await device.run_long(lambda: self._train(device, run, training))
        except TrainingCancelledError:
            return await self._give_up(run)
        except (ArithmeticError, ValueError, StorageError) as error:
            return await self._end(run, "failed", str(error))
        return await self._keep(run, trained)

    def _train(self, device: TrainingDevice, run: _Run, training: JobTraining) -> TrainedModel:
        """In the device's thread."""

        def on_progress(progress: Progress) -> None:
            point = progress.point
            metrics.TRAINING_STEPS.inc(progress.plan.frames / progress.plan.updates)
            metrics.TRAINING_LOSS.labels("policy").set(point.policy_loss)
            metrics.TRAINING_LOSS.labels("value").set(point.value_loss)
            run.progress = {"share": round(progress.share, 4), "of": progress.plan.episodes, **point.model_dump()}
            device.serve_short()

        def on_checkpoint(state: bytes) -> None:
            path = f"{CHECKPOINTS}/{run.job.id}/{uuid4().hex}.safetensors"
            try:
                run.fresh_checkpoint, stale = self._files.write(path, state), run.fresh_checkpoint
            except StorageError as error:
                run.checkpoint_error = str(error)  # the training goes on: a kill would cost more of it
                return
            if stale is not None:
                self._files.delete(stale.path)

        return training.run(
            on_progress=on_progress, on_checkpoint=on_checkpoint, cancelled=lambda: run.stop is not None
        )

    async def _last_checkpoint(self, run: _Run) -> bytes | None:
        """The state to go on from; None to begin, also where the state is lost."""
        path, checksum = run.job.checkpoint_path, run.job.checkpoint_checksum
        if path is None or checksum is None:
            return None
        try:
            return await asyncio.to_thread(self._files.read, path, checksum)
        except (StorageError, CheckpointError) as error:
            _log.warning("checkpoint lost, the job begins anew", job=str(run.job.id), error=str(error))
            lost = {"error": str(error)}
        await self._insist(lambda: self._jobs.tell(run.job.id, "checkpoint_lost", lost))
        return None

    async def _keep_lease(self, run: _Run) -> None:
        pause = min(TELL_SECONDS, self._settings.job_lease_seconds / 5)
        while True:
            await asyncio.sleep(pause)
            with contextlib.suppress(ProblemError):  # the database is away: it may be back within the lease
                await self._renew(run)

    async def _renew(self, run: _Run) -> None:
        progress = run.progress
        lease = await self._jobs.renew(run.job.id, progress, tell=progress != run.told)
        run.told = progress
        if lease is None:
            run.stop = "lease lost"
            return
        await self._record_checkpoint(run)
        if lease.cancel_requested:
            run.stop = "cancelled"
        elif lease.others_wait and time.monotonic() - run.began > self._settings.turn_seconds:
            run.stop = run.stop or "another client's turn"

    async def _record_checkpoint(self, run: _Run) -> None:
        fresh, run.fresh_checkpoint = run.fresh_checkpoint, None
        error, run.checkpoint_error = run.checkpoint_error, None
        if error is not None:
            await self._jobs.tell(run.job.id, "checkpoint_failed", {"error": error})
        if fresh is None:
            return
        try:
            kept = await self._jobs.keep_checkpoint(run.job.id, fresh)
        except ProblemError:
            run.fresh_checkpoint = run.fresh_checkpoint or fresh
            raise
        stale = run.job.checkpoint_path if kept else fresh.path
        if kept:
            run.job.checkpoint_path = fresh.path
        if stale is not None:
            await asyncio.to_thread(self._delete, stale)

    async def _give_up(self, run: _Run) -> str:
        """After a stop between two updates: the state is saved."""
        if run.stop == "lease lost":
            await self._discard_checkpoints(run, kept=True)
            return "lost"
        if run.stop == "cancelled":
            return await self._end(run, "cancelled", None)
        reason = run.stop or "stopped"
        await self._insist(lambda: self._record_checkpoint(run))
        await self._insist(lambda: self._jobs.release(run.job.id, reason))
        return "released"

    async def _keep(self, run: _Run, trained: TrainedModel) -> str:
        """Keep the model's file, then commit it with the job's end."""
        path = f"{MODELS}/{trained.version}.safetensors"
        try:
            file = await asyncio.to_thread(self._files.write, path, trained.content)
        except StorageError as error:
            return await self._end(run, "failed", f"the model could not be kept: {error}")
        model = NewModel(trained.version, file, trained.metrics, trained.episodes)
        kept = await self._insist(lambda: self._jobs.succeed(run.job, model, run.progress))
        await self._discard_checkpoints(run, kept=not kept)
        if not kept:
            await asyncio.to_thread(self._delete, path)
            return "lost"
        metrics.TRAINING_RETURN.labels("before").set(trained.metrics["return_before"])
        metrics.TRAINING_RETURN.labels("after").set(trained.metrics["return_after"])
        return "succeeded"

    async def _end(self, run: _Run, state: str, error: str | None) -> str:
        kept = await self._insist(lambda: self._jobs.end(run.job.id, state, error))
        await self._discard_checkpoints(run, kept=not kept)
        return state if kept else "lost"

    async def _discard_checkpoints(self, run: _Run, *, kept: bool) -> None:
        """Delete what is no longer resumed from; ``kept`` spares the one that the database names."""
        fresh, run.fresh_checkpoint = run.fresh_checkpoint, None
        named = None if kept else run.job.checkpoint_path
        for path in (named, fresh.path if fresh is not None else None):
            if path is not None:
                await asyncio.to_thread(self._delete, path)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(StorageError):  # the sweep finds what is left
            self._files.delete(path)

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, tried until the database takes it, or until the service has to stop."""
        while True:
            try:
                return await work()
            except ProblemError:
                if self._stopping:
                    raise
                await asyncio.sleep(POLL_SECONDS)
