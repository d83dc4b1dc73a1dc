from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.mappo import Learner, MappoConfig, VectorEnv

MakeGame = Callable[..., Any]


@pytest.mark.parametrize(
    "change", [{}, {"share_actor": False, "minibatches": 3, "anneal_frames": 500}, {"normalise_values": False}], ids=str
)
def test_a_resumed_training_continues_exactly_as_the_uninterrupted_one(
    sign_game: MakeGame, config: MappoConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = config.model_copy(update=change)
    # Episodes of 11 steps: the checkpoint falls into the middle of one.
    uninterrupted = Learner(sign_game(steps=11), config, seed=0)
    uninterrupted.train(96)
    save_file(uninterrupted.state_dict(), tmp_path / "learner.safetensors")
    expected = [stats.episode_return for stats in uninterrupted.train(96).updates_stats]

    resumed = Learner(sign_game(steps=11), config, seed=77)
    resumed.load_state_dict(load_file(tmp_path / "learner.safetensors"))
    report = resumed.train(96)

    assert [stats.episode_return for stats in report.updates_stats] == expected
    assert (resumed.frames, resumed.updates, resumed.seed) == (192, 6, 0)
    mine, theirs = resumed.state_dict(), uninterrupted.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_checkpoint_does_not_change_when_training_goes_on(sign_game: MakeGame, config: MappoConfig) -> None:
    learner = Learner(sign_game(), config, seed=0)
    state = learner.state_dict()
    copies = {name: tensor.clone() for name, tensor in state.items()}
    learner.train(32)
    assert all(torch.equal(state[name], copies[name]) for name in state)


def test_an_environment_without_a_state_starts_new_episodes(coordination_game: VectorEnv, config: MappoConfig) -> None:
    learner = Learner(coordination_game, config, seed=0)
    learner.train(32)
    resumed = Learner(coordination_game, config, seed=1)
    resumed.load_state_dict(learner.state_dict())
    resumed.train(32)
    assert resumed.updates == 2


def test_a_foreign_checkpoint_is_refused_and_changes_nothing(sign_game: MakeGame, config: MappoConfig) -> None:
    learner = Learner(sign_game(), config, seed=0)
    before = learner.state_dict()
    larger = Learner(sign_game(), config.model_copy(update={"actor_hidden_sizes": (32,)}), seed=0).state_dict()
    unnormalised = Learner(sign_game(), config.model_copy(update={"normalise_values": False}), seed=0).state_dict()
    broken = {**before, "critic": before["critic"] * float("nan")}
    for state, message in (
        (larger, r"checkpoint: actor is torch.float32 \(1, 194\), expected"),
        (unnormalised, "value_normaliser.mean, .* missing"),
        ({**before, "surprise": torch.zeros(1)}, "surprise unknown"),
        (broken, "critic is not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            learner.load_state_dict(state)
        assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
