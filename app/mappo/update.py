"""Learning from one rollout: advantages, then epochs of minibatch gradient steps on the actors and the critic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from app.mappo import distributed
from app.mappo.advantages import generalised_advantages
from app.mappo.batch import Batch
from app.mappo.config import MappoConfig
from app.mappo.graphs import GraphedStep
from app.mappo.losses import policy_gradient, policy_loss, value_gradient, value_loss
from app.mappo.models import Actor, Critic
from app.mappo.normalisation import ValueNormaliser, normalise_advantages
from app.mappo.optimiser import Adam, clip_gradient_norm_
from app.mappo.rollout import Rollout


@dataclass(frozen=True)
class UpdateLosses:
    """Scalars of one update, in :class:`app.mappo.statistics.UpdateStats`' words."""

    policy_loss: float
    value_loss: float
    entropy: float
    approximate_kl: float
    clip_fraction: float
    explained_variance: float
    actor_gradient_norm: float
    critic_gradient_norm: float


class Updater:
    """Owns the optimisers and the value statistics; changes the actors and the critic."""

    def __init__(self, actor: Actor, critic: Critic, config: MappoConfig) -> None:
        self._actor = actor
        self._critic = critic
        self._config = config
        device = torch.device(config.device)
        self.normaliser = (
            ValueNormaliser(actor.num_agents, decay=config.value_decay, device=device)
            if config.normalise_values
            else None
        )
        self.actor_optimiser = Adam(
            actor.network.parameters, learning_rate=config.actor_learning_rate, epsilon=config.adam_epsilon
        )
        self.critic_optimiser = Adam(
            critic.network.parameters, learning_rate=config.critic_learning_rate, epsilon=config.adam_epsilon
        )
        self._actor_norms = torch.zeros(actor.network.groups, device=device)
        self._critic_norms = torch.zeros(1, device=device)
        use_graph = device.type == "cuda" and config.cuda_graphs and distributed.world_size() == 1
        self._step: Callable[[Batch], None] = GraphedStep(self._gradient_step) if use_graph else self._gradient_step

    def set_progress(self, remaining: float) -> None:
        """Scales both learning rates to ``remaining`` of their configured values."""
        self.actor_optimiser.learning_rate.fill_(self._config.actor_learning_rate * remaining)
        self.critic_optimiser.learning_rate.fill_(self._config.critic_learning_rate * remaining)

    def update(self, rollout: Rollout, generator: torch.Generator) -> UpdateLosses:
        """Learns from ``rollout``; ``generator`` (CPU) draws the minibatches."""
        batch, explained_variance = self.prepare(rollout)
        minibatch = batch
        for minibatch in self._minibatches(batch, generator):
            self._step(minibatch)
        return self._losses(minibatch, explained_variance)

    def prepare(self, rollout: Rollout) -> tuple[Batch, Tensor]:
        """Turns experience into what the losses need; also the explained variance of the values it was judged by."""
        config = self._config
        steps, copies, agents = rollout.rewards.shape
        critic_inputs = self._critic.inputs(rollout.observations.flatten(0, 1)).contiguous()
        normalised = self._critic.estimate(critic_inputs).reshape(steps + 1, copies, agents)
        values, rewards = self._denormalise(normalised), rollout.rewards
        if config.truncation == "bootstrap":
            final = self._denormalise(rollout.final_values)
            rewards = torch.where(rollout.truncated.unsqueeze(-1), rewards + config.gamma * final, rewards)
        advantages = generalised_advantages(
            rewards,
            values[:-1],
            values[-1],
            rollout.ends.unsqueeze(-1),
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        returns = (advantages + values[:-1]).view(-1, agents)
        targets = returns
        if self.normaliser is not None:
            self.normaliser.update(returns)
            targets = self.normaliser.normalise(returns)
        if config.normalise_advantages:
            by_network = self._actor.by_network(_by_agent(advantages))
            by_agent = normalise_advantages(by_network).view(agents, -1)
        else:
            by_agent = _by_agent(advantages)
        actions = _by_agent(rollout.actions).unsqueeze(-1)
        log_probs = torch.log_softmax(_by_agent(rollout.logits), dim=-1)
        batch = Batch(
            actor_inputs=self._actor.inputs(rollout.observations[:-1].flatten(0, 1)).contiguous(),
            actions=actions,
            old_log_probs=log_probs.gather(-1, actions),
            advantages=by_agent.unsqueeze(-1),
            critic_inputs=critic_inputs[:, : steps * copies],
            old_values=self._critic.by_view(normalised[:-1].reshape(-1, agents)),
            targets=self._critic.by_view(targets),
        )
        unexplained = advantages.var(correction=0) / returns.var(correction=0).clamp(min=1e-12)
        return batch, 1.0 - unexplained

    def _denormalise(self, values: Tensor) -> Tensor:
        return values if self.normaliser is None else self.normaliser.denormalise(values)

    def _minibatches(self, batch: Batch, generator: torch.Generator) -> Iterator[Batch]:
        """Every epoch's minibatches, laid out by network; a single one needs no order and is not copied."""
        if self._config.minibatches == 1:
            yield from repeat(batch.by_network(self._actor.by_network), self._config.epochs)
            return
        steps = batch.actions.shape[1]
        for _ in range(self._config.epochs):
            order = torch.randperm(steps, generator=generator).to(batch.actions.device)
            for chosen in order.chunk(self._config.minibatches):
                yield batch.select(chosen).by_network(self._actor.by_network)

    def _gradient_step(self, batch: Batch) -> None:
        """One Adam step on the actors and one on the critic."""
        config = self._config
        actor, critic = self._actor.network, self._critic.network
        activations = actor.activations(batch.actor_inputs)
        gradient = policy_gradient(
            activations[-1].float(),
            batch.actions,
            batch.old_log_probs,
            batch.advantages,
            clip=config.clip,
            entropy_coefficient=config.entropy_coefficient,
        )
        actor.backward(activations, gradient)
        self._actor_norms.copy_(self._optimise(actor.gradients, self.actor_optimiser))
        actor.refresh()

        activations = critic.activations(batch.critic_inputs)
        gradient = value_gradient(
            activations[-1].float(), batch.old_values, batch.targets, clip=config.value_clip, delta=config.huber_delta
        )
        critic.backward(activations, gradient)
        self._critic_norms.copy_(self._optimise(critic.gradients, self.critic_optimiser))
        critic.refresh()

    def _optimise(self, gradients: Tensor, optimiser: Adam) -> Tensor:
        distributed.average_(gradients)
        norms = clip_gradient_norm_(gradients, self._config.max_gradient_norm)
        optimiser.step(gradients)
        return norms

    def _losses(self, batch: Batch, explained_variance: Tensor) -> UpdateLosses:
        """Judges the updated networks on the last minibatch; over all processes."""
        config = self._config
        policy = policy_loss(
            self._actor.network.forward(batch.actor_inputs),
            batch.actions,
            batch.old_log_probs,
            batch.advantages,
            clip=config.clip,
        )
        value = value_loss(
            self._critic.network.forward(batch.critic_inputs),
            batch.old_values,
            batch.targets,
            clip=config.value_clip,
            delta=config.huber_delta,
        )
        scalars = torch.stack(
            [
                policy.surrogate,
                value,
                policy.entropy,
                policy.approximate_kl,
                policy.clip_fraction,
                explained_variance,
                self._actor_norms.max(),
                self._critic_norms.max(),
            ]
        )
        distributed.average_(scalars)
        return UpdateLosses(*scalars.tolist())


def _by_agent(values: Tensor) -> Tensor:
    """(T, E, A, ...) as (A, T * E, ...)."""
    return values.flatten(0, 1).transpose(0, 1)
