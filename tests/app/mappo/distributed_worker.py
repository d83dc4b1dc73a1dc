"""What one process does in the tests: ``distributed_worker.py train|update|gradients FOLDER``."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from app.mappo import Learner, MappoConfig, distributed
from app.mappo.batch import Batch
from app.mappo.losses import policy_gradient, value_gradient, value_loss
from app.mappo.networks import ParallelMlp
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
    fill_with_share(learner)
    learner.updater.update(learner.collector.rollout, learner.minibatch_generator)
    return learner


def fill_with_share(learner: Learner) -> None:
    """This process's part of a rollout that is the same in every run."""
    mine = ENVIRONMENTS // distributed.world_size()
    generator = torch.Generator().manual_seed(7)
    share = slice(distributed.rank() * mine, (distributed.rank() + 1) * mine)
    rollout = learner.collector.rollout
    rollout.observations.copy_(torch.randn(9, ENVIRONMENTS, 2, 3, generator=generator)[:, share])
    rollout.rewards.copy_(torch.randn(8, ENVIRONMENTS, 2, generator=generator)[:, share])
    rollout.actions.copy_(torch.randint(2, (8, ENVIRONMENTS, 2), generator=generator)[:, share])
    rollout.truncated.copy_((torch.rand(8, ENVIRONMENTS, generator=generator) < 0.2)[:, share])


def gradients() -> dict[str, Tensor]:
    """One gradient of the actors and the critic: averaged by the learner, by DistributedDataParallel, and not at all.

    The modules have the learner's parameters and torch's own layers; autograd differentiates the losses as written.
    """
    learner = Learner(SignGame(num_envs=ENVIRONMENTS // distributed.world_size()), CONFIG, seed=0)
    fill_with_share(learner)
    with torch.no_grad():
        prepared, _ = learner.updater.prepare(learner.collector.rollout)
        batch = prepared.by_network(learner.actor.by_network)
    found: dict[str, Tensor] = {}
    for name, network, loss, gradient in (
        ("actor", learner.actor.network, actor_loss, _actor_gradient),
        ("critic", learner.critic.network, critic_loss, _critic_gradient),
    ):
        inputs = batch.actor_inputs if name == "actor" else batch.critic_inputs
        module = DistributedDataParallel(Modules(network))
        torch.autograd.backward(loss(module(inputs), batch))
        found[f"{name}.ddp"] = module.module.flat_gradients()
        with torch.no_grad():
            activations = network.activations(inputs)
            network.backward(activations, gradient(activations[-1], batch))
            found[f"{name}.alone"] = network.gradients.clone()
            distributed.average_(network.gradients)
            found[f"{name}.learner"] = network.gradients.clone()
    return found


class Modules(nn.Module):
    """The networks of a ``ParallelMlp`` as torch's own modules."""

    def __init__(self, network: ParallelMlp) -> None:
        super().__init__()
        self.networks = [self._one(network, row) for row in network.parameters]
        self.registered = nn.ModuleList(self.networks)

    @staticmethod
    def _one(network: ParallelMlp, row: Tensor) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(network.sizes):
            linear = nn.Linear(inputs, outputs)
            linear.weight.data = row[: inputs * outputs].view(inputs, outputs).T.clone()
            linear.bias.data = row[inputs * outputs : (inputs + 1) * outputs].clone()
            row = row[(inputs + 1) * outputs :]
            layers += [linear, nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([module(mine) for module, mine in zip(self.networks, inputs, strict=True)])

    def flat_gradients(self) -> Tensor:
        """Laid out as ``ParallelMlp.gradients``."""
        rows = []
        for network in self.networks:
            gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
            rows.append(torch.cat([gradient.T.flatten() for gradient in gradients]))
        return torch.stack(rows)


def actor_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Every actor minimises its own clipped surrogate with entropy bonus."""
    log_probs = logits.log_softmax(-1)
    ratio = (log_probs.gather(-1, batch.actions) - batch.old_log_probs).exp()
    clipped = ratio.clamp(1 - CONFIG.clip, 1 + CONFIG.clip)
    surrogate = torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return -surrogate.mean((1, 2)).sum() - CONFIG.entropy_coefficient * entropy.mean(1).sum()


def critic_loss(values: Tensor, batch: Batch) -> Tensor:
    return value_loss(values, batch.old_values, batch.targets, clip=CONFIG.value_clip, delta=CONFIG.huber_delta)


def _actor_gradient(logits: Tensor, batch: Batch) -> Tensor:
    return policy_gradient(
        logits,
        batch.actions,
        batch.old_log_probs,
        batch.advantages,
        clip=CONFIG.clip,
        entropy_coefficient=CONFIG.entropy_coefficient,
    )


def _critic_gradient(values: Tensor, batch: Batch) -> Tensor:
    return value_gradient(values, batch.old_values, batch.targets, clip=CONFIG.value_clip, delta=CONFIG.huber_delta)


def main() -> None:
    """Saves the learner's state, or the gradients, as ``MODE-RANK-of-WORLD.safetensors``."""
    mode, folder = sys.argv[1], Path(sys.argv[2])
    with distributed.process_group():
        name = f"{mode}-{distributed.rank()}-of-{distributed.world_size()}.safetensors"
        if mode == "gradients":
            save_file(gradients(), folder / name)
        else:
            learner = train() if mode == "train" else update(folder)
            save_file(learner.state_dict(), folder / name)


if __name__ == "__main__":
    main()
