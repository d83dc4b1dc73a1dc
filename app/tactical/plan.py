"""How the tactical agents are trained: the settings of both trainings, and the learner's configuration of each."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from app.contract import WINDOW_BARS
from app.mappo import MappoConfig
from app.tactical.account import Costs

HIDDEN: Final = (256, 184)
"""210 inputs, two hidden layers and 5 actions: 102,229 parameters an agent."""
MAX_WINDOW_EPISODES: Final = 1_000

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class WindowPlan(BaseModel):
    """The synchronous training on one 30x7 window: ``episodes`` episodes of 30 steps, an update after each."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    episodes: int = Field(default=10, ge=1, le=MAX_WINDOW_EPISODES)
    seed: Seed = 0
    device: str = "cpu"
    cuda_graphs: bool = True
    costs: Costs = Costs()
    plays: int = Field(default=32, ge=1, le=4096)
    """Episodes that are averaged to tell the return before and after."""

    def learner(self) -> MappoConfig:
        """One episode a rollout, ten epochs over it; one thread, since the products are small."""
        return MappoConfig(
            rollout_steps=WINDOW_BARS,
            epochs=10,
            gamma=0.95,
            gae_lambda=0.9,
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            entropy_coefficient=0.005,
            share_actor=False,
            shared_observation=True,
            normalise_observations=False,
            actor_hidden_sizes=HIDDEN,
            critic_hidden_sizes=(128, 64),
            device=self.device,
            cuda_graphs=self.cuda_graphs,
            threads=1,
        )


class BarsPlan(BaseModel):
    """The long training on bars: many episodes side by side at random places of the past.

    The last ``held_out`` share of the bars is never trained on: the return before and after is measured there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    episodes: int = Field(default=8192, ge=1, le=10_000_000)
    """Rounded up to whole updates of ``num_envs`` episodes."""
    num_envs: int = Field(default=64, ge=1, le=65_536)
    episode_steps: int = Field(default=32, ge=2, le=10_000)
    checkpoint_every: int = Field(default=1024, ge=1)
    """Episodes between checkpoints."""
    held_out: float = Field(default=0.2, gt=0.0, lt=0.9)
    seed: Seed = 0
    device: str = "cpu"
    cuda_graphs: bool = True
    threads: int | None = Field(default=1, ge=1, le=256)
    """Part of the plan because another number of threads rounds differently."""
    costs: Costs = Costs()
    learning_rate: float = Field(default=1.5e-3, gt=0.0, le=1.0)
    """At the start; it falls linearly to zero at the last episode."""
    epochs: int = Field(default=1, ge=1, le=100)
    """One: a market's rewards are nearly all noise, and more epochs learn the noise by heart."""
    entropy_coefficient: float = Field(default=0.005, ge=0.0)
    gamma: float = Field(default=0.95, ge=0.0, le=1.0)
    gae_lambda: float = Field(default=0.9, ge=0.0, le=1.0)

    @property
    def updates(self) -> int:
        """Updates of the whole training."""
        return -(-self.episodes // self.num_envs)

    @property
    def frames(self) -> int:
        """Environment steps of the whole training."""
        return self.updates * self.num_envs * self.episode_steps

    def learner(self) -> MappoConfig:
        """A rollout is one episode in every environment."""
        return MappoConfig(
            rollout_steps=self.episode_steps,
            epochs=self.epochs,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            truncation="bootstrap",
            actor_learning_rate=self.learning_rate,
            critic_learning_rate=self.learning_rate,
            anneal_frames=self.frames,
            entropy_coefficient=self.entropy_coefficient,
            share_actor=False,
            shared_observation=True,
            normalise_observations=False,
            actor_hidden_sizes=HIDDEN,
            critic_hidden_sizes=(128, 64),
            device=self.device,
            cuda_graphs=self.cuda_graphs,
            threads=self.threads,
        )
