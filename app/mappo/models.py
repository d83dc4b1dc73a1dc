"""What each actor and the critic see of an observation, and the networks behind them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from app.mappo.config import MappoConfig
from app.mappo.networks import ParallelMlp, count_parameters

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Actor:
    """Policies of A agents, each from its own observation; one network for all or one for each."""

    def __init__(self, config: MappoConfig, *, num_agents: int, features: int, num_actions: int) -> None:
        self.features = features
        self.num_agents = num_agents
        self.num_actions = num_actions
        self._normalise = config.normalise_observations
        self._groups = 1 if config.share_actor else num_agents
        self._ids = torch.eye(num_agents, device=config.device) if config.agent_ids else None
        inputs = features + (num_agents if config.agent_ids else 0)
        self.network = ParallelMlp(
            self._groups,
            (inputs, *config.actor_hidden_sizes, num_actions),
            config.activation,
            device=torch.device(config.device),
            precision=_PRECISIONS[config.precision],
        )

    def inputs(self, observations: Tensor) -> Tensor:
        """What the networks read, (A, N, inputs), of ``observations`` (N, A, features)."""
        encoded = layer_norm(observations, (self.features,)) if self._normalise else observations
        if self._ids is not None:
            encoded = torch.cat([encoded, self._ids.expand(len(encoded), -1, -1)], dim=-1)
        return encoded.transpose(0, 1)

    def by_network(self, per_agent: Tensor) -> Tensor:
        """Lays (A, N, ...) out by network: (A, N, ...) for separate actors, (1, A * N, ...) for a shared one."""
        return per_agent.reshape(self._groups, -1, *per_agent.shape[2:])

    def logits(self, observations: Tensor) -> Tensor:
        """Unnormalised log-probabilities (N, A, num_actions) for ``observations`` (N, A, features)."""
        outputs = self.network.forward(self.by_network(self.inputs(observations)))
        return outputs.view(self.num_agents, -1, self.num_actions).transpose(0, 1)

    @property
    def parameters_per_agent(self) -> int:
        """Parameters that one agent's decision passes through."""
        return count_parameters(self.network.sizes)


class Critic:
    """One network that sees all agents' observations together and estimates a value for each agent.

    Either one pass estimates all agents' values, or one pass an agent estimates its own: it reads that agent's
    observation first, and all passes share the parameters.
    """

    def __init__(self, config: MappoConfig, *, num_agents: int, features: int) -> None:
        self._normalise = config.normalise_observations
        self._shared = config.shared_observation
        joint = features if config.shared_observation else num_agents * features
        self._views = num_agents if config.agent_specific_critic else 1
        self.network = ParallelMlp(
            1,
            (joint, *config.critic_hidden_sizes, 1 if config.agent_specific_critic else num_agents),
            config.activation,
            device=torch.device(config.device),
            precision=_PRECISIONS[config.precision],
        )

    def inputs(self, observations: Tensor) -> Tensor:
        """What the network reads, (V, N, joint features), of ``observations`` (N, A, features).

        V views of every step: one, or one for each agent.
        """
        if self._shared:
            joint = observations[:, 0].unsqueeze(0)
        else:
            joint = torch.stack([observations.roll(-first, dims=1).flatten(1) for first in range(self._views)])
        return layer_norm(joint, (joint.shape[-1],)) if self._normalise else joint

    def by_view(self, per_agent: Tensor) -> Tensor:
        """Lays (N, A) out as the network's outputs for :meth:`inputs`: (1, N, A), or (A, N, 1)."""
        return per_agent.unsqueeze(0) if self._views == 1 else per_agent.mT.unsqueeze(-1)

    def values(self, observations: Tensor) -> Tensor:
        """Normalised values (N, A) for ``observations`` (N, A, features)."""
        return self.estimate(self.inputs(observations))

    def estimate(self, inputs: Tensor) -> Tensor:
        """Normalised values (N, A) for what :meth:`inputs` gave."""
        outputs = self.network.forward(inputs.reshape(1, -1, inputs.shape[-1]))[0]
        return outputs if self._views == 1 else outputs.view(self._views, -1).mT
