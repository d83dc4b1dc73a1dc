"""Windows of 30 bars x 7 features without a market: what a tactical training costs, not what it earns."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = (30, 7)


class Windows:
    """Three agents see the same window and earn by guessing the sign of its last bar's first feature."""

    def __init__(self, num_envs: int = 1, *, num_agents: int = 3, steps: int = 30) -> None:
        self.num_envs = num_envs
        self.num_agents = num_agents
        self.num_actions = 5
        self.observation_shape: tuple[int, ...] = WINDOW
        self._steps = steps
        self._elapsed = 0
        self._never = torch.zeros(num_envs, dtype=torch.bool)
        self._ended = torch.ones(num_envs, dtype=torch.bool)
        self.reset(0)

    def reset(self, seed: int) -> Tensor:
        """Draws the bars of all episodes."""
        generator = torch.Generator().manual_seed(seed)
        bars = torch.randn(self.num_envs, self._steps + WINDOW[0], WINDOW[1], generator=generator)
        windows = bars.unfold(1, WINDOW[0], 1).mT[:, : self._steps]
        self._wanted = (windows[:, :, -1, 0] > 0).long().mT.unsqueeze(-1) * 4
        self._windows = windows.transpose(0, 1).unsqueeze(2).expand(-1, -1, self.num_agents, -1, -1)
        self._elapsed = 0
        return self._windows[0]

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One bar further; after the last, the first again."""
        reward = (actions == self._wanted[self._elapsed]).float()
        self._elapsed = (self._elapsed + 1) % self._steps
        return self._windows[self._elapsed], reward, self._never, self._ended if self._elapsed == 0 else self._never
