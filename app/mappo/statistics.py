"""What a training tells while it runs and when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class UpdateStats:
    """One rollout and the update learned from it."""

    update: int
    """Updates so far, this one included."""
    frames: int
    """Environment steps so far, over all environments and processes."""
    episodes: int
    """Episodes that ended in this rollout (in this process)."""
    episode_return: float | None
    """Mean over those episodes and the agents of the summed rewards; None when no episode ended."""
    agent_returns: tuple[float, ...] | None
    """The same for each agent."""
    mean_reward: float
    """Mean over the rollout's steps, environments and agents."""
    policy_loss: float
    """Clipped surrogate without the entropy bonus, in the last gradient step; so are the next five."""
    value_loss: float
    """Clipped Huber loss in normalised units."""
    entropy: float
    """Mean entropy of the policy in nats."""
    approximate_kl: float
    """Estimated divergence of the policy from the one that acted."""
    clip_fraction: float
    """Share of samples whose probability ratio left the clipping range."""
    explained_variance: float
    """``1 - Var(return - value) / Var(return)`` before the update; 1 is perfect, 0 no better than a constant."""
    actor_gradient_norm: float
    """Before clipping, the largest over separate actors."""
    critic_gradient_norm: float
    collect_seconds: float
    update_seconds: float


@dataclass(frozen=True)
class TrainingReport:
    """One call of :meth:`app.mappo.Learner.train`."""

    frames: int
    """Environment steps of this call, over all processes."""
    updates: int
    seconds: float
    updates_stats: tuple[UpdateStats, ...] = field(repr=False)

    @property
    def frames_per_second(self) -> float:
        """Environment steps learned from per second of wall time."""
        return self.frames / self.seconds

    @property
    def first_return(self) -> float | None:
        """Mean return of the first rollout in which an episode ended: how the policy did before it learned much."""
        return next((stats.episode_return for stats in self.updates_stats if stats.episode_return is not None), None)

    @property
    def last_return(self) -> float | None:
        """Mean return of the last rollout in which an episode ended."""
        return next(
            (stats.episode_return for stats in reversed(self.updates_stats) if stats.episode_return is not None), None
        )


class EpisodeReturns:
    """Sums rewards over episodes that may span rollouts."""

    def __init__(self, num_envs: int, num_agents: int, device: torch.device) -> None:
        self.running = torch.zeros(num_envs, num_agents, dtype=torch.float64, device=device)

    def finished(self, rewards: Tensor, ends: Tensor) -> Tensor:
        """Returns (K, A) of the K episodes that ended within ``rewards`` (T, E, A).

        ``ends`` (T, E) tells their last steps; they come ordered by environment, then by step.
        """
        totals = self.running + rewards.double().cumsum(0)
        copies, steps = ends.mT.nonzero(as_tuple=True)
        at_end = totals[steps, copies]
        # Within one copy the previous end's total is what earlier episodes collected.
        before = torch.zeros_like(at_end)
        same_copy = (copies[1:] == copies[:-1]).unsqueeze(1)
        before[1:] = at_end[:-1] * same_copy
        self.running = totals[-1] - _last_by_copy(copies, at_end, len(self.running))
        return at_end - before


def _last_by_copy(copies: Tensor, totals: Tensor, num_envs: int) -> Tensor:
    """The last row of ``totals`` (K, A) of each copy, zero for a copy without one; ``copies`` (K,) is sorted."""
    result = torch.zeros(num_envs, totals.shape[1], dtype=totals.dtype, device=totals.device)
    is_last = torch.ones_like(copies, dtype=torch.bool)
    is_last[:-1] = copies[1:] != copies[:-1]
    result[copies[is_last]] = totals[is_last]
    return result
