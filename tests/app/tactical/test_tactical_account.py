"""The batched account keeps the books that a careful clerk would keep for one account in plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.simulator import simulate
from app.tactical.account import HOLD, LIMITS, PACES, TARGETS, Account, Broker, Costs, Outcome
from app.tactical.backtest import backtest
from app.tactical.environment import TacticalEnv
from app.tactical.tape import Tape, tape_of_bars, tape_of_window

CPU = torch.device("cpu")
LONG, SHORT, FULL, FLAT, AGGRESSIVE = 4, 0, 4, 0, 4
ACTION = st.integers(0, 4)


@dataclass
class Clerk:
    """One account in the words of the documentation, float64, no tensors."""

    costs: Costs
    position: float = 0.0
    equity: float = 1.0
    peak: float = 1.0
    worst: float = 0.0

    def trade(self, actions: tuple[int, int, int], bar_return: float, sigma: float) -> float:
        tactical, risk, execution = actions
        limit, pace = LIMITS[risk], PACES[execution]
        wanted = self.position if tactical == HOLD else TARGETS[tactical]
        wanted = min(max(wanted, -limit), limit)
        held = min(max(self.position + pace * (wanted - self.position), -limit), limit)
        size = abs(held - self.position)
        cost = size * (self.costs.fee + self.costs.half_spread * pace) + self.costs.impact * sigma * size**2
        before = self.equity
        self.equity = before * (1 - cost) * (1 + held * bar_return)
        self.peak = max(self.peak, self.equity)
        deeper = max(self.worst, 1 - self.equity / self.peak)
        reward = 100 * (math.log(self.equity / before) - self.costs.drawdown_weight * (deeper - self.worst))
        self.worst, self.position = deeper, held
        return reward


def broker_step(broker: Broker, account: Account, actions: tuple[int, int, int], bar_return: float = 0.0) -> Outcome:
    one = torch.tensor([bar_return], dtype=torch.float64)
    return broker.trade(account, torch.tensor([actions]), one, torch.tensor([0.001], dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.tuples(ACTION, ACTION, ACTION, st.floats(-0.1, 0.1), st.floats(0, 0.05)), min_size=1, max_size=60)
)
def test_the_tensors_agree_with_the_clerk(steps: list[tuple[int, int, int, float, float]]) -> None:
    costs = Costs()
    clerk, broker, account = Clerk(costs), Broker(costs, CPU), Account.fresh(1, CPU)
    for tactical, risk, execution, bar_return, sigma in steps:
        expected = clerk.trade((tactical, risk, execution), bar_return, sigma)
        outcome = broker.trade(
            account,
            torch.tensor([[tactical, risk, execution]]),
            torch.tensor([bar_return], dtype=torch.float64),
            torch.tensor([sigma], dtype=torch.float64),
        )
        account = outcome.account
        assert float(outcome.reward) == pytest.approx(expected, abs=1e-9)
        for name in Account._fields:
            assert float(getattr(account, name)) == pytest.approx(getattr(clerk, name), abs=1e-12), name


def test_the_environment_pays_what_the_clerk_counts() -> None:
    bars = simulate(series=3, length=200, seed=1).bars
    tape = tape_of_bars(bars)
    env = TacticalEnv(tape, num_envs=4, episode_steps=25)
    observation = env.reset(7)
    windows = tape.features.unfold(1, 30, 1).transpose(2, 3)
    generator = torch.Generator().manual_seed(0)
    places = [_place_of(windows, observation[e, 0]) for e in range(4)]
    clerks = [Clerk(Costs()) for _ in range(4)]
    for step in range(25):
        actions = torch.randint(5, (4, 3), generator=generator)
        _, reward, terminated, truncated = env.step(actions)
        for e, (series, begin) in enumerate(places):
            row = begin + 29 + step
            bar_return = bars.close[series, row + 1] / bars.close[series, row] - 1
            sigma = float(tape.sigma[series, row])
            expected = clerks[e].trade(tuple(actions[e].tolist()), bar_return, sigma)
            np.testing.assert_allclose(reward[e].numpy(), expected, atol=1e-5)
        assert not terminated.any()
        assert truncated.all() == (step == 24)


def _place_of(windows: torch.Tensor, observation: torch.Tensor) -> tuple[int, int]:
    matches = (windows == observation).all(dim=(2, 3)).nonzero()
    assert len(matches) == 1
    return int(matches[0, 0]), int(matches[0, 1])


def test_every_trade_costs_and_standing_still_does_not() -> None:
    broker, fresh = Broker(Costs(), CPU), Account.fresh(1, CPU)
    bought = broker_step(broker, fresh, (LONG, FULL, AGGRESSIVE))
    assert float(bought.cost) == pytest.approx(1e-5 + 5e-5 + 0.05 * 0.001)
    assert float(bought.account.equity) == pytest.approx(1 - float(bought.cost))
    assert float(bought.reward) < 0
    kept = broker_step(broker, bought.account, (HOLD, FULL, AGGRESSIVE))
    assert float(kept.cost) == float(kept.reward) == 0
    free = Costs(fee=0, half_spread=0, impact=0)
    assert float(broker_step(Broker(free, CPU), fresh, (LONG, FULL, AGGRESSIVE)).reward) == 0


@given(tactical=ACTION, risk=ACTION, position=st.floats(-1, 1), pace=st.integers(0, 3))
def test_haste_costs_more_for_the_same_size_and_the_limit_is_hard(
    tactical: int, risk: int, position: float, pace: int
) -> None:
    broker = Broker(Costs(impact=0.0), CPU)
    account = Account.fresh(1, CPU)._replace(position=torch.tensor([position], dtype=torch.float64))
    patient, hasty = (broker_step(broker, account, (tactical, risk, execution)) for execution in (pace, pace + 1))
    assert float(hasty.traded) >= float(patient.traded) - 1e-12
    if float(patient.traded) > 1e-9:
        assert float(hasty.cost / hasty.traded) > float(patient.cost / patient.traded)
    assert abs(float(patient.account.position)) <= LIMITS[risk] + 1e-12


def test_a_position_over_the_limit_is_closed_at_once_however_patient() -> None:
    account = Account.fresh(1, CPU)._replace(position=torch.tensor([1.0], dtype=torch.float64))
    outcome = broker_step(Broker(Costs(), CPU), account, (LONG, FLAT, 0))
    assert float(outcome.account.position) == 0


def test_the_rewards_of_an_episode_are_its_log_return_less_its_deepest_drawdown() -> None:
    tape = tape_of_bars(simulate(series=4, length=400, seed=3).bars)
    actions = torch.randint(5, (4, tape.decisions, 3), generator=torch.Generator().manual_seed(1))
    books = backtest(tape, actions, Costs(drawdown_weight=0.3))
    torch.testing.assert_close(books.reward, books.log_return - 30.0 * books.max_drawdown)


def test_a_ruined_account_is_closed_and_trades_no_more() -> None:
    returns = torch.zeros(1, 40, dtype=torch.float64)
    returns[0, 33] = -0.9
    returns[0, 35] = 5.0
    tape = Tape(torch.zeros(1, 40, 7), returns, torch.zeros_like(returns), first=29)
    env = TacticalEnv(tape, num_envs=1, episode_steps=8)
    env.reset(0)
    always_long = torch.tensor([[LONG, FULL, AGGRESSIVE]])
    ends = [bool(env.step(always_long)[2]) for _ in range(4)]
    actions = always_long.expand(1, tape.decisions, 3)
    books = backtest(tape, actions)
    assert ends.count(True) == 1
    assert float(books.equity[0, -1]) == pytest.approx(0.1, rel=1e-3)
    assert books.position[0, 5:].abs().max() == 0


def test_a_loss_beyond_everything_stays_finite() -> None:
    account = Account.fresh(1, CPU)._replace(position=torch.tensor([-1.0], dtype=torch.float64))
    outcome = broker_step(Broker(Costs(), CPU), account, (HOLD, FULL, AGGRESSIVE), bar_return=30.0)
    assert torch.isfinite(outcome.reward).all()
    assert bool(outcome.ruined)


def test_actions_that_do_not_fit_the_tape_are_refused() -> None:
    tape = tape_of_window(np.zeros((30, 7), dtype=np.float32))
    with pytest.raises(ValueError, match="actions have shape"):
        backtest(tape, torch.zeros(1, 29, 3, dtype=torch.int64))
