"""The environment keeps the learner's contract, shows the past only, and goes on exactly where it stopped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.mappo import FinalObservationEnv, ResumableEnv, VectorEnv
from app.market.bars import VALUE_COLUMNS, Bars
from app.market.features import tactical_features
from app.market.simulator import simulate
from app.tactical.backtest import backtest
from app.tactical.environment import TacticalEnv
from app.tactical.tape import FIRST_DECISION, Tape, WindowError, tape_of_bars, tape_of_window


def tape(seed: int = 0, series: int = 3, length: int = 300) -> Tape:
    return tape_of_bars(simulate(series=series, length=length, seed=seed).bars)


def actions(count: int, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(5, (steps, count, 3), generator=torch.Generator().manual_seed(seed))


def test_it_is_what_the_learner_asks_for() -> None:
    env = TacticalEnv(tape(), num_envs=6, episode_steps=10)
    assert isinstance(env, VectorEnv)
    assert isinstance(env, FinalObservationEnv)
    assert isinstance(env, ResumableEnv)
    assert env.reset(0).shape == (6, 3, 30, 7)
    for step, action in enumerate(actions(6, 25), start=1):
        observation, reward, terminated, truncated = env.step(action)
        assert observation.shape == (6, 3, 30, 7)
        assert observation.dtype == reward.dtype == torch.float32
        assert reward.shape == (6, 3)
        assert terminated.shape == truncated.shape == (6,)
        assert truncated.all() == (step % 10 == 0)
        assert torch.isfinite(observation).all()
        assert torch.isfinite(reward).all()


def test_the_seed_decides_where_episodes_begin() -> None:
    one, other = (TacticalEnv(tape(), num_envs=8, episode_steps=10) for _ in range(2))
    assert torch.equal(one.reset(5), other.reset(5))
    for action in actions(8, 30):
        for mine, theirs in zip(one.step(action), other.step(action), strict=True):
            assert torch.equal(mine, theirs)
    assert not torch.equal(one.reset(5), other.reset(6))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(FIRST_DECISION + 2, 298))
def test_the_reward_of_the_past_does_not_change_when_the_future_does(seed: int, cut: int) -> None:
    past, other = (simulate(series=2, length=300, seed=s).bars for s in (seed, seed + 1))
    values = {n: np.concatenate([getattr(past, n)[:, :cut], getattr(other, n)[:, cut:]], axis=1) for n in VALUE_COLUMNS}
    tapes = tape_of_bars(past), tape_of_bars(Bars(past.time, **values))
    known = cut - 1 - FIRST_DECISION
    chosen = actions(2, tapes[0].decisions).transpose(0, 1)
    books = [backtest(one, chosen) for one in tapes]
    assert torch.equal(books[0].equity[:, : known + 1], books[1].equity[:, : known + 1])
    seen = [one.observations()[:, : known + 1] for one in tapes]
    assert torch.equal(seen[0], seen[1])


def test_a_window_of_features_shows_only_what_has_happened() -> None:
    rows = tactical_features(simulate(series=1, length=100, seed=3).bars)[0, 60:90]
    changed = rows.copy()
    changed[20:] = -changed[20:]
    plays = []
    for window in (rows, changed):
        env = TacticalEnv(tape_of_window(window), num_envs=1, episode_steps=30)
        seen, rewards = [env.reset(0)], []
        for action in actions(1, 30):
            observation, reward, _, truncated = env.step(action)
            seen.append(observation)
            rewards.append(reward)
        assert truncated.all()
        plays.append((torch.stack(seen), torch.stack(rewards)))
    assert torch.equal(plays[0][0][:21], plays[1][0][:21])
    assert torch.equal(plays[0][1][:20], plays[1][1][:20])
    assert not torch.equal(plays[0][1][20], plays[1][1][20])
    first = plays[0][0][0, 0, 0]
    assert not first.any(), "at the first step nothing of the window has happened"
    assert torch.equal(plays[0][0][7, 0, 0, -7:], torch.from_numpy(rows[:7]))


def test_a_window_earns_the_returns_that_its_price_changes_stand_for() -> None:
    bars = simulate(series=1, length=100, seed=3).bars
    window = tactical_features(bars)[0, 60:90]
    returns = tape_of_window(window).returns[0, 30:].numpy()
    expected = bars.close[0, 60:90] / bars.close[0, 59:89] - 1
    np.testing.assert_allclose(returns, expected, atol=1e-6)


def test_an_episode_that_ended_keeps_its_last_observation() -> None:
    source = tape(series=1)
    env = TacticalEnv(source, num_envs=2, episode_steps=5)
    env.reset(0)
    before = [env.step(action)[0] for action in actions(2, 4)][-1]
    observation, *_ = env.step(actions(2, 1)[0])
    assert torch.equal(env.final_observation[:, :, :-1], before[:, :, 1:])
    assert not torch.equal(env.final_observation, observation)


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    one, other = (TacticalEnv(tape(), num_envs=4, episode_steps=10) for _ in range(2))
    one.reset(3)
    for action in actions(4, 7):
        one.step(action)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for action in actions(4, 25, seed=1):
        for mine, theirs in zip(one.step(action), other.step(action), strict=True):
            assert torch.equal(mine, theirs)


def test_a_state_of_other_bars_or_settings_is_refused() -> None:
    state = TacticalEnv(tape(length=300), num_envs=4, episode_steps=10).state_dict()
    with pytest.raises(ValueError, match="does not fit"):
        TacticalEnv(tape(), num_envs=5, episode_steps=10).load_state_dict(state)
    state["row"] += 10_000
    state["end"] += 10_000
    with pytest.raises(ValueError, match="outside these bars"):
        TacticalEnv(tape(), num_envs=4, episode_steps=10).load_state_dict(state)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (np.zeros((29, 7)), "shape \\(29, 7\\), expected \\(30, 7\\)"),
        (np.full((30, 7), np.nan), "row 0, price_change is nan"),
        (np.where(np.arange(210).reshape(30, 7) == 9, np.inf, 0.0), "row 1, momentum is inf"),
        (np.full((30, 7), 1e300), "row 0, price_change is 1e"),
    ],
)
def test_a_window_that_is_none_is_refused(window: np.ndarray, message: str) -> None:
    with pytest.raises(WindowError, match=message):
        tape_of_window(window)


def test_too_few_bars_are_told() -> None:
    with pytest.raises(WindowError, match="50 bars are too few; 56 are needed"):
        tape(length=50)
    with pytest.raises(WindowError, match="2 decisions are too few for an episode of 10 steps"):
        TacticalEnv(tape(length=57), num_envs=1, episode_steps=10)
    with pytest.raises(ValueError, match="at least 1"):
        TacticalEnv(tape(), num_envs=0, episode_steps=10)
