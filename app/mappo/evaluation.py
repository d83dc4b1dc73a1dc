"""How well a policy does, without learning from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from app.mappo.environment import VectorEnv
from app.mappo.policy import Policy
from app.mappo.statistics import EpisodeReturns

MAX_STEPS = 1_000_000


def evaluate(policy: Policy, env: VectorEnv, *, episodes: int, seed: int, deterministic: bool = True) -> Tensor:
    """Plays at least ``episodes`` episodes and returns their summed rewards (episodes, A), float64 on the CPU.

    Every copy of the environment contributes its first ``ceil(episodes / E)``: taking whichever end first would count
    short episodes more often than they happen.

    Raises:
        ValueError: ``episodes`` is not positive, or episodes do not end.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, expected at least 1")
    quota = math.ceil(episodes / env.num_envs)
    observation = env.reset(seed)
    returns = EpisodeReturns(env.num_envs, env.num_agents, observation.device)
    played = torch.zeros(env.num_envs, dtype=torch.int64, device=observation.device)
    finished: list[Tensor] = []
    for _ in range(MAX_STEPS):
        actions, _ = policy.act(observation, deterministic)
        observation, reward, terminated, truncated = env.step(actions)
        ended = terminated | truncated
        if bool(ended.any()):
            finished.append(returns.finished(reward.unsqueeze(0), ended.unsqueeze(0))[played[ended] < quota])
            played += ended
            if bool((played >= quota).all()):
                return torch.cat(finished).cpu()
        else:
            returns.running += reward
    raise ValueError(f"episodes did not end within {MAX_STEPS} steps; does the environment end them?")
