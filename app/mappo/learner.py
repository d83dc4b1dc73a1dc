"""The training loop: collect, update, tell; and everything it takes to stop and go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor

from app.mappo import checkpoint, distributed
from app.mappo.config import MappoConfig
from app.mappo.environment import VectorEnv, check_finite, check_observation
from app.mappo.models import Actor, Critic
from app.mappo.policy import Policy
from app.mappo.rollout import Collector, Rollout
from app.mappo.statistics import EpisodeReturns, TrainingReport, UpdateStats
from app.mappo.update import Updater


class Learner:
    """Trains the agents of one environment with MAPPO (Yu et al. 2022).

    The same environment, config, seed, machine and number of threads give the same parameters, bit for bit. Under
    ``torchrun`` (see :mod:`app.mappo.distributed`) every process builds a learner with the same seed over
    environments of its own.
    """

    def __init__(self, env: VectorEnv, config: MappoConfig, seed: int) -> None:
        """Builds the networks and resets ``env``.

        Raises:
            EnvironmentContractError: the first observation is wrong, or ``final_observation`` is needed and missing.
            ValueError: more minibatches than environment steps in a rollout.
        """
        frames = config.rollout_steps * env.num_envs
        if config.minibatches > frames:
            raise ValueError(f"minibatches is {config.minibatches}, but a rollout has only {frames} environment steps")
        self.env = env
        self.config = config
        self.seed = seed
        self.frames = 0
        self.updates = 0
        device = torch.device(config.device)
        features = math.prod(env.observation_shape)
        self.actor = Actor(config, num_agents=env.num_agents, features=features, num_actions=env.num_actions)
        self.critic = Critic(config, num_agents=env.num_agents, features=features)
        initialiser = torch.Generator().manual_seed(seed)
        with _intra_op_threads(config.threads):
            self.actor.network.initialise(initialiser, output_gain=config.actor_output_gain)
            self.critic.network.initialise(initialiser, output_gain=1.0)
        self.updater = Updater(self.actor, self.critic, config)
        # Processes share the initial parameters and the minibatch order, and differ in the actions they draw.
        self.minibatch_generator = torch.Generator().manual_seed(seed)
        self.action_generator = torch.Generator(device).manual_seed(seed + 1_000_003 * (1 + distributed.rank()))
        self.returns = EpisodeReturns(env.num_envs, env.num_agents, device)
        self.collector = Collector(env, self.actor, self.critic, config)
        with torch.no_grad():
            observation = env.reset(seed + distributed.rank())
            check_observation(env, observation, device=device)
            check_finite("observation", observation.unsqueeze(0), first_frame=0)
            self.collector.begin(observation)

    def train(self, frames: int, on_update: Callable[[UpdateStats], None] | None = None) -> TrainingReport:
        """Trains for at least ``frames`` more environment steps, in whole rollouts.

        ``on_update`` is called after every update, when the learner's state is consistent: it may save a checkpoint,
        and an exception that it raises ends the training there.

        Raises:
            ValueError: ``frames`` is not positive.
            EnvironmentContractError: the environment returned something that is not finite or has a wrong shape;
            nothing of that rollout
                was learned.
        """
        if frames < 1:
            raise ValueError(f"frames is {frames}, expected at least 1")
        start = time.perf_counter()
        history: list[UpdateStats] = []
        per_update = self.config.rollout_steps * self.env.num_envs * distributed.world_size()
        with _intra_op_threads(self.config.threads):
            for _ in range(math.ceil(frames / per_update)):
                stats = self._train_once(per_update)
                history.append(stats)
                if on_update is not None:
                    on_update(stats)
        return TrainingReport(
            frames=len(history) * per_update,
            updates=len(history),
            seconds=time.perf_counter() - start,
            updates_stats=tuple(history),
        )

    @torch.no_grad()
    def _train_once(self, frames: int) -> UpdateStats:
        """One rollout and its update."""
        start = time.perf_counter()
        if self.config.anneal_frames is not None:
            self.updater.set_progress(max(0.0, 1.0 - self.frames / self.config.anneal_frames))
        rollout = self.collector.collect(self.action_generator, self.frames)
        collected = time.perf_counter()
        losses = self.updater.update(rollout, self.minibatch_generator)
        self.frames += frames
        self.updates += 1
        return self._stats(rollout, asdict(losses), collected - start, time.perf_counter() - collected)

    def _stats(
        self, rollout: Rollout, losses: dict[str, float], collect_seconds: float, update_seconds: float
    ) -> UpdateStats:
        finished = self.returns.finished(rollout.rewards, rollout.ends)
        agent_returns = tuple(finished.mean(0).tolist()) if len(finished) else None
        return UpdateStats(
            update=self.updates,
            frames=self.frames,
            episodes=len(finished),
            episode_return=sum(agent_returns) / len(agent_returns) if agent_returns else None,
            agent_returns=agent_returns,
            mean_reward=float(rollout.rewards.mean()),
            collect_seconds=collect_seconds,
            update_seconds=update_seconds,
            **losses,
        )

    def policy(self) -> Policy:
        """A copy of the current actors that no later training changes."""
        policy = Policy(
            self.config,
            num_agents=self.env.num_agents,
            num_actions=self.env.num_actions,
            observation_shape=self.env.observation_shape,
            seed=self.seed,
        )
        policy.load_state_dict({"actor": self.actor.network.parameters})
        return policy

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, as named tensors (so that safetensors can hold it)."""
        return checkpoint.state_of(self)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave, in a learner of the same config over the same kind of environment.

        Training then continues exactly as it would have, if the environment is :class:`app.mappo.ResumableEnv`; any
        other environment starts new episodes.

        Raises:
            ValueError: a tensor is missing, unknown, or of another shape; the learner is unchanged.
        """
        checkpoint.restore(self, state)


@contextmanager
def _intra_op_threads(threads: int | None) -> Iterator[None]:
    """Sets torch's threads for the block; the setting belongs to the whole process."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
