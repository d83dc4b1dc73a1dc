"""Training learns, the same seed learns the same, and what was interrupted goes on as if it never had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.mappo.update import Updater
from app.market.features import tactical_features
from app.market.simulator import simulate
from app.tactical import checkpoint, trainer
from app.tactical.account import Costs
from app.tactical.checkpoint import CheckpointError
from app.tactical.model import Trained, load_policy
from app.tactical.plan import BarsPlan, WindowPlan
from app.tactical.tape import Tape, WindowError, tape_of_bars
from app.tactical.trainer import Progress, TrainingCancelledError, TrainingDivergedError, train_bars, train_window

PLAN = BarsPlan(episodes=64, num_envs=8, episode_steps=8, checkpoint_every=16, epochs=2)


def tape(seed: int = 0) -> Tape:
    return tape_of_bars(simulate(series=2, length=300, seed=seed).bars)


def window(seed: int) -> np.ndarray:
    return tactical_features(simulate(series=1, length=100, seed=seed).bars)[0, 60:90]


def parameters(trained: Trained) -> torch.Tensor:
    return trained.policy.state_dict()["actor"]


def test_a_training_on_one_window_learns() -> None:
    better = 0
    for seed in range(5):
        summary = train_window(window(seed), WindowPlan(seed=seed)).summary
        better += summary.return_after > summary.return_before
        assert summary.frames == 300
        assert summary.updates == len(summary.curve) == 10
        assert summary.seconds > 0
        assert summary.losses.value_loss > 0
        assert abs(summary.parameters_per_agent - 102_405) < 500
    assert better == 5


def test_the_same_seed_learns_the_same() -> None:
    one, same, other = (train_window(window(1), WindowPlan(episodes=2, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(parameters(one), parameters(same))
    assert not torch.equal(parameters(one), parameters(other))
    assert one.summary.return_after == same.summary.return_after


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e30, -1e-30])
def test_any_finite_window_trains_without_a_number_that_is_not(value: float) -> None:
    trained = train_window(np.full((30, 7), value), WindowPlan(episodes=2))
    assert torch.isfinite(parameters(trained)).all()
    summary = trained.summary
    assert np.isfinite([summary.return_before, summary.return_after, summary.losses.policy_loss]).all()


def test_a_model_comes_back_from_its_file() -> None:
    trained = train_window(window(1), WindowPlan(episodes=1))
    policy, summary = load_policy(trained.encode())
    observation = torch.from_numpy(np.stack([window(2)] * 3))[None]
    assert summary == trained.summary
    for mine, theirs in zip(policy.act(observation, True), trained.policy.act(observation, True), strict=True):
        assert torch.equal(mine, theirs)


def test_a_file_that_holds_no_model_is_refused() -> None:
    trained = train_window(window(1), WindowPlan(episodes=1))
    document = trained.document()
    foreign: list[tuple[dict[str, torch.Tensor], dict[str, object], str]] = [
        ({"actor": torch.zeros(3, 5)}, document, "no tactical model"),
        ({}, document, "no tactical model"),
        (trained.policy.state_dict(), {"kind": "training"}, "expected a 'model'"),
        (trained.policy.state_dict(), {"kind": "model"}, "no tactical model"),
    ]
    for tensors, text, message in foreign:
        with pytest.raises(CheckpointError, match=message):
            load_policy(checkpoint.encode(tensors, text))


def test_progress_is_told_after_every_update() -> None:
    seen: list[Progress] = []
    train_bars(tape(), PLAN, on_progress=seen.append)
    assert [progress.point.episodes for progress in seen] == list(range(8, 65, 8))
    assert seen[-1].share == 1.0


def test_a_cancelled_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = train_bars(tape(), PLAN)
    seen: list[Progress] = []
    with pytest.raises(TrainingCancelledError, match="cancelled after 24 of 64 episodes"):
        train_bars(tape(), PLAN, directory=tmp_path, on_progress=seen.append, cancelled=lambda: len(seen) == 2)
    resumed = train_bars(tape(), PLAN, directory=tmp_path, resume=True)
    assert torch.equal(parameters(resumed), parameters(whole))
    assert resumed.summary.return_before == whole.summary.return_before
    assert resumed.summary.return_after == whole.summary.return_after
    assert [p.policy_loss for p in resumed.summary.curve] == [p.policy_loss for p in whole.summary.curve]


def test_a_checkpoint_that_comes_too_soon_is_left_out_but_never_the_last(tmp_path: Path) -> None:
    there: list[bool] = []
    train_bars(
        tape(),
        PLAN,
        directory=tmp_path,
        on_progress=lambda _: there.append(checkpoint.exists(tmp_path, "training")),
        save_now=lambda: False,
    )
    assert there == [False] * 7 + [True]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    finished = train_bars(tape(), PLAN, directory=tmp_path)
    again = train_bars(tape(), PLAN, directory=tmp_path, resume=True)
    assert torch.equal(parameters(again), parameters(finished))
    assert again.summary.curve == finished.summary.curve


@pytest.mark.slow
def test_a_training_killed_at_any_moment_goes_on_to_the_same_end(tmp_path: Path) -> None:
    child = textwrap.dedent(
        f"""
        import pathlib
        from app.market.simulator import simulate
        from app.tactical.plan import BarsPlan
        from app.tactical.tape import tape_of_bars
        from app.tactical.trainer import train_bars
        plan = BarsPlan.model_validate_json({PLAN.model_dump_json()!r})
        tape = tape_of_bars(simulate(series=2, length=300, seed=0).bars)
        where = pathlib.Path({str(tmp_path)!r})
        tell = lambda progress: print(progress.point.episodes, flush=True)
        train_bars(tape, plan, directory=where, resume=True, on_progress=tell)
        """
    )
    for episodes in ("24", "48"):
        with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(line.strip() == episodes for line in process.stdout), "the training ended before it was killed"
            os.kill(process.pid, signal.SIGKILL)
    resumed = train_bars(tape(), PLAN, directory=tmp_path, resume=True)
    assert torch.equal(parameters(resumed), parameters(train_bars(tape(), PLAN)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed=0, not 1"),
        ({"episodes": 80}, "episodes=64, not 80"),
        ({"num_envs": 4}, "num_envs=8, not 4"),
        ({"costs": Costs(fee=0.0)}, "costs="),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    train_bars(tape(), PLAN, directory=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        train_bars(tape(), PLAN.model_copy(update=change), directory=tmp_path, resume=True)


def test_a_checkpoint_of_other_bars_is_refused(tmp_path: Path) -> None:
    train_bars(tape(), PLAN, directory=tmp_path)
    with pytest.raises(CheckpointError, match="other bars"):
        train_bars(tape(seed=1), PLAN, directory=tmp_path, resume=True)


def test_a_model_is_no_training_to_go_on_from(tmp_path: Path) -> None:
    trained = train_window(window(1), WindowPlan(episodes=1))
    checkpoint.save(tmp_path, trainer.CHECKPOINT, trained.policy.state_dict(), trained.document())
    with pytest.raises(CheckpointError, match="no training's checkpoint"):
        train_bars(tape(), PLAN, directory=tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Updater.update

    def broken(self: Updater, *arguments: object) -> object:
        return replace(original(self, *arguments), value_loss=float("nan"))  # type: ignore[arg-type]

    monkeypatch.setattr(Updater, "update", broken)
    with pytest.raises(TrainingDivergedError, match="value_loss is nan after update 1"):
        train_window(window(1))


def test_the_held_out_bars_are_never_trained_on() -> None:
    source = tape()
    seen, unseen = trainer.split(source, 0.2)
    assert seen.length == 240
    assert torch.equal(unseen.returns[:, unseen.first + 1 :], source.returns[:, 240:])
    assert torch.equal(unseen.observations()[:, 0, -1], source.features[:, 239])
    with pytest.raises(WindowError, match="too few"):
        trainer.split(tape_of_bars(simulate(series=1, length=60, seed=0).bars), 0.5)
