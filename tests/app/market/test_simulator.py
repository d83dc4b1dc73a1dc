"""The simulator makes bars that could be a market's, with regimes that drive them as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.bars import bars_equal, check_bars
from app.market.simulator import Regime, RegimeDynamics, SimulatorConfig, simulate


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    series=st.integers(1, 5),
    length=st.integers(1, 200),
    minutes=st.sampled_from([1, 5, 30, 1440]),
)
def test_every_simulated_bar_is_a_legal_one(seed: int, series: int, length: int, minutes: int) -> None:
    simulated = simulate(series=series, length=length, seed=seed, config=SimulatorConfig(bar_minutes=minutes))
    check_bars(simulated.bars)
    assert simulated.regimes.shape == simulated.bars.shape == (series, length)
    assert set(np.unique(simulated.regimes)) <= set(Regime)


def test_the_seed_decides_everything() -> None:
    one, same, other = (simulate(series=2, length=100, seed=seed) for seed in (1, 1, 2))
    assert bars_equal(one.bars, same.bars)
    assert np.array_equal(one.regimes, same.regimes)
    assert not bars_equal(one.bars, other.bars)


def test_each_regime_moves_as_its_name_says() -> None:
    simulated = simulate(series=200, length=5_000, seed=3)
    returns = np.diff(np.log(simulated.bars.close), axis=1)
    of = simulated.regimes[:, 1:]
    config = SimulatorConfig()
    for regime, dynamics in zip(Regime, config.dynamics, strict=True):
        mine = returns[of == regime]
        assert mine.mean() == pytest.approx(dynamics.drift / 12, abs=2e-5), regime
        assert mine.std() == pytest.approx(dynamics.volatility / np.sqrt(12), rel=0.12), regime
    volume = [np.log1p(simulated.bars.volume[:, 1:][of == regime]).mean() for regime in Regime]
    assert max(volume) == volume[Regime.VOLATILE]
    assert min(volume) == volume[Regime.SIDEWAYS]


def test_trends_repeat_their_surprises_and_a_sideways_market_takes_them_back() -> None:
    simulated = simulate(series=200, length=5_000, seed=4)
    returns = np.diff(np.log(simulated.bars.close), axis=1)
    same = simulated.regimes[:, 2:] == simulated.regimes[:, 1:-1]

    def repeats(regime: Regime) -> float:
        chosen = same & (simulated.regimes[:, 2:] == regime)
        return float(np.corrcoef(returns[:, :-1][chosen], returns[:, 1:][chosen])[0, 1])

    assert repeats(Regime.BULL) > 0.05
    assert repeats(Regime.BEAR) > 0.05
    assert repeats(Regime.SIDEWAYS) < -0.05


def test_regimes_last_as_long_as_configured_from_the_first_bar_on() -> None:
    simulated = simulate(series=3_000, length=300, seed=5)
    share = np.array([(simulated.regimes[:, t] == r).mean() for t in (0, 299) for r in Regime]).reshape(2, -1)
    hours = np.array([dynamics.duration for dynamics in SimulatorConfig().dynamics])
    np.testing.assert_allclose(share, np.broadcast_to(hours / hours.sum(), (2, 4)), atol=0.04)
    changes = (np.diff(simulated.regimes, axis=1) != 0).mean()
    assert changes == pytest.approx(4 / 12 / hours.sum(), rel=0.1)


def test_volatility_clusters_and_volume_follows_it() -> None:
    calm = tuple(
        RegimeDynamics(drift=0, volatility=0.005, autocorrelation=0, reversion=0, duration=1_000) for _ in Regime
    )
    bars = simulate(series=50, length=4_000, seed=6, config=SimulatorConfig(dynamics=calm)).bars
    size = np.abs(np.diff(np.log(bars.close), axis=1))
    assert np.corrcoef(size[:, :-1].ravel(), size[:, 1:].ravel())[0, 1] > 0.03
    assert np.corrcoef(size.ravel(), np.log1p(bars.volume[:, 1:]).ravel())[0, 1] > 0.3


@pytest.mark.parametrize(
    "change",
    [
        {"bar_minutes": 0},
        {"dynamics": ()},
        {"volatility_persistence": 1.0},
        {"start_price": 0.0},
        {"dynamics": (RegimeDynamics(0, 0.01, 1.0, 0, 10),) * 4},
        {"dynamics": (RegimeDynamics(0, 0.01, 0, 0, 0.01),) * 4},
    ],
)
def test_a_market_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"need|must"):
        SimulatorConfig(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least"):
        simulate(series=0, length=5, seed=1)
