"""Every number that a training depends on besides its environment and seed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
HiddenSizes = Annotated[tuple[PositiveInt, ...], Field(max_length=8)]
Activation = Literal["tanh", "relu", "elu"]


class MappoConfig(BaseModel):
    """Settings of :class:`app.mappo.Learner`, checked on construction.

    Most defaults are those of Yu et al. 2022, appendix D.

    A rollout is ``rollout_steps`` steps of every copy of the environment, so one update learns from ``rollout_steps *
    num_envs`` frames.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # What is collected and how often it is learned from.
    rollout_steps: PositiveInt = 25
    epochs: PositiveInt = 10
    minibatches: PositiveInt = 1
    """Parts into which each epoch splits the environment steps; the agents of one step stay together."""

    # What is estimated.
    gamma: float = Field(default=0.99, ge=0.0, le=1.0)
    gae_lambda: float = Field(default=0.95, ge=0.0, le=1.0)
    truncation: Literal["terminal", "bootstrap"] = "terminal"
    """A time limit ends an episode like any end (value 0 after it), or the value of the last observation is added to
    the last reward.

    ``bootstrap`` needs an environment with ``final_observation``.
    """

    # What is optimised.
    clip: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Clipping range of the probability ratio in the surrogate objective."""
    value_clip: float | None = Field(default=0.2, gt=0.0)
    """How far a value may move from the rollout's, in normalised units, before its loss stops improving; None
    switches it off."""
    huber_delta: float = Field(default=10.0, gt=0.0)
    entropy_coefficient: float = Field(default=0.01, ge=0.0)
    actor_learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    critic_learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    anneal_frames: PositiveInt | None = None
    """Frames over which both learning rates fall linearly to zero; None keeps them constant."""
    adam_epsilon: float = Field(default=1e-5, gt=0.0)
    max_gradient_norm: float = Field(default=10.0, gt=0.0)
    """Bound of the gradient's norm, for the critic and for each separate actor on its own."""

    # What is normalised.
    normalise_advantages: bool = True
    normalise_values: bool = True
    value_decay: float = Field(default=0.99999, ge=0.0, lt=1.0)
    """Decay, per update, of the moving average that normalises values; it is debiased, so 0.99999 is close to the
    mean of all updates."""
    normalise_observations: bool = True
    """Layer normalisation (without learned scale) over each observation, as the networks' first operation."""

    # What the networks look like.
    share_actor: bool = True
    """One actor for all agents, or one for each."""
    agent_ids: bool = False
    """Appends a one-hot agent number to what an actor sees: lets a shared actor give agents different roles."""
    shared_observation: bool = False
    """All agents see the same observation: the critic reads it once instead of once an agent."""
    agent_specific_critic: bool = False
    """The critic estimates one agent's value at a time and reads that agent's observation first: interchangeable agents
    then teach it A times as much. Without it one pass estimates all agents' values."""
    actor_hidden_sizes: HiddenSizes = (64, 64)
    critic_hidden_sizes: HiddenSizes = (64, 64)
    activation: Activation = "tanh"
    actor_output_gain: float = Field(default=0.01, gt=0.0)
    """Gain of the last actor layer's orthogonal initialisation: small, so that a new policy is close to uniform."""

    # Where it runs.
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the networks' products; parameters, losses and the optimiser stay in float32."""
    threads: PositiveInt | None = None
    """Threads of one tensor operation on the CPU while training; None leaves the process's setting."""
    cuda_graphs: bool = True
    """On a CUDA device, replay the gradient step as one graph; means nothing on the CPU."""

    @field_validator("device")
    @classmethod
    def _device_exists(cls, value: str) -> str:
        try:
            device = torch.device(value)
        except RuntimeError as error:
            raise ValueError(f"{value!r} is no device; use 'cpu', 'cuda' or 'cuda:N'") from error
        if device.type not in {"cpu", "cuda"}:
            raise ValueError(f"{value!r} is not supported; use 'cpu', 'cuda' or 'cuda:N'")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"{value!r} asked for, but this machine has no CUDA device; use 'cpu'")
        return value

    @model_validator(mode="after")
    def _an_agent_specific_critic_needs_observations_to_tell_agents_apart(self) -> Self:
        if self.agent_specific_critic and self.shared_observation:
            raise ValueError("agent_specific_critic means nothing with shared_observation: all agents see the same")
        return self

    @model_validator(mode="after")
    def _agent_ids_need_a_shared_actor(self) -> Self:
        if self.agent_ids and not self.share_actor:
            raise ValueError("agent_ids means nothing with separate actors (share_actor=False); leave it out")
        return self
