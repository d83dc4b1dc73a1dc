"""What the model learns from: simulated 30-minute bars with the truth behind each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.market.bars import Bars
from app.market.features import SETTLED_BARS, strategic_features
from app.market.simulator import SimulatorConfig, simulate
from app.strategic.agents import BARS

BAR_MINUTES: Final = 30
EDGE_THRESHOLD: Final = 5e-4
"""Expected log return of the next bar from which a position pays: five times the cost of opening one."""

SHORT, NONE, LONG = 0, 1, 2


@dataclass(frozen=True)
class SimulatedMarkets:
    """S markets of T bars with what a window that ends at each bar should tell.

    Attributes:
        bars: values (S, T).
        features: (S, T, 13) float32.
        regimes: (S, T) the simulator's regime of each bar.
        edges: (S, T) SHORT, NONE or LONG by the true expected return of the next bar (`EDGE_THRESHOLD`) as long as
            the regime lasts.
        returns: (S, T) realised log return of the next bar, 0 for the last bar.
    """

    bars: Bars
    features: NDArray[np.float32]
    regimes: NDArray[np.int8]
    edges: NDArray[np.int8]
    returns: NDArray[np.float32]

    def ends(self, stride: int = 1) -> NDArray[np.int64]:
        """Flat indices s T + t of bars that end a window of settled features and have a next bar."""
        series, length = self.regimes.shape
        times = np.arange(SETTLED_BARS + BARS - 1, length - 1, stride)
        ends: NDArray[np.int64] = (np.arange(series)[:, None] * length + times).ravel()
        return ends

    def windows(self, ends: NDArray[np.int64]) -> NDArray[np.float32]:
        """The matrices (N, 48, 13) that end at the flat indices ``ends``."""
        flat = self.features.reshape(-1, self.features.shape[-1])
        windows: NDArray[np.float32] = flat[ends[:, None] + np.arange(1 - BARS, 1)]
        return windows


def simulate_markets(*, series: int, length: int, seed: int, config: SimulatorConfig | None = None) -> SimulatedMarkets:
    """Simulate ``series`` markets of ``length`` bars with their truths. The same arguments give the same markets."""
    config = config or SimulatorConfig(bar_minutes=BAR_MINUTES)
    simulated = simulate(series=series, length=length, seed=seed, config=config)
    log_close = np.log(simulated.bars.close)
    returns = np.zeros_like(log_close)
    returns[:, :-1] = np.diff(log_close, axis=1)
    return SimulatedMarkets(
        bars=simulated.bars,
        features=strategic_features(simulated.bars),
        regimes=simulated.regimes,
        edges=_edges(_expected_returns(log_close, simulated.regimes, config)),
        returns=returns.astype(np.float32),
    )


def _expected_returns(
    log_close: NDArray[np.float64], regimes: NDArray[np.int8], config: SimulatorConfig
) -> NDArray[np.float64]:
    """(S, T) expected log return of the next bar given the regime, by the law of `app.market.simulator`."""
    hours = config.bar_minutes / 60.0
    drift = np.array([dynamics.drift * hours for dynamics in config.dynamics])[regimes]
    autocorrelation = np.array([dynamics.autocorrelation for dynamics in config.dynamics])[regimes]
    reversion = np.array([dynamics.reversion for dynamics in config.dynamics])[regimes]
    before = np.concatenate([np.full((len(log_close), 1), np.log(config.start_price)), log_close[:, :-1]], axis=1)
    starts = np.ones(regimes.shape, bool)
    starts[:, 1:] = regimes[:, 1:] != regimes[:, :-1]
    began = np.maximum.accumulate(np.where(starts, np.arange(regimes.shape[1]), 0), axis=1)
    anchor = np.take_along_axis(before, began, axis=1)
    expected: NDArray[np.float64] = (
        drift + autocorrelation * (log_close - before - drift) - reversion * (log_close - anchor)
    )
    return expected


def _edges(expected: NDArray[np.float64]) -> NDArray[np.int8]:
    return 1 + (expected > EDGE_THRESHOLD).astype(np.int8) - (expected < -EDGE_THRESHOLD).astype(np.int8)
