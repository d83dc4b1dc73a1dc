"""Small environments whose best return is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.mappo import MappoConfig


class SignGame:
    """Every agent earns 1 for choosing 1 where its own first feature is positive and 0 where it is not.

    The only randomness is the observations, drawn from a generator that belongs to the checkpoint.
    """

    def __init__(
        self, num_envs: int = 4, num_agents: int = 2, steps: int = 8, observation_shape: tuple[int, ...] = (3,)
    ) -> None:
        self.num_envs = num_envs
        self.num_agents = num_agents
        self.num_actions = 2
        self.observation_shape = observation_shape
        self.steps = steps
        self.generator = torch.Generator()
        self.observation = torch.zeros(num_envs, num_agents, *observation_shape)
        self.final_observation = self.observation
        self.elapsed = 0

    def reset(self, seed: int) -> Tensor:
        self.generator.manual_seed(seed)
        self.elapsed = 0
        return self._draw()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wanted = (self.observation.flatten(2)[..., 0] > 0).long()
        reward = (actions == wanted).float()
        self.elapsed = (self.elapsed + 1) % self.steps
        ended = torch.full((self.num_envs,), self.elapsed == 0)
        self.final_observation = self.observation
        return self._draw(), reward, torch.zeros_like(ended), ended

    def _draw(self) -> Tensor:
        shape = (self.num_envs, self.num_agents, *self.observation_shape)
        self.observation = torch.randn(shape, generator=self.generator)
        return self.observation

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "generator": self.generator.get_state(),
            "observation": self.observation,
            "elapsed": torch.tensor(self.elapsed),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.observation = state["observation"].clone()
        self.elapsed = int(state["elapsed"])


class CoordinationGame:
    """Two agents earn only by choosing the same action, and most by both choosing the first. One step an episode."""

    PAYOFF = torch.diag(torch.tensor([8.0, 6.0, 4.0]))
    BEST = 8.0

    def __init__(self, num_envs: int = 32) -> None:
        self.num_envs = num_envs
        self.num_agents = 2
        self.num_actions = 3
        self.observation_shape = (1,)
        self._observation = torch.ones(num_envs, 2, 1)
        self._ended = torch.ones(num_envs, dtype=torch.bool)

    def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
        return self._observation

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        payoff = self.PAYOFF[actions[:, 0], actions[:, 1]]
        return self._observation, payoff.unsqueeze(1).expand(-1, 2), self._ended, torch.zeros_like(self._ended)


@pytest.fixture
def sign_game() -> Callable[..., SignGame]:
    """Makes sign games."""
    return SignGame


@pytest.fixture
def coordination_game() -> CoordinationGame:
    """Three ways to agree, one of them best."""
    return CoordinationGame()


@pytest.fixture
def config() -> MappoConfig:
    """Small networks on one thread."""
    return MappoConfig(
        rollout_steps=8,
        epochs=4,
        actor_hidden_sizes=(16,),
        critic_hidden_sizes=(16,),
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        normalise_observations=False,
        threads=1,
    )
