"""A market with known regimes: a Markov chain switches drift, volatility and the way a price moves within each regime.

The log return of bar ``t`` in regime ``k`` is::

    r_t = drift_k + autocorrelation_k * (r_{t-1} - drift_k) - reversion_k * (p_{t-1} - anchor) + sigma_t * e_t
    sigma_t = volatility_k * exp(h_t - xi**2 / 2),   h_t = rho * h_{t-1} + sqrt(1 - rho**2) * xi * n_t

with ``p`` the log price, ``anchor`` the log price at which the regime began, ``e`` Student-t innovations of unit
variance and ``h`` a stationary log-volatility (stochastic volatility: Taylor 1986; regime switching: Hamilton 1989).
High and low are drawn from the exact laws of the maximum and the minimum of a Brownian bridge between open and close
(Karatzas & Shreve 1991, section 4.3), so they always enclose both. Log volume rises with log volatility and with the
size of the move (Karpoff 1987) and is autocorrelated.

What a tactical agent can learn: trends and one-bar momentum in BULL and BEAR, reversion to the anchor in SIDEWAYS
(where following a trend loses), nothing but risk in VOLATILE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.market.bars import Bars
from app.market.compiled import compiled

START: Final = np.datetime64("2024-01-01T00:00:00", "us")
TAIL_DEGREES: Final = 5.0
"""Degrees of freedom of the innovations: fat tails as in intraday returns, variance still finite."""


class Regime(IntEnum):
    """The regime of a bar, in the order in which labels and probabilities are stored."""

    BULL = 0
    BEAR = 1
    SIDEWAYS = 2
    VOLATILE = 3


@dataclass(frozen=True)
class RegimeDynamics:
    """How the price moves within one regime. Drift and volatility are per hour, the two feedbacks per bar."""

    drift: float
    """Expected log return per hour."""
    volatility: float
    """Standard deviation of the log return over one hour."""
    autocorrelation: float
    """Share of the last bar's surprise that the next bar repeats, in (-1, 1)."""
    reversion: float
    """Share of the distance to the anchor that a bar closes, in [0, 1)."""
    duration: float
    """Expected hours until the regime changes."""


def _default_dynamics() -> tuple[RegimeDynamics, ...]:
    return (
        RegimeDynamics(drift=0.0036, volatility=0.0050, autocorrelation=0.15, reversion=0.0, duration=72.0),
        RegimeDynamics(drift=-0.0040, volatility=0.0060, autocorrelation=0.15, reversion=0.0, duration=60.0),
        RegimeDynamics(drift=0.0, volatility=0.0040, autocorrelation=-0.10, reversion=0.10, duration=72.0),
        RegimeDynamics(drift=0.0, volatility=0.0140, autocorrelation=-0.05, reversion=0.0, duration=36.0),
    )


@dataclass(frozen=True)
class SimulatorConfig:
    """What shapes a simulated market; the defaults resemble a liquid instrument that trades around the clock."""

    bar_minutes: int = 5
    dynamics: tuple[RegimeDynamics, ...] = field(default_factory=_default_dynamics)
    """One entry per ``Regime``, in its order. When one ends, each of the others follows with equal probability."""
    start_price: float = 100.0
    base_volume: float = 10_000.0
    """Median volume of a bar at the volatility of SIDEWAYS."""
    volatility_of_volatility: float = 0.30
    """``xi``: standard deviation of the log-volatility."""
    volatility_persistence: float = 0.97
    """``rho``: autocorrelation of the log-volatility from bar to bar."""
    volume_noise: float = 0.25
    """Standard deviation of log volume that volatility does not explain."""

    def __post_init__(self) -> None:
        if len(self.dynamics) != len(Regime):
            raise ValueError(f"dynamics needs one entry per regime ({len(Regime)}), not {len(self.dynamics)}")
        if self.bar_minutes < 1 or self.start_price <= 0 or self.base_volume <= 0:
            raise ValueError("bar_minutes, start_price and base_volume must be positive")
        if not 0 <= self.volatility_persistence < 1:
            raise ValueError(f"volatility_persistence must be in [0, 1), not {self.volatility_persistence}")
        for regime, dynamics in zip(Regime, self.dynamics, strict=True):
            stable = abs(dynamics.autocorrelation) < 1 and 0 <= dynamics.reversion < 1
            if not stable or dynamics.volatility <= 0 or dynamics.duration * 60 < self.bar_minutes:
                raise ValueError(
                    f"{regime.name}: needs |autocorrelation| < 1, 0 <= reversion < 1, volatility > 0 "
                    "and a duration of at least one bar"
                )


@dataclass(frozen=True)
class SimulatedBars:
    """Bars and what truly drove each of them."""

    bars: Bars
    """Values of shape ``(S, T)``."""
    regimes: NDArray[np.int8]
    """The ``Regime`` of each bar, shape ``(S, T)``."""


def simulate(
    *, series: int, length: int, seed: int, config: SimulatorConfig | None = None, start: np.datetime64 = START
) -> SimulatedBars:
    """Simulate ``series`` independent markets of ``length`` bars. The same arguments give the same bars.

    Raises:
        ValueError: when ``series`` or ``length`` is below 1.
    """
    if series < 1 or length < 1:
        raise ValueError(f"a simulation needs at least one series and one bar, not {series} and {length}")
    config = config or SimulatorConfig()
    rng = np.random.default_rng(seed)
    shape = (series, length)
    hours = config.bar_minutes / 60.0
    drift = np.array([dynamics.drift * hours for dynamics in config.dynamics])
    volatility = np.array([dynamics.volatility * math.sqrt(hours) for dynamics in config.dynamics])
    regimes = _regimes(rng, shape, np.array([hours / dynamics.duration for dynamics in config.dynamics]))
    log_volatility = _autoregression(rng.standard_normal(shape), config.volatility_persistence)
    log_volatility *= config.volatility_of_volatility
    sigma = volatility[regimes] * np.exp(log_volatility - config.volatility_of_volatility**2 / 2)
    surprise = rng.standard_t(TAIL_DEGREES, shape) * math.sqrt((TAIL_DEGREES - 2) / TAIL_DEGREES)
    returns = _returns(
        regimes,
        sigma * surprise,
        drift,
        np.array([dynamics.autocorrelation for dynamics in config.dynamics]),
        np.array([dynamics.reversion for dynamics in config.dynamics]),
    )
    log_close = math.log(config.start_price) + np.cumsum(returns, axis=1)
    close = np.exp(log_close)
    opening = np.concatenate([np.full((series, 1), config.start_price), close[:, :-1]], axis=1)
    reach_up = np.sqrt(returns**2 - 2 * sigma**2 * np.log(1.0 - rng.random(shape)))
    reach_down = np.sqrt(returns**2 - 2 * sigma**2 * np.log(1.0 - rng.random(shape)))
    high = np.maximum(opening * np.exp((returns + reach_up) / 2), np.maximum(opening, close))
    low = np.minimum(opening * np.exp((returns - reach_down) / 2), np.minimum(opening, close))
    quiet = volatility[Regime.SIDEWAYS]
    log_volume = 0.7 * np.log(sigma / quiet) + 0.6 * (np.log1p(np.abs(surprise)) - 0.5)
    log_volume += config.volume_noise * _autoregression(rng.standard_normal(shape), 0.7)
    volume = np.round(config.base_volume * np.exp(log_volume))
    time = start.astype("datetime64[us]") + np.arange(length) * np.timedelta64(config.bar_minutes, "m")
    return SimulatedBars(Bars(time, opening, high, low, close, volume), regimes)


def _regimes(rng: np.random.Generator, shape: tuple[int, int], leave: NDArray[np.float64]) -> NDArray[np.int8]:
    """A Markov chain per series from its stationary law: a regime's mass is proportional to how long it lasts."""
    stationary = (1 / leave) / (1 / leave).sum()
    first = rng.choice(len(leave), size=shape[0], p=stationary).astype(np.int8)
    return _walk_chain(first, rng.random(shape), rng.integers(1, len(leave), size=shape, dtype=np.int8), leave)


@compiled
def _walk_chain(
    first: NDArray[np.int8], chance: NDArray[np.float64], jump: NDArray[np.int8], leave: NDArray[np.float64]
) -> NDArray[np.int8]:
    series, length = chance.shape
    regimes = np.empty((series, length), dtype=np.int8)
    count = len(leave)
    for s in range(series):
        regime = first[s]
        for t in range(length):
            if t > 0 and chance[s, t] < leave[regime]:
                regime = np.int8((regime + jump[s, t]) % count)
            regimes[s, t] = regime
    return regimes


@compiled
def _autoregression(noise: NDArray[np.float64], persistence: float) -> NDArray[np.float64]:
    """AR(1) of unit stationary variance, started in its stationary law, in place."""
    scale = math.sqrt(1 - persistence**2)
    series, length = noise.shape
    for s in range(series):
        for t in range(1, length):
            noise[s, t] = persistence * noise[s, t - 1] + scale * noise[s, t]
    return noise


@compiled
def _returns(
    regimes: NDArray[np.int8],
    shock: NDArray[np.float64],
    drift: NDArray[np.float64],
    autocorrelation: NDArray[np.float64],
    reversion: NDArray[np.float64],
) -> NDArray[np.float64]:
    series, length = shock.shape
    returns = np.empty((series, length))
    for s in range(series):
        level, anchor, before = 0.0, 0.0, 0.0
        for t in range(length):
            k = regimes[s, t]
            if t > 0 and k != regimes[s, t - 1]:
                anchor = level
            expected = drift[k] + autocorrelation[k] * before - reversion[k] * (level - anchor)
            returns[s, t] = expected + shock[s, t]
            before = returns[s, t] - drift[k]
            level += returns[s, t]
    return returns
