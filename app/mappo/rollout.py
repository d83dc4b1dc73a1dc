"""Collecting experience: one tensor step over E environments and A agents at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.mappo.config import MappoConfig
from app.mappo.environment import EnvironmentContractError, FinalObservationEnv, VectorEnv, check_finite, check_step
from app.mappo.models import Actor, Critic


@dataclass(frozen=True)
class Rollout:
    """T steps of E environments with A agents; F features an observation, n actions. Reused by the next rollout."""

    observations: Tensor
    """(T + 1, E, A, F), flattened; the last belongs to the state after the last step."""
    logits: Tensor
    """(T, E, A, n) of the policy that acted."""
    actions: Tensor
    """(T, E, A) int64."""
    rewards: Tensor
    """(T, E, A) in the environment's units."""
    final_values: Tensor
    """(T, E, A) normalised values of last observations where a step was truncated and truncation bootstraps; else
    unused."""
    terminated: Tensor
    """(T, E) bool."""
    truncated: Tensor
    """(T, E) bool."""

    @property
    def ends(self) -> Tensor:
        """(T, E) bool: the step ended an episode."""
        return self.terminated | self.truncated

    @classmethod
    def empty(cls, env: VectorEnv, config: MappoConfig, features: int) -> Rollout:
        """Room for one rollout on the configured device."""
        shape = (config.rollout_steps, env.num_envs)
        device = torch.device(config.device)
        per_agent = torch.zeros(*shape, env.num_agents, device=device)
        flags = torch.zeros(shape, dtype=torch.bool, device=device)
        return cls(
            observations=torch.zeros(shape[0] + 1, shape[1], env.num_agents, features, device=device),
            logits=torch.zeros(*shape, env.num_agents, env.num_actions, device=device),
            actions=torch.zeros(*shape, env.num_agents, dtype=torch.int64, device=device),
            rewards=per_agent,
            final_values=per_agent.clone(),
            terminated=flags,
            truncated=flags.clone(),
        )


class Collector:
    """Steps an environment with the current actor and keeps where it stands between rollouts."""

    def __init__(self, env: VectorEnv, actor: Actor, critic: Critic, config: MappoConfig) -> None:
        self._env = env
        self._actor = actor
        self._critic = critic
        self._bootstrap = config.truncation == "bootstrap"
        self._device = torch.device(config.device)
        self._checked = False
        if self._bootstrap:
            self._final_observation()
        self.rollout = Rollout.empty(env, config, actor.features)
        # Views of every step, made once: indexing anew would be a third of a small step's operations.
        self._observations = self.rollout.observations.unbind()
        self._logits = self.rollout.logits.unbind()
        self._actions = self.rollout.actions.unbind()
        self._rewards = self.rollout.rewards.unbind()
        self._terminated = self.rollout.terminated.unbind()
        self._truncated = self.rollout.truncated.unbind()
        self._observation_shape = self._observations[0].shape

    def begin(self, observation: Tensor) -> None:
        """Sets the observation that the next rollout starts from."""
        self._observations[-1].copy_(observation.reshape(self._observation_shape))

    def collect(self, generator: torch.Generator, first_frame: int) -> Rollout:
        """Plays one rollout; actions are drawn by ``generator`` (on the configured device).

        Raises:
            EnvironmentContractError: a wrong shape or dtype in the first step, or a number that is not finite in any.
        """
        rollout = self.rollout
        rollout.observations[0].copy_(rollout.observations[-1])
        # The Gumbel-max trick (Gumbel 1954): the argmax of logits plus this noise is a draw from their softmax.
        noise = torch.empty_like(rollout.logits).exponential_(generator=generator).log_().neg_()
        for step, step_noise in enumerate(noise.unbind()):
            logits = self._actor.logits(self._observations[step])
            actions = (logits + step_noise).argmax(-1)
            self._logits[step].copy_(logits)
            self._actions[step].copy_(actions)
            observation, reward, terminated, truncated = self._env.step(actions)
            if not self._checked:
                check_step(self._env, observation, reward, terminated, truncated, device=self._device)
                self._checked = True
            self._observations[step + 1].copy_(observation.reshape(self._observation_shape))
            self._rewards[step].copy_(reward)
            self._terminated[step].copy_(terminated)
            self._truncated[step].copy_(truncated)
            if self._bootstrap and bool(truncated.any()):
                final = self._final_observation().reshape(self._observation_shape)
                rollout.final_values[step].copy_(self._critic.values(final))
        check_finite("observation", rollout.observations[1:], first_frame)
        check_finite("reward", rollout.rewards, first_frame)
        return rollout

    def _final_observation(self) -> Tensor:
        if not isinstance(self._env, FinalObservationEnv):
            raise EnvironmentContractError(
                'environment: truncation="bootstrap" needs final_observation (E, A, *observation_shape), which '
                f'{type(self._env).__name__} does not have; offer it or use truncation="terminal"'
            )
        return self._env.final_observation
