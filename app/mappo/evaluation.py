"""How well a policy does, without learning from it."""

from __future__ import annotations

import torch
from torch import Tensor

from app.mappo.environment import VectorEnv
from app.mappo.policy import Policy
from app.mappo.statistics import EpisodeReturns

MAX_STEPS = 1_000_000


def evaluate(policy: Policy, env: VectorEnv, *, episodes: int, seed: int, deterministic: bool = True) -> Tensor:
    """Plays ``episodes`` episodes and returns their summed rewards (episodes, A), float64 on the CPU.

    With several copies of the environment these are the episodes that end first.

    Raises:
        ValueError: ``episodes`` is not positive, or episodes do not end.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, expected at least 1")
    observation = env.reset(seed)
    returns = EpisodeReturns(env.num_envs, env.num_agents, observation.device)
    finished: list[Tensor] = []
    count = 0
    for _ in range(MAX_STEPS):
        actions, _ = policy.act(observation, deterministic)
        observation, reward, terminated, truncated = env.step(actions)
        ended = returns.finished(reward.unsqueeze(0), (terminated | truncated).unsqueeze(0))
        if len(ended):
            finished.append(ended)
            count += len(ended)
        if count >= episodes:
            return torch.cat(finished)[:episodes].cpu()
    raise ValueError(
        f"{count} of {episodes} episodes ended within {MAX_STEPS} steps; does the environment end its episodes?"
    )
