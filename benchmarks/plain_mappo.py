"""A plain reference to measure against: MAPPO as CleanRL (Huang et al. 2022) writes PPO.

One ``nn.Module`` an actor, autograd, ``torch.optim.Adam``, values and log-probabilities at every step, a loop for the
advantages. The mathematics is the learner's; nothing is fused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from app.mappo import MappoConfig, VectorEnv


def _layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int, output_gain: float) -> nn.Sequential:
    """Tanh layers, orthogonal initialisation."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_layer(inputs, size, 5.0 / 3.0), nn.Tanh()]
        inputs = size
    return nn.Sequential(*layers, _layer(inputs, outputs, output_gain))


class PlainMappo:
    """The same job as :class:`app.mappo.Learner`, written plainly."""

    def __init__(self, env: VectorEnv, config: MappoConfig, seed: int) -> None:
        torch.manual_seed(seed)
        features = torch.Size(env.observation_shape).numel()
        joint = features if config.shared_observation else features * env.num_agents
        networks = 1 if config.share_actor else env.num_agents
        self.env = env
        self.config = config
        self.actors = nn.ModuleList(
            mlp(features, config.actor_hidden_sizes, env.num_actions, config.actor_output_gain) for _ in range(networks)
        )
        values = 1 if config.agent_specific_critic else env.num_agents
        self.critic = mlp(joint, config.critic_hidden_sizes, values, 1.0)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), lr=config.actor_learning_rate, eps=config.adam_epsilon)
            for network in (*self.actors, self.critic)
        ]
        self.observation = self._flat(env.reset(seed))

    def _flat(self, observation: Tensor) -> Tensor:
        flat = observation.flatten(2)
        return nn.functional.layer_norm(flat, flat.shape[-1:]) if self.config.normalise_observations else flat

    def _logits(self, observation: Tensor) -> Tensor:
        """(N, A, F) to (N, A, n)."""
        if self.config.share_actor:
            return self.actors[0](observation)  # type: ignore[no-any-return]
        return torch.stack([actor(observation[:, agent]) for agent, actor in enumerate(self.actors)], dim=1)

    def _values(self, observation: Tensor) -> Tensor:
        if self.config.agent_specific_critic:
            views = [observation.roll(-agent, dims=1).flatten(1) for agent in range(observation.shape[1])]
            return self.critic(torch.stack(views, dim=1)).squeeze(-1)  # type: ignore[no-any-return]
        joint = observation[:, 0] if self.config.shared_observation else observation.flatten(1)
        return self.critic(joint)  # type: ignore[no-any-return]

    def train(self, frames: int) -> None:
        """Whole rollouts until ``frames`` are learned from."""
        for _ in range(-(-frames // (self.config.rollout_steps * self.env.num_envs))):
            self.update(*self.collect())

    def collect(self) -> tuple[Tensor, ...]:
        """One rollout: observations, actions, log-probabilities, values, advantages."""
        observations, actions, log_probs, values, rewards, ends = [], [], [], [], [], []
        for _ in range(self.config.rollout_steps):
            with torch.no_grad():
                distribution = Categorical(logits=self._logits(self.observation))
                action = distribution.sample()  # type: ignore[no-untyped-call]
                values.append(self._values(self.observation))
            observations.append(self.observation)
            actions.append(action)
            log_probs.append(distribution.log_prob(action))  # type: ignore[no-untyped-call]
            observation, reward, terminated, truncated = self.env.step(action)
            self.observation = self._flat(observation)
            rewards.append(reward)
            ends.append((terminated | truncated).float().unsqueeze(1))
        with torch.no_grad():
            last_values = self._values(self.observation)
        advantages = advantages_by_loop(
            torch.stack(rewards), torch.stack(values), last_values, torch.stack(ends), self.config
        )
        return (
            torch.cat(observations),
            torch.cat(actions),
            torch.cat(log_probs),
            torch.cat(values),
            advantages.flatten(0, 1),
        )

    def update(self, observations: Tensor, actions: Tensor, old: Tensor, values: Tensor, advantages: Tensor) -> None:
        """Epochs of minibatches."""
        config = self.config
        returns = advantages + values
        targets = (returns - returns.mean()) / (returns.std() + 1e-8)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(config.epochs):
            for chosen in torch.randperm(len(observations)).chunk(config.minibatches):
                distribution = Categorical(logits=self._logits(observations[chosen]))
                log_probs = distribution.log_prob(actions[chosen])  # type: ignore[no-untyped-call]
                ratio = (log_probs - old[chosen]).exp()
                clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
                surrogate = torch.min(ratio * advantages[chosen], clipped * advantages[chosen]).mean()
                estimate = self._values(observations[chosen])
                value_loss = nn.functional.huber_loss(estimate, targets[chosen], delta=config.huber_delta)
                entropy = distribution.entropy().mean()  # type: ignore[no-untyped-call]
                loss = -surrogate - config.entropy_coefficient * entropy + value_loss
                for optimiser in self.optimisers:
                    optimiser.zero_grad()
                loss.backward()
                for network in (*self.actors, self.critic):
                    nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
                for optimiser in self.optimisers:
                    optimiser.step()


def advantages_by_loop(
    rewards: Tensor, values: Tensor, last_values: Tensor, ends: Tensor, config: MappoConfig
) -> Tensor:
    """Generalised advantage estimation, a step at a time; ``ends`` as floats."""
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(last_values)
    following = last_values
    for step in reversed(range(len(rewards))):
        going_on = 1.0 - ends[step]
        delta = rewards[step] + config.gamma * following * going_on - values[step]
        running = delta + config.gamma * config.gae_lambda * going_on * running
        advantages[step] = running
        following = values[step]
    return advantages
