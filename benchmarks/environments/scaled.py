"""An environment in other units."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from app.mappo import FinalObservationEnv, VectorEnv


class _Env(VectorEnv, FinalObservationEnv, Protocol):
    """What :class:`ScaledObservations` wraps."""


class ScaledObservations:
    """``env`` with every observation multiplied by constants; nothing else changes.

    Features of very different sizes are learned at very different speeds; constants fitting their sizes do without the
    running statistics that a policy would have to carry.
    """

    def __init__(self, env: _Env, scale: Tensor) -> None:
        """``scale`` has the observation's shape."""
        self._env = env
        self._scale = scale
        self.num_envs = env.num_envs
        self.num_agents = env.num_agents
        self.num_actions = env.num_actions
        self.observation_shape = env.observation_shape

    @property
    def final_observation(self) -> Tensor:
        """What the agents saw last in the episodes that ended, in the same units."""
        return self._env.final_observation * self._scale

    def reset(self, seed: int) -> Tensor:
        """Resets ``env``."""
        return self._env.reset(seed) * self._scale

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps ``env``."""
        observation, reward, terminated, truncated = self._env.step(actions)
        return observation * self._scale, reward, terminated, truncated
