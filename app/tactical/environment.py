"""The market as a game of three agents: E episodes side by side, one tensor step for all of them.

An agent sees the 30x7 window that ends at the present bar and nothing else; all three see the same one. The position
is no part of the observation: the agents name targets, and ``app.tactical.account`` trades towards them. Why is told in
``docs/decisions/2026-11-23-stateless-tactical-policy.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.tactical.account import ACTIONS, Account, Agent, Broker, Costs
from app.tactical.tape import Tape, WindowError


class TacticalEnv:
    """A ``VectorEnv`` over a tape; see ``app.mappo.environment``.

    An episode starts without a position at a random row of a random series and is truncated after ``episode_steps``
    decisions; only ruin terminates it earlier. ``final_observation`` holds what the episodes that ended with the last
    step saw at their end.
    """

    num_agents = len(Agent)
    num_actions = ACTIONS
    observation_shape: tuple[int, ...] = (WINDOW_BARS, WINDOW_FEATURES)

    def __init__(self, tape: Tape, *, num_envs: int, episode_steps: int, costs: Costs | None = None) -> None:
        """Puts ``num_envs`` episodes on the tape.

        Raises:
            ValueError: when ``num_envs`` or ``episode_steps`` is below 1.
            WindowError: when the tape is too short for an episode.
        """
        if num_envs < 1 or episode_steps < 1:
            raise ValueError(f"num_envs and episode_steps must be at least 1, not {num_envs} and {episode_steps}")
        if tape.decisions < episode_steps:
            raise WindowError(f"bars: {tape.decisions} decisions are too few for an episode of {episode_steps} steps")
        self.num_envs = num_envs
        self.episode_steps = episode_steps
        self.tape = tape
        self.device = tape.features.device
        self._broker = Broker(costs or Costs(), self.device)
        self._windows = tape.flat_windows()
        self._market = torch.stack([tape.returns.roll(-1, dims=1), tape.sigma], dim=-1).flatten(0, 1)
        self._generator = torch.Generator().manual_seed(0)
        self._account = Account.fresh(num_envs, self.device)
        self._row, self._end = self._draw()
        self.final_observation = self._observe()

    def reset(self, seed: int) -> Tensor:
        """New episodes everywhere, drawn by ``seed``: observations ``(E, 3, 30, 7)``."""
        self._generator.manual_seed(seed)
        self._row, self._end = self._draw()
        self._account = Account.fresh(self.num_envs, self.device)
        return self._observe()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Trades ``actions`` (E, 3) and moves one bar on: observation, reward (E, 3), terminated and truncated (E,)."""
        next_return, sigma = self._market.index_select(0, self._row).unbind(-1)
        outcome = self._broker.trade(self._account, actions, next_return, sigma)
        self._account = outcome.account
        self._row = self._row + 1
        truncated = (self._row >= self._end) & ~outcome.ruined
        ended = truncated | outcome.ruined
        if bool(ended.any()):
            self._restart(ended)
        reward = outcome.reward.float().unsqueeze(1).expand(-1, self.num_agents)
        return self._observe(), reward, outcome.ruined, truncated

    def state_dict(self) -> dict[str, Tensor]:
        """Where every episode stands, and the generator that draws the next ones."""
        account = {f"account.{name}": values for name, values in self._account._asdict().items()}
        return account | {"row": self._row, "end": self._end, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave, over the same tape and number of episodes.

        Raises:
            ValueError: when the state belongs to another environment; this one is unchanged.
        """
        for name, mine in self.state_dict().items():
            if name not in state or state[name].shape != mine.shape or state[name].dtype != mine.dtype:
                raise ValueError(f"checkpoint: the environment's {name} does not fit; were the settings others?")
        row, end = state["row"], state["end"]
        if bool((row < 0).any() or (end >= len(self._market)).any() or (row >= end).any()):
            raise ValueError(
                "checkpoint: the environment stood outside these bars; resume with the bars of its training"
            )
        self._account = Account(*(state[f"account.{name}"].to(self.device) for name in Account._fields))
        self._row, self._end = row.to(self.device), end.to(self.device)
        self._generator.set_state(state["generator"].cpu())

    def _draw(self) -> tuple[Tensor, Tensor]:
        """First and end row (over all series laid end to end) of new episodes.

        Drawn on the CPU, so that a seed means the same on every device.
        """
        starts = self.tape.decisions - self.episode_steps + 1
        series = torch.randint(self.tape.series, (self.num_envs,), generator=self._generator)
        start = torch.randint(starts, (self.num_envs,), generator=self._generator)
        row = (series * self.tape.length + self.tape.first + start).to(self.device)
        return row, row + self.episode_steps

    def _restart(self, ended: Tensor) -> None:
        self.final_observation = self._observe()
        row, end = self._draw()
        self._row = torch.where(ended, row, self._row)
        self._end = torch.where(ended, end, self._end)
        fresh = Account.fresh(self.num_envs, self.device)
        self._account = Account(*(torch.where(ended, new, old) for new, old in zip(fresh, self._account, strict=True)))

    def _observe(self) -> Tensor:
        window = self._windows.index_select(0, self._row - (WINDOW_BARS - 1))
        return window.view(-1, 1, WINDOW_BARS, WINDOW_FEATURES).expand(-1, self.num_agents, -1, -1)
