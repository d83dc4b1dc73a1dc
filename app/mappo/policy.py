"""A trained policy: what acts."""

from __future__ import annotations

import torch
from torch import Tensor

from app.mappo.config import MappoConfig
from app.mappo.models import Actor


class Policy:
    """Decentralised actors, detached from the learner that trained them.

    Rebuilt from a config, the three sizes and a state dict.
    """

    def __init__(
        self,
        config: MappoConfig,
        *,
        num_agents: int,
        num_actions: int,
        observation_shape: tuple[int, ...],
        seed: int = 0,
    ) -> None:
        features = 1
        for size in observation_shape:
            features *= size
        self.config = config
        self.num_agents = num_agents
        self.num_actions = num_actions
        self.observation_shape = tuple(observation_shape)
        self._actor = Actor(config, num_agents=num_agents, features=features, num_actions=num_actions)
        self._generator = torch.Generator(config.device).manual_seed(seed)

    @property
    def parameters_per_agent(self) -> int:
        """Parameters that one agent's decision passes through."""
        return self._actor.parameters_per_agent

    def logits(self, observation: Tensor) -> Tensor:
        """Unnormalised log-probabilities (N, A, num_actions) for ``observation`` (N, A, *observation_shape)."""
        expected = (self.num_agents, *self.observation_shape)
        if tuple(observation.shape[1:]) != expected:
            raise ValueError(
                f"observation has shape {tuple(observation.shape)}, expected (N, {', '.join(map(str, expected))})"
            )
        return self._actor.logits(observation.flatten(2).float())

    def act(self, observation: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor]:  # noqa: FBT001, FBT002 - public interface
        """Chooses an action for every agent.

        Args:
            observation: (N, A, *observation_shape).
            deterministic: take the most probable action instead of drawing one.

        Returns:
            Actions (N, A) int64 and their log-probabilities (N, A).

        Raises:
            ValueError: the observation's shape is not the policy's.
        """
        log_probs = torch.log_softmax(self.logits(observation), dim=-1)
        scores = log_probs
        if not deterministic:
            scores = log_probs - torch.empty_like(log_probs).exponential_(generator=self._generator).log_()
        actions = scores.argmax(-1)
        return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def state_dict(self) -> dict[str, Tensor]:
        """The actors' parameters, (networks, parameters) float32."""
        return {"actor": self._actor.network.parameters.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Raises:
            ValueError: the parameters belong to other networks, or are not finite.
        """
        mine, theirs = self._actor.network.parameters, state.get("actor")
        if theirs is None or theirs.shape != mine.shape:
            found = "none" if theirs is None else tuple(theirs.shape)
            raise ValueError(f"policy: parameters 'actor' are {found}, expected {tuple(mine.shape)}")
        if not bool(torch.isfinite(theirs).all()):
            raise ValueError("policy: parameters 'actor' are not finite")
        mine.copy_(theirs)
        self._actor.network.refresh()
