"""Trainings as the service runs them: from numbers to a file and rows, from a job's state to a file and back."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app.mappo import Policy
from app.market.bars import Bars, check_bars
from app.market.simulator import simulate
from app.service.problems import FieldError, unprocessable
from app.tactical import checkpoint
from app.tactical.model import Trained
from app.tactical.plan import BarsPlan, WindowPlan
from app.tactical.schemas import BarColumns, JobRequest
from app.tactical.tape import tape_of_bars
from app.tactical.trainer import CHECKPOINT, Progress, split, train_bars, train_window

SAMPLED_POINTS: Final = 200
"""Most points of a learning curve that the database keeps."""
_COLUMNS: Final = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained model, ready to be kept."""

    version: str
    content: bytes
    policy: Policy
    metrics: dict[str, Any]
    episodes: list[dict[str, Any]]
    """Points of the learning curve; ``episode`` counts the episodes so far."""
    steps: int


def train_on_window(
    window: NDArray[np.float32],
    *,
    episodes: int,
    seed: int,
    device: str,
    jit: bool = True,
    cancelled: Callable[[], bool] = lambda: False,
) -> TrainedModel:
    """Trains on one 30x7 window; see ``trainer.train_window`` for what it raises."""
    plan = WindowPlan(episodes=episodes, seed=seed, device=device, cuda_graphs=jit)
    return packed(train_window(window, plan, cancelled=cancelled))


def packed(trained: Trained) -> TrainedModel:
    """``trained`` under a new version."""
    summary = trained.summary
    every = -(-len(summary.curve) // SAMPLED_POINTS)
    points = [point for index, point in enumerate(summary.curve, 1) if index % every == 0 or point is summary.losses]
    metrics = summary.model_dump(mode="json", exclude={"curve"}) | {
        "policy_loss": summary.losses.policy_loss,
        "value_loss": summary.losses.value_loss,
        "entropy": summary.losses.entropy,
    }
    return TrainedModel(
        version=f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}",
        content=trained.encode(),
        policy=trained.policy,
        metrics=metrics,
        episodes=[{"episode": point.episodes, **point.model_dump(exclude={"episodes"})} for point in points],
        steps=summary.frames,
    )


def job_plan(parameters: dict[str, Any], device: str, *, jit: bool = True) -> BarsPlan:
    """The plan of a job that was queued with ``parameters``."""
    return BarsPlan(episodes=int(parameters["episodes"]), seed=int(parameters["seed"]), device=device, cuda_graphs=jit)


def checked_bars(request: JobRequest) -> Bars:
    """The bars that a request brings or asks the simulator for; blocks for as long as checking takes.

    Raises:
        ProblemError: 422, they cannot be true, or are too few to train and measure on.
    """
    where = "/bars"
    try:
        if request.simulation is not None:
            where = "/simulation/bars"
            bars = simulate(series=1, length=request.simulation.bars, seed=request.simulation.seed).bars
        elif request.bars is not None:
            bars = _bars_of(request.bars)
            check_bars(bars, source="bars", gaps="allow")
        else:
            raise AssertionError("the request was validated")
        plan = BarsPlan()
        for part in split(tape_of_bars(bars), plan.held_out):
            if part.decisions < plan.episode_steps:
                raise ValueError(f"bars: too few; one episode has {plan.episode_steps} steps")  # noqa: TRY301
    except ValueError as error:
        raise unprocessable(str(error), [FieldError(where, str(error))]) from error
    return bars


def _bars_of(columns: BarColumns) -> Bars:
    moments = [moment.replace(tzinfo=moment.tzinfo or UTC) for moment in columns.time]
    time_of = np.array([round(moment.timestamp() * 1_000_000) for moment in moments], dtype="datetime64[us]")
    return Bars(time_of, *(columns.column(name) for name in _COLUMNS))


def encode_bars(bars: Bars) -> bytes:
    """Bars as a NumPy archive."""
    file = io.BytesIO()
    arrays = {name: getattr(bars, name) for name in _COLUMNS}
    np.savez_compressed(file, allow_pickle=False, time=bars.time.astype(np.int64), **arrays)
    return file.getvalue()


def decode_bars(content: bytes) -> Bars:
    """Takes back what ``encode_bars`` gave."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Bars(arrays["time"].astype("datetime64[us]"), *(arrays[name] for name in _COLUMNS))


class JobTraining:
    """One run of a job: in a scratch directory, from a checkpoint if there is one. All methods block."""

    def __init__(self, bars: Bars, plan: BarsPlan, *, resume_from: bytes | None, checkpoint_seconds: float) -> None:
        """Prepare to train.

        Args:
            bars: to train on.
            plan: how.
            resume_from: what ``on_checkpoint`` gave in an earlier run.
            checkpoint_seconds: least time between two checkpoints.
        """
        self._bars = bars
        self._plan = plan
        self._resume_from = resume_from
        self._pause = checkpoint_seconds

    def run(
        self,
        *,
        on_progress: Callable[[Progress], None],
        on_checkpoint: Callable[[bytes], None],
        cancelled: Callable[[], bool],
    ) -> TrainedModel:
        """Train to the end, or raise as ``trainer.train_bars`` does; whatever ends it, the last state was given out.

        Args:
            on_progress: called after every update.
            on_checkpoint: called with the state as one file, when enough time has passed and at the end.
            cancelled: whether to stop after this update.
        """
        with tempfile.TemporaryDirectory(prefix="training-") as scratch:
            directory = Path(scratch)
            if self._resume_from is not None:
                checkpoint.save(directory, CHECKPOINT, *checkpoint.decode(self._resume_from))
            keeper = _CheckpointKeeper(directory, self._pause, on_checkpoint)

            def progressed(progress: Progress) -> None:
                keeper.give_out()
                on_progress(progress)

            try:
                trained = train_bars(
                    tape_of_bars(self._bars, self._plan.device),
                    self._plan,
                    directory=directory,
                    resume=True,
                    on_progress=progressed,
                    cancelled=cancelled,
                    save_now=keeper.wants,
                )
            finally:
                keeper.give_out()
        return packed(trained)


class _CheckpointKeeper:
    """Notices a new checkpoint in a directory and gives it out as one file."""

    def __init__(self, directory: Path, pause: float, give: Callable[[bytes], None]) -> None:
        self._directory = directory
        self._manifest = directory / f"{CHECKPOINT}.json"
        self._pause = pause
        self._give = give
        self._seen = self._written_at()
        self._given_at = time.monotonic()

    def wants(self) -> bool:
        """Whether the last one was long enough ago; writing one stalls whatever else the process and the disk do."""
        return time.monotonic() - self._given_at >= self._pause

    def give_out(self) -> None:
        """Give out the newest checkpoint if it is new."""
        written_at = self._written_at()
        if written_at == self._seen:
            return
        self._seen, self._given_at = written_at, time.monotonic()
        self._give(checkpoint.encode(*checkpoint.load(self._directory, CHECKPOINT)))

    def _written_at(self) -> int:
        return self._manifest.stat().st_mtime_ns if self._manifest.exists() else 0
