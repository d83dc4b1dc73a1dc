"""Windows unlike the training markets: what the model practises to notice, and what it is examined on.

Training draws its own strengths and kinds (`random_market`, `PRACTICE`); the examination (`EXAMINATION`) fixes them,
and half of its kinds never occur in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.market.simulator import SimulatorConfig
from app.strategic.agents import PRICE_CHANGE
from app.strategic.simulation import BAR_MINUTES

Matrices = NDArray[np.float32]
Corruption = Callable[[Matrices, np.random.Generator], Matrices]


def altered_market(
    *,
    volatility: float = 1.0,
    drift: float = 1.0,
    autocorrelation: float | None = None,
    volatility_of_volatility: float | None = None,
    bar_minutes: int = BAR_MINUTES,
) -> SimulatorConfig:
    """The simulator's default market with volatility and drift multiplied and other numbers replaced."""
    config = SimulatorConfig(bar_minutes=bar_minutes)
    dynamics = tuple(
        replace(
            regime,
            volatility=regime.volatility * volatility,
            drift=regime.drift * drift,
            autocorrelation=regime.autocorrelation if autocorrelation is None else autocorrelation,
        )
        for regime in config.dynamics
    )
    if volatility_of_volatility is not None:
        config = replace(config, volatility_of_volatility=volatility_of_volatility)
    return replace(config, dynamics=dynamics)


def random_market(random: np.random.Generator) -> SimulatorConfig:
    """A market altered in one way, by a random amount."""
    strong = float(random.uniform(2.5, 8.0))
    kinds: tuple[Callable[[], SimulatorConfig], ...] = (
        lambda: altered_market(volatility=strong),
        lambda: altered_market(volatility=1.0 / strong),
        lambda: altered_market(drift=strong),
        lambda: altered_market(autocorrelation=float(random.uniform(0.35, 0.8))),
        lambda: altered_market(autocorrelation=-float(random.uniform(0.35, 0.8))),
        lambda: altered_market(volatility_of_volatility=float(random.uniform(0.9, 1.5))),
    )
    return kinds[int(random.integers(len(kinds)))]()


def _noise(matrices: Matrices, random: np.random.Generator) -> Matrices:
    spread = matrices.reshape(-1, matrices.shape[-1]).std(axis=0)
    amount = random.uniform(0.1, 1.0, (len(matrices), 1, 1)).astype(np.float32)
    noisy: Matrices = matrices + amount * spread * random.standard_normal(matrices.shape, dtype=np.float32)
    return noisy


def _column_scaled(matrices: Matrices, random: np.random.Generator) -> Matrices:
    changed = matrices.copy()
    rows = np.arange(len(matrices))
    columns = random.integers(matrices.shape[2], size=len(matrices))
    changed[rows, :, columns] *= random.uniform(-2.0, 0.3, (len(matrices), 1)).astype(np.float32)
    return changed


def _two_columns_swapped(matrices: Matrices, random: np.random.Generator) -> Matrices:
    changed = matrices.copy()
    one, other = random.choice(matrices.shape[2], size=2, replace=False)
    changed[:, :, [one, other]] = matrices[:, :, [other, one]]
    return changed


def _stale_tail(matrices: Matrices, random: np.random.Generator) -> Matrices:
    last = int(random.integers(8, 40))
    changed = matrices.copy()
    changed[:, last:] = changed[:, last - 1 : last]
    return changed


def _rolled(matrices: Matrices, random: np.random.Generator) -> Matrices:
    return np.roll(matrices, int(random.integers(8, 40)), axis=1)


def _bars_shuffled(matrices: Matrices, random: np.random.Generator) -> Matrices:
    return np.ascontiguousarray(matrices[:, random.permutation(matrices.shape[1])])


def _spike(matrices: Matrices, random: np.random.Generator) -> Matrices:
    """One feature of one bar takes an extreme value that no other feature explains."""
    changed = matrices.copy()
    rows = np.arange(len(matrices))
    bars = random.integers(matrices.shape[1], size=len(matrices))
    columns = random.integers(matrices.shape[2], size=len(matrices))
    columns[: len(columns) // 2] = PRICE_CHANGE
    changed[rows, bars, columns] = random.choice([-1.0, 1.0], len(matrices)) * random.uniform(0.9, 1.0, len(matrices))
    return changed


PRACTICE: Final[tuple[Corruption, ...]] = (
    _noise,
    _column_scaled,
    _two_columns_swapped,
    _stale_tail,
    _rolled,
    _bars_shuffled,
    _spike,
)


@dataclass(frozen=True)
class Shift:
    """One kind of unfamiliar windows.

    Attributes:
        market: simulated instead of the default, or None.
        corrupt: applied to the windows, or None.
        trending: whether only windows that end in BULL or BEAR count, because the others are not altered.
        practised: whether training saw windows of this kind (of other strengths and other markets).
    """

    market: SimulatorConfig | None = None
    corrupt: Corruption | None = None
    trending: bool = False
    practised: bool = False


def _price_gap(matrices: Matrices, random: np.random.Generator) -> Matrices:
    """A move of 3 % in one bar that no other feature knows of."""
    changed = matrices.copy()
    bars = random.integers(matrices.shape[1], size=len(matrices))
    changed[np.arange(len(matrices)), bars, PRICE_CHANGE] = 0.995
    return changed


EXAMINATION: Final[dict[str, Shift]] = {
    "volatility six times higher": Shift(market=altered_market(volatility=6.0), practised=True),
    "volatility six times lower": Shift(market=altered_market(volatility=1 / 6.0), practised=True),
    "drift five times stronger": Shift(market=altered_market(drift=5.0), trending=True, practised=True),
    "returns that persist (autocorrelation 0.6)": Shift(market=altered_market(autocorrelation=0.6), practised=True),
    "returns that revert (autocorrelation -0.6)": Shift(market=altered_market(autocorrelation=-0.6), practised=True),
    "stale feed: the last 24 bars repeat": Shift(
        corrupt=lambda matrices, _: np.ascontiguousarray(matrices[:, np.minimum(np.arange(48), 23)]), practised=True
    ),
    "5-minute bars": Shift(market=altered_market(bar_minutes=5)),
    "4-hour bars": Shift(market=altered_market(bar_minutes=240)),
    "bars in reverse order": Shift(corrupt=lambda matrices, _: np.ascontiguousarray(matrices[:, ::-1])),
    "features ten times too large": Shift(corrupt=lambda matrices, _: matrices * np.float32(10.0)),
    "columns off by one": Shift(corrupt=lambda matrices, _: np.ascontiguousarray(np.roll(matrices, 1, axis=2))),
    "a gap of 3 % in the price change alone": Shift(corrupt=_price_gap, practised=True),
    "buying and selling confused (all signs flipped)": Shift(corrupt=lambda matrices, _: -matrices),
}
