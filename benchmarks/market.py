"""What indicators, features and the simulator cost."""

from __future__ import annotations

import numpy as np
import talib

from app.market.features import strategic_features, tactical_features
from app.market.indicators import rsi
from app.market.simulator import simulate
from benchmarks.figures import Figure, summarise, time_runs

RSI_SERIES = 20_000
SERIES, BARS = 100, 5_000


def measure() -> list[Figure]:
    """RSI of 100 bars in bulk beside one TA-Lib call a series; bars a second of the features and the simulator."""
    close = np.ascontiguousarray(simulate(series=RSI_SERIES, length=100, seed=1).bars.close)
    bulk, spread = summarise([seconds / RSI_SERIES * 1e3 for seconds in time_runs(lambda: rsi(close), runs=15)])
    peer, peer_spread = summarise(
        [s / RSI_SERIES * 1e3 for s in time_runs(lambda: [talib.RSI(row) for row in close], runs=7)]
    )
    figures = [
        Figure(name="RSI of 100 bars, in bulk", value=bulk, unit="ms/series", spread=spread, bar=0.002, aim=0.001),
        Figure(name="RSI of 100 bars, TA-Lib a series a call", value=peer, unit="ms/series", spread=peer_spread),
    ]
    bars = simulate(series=SERIES, length=BARS, seed=2).bars
    work = {
        "simulator": lambda: simulate(series=SERIES, length=BARS, seed=2),
        "tactical features": lambda: tactical_features(bars),
        "strategic features": lambda: strategic_features(bars),
    }
    for name, call in work.items():
        rates = [SERIES * BARS / seconds for seconds in time_runs(call, runs=7)]
        rate, spread = summarise(rates)
        figures.append(Figure(name=f"{name}, one thread", value=rate, unit="bars/s", spread=spread, better="higher"))
    return figures
