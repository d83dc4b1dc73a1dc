"""The trading task on which the agents and the coordinator learn: positions on simulated 30-minute bars.

Both environments walk along recorded observations: what a matrix holds does not depend on the positions taken, so the
trunk is evaluated once for all bars and a step is a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.strategic.answers import ACTIONS, AGENTS

POSITIONS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Share of the capital that each action holds, by `answers.ACTIONS`."""
COST: Final = 1e-4
"""Cost of changing the position by the whole capital."""
RISK_AVERSION: Final = 40.0
"""Weight of the squared return: a mean-variance trader (Markowitz 1952) who holds mean / (2 x weight x variance)."""
REWARD_SCALE: Final = 1e3


@dataclass(frozen=True)
class Recording:
    """Observations along S markets and the return that followed each.

    Attributes:
        observations: (S, T, A, D) of each agent.
        returns: (S, T) log return of the next bar.
    """

    observations: Tensor
    returns: Tensor


def utility(position: Tensor, before: Tensor, returns: Tensor) -> Tensor:
    """Reward of holding ``position`` over one bar after ``before``: return, less cost, less risk, in thousandths."""
    risk = RISK_AVERSION * position.square() * returns.square()
    return REWARD_SCALE * (position * returns - COST * (position - before).abs() - risk)


class _Walk:
    """Where E copies stand in a recording: each walks ``horizon`` bars of a random market, then starts elsewhere."""

    def __init__(self, recording: Recording, copies: int, horizon: int) -> None:
        self.recording = recording
        self.horizon = horizon
        self.series = torch.zeros(copies, dtype=torch.int64)
        self.time = torch.zeros(copies, dtype=torch.int64)
        self.elapsed = torch.zeros(copies, dtype=torch.int64)
        self.generator = torch.Generator()

    def restart(self, copies: Tensor) -> None:
        """Place the copies of the mask (E,) anew."""
        markets, length = self.recording.returns.shape
        count = len(copies)
        series = torch.randint(markets, (count,), generator=self.generator)
        time = torch.randint(length - self.horizon, (count,), generator=self.generator)
        self.series = torch.where(copies, series, self.series)
        self.time = torch.where(copies, time, self.time)
        self.elapsed = torch.where(copies, 0, self.elapsed)

    def advance(self) -> Tensor:
        """Go one bar on; returns which copies (E,) reached the end of their episode, already placed anew."""
        self.time += 1
        self.elapsed += 1
        ended = self.elapsed >= self.horizon
        self.restart(ended)
        return ended

    def observation(self) -> Tensor:
        """What each agent sees now, (E, A, D)."""
        return self.recording.observations[self.series, self.time]

    def returns(self) -> Tensor:
        """Log return of the next bar, (E,)."""
        return self.recording.returns[self.series, self.time]


class AgentsEnv:
    """Three agents each hold a position; each is paid half for its own and half for the mean position of all three."""

    num_agents = len(AGENTS)
    num_actions = len(ACTIONS)

    def __init__(self, recording: Recording, copies: int, horizon: int) -> None:
        self.num_envs = copies
        self.observation_shape: tuple[int, ...] = (int(recording.observations.shape[-1]),)
        self._walk = _Walk(recording, copies, horizon)
        self._before = torch.zeros(copies, self.num_agents)
        self._positions = torch.tensor(POSITIONS)

    def reset(self, seed: int) -> Tensor:
        """See `app.mappo.VectorEnv`."""
        self._walk.generator.manual_seed(seed)
        self._walk.restart(torch.ones(self.num_envs, dtype=torch.bool))
        self._before.zero_()
        return self._walk.observation()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `app.mappo.VectorEnv`."""
        position = self._positions[actions]
        returns = self._walk.returns()[:, None]
        own = utility(position, self._before, returns)
        team = utility(position.mean(1, keepdim=True), self._before.mean(1, keepdim=True), returns)
        ended = self._walk.advance()
        self._before = torch.where(ended[:, None], 0.0, position)
        return self._walk.observation(), 0.5 * own + 0.5 * team, torch.zeros_like(ended), ended


class CoordinatorEnv:
    """One agent chooses whom of the three to follow; it is paid for the position that the chosen one takes."""

    num_agents = 1
    num_actions = len(AGENTS)

    def __init__(
        self, recording: Recording, actions: Callable[[Tensor, Tensor], Tensor], copies: int, horizon: int
    ) -> None:
        """``actions`` gives what the trained agents do, (E, 3), at markets (E,) and times (E,)."""
        self.num_envs = copies
        self.observation_shape: tuple[int, ...] = (int(recording.observations.shape[-1]),)
        self._walk = _Walk(recording, copies, horizon)
        self._actions = actions
        self._before = torch.zeros(copies)
        self._positions = torch.tensor(POSITIONS)

    def reset(self, seed: int) -> Tensor:
        """See `app.mappo.VectorEnv`."""
        self._walk.generator.manual_seed(seed)
        self._walk.restart(torch.ones(self.num_envs, dtype=torch.bool))
        self._before.zero_()
        return self._walk.observation()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `app.mappo.VectorEnv`."""
        proposed = self._actions(self._walk.series, self._walk.time)
        position = self._positions[proposed.gather(1, actions)[:, 0]]
        reward = utility(position, self._before, self._walk.returns())
        ended = self._walk.advance()
        self._before = torch.where(ended, 0.0, position)
        return self._walk.observation(), reward[:, None], torch.zeros_like(ended), ended
