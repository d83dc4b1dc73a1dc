"""The baselines do what their names say, through the account of a trained policy; the report tells what was counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from app.mappo import Policy
from app.market.bars import Bars
from app.market.simulator import simulate
from app.tactical import report
from app.tactical.account import ACTIONS, Agent, Costs
from app.tactical.backtest import backtest, policy_actions
from app.tactical.baselines import BASELINES, follow_momentum
from app.tactical.environment import TacticalEnv
from app.tactical.model import Point, TrainingSummary
from app.tactical.plan import WindowPlan
from app.tactical.report import compare, report_markdown, write_report
from app.tactical.tape import Tape, tape_of_bars

FREE = Costs(fee=0.0, half_spread=0.0, impact=0.0)


def tape(seed: int = 1, series: int = 4) -> Tape:
    return tape_of_bars(simulate(series=series, length=400, seed=seed).bars)


def rising() -> Tape:
    close = 100 * 1.001 ** np.arange(200.0)
    time = np.arange(200).astype("datetime64[m]").astype("datetime64[us]")
    return tape_of_bars(Bars(time, close, close, close, close, np.ones(200)))


def policy(seed: int = 0) -> Policy:
    made = Policy(WindowPlan().learner(), num_agents=3, num_actions=ACTIONS, observation_shape=(30, 7))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(made.state_dict()["actor"].shape, generator=generator)
    made.load_state_dict({"actor": 0.1 * weights})
    return made


def test_hold_earns_and_costs_nothing() -> None:
    books = backtest(tape(), BASELINES["hold"](tape(), 0))
    assert (books.equity == 1).all()
    assert (books.reward == 0).all()
    assert (books.sharpe == 0).all()


def test_buy_and_hold_earns_the_market_and_pays_once() -> None:
    source = tape()
    books = backtest(source, BASELINES["buy_and_hold"](source, 0), FREE)
    market = torch.log1p(source.returns[:, source.first + 1 :]).sum(dim=1)
    torch.testing.assert_close(books.log_return, 100 * market)
    paid = backtest(source, BASELINES["buy_and_hold"](source, 0))
    assert (paid.cost[:, 0] > 0).all()
    assert (paid.cost[:, 1:] == 0).all()


def test_the_momentum_rule_is_long_in_a_rise_and_short_in_a_fall() -> None:
    up = rising()
    down = Tape(-up.features, -up.returns, up.sigma, up.first)
    assert (backtest(up, BASELINES["momentum_rule"](up, 0)).position == 1).all()
    assert (backtest(down, BASELINES["momentum_rule"](down, 0)).position == -1).all()


def test_a_wider_dead_band_trades_less() -> None:
    source = tape()
    turnover = [float(backtest(source, follow_momentum(source, band)).traded.sum()) for band in (0.0, 0.3, 0.6, 0.9)]
    assert turnover == sorted(turnover, reverse=True)


def test_random_draws_every_action_and_obeys_its_seed() -> None:
    source = tape()
    one, same, other = (BASELINES["random"](source, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    shares = torch.bincount(one.flatten(), minlength=ACTIONS) / one.numel()
    assert shares.min() > 0.15


def test_all_decisions_at_once_are_those_made_one_by_one() -> None:
    source = tape(series=1)
    acting = policy()
    at_once = policy_actions(acting, source)
    env = TacticalEnv(source, num_envs=1, episode_steps=source.decisions)
    observation, total = env.reset(0), 0.0
    for step in range(source.decisions):
        actions, _ = acting.act(observation, True)
        assert torch.equal(actions[0], at_once[0, step])
        observation, reward, _, _ = env.step(actions)
        total += float(reward[0, 0])
    assert total == pytest.approx(float(backtest(source, at_once).reward), abs=1e-3)


def test_drawn_actions_follow_the_policys_probabilities() -> None:
    source = tape(series=1)
    acting = policy()
    drawn = policy_actions(acting, source, plays=400, seed=3)
    expected = torch.softmax(acting.logits(source.observations()[0, :1].unsqueeze(1).expand(-1, 3, -1, -1)), dim=-1)[0]
    for agent in Agent:
        found = torch.bincount(drawn[:, 0, agent], minlength=ACTIONS) / 400
        torch.testing.assert_close(found, expected[agent], atol=0.1, rtol=0)
    assert torch.equal(drawn, policy_actions(acting, source, plays=400, seed=3))


def _summary() -> TrainingSummary:
    point = Point(
        episodes=8, frames=240, seconds=0.1, episode_return=0.5, policy_loss=-0.01, value_loss=0.4, entropy=1.5,
        approximate_kl=0.01, explained_variance=0.1,
    )  # fmt: skip
    return TrainingSummary(
        kind="bars", seed=0, episodes=8, frames=240, updates=1, seconds=0.1, return_before=-0.1, return_after=0.2,
        curve=(point,), parameters_per_agent=102_229, device="cpu",
    )  # fmt: skip


def test_a_report_holds_the_same_figures_in_both_forms(tmp_path: Path) -> None:
    summary, comparison = _summary(), compare(policy(), tape())
    files = write_report(tmp_path, summary, comparison, "bars.csv")
    assert all(file.stat().st_size > 0 for file in files)
    document = json.loads((tmp_path / "report.json").read_text())
    text = report_markdown(summary, comparison, "bars.csv")
    for score in document["scores"]:
        assert f"| {score['name']} | {score['reward']:+.2f} | {score['log_return']:+.2f} |" in text
    assert "-0.100 % before, +0.200 % after" in text


def test_without_matplotlib_a_report_has_everything_but_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda _name: None)
    files = write_report(tmp_path, _summary(), compare(policy(), tape()), "bars.csv")
    assert {file.name for file in files} == {"report.md", "report.json"}
    text = (tmp_path / "report.md").read_text()
    assert "grandmodel[plots]" in text
    assert "![" not in text
