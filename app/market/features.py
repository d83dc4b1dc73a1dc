"""The 7 tactical and the 13 strategic features of a bar.

Every feature is bounded, has no unit, does not change when all prices or all volumes are multiplied by a constant,
and reads only its own bar and earlier ones. Notation: ``C`` close, ``H`` high, ``L`` low, ``V`` volume, ``r_t =
ln(C_t / C_{t-1})``; ``mean_n``, ``sd_n`` over the last n bars; ``sd = max(sd_20(r), 1e-6)``; ``ratio(a, b) = (a - b)
/ (a + b)``, 0 where both are 0.

==================== ==== ======= ==========================================================================
feature              of   range   formula and source
==================== ==== ======= ==========================================================================
price_change         both [-1, 1] tanh(r / 0.01): 0.1 is a move of 0.1 %
volatility           both [0, 1]  sd_20(r) / (sd_20(r) + 0.002)
momentum             both [-1, 1] tanh(ln(C_t / C_{t-10}) / (2 sd sqrt(10))): 0.76 at two standard deviations
volume_change        7    [-1, 1] ratio(V_t, V_{t-1})
volume_momentum      7    [-1, 1] ratio(mean_5(V), mean_20(V))
rsi                  both [-1, 1] RSI_14 / 50 - 1 (Wilder 1978)
macd                 both [-1, 1] tanh((EMA_12(C) - EMA_26(C)) / (2 sd C_t)) (Appel 1979)
volume_ratio         13   [-1, 1] ratio(V_t, mean_20(V))
bollinger_position   13   [-1, 1] tanh((C_t - mean_20(C)) / (2 sd_20(C))): 0.76 at the band (Bollinger 2001)
market_sentiment     13   [-1, 1] sum_20(V (2C - H - L) / (H - L)) / sum_20(V): Chaikin's money flow
correlation_strength 13   [-1, 1] Pearson correlation of C with time over 30 bars: how linear the trend is
regime_indicator     13   [-1, 1] ln(C_t / C_{t-20}) / sum_20 |r|: Kaufman's (1995) efficiency ratio, signed
risk_score           13   [0, 1]  d / (d + 0.02), d = ln(max_48(C) / C_t): the drawdown
liquidity_index      13   [-1, 1] ratio(illiquidity_20, illiquidity_5), illiquidity_n = sum_n |r| / sum_n V
                                  (Amihud 2002): above 0 when more liquid than usual
structural_break     13   [0, 1]  tanh(IT_48 / 1.358): 0.76 at the 5 % level (Inclan & Tiao 1994)
==================== ==== ======= ==========================================================================

Rows before ``TACTICAL_WARMUP`` and ``STRATEGIC_WARMUP`` exist but use the bars there are. RSI and MACD remember their
whole past with a fading weight: after ``SETTLED_BARS`` rows the beginning of a series moves no feature by more than
1e-4, and all others not at all.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.market.bars import Bars
from app.market.compiled import compiled
from app.market.indicators import (
    Series,
    log_return_series,
    macd_series,
    rsi_series,
    trend_correlation,
    variance_break,
    window_deviation,
    window_mean,
)

TACTICAL_FEATURES: Final = ("price_change", "volatility", "momentum", "volume_change", "volume_momentum", "rsi", "macd")
STRATEGIC_FEATURES: Final = (
    "price_change",
    "volume_ratio",
    "volatility",
    "momentum",
    "rsi",
    "macd",
    "bollinger_position",
    "market_sentiment",
    "correlation_strength",
    "regime_indicator",
    "risk_score",
    "liquidity_index",
    "structural_break",
)
TACTICAL_WARMUP: Final = 25
"""The first row in which every tactical feature has its full look-back (MACD needs 26 closes)."""
STRATEGIC_WARMUP: Final = 48
"""The first row in which every strategic feature has its full look-back (the break test needs 48 returns)."""
SETTLED_BARS: Final = 256

PRICE_CHANGE_SCALE: Final = 0.01
VOLATILITY_SCALE: Final = 0.002
DRAWDOWN_SCALE: Final = 0.02
SMALLEST_DEVIATION: Final = 1e-6
"""Of a log return: keeps the rounding noise of a price that stands still out of the ratios."""
BREAK_CRITICAL_VALUE: Final = 1.358

RSI_PERIOD: Final = 14
MACD_FAST: Final = 12
MACD_SLOW: Final = 26
MOMENTUM_BARS: Final = 10
SHORT_BARS: Final = 5
USUAL_BARS: Final = 20
TREND_BARS: Final = 30
LONG_BARS: Final = 48


def tactical_features(bars: Bars) -> NDArray[np.float32]:
    """The 7 features of ``TACTICAL_FEATURES``, meant for 5-minute bars: shape ``(..., T, 7)``, float32, finite."""
    return _features(bars, tactical=True)


def strategic_features(bars: Bars) -> NDArray[np.float32]:
    """The 13 features of ``STRATEGIC_FEATURES``, meant for 30-minute bars: shape ``(..., T, 13)``, float32, finite."""
    return _features(bars, tactical=False)


def log_returns_of(price_change: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log returns that a ``price_change`` feature stands for: the inverse of its formula, at most 2.65 % either way.

    Values outside (-0.99, 0.99), which no bar gives but a caller may send, are taken as the bound.
    """
    return PRICE_CHANGE_SCALE * np.arctanh(np.clip(price_change.astype(np.float64), -0.99, 0.99))


def _features(bars: Bars, *, tactical: bool) -> NDArray[np.float32]:
    length = bars.shape[-1]
    high, low, close, volume = (
        np.ascontiguousarray(values).reshape(-1, length) for values in (bars.high, bars.low, bars.close, bars.volume)
    )
    out = np.empty((*close.shape, len(TACTICAL_FEATURES if tactical else STRATEGIC_FEATURES)), dtype=np.float32)
    if length and tactical:
        _tactical_rows(close, volume, out)
    elif length:
        _strategic_rows(high, low, close, volume, out)
    return out.reshape(*bars.shape, out.shape[-1])


@compiled
def _tactical_rows(close: NDArray[np.float64], volume: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    length = close.shape[1]
    returns, rsi, macd = np.empty(length), np.empty(length), np.empty(length)
    for s in range(close.shape[0]):
        log_return_series(close[s], returns)
        rsi_series(close[s], RSI_PERIOD, rsi)
        macd_series(close[s], MACD_FAST, MACD_SLOW, macd)
        for t in range(length):
            deviation = window_deviation(returns, t, USUAL_BARS)
            row = out[s, t]
            row[0] = np.tanh(returns[t] / PRICE_CHANGE_SCALE)
            row[1] = deviation / (deviation + VOLATILITY_SCALE)
            row[2] = _momentum(close[s], t, deviation)
            row[3] = _ratio(volume[s, t], volume[s, max(t - 1, 0)])
            row[4] = _ratio(window_mean(volume[s], t, SHORT_BARS), window_mean(volume[s], t, USUAL_BARS))
            row[5] = rsi[t] / 50.0 - 1.0
            row[6] = _macd(macd[t], close[s, t], deviation)


@compiled
def _strategic_rows(
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    volume: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    length = close.shape[1]
    returns, rsi, macd = np.empty(length), np.empty(length), np.empty(length)
    for s in range(close.shape[0]):
        log_return_series(close[s], returns)
        rsi_series(close[s], RSI_PERIOD, rsi)
        macd_series(close[s], MACD_FAST, MACD_SLOW, macd)
        for t in range(length):
            deviation = window_deviation(returns, t, USUAL_BARS)
            row = out[s, t]
            row[0] = np.tanh(returns[t] / PRICE_CHANGE_SCALE)
            row[1] = _ratio(volume[s, t], window_mean(volume[s], t, USUAL_BARS))
            row[2] = deviation / (deviation + VOLATILITY_SCALE)
            row[3] = _momentum(close[s], t, deviation)
            row[4] = rsi[t] / 50.0 - 1.0
            row[5] = _macd(macd[t], close[s, t], deviation)
            row[6] = _bollinger_position(close[s], t)
            row[7] = _money_flow(high[s], low[s], close[s], volume[s], t)
            row[8] = trend_correlation(close[s], t, TREND_BARS)
            row[9] = _efficiency(close[s], returns, t)
            row[10] = _drawdown_score(close[s], t)
            row[11] = _liquidity(returns, volume[s], t)
            row[12] = np.tanh(variance_break(returns, t, LONG_BARS) / BREAK_CRITICAL_VALUE)


@compiled
def _ratio(one: float, other: float) -> float:
    total = one + other
    return (one - other) / total if total > 0.0 else 0.0


@compiled
def _momentum(close: Series, t: int, deviation: float) -> float:
    move = np.log(close[t] / close[max(t - MOMENTUM_BARS, 0)])
    return float(np.tanh(move / (2.0 * max(deviation, SMALLEST_DEVIATION) * np.sqrt(MOMENTUM_BARS))))


@compiled
def _macd(line: float, close: float, deviation: float) -> float:
    return float(np.tanh(line / (2.0 * max(deviation, SMALLEST_DEVIATION) * close)))


@compiled
def _bollinger_position(close: Series, t: int) -> float:
    mean = window_mean(close, t, USUAL_BARS)
    deviation = max(window_deviation(close, t, USUAL_BARS), SMALLEST_DEVIATION * mean)
    return float(np.tanh((close[t] - mean) / (2.0 * deviation)))


@compiled
def _money_flow(high: Series, low: Series, close: Series, volume: Series, end: int) -> float:
    flow, total = 0.0, 0.0
    for t in range(max(end - USUAL_BARS + 1, 0), end + 1):
        if high[t] > low[t]:
            flow += volume[t] * (2.0 * close[t] - high[t] - low[t]) / (high[t] - low[t])
        total += volume[t]
    return flow / total if total > 0.0 else 0.0


@compiled
def _efficiency(close: Series, returns: Series, end: int) -> float:
    path = 0.0
    first = max(end - USUAL_BARS, 0)
    for t in range(first + 1, end + 1):
        path += abs(returns[t])
    if path <= 0.0:
        return 0.0
    return float(min(max(np.log(close[end] / close[first]) / path, -1.0), 1.0))


@compiled
def _drawdown_score(close: Series, end: int) -> float:
    peak = close[end]
    for t in range(max(end - LONG_BARS + 1, 0), end):
        peak = max(peak, close[t])
    drawdown = np.log(peak / close[end])
    return float(drawdown / (drawdown + DRAWDOWN_SCALE))


@compiled
def _liquidity(returns: Series, volume: Series, end: int) -> float:
    move_short, move, traded_short, traded = 0.0, 0.0, 0.0, 0.0
    for t in range(max(end - USUAL_BARS + 1, 0), end + 1):
        move += abs(returns[t])
        traded += volume[t]
        if t > end - SHORT_BARS:
            move_short += abs(returns[t])
            traded_short += volume[t]
    return _ratio(move * traded_short, move_short * traded)
