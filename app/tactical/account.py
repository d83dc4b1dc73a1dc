"""What three joint actions do to a trading account: orders, costs, profit, drawdown and the reward of it.

The agents speak in targets. ``q`` is the position, the share of equity held in the instrument, -1 (fully short) to 1
(fully long). At the close of bar ``t`` the actions ``(tactical, risk, execution)`` become one trade::

    limit  = LIMITS[risk]
    wanted = q if tactical is HOLD else TARGETS[tactical]
    q'     = clip(q + PACES[execution] * (clip(wanted, -limit, limit) - q), -limit, limit)

The limit is hard: what exceeds it is sold at once, however patient the execution. The trade ``d = |q' - q|`` costs, as
a share of equity::

    cost = d * (fee + half_spread * PACES[execution]) + impact * sigma_t * d**2

where the patient pay less of the spread and ``sigma_t`` is the volatility of a bar (linear impact: Kyle 1985). Bar ``t
+ 1`` then has the return ``R = C_{t+1} / C_t - 1``::

    equity'   = equity * (1 - cost) * (1 + q' * R)
    worst'  = max(worst, 1 - equity' / max(peak, equity'))
    reward  = 100 * (ln(equity' / equity) - drawdown_weight * (worst' - worst))

Every agent receives this same reward: they are one team. Its unit is a percent of equity, so that the sum over an
episode is the log return in percent minus what the drawdowns were charged. An account that falls to ``ruin`` of its
first equity is closed. After the bar the position is what it was bought as, re-balanced without cost: drift of the
share within one bar is neglected.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

_SMALLEST_GROWTH: Final = 1e-6
"""A loss of more than the whole equity is the loss of nearly all of it: the logarithm stays finite."""


class Agent(IntEnum):
    """The agents, in the order of the agents' axis."""

    TACTICAL = 0
    RISK = 1
    EXECUTION = 2


ACTIONS: Final = 5
HOLD: Final = 2
"""The tactical action that keeps the position."""
TARGETS: Final = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Position wanted by the tactical agent: short, half short, (hold), half long, long."""
LIMITS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Largest position, either way, that the risk agent allows; 0 closes it."""
PACES: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Share of the missing position that the execution agent trades in this bar: from passive to aggressive."""

ACTION_NAMES: Final[dict[Agent, tuple[str, ...]]] = {
    Agent.TACTICAL: ("SHORT", "HALF_SHORT", "HOLD", "HALF_LONG", "LONG"),
    Agent.RISK: ("FLAT", "QUARTER", "HALF", "THREE_QUARTERS", "FULL"),
    Agent.EXECUTION: ("PASSIVE", "PATIENT", "NORMAL", "URGENT", "AGGRESSIVE"),
}


class Costs(BaseModel):
    """What trading costs and how risk is charged; the defaults suit a liquid instrument."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fee: float = Field(default=1e-5, ge=0.0, le=0.1)
    """Per unit of equity traded: 0.1 basis points."""
    half_spread: float = Field(default=5e-5, ge=0.0, le=0.1)
    """Paid in full by the aggressive: 0.5 basis points."""
    impact: float = Field(default=0.05, ge=0.0, le=10.0)
    """Slippage in units of a bar's volatility for trading the whole equity at once."""
    drawdown_weight: float = Field(default=0.1, ge=0.0, le=10.0)
    """Reward given up per unit by which the deepest drawdown grows."""
    ruin: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the first equity at which an account is closed."""


class Account(NamedTuple):
    """State of N accounts: tensors of shape ``(N,)``, float64."""

    position: Tensor
    equity: Tensor
    """In units of the first equity."""
    peak: Tensor
    """Highest equity so far."""
    worst: Tensor
    """The deepest drawdown so far, as a share of the peak before it."""

    @classmethod
    def fresh(cls, count: int, device: torch.device) -> Account:
        """``count`` accounts without a position and with an equity of 1."""
        one = torch.ones(count, dtype=torch.float64, device=device)
        zero = torch.zeros_like(one)
        return cls(zero, one, one, zero)


class Outcome(NamedTuple):
    """What one bar did to N accounts: tensors of shape ``(N,)``, float64; ``ruined`` bool."""

    account: Account
    reward: Tensor
    cost: Tensor
    """As a share of the equity before the trade."""
    traded: Tensor
    """``|q' - q|``."""
    ruined: Tensor


class Broker:
    """Executes joint actions for any number of accounts on one device."""

    def __init__(self, costs: Costs, device: torch.device) -> None:
        self.costs = costs
        self._orders = torch.tensor(
            [
                _order(tactical, risk, execution, costs)
                for tactical in range(ACTIONS)
                for risk in range(ACTIONS)
                for execution in range(ACTIONS)
            ],
            dtype=torch.float64,
            device=device,
        )
        self._digits = torch.tensor([ACTIONS**2, ACTIONS, 1], dtype=torch.int64, device=device)

    def trade(self, account: Account, actions: Tensor, bar_return: Tensor, sigma: Tensor) -> Outcome:
        """Trades ``actions`` (N, 3) at a bar's close and lives through the next bar.

        Args:
            account: the N accounts before the trade.
            actions: int64 in ``[0, 5)``, in the order of ``Agent``.
            bar_return: ``(N,)`` simple return of the next bar.
            sigma: ``(N,)`` volatility of a bar, known at the trade.
        """
        orders = self._orders.index_select(0, (actions * self._digits).sum(-1))
        target, pace, low, high, rate = orders.unbind(-1)
        held = torch.clamp(torch.lerp(account.position, target, pace), low, high)
        traded = (held - account.position).abs_()
        cost = traded * torch.addcmul(rate, sigma, traded, value=self.costs.impact)
        growth = ((1.0 - cost) * (held * bar_return).add_(1.0)).clamp_min_(_SMALLEST_GROWTH)
        equity = account.equity * growth
        peak = torch.maximum(account.peak, equity)
        worst = torch.maximum(account.worst, 1.0 - equity / peak)
        reward = growth.log_().sub_(worst - account.worst, alpha=self.costs.drawdown_weight).mul_(100.0)
        return Outcome(Account(held, equity, peak, worst), reward, cost, traded, equity <= self.costs.ruin)


def _order(tactical: int, risk: int, execution: int, costs: Costs) -> tuple[float, float, float, float, float]:
    """One joint action in numbers: target, share of the way to it, lowest and highest position, cost per unit."""
    limit, pace = LIMITS[risk], PACES[execution]
    target = min(max(TARGETS[tactical], -limit), limit)
    return target, 0.0 if tactical == HOLD else pace, -limit, limit, costs.fee + costs.half_spread * pace
