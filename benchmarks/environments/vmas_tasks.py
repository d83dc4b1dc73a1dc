"""VMAS (Bettini et al. 2022) scenarios behind the learner's interface."""

from __future__ import annotations

import torch
import vmas  # type: ignore[import-untyped]
from torch import Tensor

EPISODE_STEPS = 100


class VmasEnv:
    """E copies of a VMAS scenario with discrete actions and VMAS's own defaults, at most 100 steps an episode.

    Each axis of an agent's force is one of three values, so an agent has nine actions. VMAS resets one copy at a
    time; where all copies end together they are reset together.
    """

    def __init__(self, scenario: str, num_envs: int, *, steps: int = EPISODE_STEPS, **options: object) -> None:
        self._env = vmas.make_env(
            scenario,
            num_envs=num_envs,
            device="cpu",
            continuous_actions=False,
            max_steps=steps,
            seed=0,
            terminated_truncated=True,
            **options,
        )
        observation = self._stack(self._env.reset())
        self.num_envs = num_envs
        self.num_agents = observation.shape[1]
        self.num_actions = int(self._env.action_space[0].n)
        self.observation_shape = tuple(observation.shape[2:])
        self.final_observation = observation

    def reset(self, seed: int) -> Tensor:
        """Resets all copies with VMAS's own random numbers."""
        return self._stack(self._env.reset(seed=seed))

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps all copies and resets those that ended."""
        observations, rewards, terminated, truncated, _ = self._env.step(list(actions.mT.unsqueeze(-1).unbind()))
        observation = self._stack(observations)
        truncated = truncated & ~terminated
        ended = terminated | truncated
        if bool(ended.any()):
            self.final_observation = observation
            if bool(ended.all()):
                observation = self._stack(self._env.reset())
            else:
                for copy in ended.nonzero().flatten().tolist():
                    self._env.reset_at(copy, return_observations=False)
                observation = self._stack(
                    self._env.get_from_scenario(
                        get_observations=True, get_rewards=False, get_infos=False, get_dones=False
                    )[0]
                )
        return observation, torch.stack(rewards, dim=1), terminated, truncated

    @staticmethod
    def _stack(observations: list[Tensor]) -> Tensor:
        return torch.stack(observations, dim=1)
