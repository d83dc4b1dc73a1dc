"""How good a model is on markets it never saw: regime, calibration, and whether it notices the unfamiliar."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.market.simulator import Regime, SimulatorConfig
from app.strategic.answers import REGIMES, Decisions
from app.strategic.calibration import auroc, expected_calibration_error, macro_f1
from app.strategic.engine import Engine
from app.strategic.shifts import EXAMINATION
from app.strategic.simulation import SimulatedMarkets, simulate_markets
from app.strategic.trading import COST, POSITIONS


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


def unfamiliarity(engine: Engine, *, seed: int, count: int = 4_000) -> dict[str, float]:
    """AUROC of the epistemic uncertainty between held-out windows and each of `shifts.EXAMINATION`."""
    markets, ends = sample_windows(seed=seed, count=count)
    matrices = markets.windows(ends)
    familiar = engine.process(matrices).epistemic
    random = np.random.default_rng(seed)
    found = {}
    for name, shift in EXAMINATION.items():
        windows = matrices
        if shift.market is not None:
            other, other_ends = sample_windows(seed=seed + 1, count=count, config=shift.market)
            if shift.trending:
                other_ends = other_ends[other.regimes.ravel()[other_ends] <= Regime.BEAR]
            windows = other.windows(other_ends)
        if shift.corrupt is not None:
            windows = shift.corrupt(windows, random)
        found[name] = auroc(familiar, engine.process(windows).epistemic)
    return found
