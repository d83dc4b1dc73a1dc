"""Playing actions over a whole tape and keeping the books: what evaluation, baselines and reports stand on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from app.mappo import Policy
from app.tactical.account import ACTIONS, Account, Agent, Broker, Costs
from app.tactical.tape import Tape

_BATCH: Final = 4096
"""Windows of one forward pass: 3.4 MB an agent, which stays in the cache."""


@dataclass(frozen=True)
class Backtest:
    """The books of N accounts over D decisions each, tensors on the CPU, float64."""

    equity: Tensor
    """``(N, D + 1)``, starting at 1."""
    position: Tensor
    """``(N, D)``: held during the bar after each decision."""
    cost: Tensor
    """``(N, D)``: as a share of the equity at the trade."""
    traded: Tensor
    """``(N, D)``: size of each trade."""
    reward: Tensor
    """``(N,)``: the sum of the rewards, in percent."""

    @property
    def log_return(self) -> Tensor:
        """``(N,)``: log return of each account over the whole tape, in percent."""
        return 100.0 * self.equity[:, -1].log()

    @property
    def max_drawdown(self) -> Tensor:
        """``(N,)``: the deepest fall below an earlier peak, as a share of it."""
        return (1.0 - self.equity / self.equity.cummax(dim=1).values).amax(dim=1)

    @property
    def sharpe(self) -> Tensor:
        """``(N,)``: mean over standard deviation of the bars' log returns, not annualised; 0 where nothing moved."""
        returns = self.equity.log().diff(dim=1)
        deviation = returns.std(dim=1, correction=0)
        return torch.where(deviation > 0, returns.mean(dim=1) / deviation.clamp_min(1e-12), 0.0)


def backtest(tape: Tape, actions: Tensor, costs: Costs | None = None) -> Backtest:
    """Plays ``actions`` ``(N, D, 3)``, ``N`` a multiple of the tape's series, one account an entry.

    Account ``n`` trades series ``n % S``. A ruined account trades no more.

    Raises:
        ValueError: when the actions do not fit the tape.
    """
    count = len(actions)
    if count % tape.series or tuple(actions.shape[1:]) != (tape.decisions, len(Agent)):
        raise ValueError(
            f"actions have shape {tuple(actions.shape)}, expected (a multiple of {tape.series}, {tape.decisions}, 3)"
        )
    broker = Broker(costs or Costs(), tape.features.device)
    account = Account.fresh(count, tape.features.device)
    alive = torch.ones(count, dtype=torch.bool, device=tape.features.device)
    repeats = count // tape.series
    returns, sigma = tape.returns.repeat(repeats, 1).T, tape.sigma.repeat(repeats, 1).T
    by_step = actions.transpose(0, 1).to(tape.features.device)
    equity, position, cost, traded = [account.equity], [], [], []
    reward = torch.zeros_like(account.equity)
    for step in range(tape.decisions):
        row = tape.first + step
        outcome = broker.trade(account, by_step[step], returns[row + 1], sigma[row])
        stopped = Account(torch.zeros_like(account.position), *account[1:])
        account = Account(*(torch.where(alive, new, old) for new, old in zip(outcome.account, stopped, strict=True)))
        reward += outcome.reward * alive
        equity.append(account.equity)
        position.append(account.position)
        cost.append(outcome.cost * alive)
        traded.append(outcome.traded * alive)
        alive = alive & ~outcome.ruined
    return Backtest(_table(equity), _table(position), _table(cost), _table(traded), reward.cpu())


def policy_actions(policy: Policy, tape: Tape, *, plays: int = 1, seed: int | None = None) -> Tensor:
    """Actions ``(plays * S, D, 3)`` of a policy at every decision of the tape.

    The most probable action with ``seed=None``; else drawn, independently for each of ``plays`` accounts a series. That
    all decisions can be made at once is what a policy of the window alone allows.
    """
    observations = tape.observations()
    logits = torch.cat([_logits(policy, series) for series in observations]).cpu()
    shape = (tape.series, tape.decisions, len(Agent), ACTIONS)
    if seed is None:
        return logits.argmax(-1).view(shape[:-1]).repeat(plays, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    # The Gumbel-max trick (Gumbel 1954): the argmax of logits plus this noise is a draw from their softmax.
    noise = torch.empty(plays, *shape).exponential_(generator=generator).log_().neg_()
    return (logits.view(shape) + noise).argmax(-1).flatten(0, 1)


def _logits(policy: Policy, windows: Tensor) -> Tensor:
    """Logits ``(D, 3, 5)`` of one series' windows ``(D, 30, 7)``."""
    with torch.no_grad():
        parts = [
            policy.logits(part.unsqueeze(1).expand(-1, len(Agent), -1, -1)) for part in torch.split(windows, _BATCH)
        ]
    return torch.cat(parts)


def _table(rows: list[Tensor]) -> Tensor:
    return torch.stack(rows, dim=1).cpu()
