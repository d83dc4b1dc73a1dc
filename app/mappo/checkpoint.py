"""A learner's state as a flat dictionary of named tensors, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from app.mappo import distributed
from app.mappo.environment import ResumableEnv

if TYPE_CHECKING:
    from app.mappo.learner import Learner

_ENVIRONMENT = "environment."


def state_of(learner: Learner) -> dict[str, Tensor]:
    """Copies of everything that the learner's next update depends on."""
    state = {name: tensor.clone() for name, tensor in _tensors(learner).items()}
    state["counters"] = torch.tensor([learner.frames, learner.updates, learner.seed], dtype=torch.int64)
    state["action_generator"] = learner.action_generator.get_state()
    state["minibatch_generator"] = learner.minibatch_generator.get_state()
    if isinstance(learner.env, ResumableEnv):
        state |= {_ENVIRONMENT + name: tensor.clone() for name, tensor in learner.env.state_dict().items()}
    return state


@torch.no_grad()
def restore(learner: Learner, state: dict[str, Tensor]) -> None:
    """Puts ``state`` into ``learner``.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or not finite; the learner is unchanged.
    """
    of_environment = {name: tensor for name, tensor in state.items() if name.startswith(_ENVIRONMENT)}
    _check(state_of(learner), {name: tensor for name, tensor in state.items() if name not in of_environment})
    for name, tensor in _tensors(learner).items():
        tensor.copy_(state[name])
    learner.frames, learner.updates, learner.seed = (int(count) for count in state["counters"])
    learner.action_generator.set_state(state["action_generator"].cpu())
    learner.minibatch_generator.set_state(state["minibatch_generator"].cpu())
    learner.actor.network.refresh()
    learner.critic.network.refresh()
    if isinstance(learner.env, ResumableEnv) and of_environment:
        learner.env.load_state_dict(
            {name.removeprefix(_ENVIRONMENT): tensor for name, tensor in of_environment.items()}
        )
    else:
        learner.collector.begin(learner.env.reset(learner.seed + distributed.rank() + learner.updates))
        learner.returns.running.zero_()


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """The learner's own tensors by name; not copies."""
    updater = learner.updater
    parts = {
        "actor_optimiser": updater.actor_optimiser.state_dict(),
        "critic_optimiser": updater.critic_optimiser.state_dict(),
        "value_normaliser": updater.normaliser.state_dict() if updater.normaliser is not None else {},
    }
    named = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    named["actor"] = learner.actor.network.parameters
    named["critic"] = learner.critic.network.parameters
    named["observation"] = learner.collector.rollout.observations[-1]
    named["episode_returns"] = learner.returns.running
    return named


def _check(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    mine = {name for name in expected if not name.startswith(_ENVIRONMENT)}
    if missing := sorted(mine - found.keys()):
        raise ValueError(f"checkpoint: {', '.join(missing)} missing; was it made with another config?")
    if unknown := sorted(found.keys() - mine):
        raise ValueError(f"checkpoint: {', '.join(unknown)} unknown; was it made with another config?")
    for name in sorted(mine):
        if expected[name].shape != found[name].shape or expected[name].dtype != found[name].dtype:
            raise ValueError(
                f"checkpoint: {name} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"expected {expected[name].dtype} {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise ValueError(f"checkpoint: {name} is not finite")
