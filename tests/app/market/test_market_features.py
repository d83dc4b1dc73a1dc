"""The features see the past only, do not depend on how they are asked for, and stay inside their ranges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.market.bars import VALUE_COLUMNS, Bars
from app.market.features import (
    PRICE_CHANGE_SCALE,
    SETTLED_BARS,
    STRATEGIC_FEATURES,
    STRATEGIC_WARMUP,
    TACTICAL_FEATURES,
    TACTICAL_WARMUP,
    log_returns_of,
    strategic_features,
    tactical_features,
)
from app.market.simulator import simulate
from benchmarks.real_bars import NAMES, daily_bars

Features = Callable[[Bars], NDArray[np.float32]]
FEATURES = pytest.mark.parametrize("features", [tactical_features, strategic_features])
SHARES = {"volatility", "risk_score", "structural_break"}


def market(seed: int, length: int = 300, series: int = 1) -> Bars:
    return simulate(series=series, length=length, seed=seed).bars


def joined(past: Bars, future: Bars) -> Bars:
    """The past's bars followed by another market's future."""
    cut = len(past)
    values = {n: np.concatenate([getattr(past, n), getattr(future, n)[..., cut:]], axis=-1) for n in VALUE_COLUMNS}
    return Bars(future.time, **values)


def scaled(bars: Bars, price: float, volume: float) -> Bars:
    factors = {name: volume if name == "volume" else price for name in VALUE_COLUMNS}
    return Bars(bars.time, **{name: getattr(bars, name) * factor for name, factor in factors.items()})


def still(length: int) -> Bars:
    price = np.full(length, 7.3)
    time = np.arange(length).astype("datetime64[m]").astype("datetime64[us]")
    return Bars(time, price, price, price, price, np.zeros(length))


def column(rows: NDArray[np.float32], names: tuple[str, ...], name: str) -> NDArray[np.float32]:
    return rows[..., names.index(name)]


@FEATURES
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 299))
def test_the_past_does_not_change_when_the_future_does(features: Features, seed: int, cut: int) -> None:
    history = market(seed)
    other = joined(history[:cut], market(seed + 1))
    assert np.array_equal(features(history)[..., :cut, :], features(other)[..., :cut, :])
    assert np.array_equal(features(history)[..., :cut, :], features(history[:cut]))


@FEATURES
def test_a_batch_of_markets_gives_what_each_market_alone_gives(features: Features) -> None:
    many = market(3, series=7)
    alone = np.stack([features(many.series(index)) for index in range(7)])
    assert np.array_equal(features(many), alone)


@FEATURES
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), first=st.integers(1, 500))
def test_one_window_needs_only_its_recent_past(features: Features, seed: int, first: int) -> None:
    history = market(seed, length=first + SETTLED_BARS + 48)
    whole, recent = features(history)[..., -48:, :], features(history[first:])[..., -48:, :]
    np.testing.assert_allclose(whole, recent, atol=1e-4)


@FEATURES
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), price=st.floats(1e-3, 1e5), volume=st.floats(1e-3, 1e6))
def test_the_currency_and_the_lot_size_do_not_matter(
    features: Features, seed: int, price: float, volume: float
) -> None:
    history = market(seed, length=120)
    np.testing.assert_allclose(features(scaled(history, price, volume)), features(history), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_legal_market_stays_in_range(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 80))
    price = st.floats(1e-6, 1e9)
    ends = np.array(data.draw(st.lists(st.tuples(price, price), min_size=length, max_size=length)))
    spread = np.array(data.draw(st.lists(st.floats(0, 1), min_size=length, max_size=length)))
    volume = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 1e12]), min_size=length, max_size=length)))
    time = np.arange(length).astype("datetime64[m]").astype("datetime64[us]")
    bars = Bars(
        time, ends[:, 0], ends.max(axis=1) * (1 + spread), ends.min(axis=1) * (1 - spread / 2), ends[:, 1], volume
    )
    for rows, names in ((tactical_features(bars), TACTICAL_FEATURES), (strategic_features(bars), STRATEGIC_FEATURES)):
        assert rows.dtype == np.float32
        assert rows.shape == (length, len(names))
        for name in names:
            values = column(rows, names, name)
            assert np.isfinite(values).all(), name
            assert (values >= (0 if name in SHARES else -1)).all(), name
            assert (values <= 1).all(), name


def test_a_market_that_stands_still_has_no_opinion() -> None:
    for features in (tactical_features, strategic_features):
        np.testing.assert_allclose(features(still(100)), 0, atol=1e-6)


def test_a_rise_is_seen_as_a_rise_and_a_fall_as_a_fall() -> None:
    steps = np.full(100, 0.001)
    for sign in (1, -1):
        close = 100 * np.exp(sign * np.cumsum(steps * np.linspace(0.8, 1.2, 100)))
        opening = np.append(100.0, close[:-1])
        time = np.arange(100).astype("datetime64[m]").astype("datetime64[us]")
        bars = Bars(time, opening, np.maximum(opening, close), np.minimum(opening, close), close, np.full(100, 5.0))
        tactical, strategic = tactical_features(bars)[-1], strategic_features(bars)[-1]
        for name in ("price_change", "momentum", "rsi", "macd"):
            assert sign * column(tactical, TACTICAL_FEATURES, name) > 0.09, name
        for name in ("bollinger_position", "market_sentiment", "correlation_strength", "regime_indicator"):
            assert sign * column(strategic, STRATEGIC_FEATURES, name) > 0.3, name
        assert (column(strategic, STRATEGIC_FEATURES, "risk_score") > 0) == (sign < 0)


def test_a_jump_of_the_volatility_is_a_structural_break() -> None:
    rng = np.random.default_rng(0)
    calm = rng.standard_normal((200, 48)) * 0.001
    shaken = calm.copy()
    shaken[:, 24:] *= 4
    answers = []
    for returns in (calm, shaken):
        close = 100 * np.exp(np.cumsum(np.concatenate([np.zeros((200, 1)), returns], axis=1), axis=1))
        time = np.arange(49).astype("datetime64[m]").astype("datetime64[us]")
        bars = Bars(time, close, close, close, close, np.ones_like(close))
        answers.append(column(strategic_features(bars)[:, -1], STRATEGIC_FEATURES, "structural_break"))
    critical = np.tanh(1.0)
    assert (answers[0] > critical).mean() < 0.1
    assert (answers[1] > critical).mean() > 0.9


def test_the_features_that_talib_knows_agree_with_it() -> None:
    bars = market(11, length=400).series(0)
    close, volume = bars.close, bars.volume
    returns = np.diff(np.log(close), prepend=np.log(close[0]))
    deviation = talib.STDDEV(returns, 20)
    middle, band = talib.SMA(close, 20), talib.STDDEV(close, 20)
    usual = talib.SMA(volume, 20)
    span = bars.high - bars.low
    flow = volume * (2 * close - bars.high - bars.low) / np.where(span > 0, span, 1)
    drawdown = np.log(talib.MAX(close, 48) / close)
    expected = {
        "volatility": deviation / (deviation + 0.002),
        "momentum": np.tanh(np.log(talib.ROCR(close, 10)) / (2 * deviation * np.sqrt(10))),
        "rsi": talib.RSI(close, 14) / 50 - 1,
        "macd": np.tanh(talib.MACD(close, 12, 26, 9)[0] / (2 * deviation * close)),
        "volume_momentum": (talib.SMA(volume, 5) - usual) / (talib.SMA(volume, 5) + usual),
        "volume_ratio": (volume - usual) / (volume + usual),
        "bollinger_position": np.tanh((close - middle) / (2 * band)),
        "market_sentiment": talib.SUM(flow, 20) / talib.SUM(volume, 20),
        "correlation_strength": talib.CORREL(close, np.arange(400.0), 30),
        "regime_indicator": np.log(talib.ROCR(close, 20)) / talib.SUM(np.abs(returns), 20),
        "risk_score": drawdown / (drawdown + 0.02),
    }
    for rows, names in ((tactical_features(bars), TACTICAL_FEATURES), (strategic_features(bars), STRATEGIC_FEATURES)):
        for name in set(names) & set(expected):
            np.testing.assert_allclose(column(rows, names, name)[48:], expected[name][48:], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_real_days_give_features_that_are_finite_and_not_all_at_their_bounds(name: str) -> None:
    bars = daily_bars(name)
    for features in (tactical_features, strategic_features):
        rows = features(bars)[STRATEGIC_WARMUP:]
        assert np.isfinite(rows).all()
        assert (np.abs(rows) < 0.999).mean() > 0.98
        assert (rows.std(axis=0) > 0.02).all()


def test_a_price_change_can_be_turned_back_into_its_return() -> None:
    bars = market(5).series(0)
    rows = column(tactical_features(bars), TACTICAL_FEATURES, "price_change")
    returns = np.diff(np.log(bars.close), prepend=np.log(bars.close[0]))
    usual = np.abs(returns) < 0.02
    np.testing.assert_allclose(log_returns_of(rows)[usual], returns[usual], atol=1e-6)
    foreign = log_returns_of(np.array([-1e30, -1.0, 1.0, 5.0], dtype=np.float32))
    np.testing.assert_allclose(foreign, PRICE_CHANGE_SCALE * np.arctanh([-0.99, -0.99, 0.99, 0.99]))


def test_the_warm_up_is_where_the_last_look_back_is_complete() -> None:
    bars = market(9, length=200).series(0)
    for features, warmup in ((tactical_features, TACTICAL_WARMUP), (strategic_features, STRATEGIC_WARMUP)):
        rows = features(bars)
        assert rows.shape[0] == 200
        np.testing.assert_allclose(rows[warmup + 1 :, 0], features(bars[1:])[warmup:, 0])
