"""What one process does in the tests of distributed training: ``distributed_worker.py train|update FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from app.mappo import Learner, MappoConfig, distributed
from tests.app.mappo.conftest import SignGame

ENVIRONMENTS = 8
CONFIG = MappoConfig(
    rollout_steps=8, epochs=4, share_actor=False, actor_hidden_sizes=(16,), critic_hidden_sizes=(16,), threads=1
)


def train() -> Learner:
    """Three updates from environments of this process's own."""
    learner = Learner(SignGame(num_envs=4), CONFIG, seed=0)
    learner.train(3 * 8 * 4 * distributed.world_size())
    return learner


def update(folder: Path) -> Learner:
    """One update from this process's share of a rollout that is the same in every run."""
    mine = ENVIRONMENTS // distributed.world_size()
    learner = Learner(SignGame(num_envs=mine), CONFIG, seed=0)
    if distributed.rank() == 0:
        save_file({"actor": learner.actor.network.parameters.clone()}, folder / "initial.safetensors")
    generator = torch.Generator().manual_seed(7)
    share = slice(distributed.rank() * mine, (distributed.rank() + 1) * mine)
    rollout = learner.collector.rollout
    rollout.observations.copy_(torch.randn(9, ENVIRONMENTS, 2, 3, generator=generator)[:, share])
    rollout.rewards.copy_(torch.randn(8, ENVIRONMENTS, 2, generator=generator)[:, share])
    rollout.actions.copy_(torch.randint(2, (8, ENVIRONMENTS, 2), generator=generator)[:, share])
    rollout.truncated.copy_((torch.rand(8, ENVIRONMENTS, generator=generator) < 0.2)[:, share])
    learner.updater.update(rollout, learner.minibatch_generator)
    return learner


def main() -> None:
    """Saves the learner's state as ``MODE-RANK-of-WORLD.safetensors``."""
    mode, folder = sys.argv[1], Path(sys.argv[2])
    with distributed.process_group():
        learner = train() if mode == "train" else update(folder)
        name = f"{mode}-{distributed.rank()}-of-{distributed.world_size()}.safetensors"
        save_file(learner.state_dict(), folder / name)


if __name__ == "__main__":
    main()
