"""How good a model is on markets it never saw: regime, calibration, and whether it notices the unfamiliar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.market.simulator import SimulatorConfig
from app.strategic.answers import REGIMES, Decisions
from app.strategic.calibration import auroc, expected_calibration_error, macro_f1
from app.strategic.engine import Engine
from app.strategic.simulation import BAR_MINUTES, SimulatedMarkets, simulate_markets
from app.strategic.trading import COST, POSITIONS

Matrices = NDArray[np.float32]


def sample_windows(
    *, seed: int, count: int, config: SimulatorConfig | None = None
) -> tuple[SimulatedMarkets, NDArray[np.int64]]:
    """``count`` windows of markets simulated with ``seed``: the markets and the flat indices where the windows end."""
    markets = simulate_markets(series=64, length=1024, seed=seed, config=config)
    ends = markets.ends()
    chosen = np.random.default_rng(seed).choice(len(ends), size=min(count, len(ends)), replace=False)
    return markets, ends[np.sort(chosen)]


def evaluate(engine: Engine, *, seed: int, count: int = 20_000) -> dict[str, float]:
    """Regime, calibration and decision figures on ``count`` windows of held-out markets."""
    markets, ends = sample_windows(seed=seed, count=count)
    decisions = engine.process(markets.windows(ends))
    regimes = markets.regimes.ravel()[ends]
    edges = markets.edges.ravel()[ends]
    right = side(decisions) == edges
    regime_right = decisions.regime == regimes
    return {
        "regime_accuracy": float(regime_right.mean()),
        "regime_macro_f1": macro_f1(decisions.regime, regimes, len(REGIMES)),
        "regime_calibration_error": expected_calibration_error(decisions.regime_confidence, regime_right),
        "confidence_calibration_error": expected_calibration_error(decisions.confidence, right),
        "decision_on_right_side": float(right.mean()),
        "share_high_confidence": float((decisions.level == 0).mean()),
        "right_when_high_confidence": float(right[decisions.level == 0].mean())
        if (decisions.level == 0).any()
        else 0.0,
    }


def side(decisions: Decisions) -> NDArray[np.int64]:
    """(N,) the side of each decision as an edge: SHORT, NONE or LONG."""
    return np.sign(decisions.decision - 2) + 1


def return_of_decisions(engine: Engine, *, seed: int) -> dict[str, float]:
    """Mean return of a bar in basis points after costs: of the decisions, of buy-and-hold and of a momentum rule."""
    markets = simulate_markets(series=64, length=1024, seed=seed)
    ends = markets.ends().reshape(64, -1)
    returns = markets.returns.ravel()[ends]
    decisions = engine.process(markets.windows(ends.ravel())).decision.reshape(ends.shape)
    momentum = markets.features.reshape(-1, markets.features.shape[-1])[ends][..., 3]
    return {
        "decisions": _net_return(np.array(POSITIONS)[decisions], returns),
        "buy_and_hold": _net_return(np.ones_like(returns), returns),
        "momentum_rule": _net_return(np.sign(momentum), returns),
    }


def _net_return(positions: NDArray[Any], returns: NDArray[np.float32]) -> float:
    changes = np.abs(np.diff(positions, axis=1, prepend=0.0))
    return float((positions * returns - COST * changes).mean() * 1e4)


def _stale(matrices: Matrices, _: np.random.Generator) -> Matrices:
    changed = matrices.copy()
    changed[:, 24:] = changed[:, 23:24]
    return changed


def _scaled(matrices: Matrices, _: np.random.Generator) -> Matrices:
    return matrices * np.float32(10.0)


def _noisy(matrices: Matrices, random: np.random.Generator) -> Matrices:
    spread = matrices.reshape(-1, matrices.shape[-1]).std(axis=0)
    noise = random.standard_normal(matrices.shape, dtype=np.float32)
    noisy: Matrices = matrices + np.float32(0.5) * spread * noise
    return noisy


def _swapped_columns(matrices: Matrices, _: np.random.Generator) -> Matrices:
    return np.ascontiguousarray(np.roll(matrices, 1, axis=2))


def _shuffled_bars(matrices: Matrices, random: np.random.Generator) -> Matrices:
    return np.ascontiguousarray(matrices[:, random.permutation(matrices.shape[1])])


def _reversed_bars(matrices: Matrices, _: np.random.Generator) -> Matrices:
    return np.ascontiguousarray(matrices[:, ::-1])


CORRUPTIONS: Final[dict[str, Callable[[Matrices, np.random.Generator], Matrices]]] = {
    "stale feed: 24 bars repeat": _stale,
    "features ten times too large": _scaled,
    "noise of half a standard deviation": _noisy,
    "columns off by one": _swapped_columns,
    "bars shuffled": _shuffled_bars,
    "bars in reverse order": _reversed_bars,
}


def _market(volatility: float = 1.0, drift: float = 1.0, autocorrelation: float | None = None) -> SimulatorConfig:
    config = SimulatorConfig(bar_minutes=BAR_MINUTES)
    dynamics = tuple(
        replace(
            regime,
            volatility=regime.volatility * volatility,
            drift=regime.drift * drift,
            autocorrelation=regime.autocorrelation if autocorrelation is None else autocorrelation,
        )
        for regime in config.dynamics
    )
    return replace(config, dynamics=dynamics)


SHIFTED_MARKETS: Final = {
    "volatility four times higher": _market(volatility=4.0),
    "volatility four times lower": _market(volatility=0.25),
    "drift five times stronger": _market(drift=5.0),
    "returns that reverse (autocorrelation -0.6)": _market(autocorrelation=-0.6),
    "returns that persist (autocorrelation 0.6)": _market(autocorrelation=0.6),
}


def unfamiliarity(engine: Engine, *, seed: int, count: int = 4_000) -> dict[str, float]:
    """AUROC of the epistemic uncertainty between held-out windows and each kind of shifted ones."""
    markets, ends = sample_windows(seed=seed, count=count)
    matrices = markets.windows(ends)
    familiar = engine.process(matrices).epistemic
    random = np.random.default_rng(seed)
    shifted = {name: corrupt(matrices, random) for name, corrupt in CORRUPTIONS.items()}
    for name, config in SHIFTED_MARKETS.items():
        other, other_ends = sample_windows(seed=seed + 1, count=count, config=config)
        shifted[name] = other.windows(other_ends)
    return {name: auroc(familiar, engine.process(windows).epistemic) for name, windows in shifted.items()}
