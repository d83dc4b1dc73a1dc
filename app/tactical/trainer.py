"""Training the three agents: a fraction of a second on one window, or long on bars with checkpoint and resume."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contract import WINDOW_BARS
from app.mappo import Learner, Policy, UpdateStats
from app.tactical import checkpoint
from app.tactical.account import Costs
from app.tactical.backtest import backtest, policy_actions
from app.tactical.checkpoint import CheckpointError
from app.tactical.environment import TacticalEnv
from app.tactical.model import Point, Trained, TrainingSummary
from app.tactical.plan import BarsPlan, WindowPlan
from app.tactical.tape import Tape, WindowError, tape_of_window

CHECKPOINT: Final = "training"
"""Name of the checkpoint that a long training writes and resumes from."""
EVALUATION_SEED: Final = 1_000_003
"""Before and after are played with the same draws."""


class TrainingCancelledError(Exception):
    """The caller asked to stop. What was learned up to then is in the last checkpoint, if there is a directory."""


class TrainingDivergedError(ArithmeticError):
    """A loss is not finite. Nothing of it was saved; the message names the update."""


def train_window(
    window: NDArray[np.float32],
    plan: WindowPlan | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains there and then on one 30x7 window (``tape_of_window`` says how it becomes a market).

    Raises:
        WindowError: when the window has a wrong shape or a value that is not finite.
        TrainingCancelledError: when ``cancelled`` answered True between two updates.
        TrainingDivergedError: when a loss is not finite.
    """
    plan = plan or WindowPlan()
    tape = tape_of_window(window, plan.device)
    start = time.perf_counter()
    learner = Learner(
        TacticalEnv(tape, num_envs=1, episode_steps=WINDOW_BARS, costs=plan.costs), plan.learner(), plan.seed
    )
    before = expected_return(learner.policy(), tape, plan.costs, plays=plan.plays)
    curve: list[Point] = []

    def on_update(stats: UpdateStats) -> None:
        curve.append(_point(stats, time.perf_counter() - start, episodes=stats.update))
        if cancelled():
            raise TrainingCancelledError(f"cancelled after {stats.update} of {plan.episodes} episodes")

    learner.train(plan.episodes * WINDOW_BARS, on_update)
    policy = learner.policy()
    after = expected_return(policy, tape, plan.costs, plays=plan.plays)
    summary = TrainingSummary(
        kind="window",
        seed=plan.seed,
        episodes=plan.episodes,
        frames=learner.frames,
        updates=learner.updates,
        seconds=time.perf_counter() - start,
        return_before=before,
        return_after=after,
        curve=tuple(curve),
        parameters_per_agent=policy.parameters_per_agent,
        device=plan.device,
    )
    return Trained(policy, summary)


def expected_return(policy: Policy, tape: Tape, costs: Costs, *, plays: int | None = None) -> float:
    """Mean reward of a policy over a tape, in percent: of ``plays`` draws a series, or of the most probable actions."""
    if plays is None:
        actions = policy_actions(policy, tape)
    else:
        actions = policy_actions(policy, tape, plays=plays, seed=EVALUATION_SEED)
    return float(backtest(tape, actions, costs).reward.mean())


@dataclass(frozen=True)
class Progress:
    """Where a long training stands."""

    plan: BarsPlan
    point: Point

    @property
    def share(self) -> float:
        """Done, 0 to 1."""
        return min(self.point.frames / self.plan.frames, 1.0)


def train_bars(
    tape: Tape,
    plan: BarsPlan | None = None,
    *,
    directory: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,  # noqa: ARG005 - a default that ignores it
    cancelled: Callable[[], bool] = lambda: False,
    save_now: Callable[[], bool] = lambda: True,
) -> Trained:
    """Trains on the first part of a tape and measures on the rest; see ``BarsPlan``.

    With a ``directory`` the training's state is saved there every ``checkpoint_every`` episodes, if ``save_now`` does
    not find that too soon, and at the end;
    ``resume`` goes on from it, and the result is bit for bit that of a training that was never interrupted. Without a
    checkpoint there, ``resume`` starts anew.

    Raises:
        WindowError: when there are too few bars.
        CheckpointError: when a checkpoint cannot be written, is damaged, or belongs to other bars or another plan.
        TrainingCancelledError: when ``cancelled`` answered True between two updates; the state is saved.
        TrainingDivergedError: when a loss is not finite.
    """
    plan = plan or BarsPlan()
    seen, unseen = split(tape, plan.held_out)
    start = time.perf_counter()
    learner = Learner(
        TacticalEnv(seen, num_envs=plan.num_envs, episode_steps=plan.episode_steps, costs=plan.costs),
        plan.learner(),
        plan.seed,
    )
    run = _Run(plan, fingerprint(tape), directory)
    if not (resume and run.restore(learner)):
        run.before = expected_return(learner.policy(), unseen, plan.costs)
    run.started = start

    def on_update(stats: UpdateStats) -> None:
        point = run.record(stats)
        stop = cancelled()
        if stop or stats.update >= plan.updates or (run.due(stats.update) and save_now()):
            run.save(learner)
        on_progress(Progress(plan, point))
        if stop:
            raise TrainingCancelledError(f"cancelled after {point.episodes} of {plan.episodes} episodes")

    if learner.frames < plan.frames:
        learner.train(plan.frames - learner.frames, on_update)
    policy = learner.policy()
    summary = TrainingSummary(
        kind="bars",
        seed=plan.seed,
        episodes=learner.updates * plan.num_envs,
        frames=learner.frames,
        updates=learner.updates,
        seconds=run.seconds,
        return_before=run.before,
        return_after=expected_return(policy, unseen, plan.costs),
        curve=tuple(run.curve),
        parameters_per_agent=policy.parameters_per_agent,
        device=plan.device,
    )
    return Trained(policy, summary)


def split(tape: Tape, held_out: float) -> tuple[Tape, Tape]:
    """The earlier and the later bars of every series. A window of the later part may look back into the earlier one.

    Raises:
        WindowError: when a part has no decision.
    """
    border = math.floor(tape.length * (1.0 - held_out))
    if border < tape.first + 2 or border > tape.length - 2:
        raise WindowError(f"bars: {tape.length} bars are too few to train on {1 - held_out:.0%} and hold out the rest")
    seen = tape.rows(0, border, first=tape.first)
    return seen, tape.rows(border - WINDOW_BARS, tape.length, first=WINDOW_BARS - 1)


def fingerprint(tape: Tape) -> str:
    """SHA-256 of the tape's numbers: tells whether a checkpoint was made with these bars."""
    digest = hashlib.sha256(f"{tuple(tape.features.shape)}/{tape.first}".encode())
    for tensor in (tape.features, tape.returns):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Run:
    """The part of a long training that the learner does not know: the plan, the curve, the clock, the checkpoint."""

    def __init__(self, plan: BarsPlan, bars: str, directory: Path | None) -> None:
        self.plan = plan
        self.bars = bars
        self.directory = directory
        self.before = 0.0
        self.curve: list[Point] = []
        self.started = time.perf_counter()
        self._earlier_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Wall time so far, earlier runs included."""
        return self._earlier_seconds + time.perf_counter() - self.started

    def record(self, stats: UpdateStats) -> Point:
        point = _point(stats, self.seconds, episodes=stats.update * self.plan.num_envs)
        self.curve.append(point)
        return point

    def due(self, update: int) -> bool:
        """Whether a multiple of ``checkpoint_every`` episodes was passed with this update."""
        every, envs = self.plan.checkpoint_every, self.plan.num_envs
        return update * envs // every > (update - 1) * envs // every

    def save(self, learner: Learner) -> None:
        if self.directory is None:
            return
        document = {
            "kind": "training",
            "plan": self.plan.model_dump(mode="json"),
            "bars": self.bars,
            "return_before": self.before,
            "seconds": self.seconds,
            "curve": [point.model_dump() for point in self.curve],
        }
        checkpoint.save(self.directory, CHECKPOINT, learner.state_dict(), document)

    def restore(self, learner: Learner) -> bool:
        """Puts the checkpoint into the learner; False when there is none."""
        if self.directory is None or not checkpoint.exists(self.directory, CHECKPOINT):
            return False
        tensors, document = checkpoint.load(self.directory, CHECKPOINT)
        where = self.directory / f"{CHECKPOINT}.json"
        try:
            plan, bars = BarsPlan.model_validate(document["plan"]), document["bars"]
            curve = [Point.model_validate(point) for point in document["curve"]]
            before, seconds = float(document["return_before"]), float(document["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: no training's checkpoint ({str(error).splitlines()[0]})") from error
        # With other checkpoints it is still the same training; anything else would not go on exactly.
        free = {"checkpoint_every": self.plan.checkpoint_every}
        if plan.model_copy(update=free) != self.plan:
            raise CheckpointError(
                f"{where}: was made with {_difference(plan, self.plan)}; resume with that or start anew"
            )
        if bars != self.bars:
            raise CheckpointError(f"{where}: was made with other bars; resume with those or start anew")
        try:
            learner.load_state_dict(tensors)
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{where}: does not fit ({error})") from error
        self.curve, self.before, self._earlier_seconds = curve, before, seconds
        return True


def _difference(theirs: BarsPlan, mine: BarsPlan) -> str:
    """The first setting in which two plans differ, as ``name=theirs, not mine``."""
    for name in BarsPlan.model_fields:
        one, other = getattr(theirs, name), getattr(mine, name)
        if one != other and name != "checkpoint_every":
            return f"{name}={one}, not {other}"
    return "other settings"


def _point(stats: UpdateStats, seconds: float, *, episodes: int) -> Point:
    """A point of the curve.

    Raises:
        TrainingDivergedError: when one of its numbers is not finite.
    """
    point = Point(
        episodes=episodes,
        frames=stats.frames,
        seconds=seconds,
        episode_return=stats.episode_return if stats.episode_return is not None else 0.0,
        policy_loss=stats.policy_loss,
        value_loss=stats.value_loss,
        entropy=stats.entropy,
        approximate_kl=stats.approximate_kl,
        explained_variance=stats.explained_variance,
    )
    for name, value in point:
        if not math.isfinite(value):
            raise TrainingDivergedError(
                f"training diverged: {name} is {value} after update {stats.update}; lower the learning rate"
            )
    return point
