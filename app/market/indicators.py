"""Technical indicators over many series at once, compiled and causal: row ``t`` reads no bar later than ``t``.

TA-Lib is the reference and takes one series a call; these forms give its values for any number of series (the tests
compare them). Kernels named ``*_series`` work on one series of float64, shape ``(T,)``; rows before an indicator is
defined hold its neutral value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.market.compiled import compiled

Series = NDArray[np.float64]


def rsi(close: NDArray[np.float64], period: int = 14) -> NDArray[np.float64]:
    """Relative strength index (Wilder 1978): 0 to 100, shape of ``close`` ``(..., T)``; 50 before row ``period``.

    A market that has not moved has the RSI 50 here (TA-Lib answers 0): nothing rose and nothing fell.
    """
    _check_period(period)
    flat = np.ascontiguousarray(close, dtype=np.float64).reshape(-1, close.shape[-1])
    return np.asarray(_rsi_rows(flat, period)).reshape(close.shape)


def macd(close: NDArray[np.float64], fast: int = 12, slow: int = 26) -> NDArray[np.float64]:
    """MACD line (Appel 1979), EMA(fast) - EMA(slow), in currency, shape of ``close``; 0 before row ``slow - 1``."""
    _check_period(fast)
    if slow <= fast:
        raise ValueError(f"the slow period must exceed the fast one, not {slow} and {fast}")
    flat = np.ascontiguousarray(close, dtype=np.float64).reshape(-1, close.shape[-1])
    return np.asarray(_macd_rows(flat, fast, slow)).reshape(close.shape)


def _check_period(period: int) -> None:
    if period < 1:
        raise ValueError(f"a period must be at least 1, not {period}")


@compiled
def _rsi_rows(close: NDArray[np.float64], period: int) -> NDArray[np.float64]:
    out = np.empty_like(close)
    for s in range(close.shape[0]):
        rsi_series(close[s], period, out[s])
    return out


@compiled
def _macd_rows(close: NDArray[np.float64], fast: int, slow: int) -> NDArray[np.float64]:
    out = np.empty_like(close)
    for s in range(close.shape[0]):
        macd_series(close[s], fast, slow, out[s])
    return out


@compiled
def rsi_series(close: Series, period: int, out: Series) -> None:
    """Wilder's RSI of one series into ``out``: mean gain and loss of the first ``period`` changes, then smoothed."""
    gain, loss = 0.0, 0.0
    share = 1.0 / period
    length = len(close)
    for t in range(min(period, length)):
        out[t] = 50.0
    for t in range(1, length):
        change = close[t] - close[t - 1]
        up = max(change, 0.0)
        down = up - change
        if t <= period:
            gain += up * share
            loss += down * share
        else:
            gain += (up - gain) * share
            loss += (down - loss) * share
        if t >= period:
            total = gain + loss
            out[t] = 100.0 * gain / total if total > 0.0 else 50.0


@compiled
def macd_series(close: Series, fast: int, slow: int, out: Series) -> None:
    """MACD line of one series into ``out``; simple means that end at row ``slow - 1`` seed both, as in TA-Lib."""
    length = len(close)
    for t in range(min(slow - 1, length)):
        out[t] = 0.0
    if length < slow:
        return
    fast_mean, slow_mean = 0.0, 0.0
    for t in range(slow):
        slow_mean += close[t] / slow
        if t >= slow - fast:
            fast_mean += close[t] / fast
    out[slow - 1] = fast_mean - slow_mean
    for t in range(slow, length):
        fast_mean += (close[t] - fast_mean) * (2.0 / (fast + 1))
        slow_mean += (close[t] - slow_mean) * (2.0 / (slow + 1))
        out[t] = fast_mean - slow_mean


@compiled
def log_return_series(close: Series, out: Series) -> None:
    """``ln(close_t / close_{t-1})``; 0 at row 0."""
    out[0] = 0.0
    for t in range(1, len(close)):
        out[t] = np.log(close[t] / close[t - 1])


@compiled
def window_mean(values: Series, end: int, count: int) -> float:
    """Mean of the ``count`` values that end at row ``end``; of those there are when the series is younger.

    Summed afresh for every row: a running sum would make a row depend on where its series began.
    """
    first = max(end - count + 1, 0)
    total = 0.0
    for t in range(first, end + 1):
        total += values[t]
    return total / (end + 1 - first)


@compiled
def window_deviation(values: Series, end: int, count: int) -> float:
    """Population standard deviation of the ``count`` values that end at row ``end``, in two passes."""
    first = max(end - count + 1, 0)
    mean = window_mean(values, end, count)
    total = 0.0
    for t in range(first, end + 1):
        total += (values[t] - mean) ** 2
    return float(np.sqrt(total / (end + 1 - first)))


@compiled
def trend_correlation(values: Series, end: int, count: int) -> float:
    """Pearson correlation with time of the ``count`` values that end at row ``end``; 0 where they do not vary."""
    first = max(end - count + 1, 0)
    length = end + 1 - first
    mean = window_mean(values, end, count)
    middle = (length - 1) / 2.0
    covariance, spread, scale = 0.0, 0.0, 0.0
    for t in range(first, end + 1):
        deviation = values[t] - mean
        step = t - first - middle
        covariance += step * deviation
        spread += deviation**2
        scale += step**2
    if spread <= length * (1e-13 * mean) ** 2:
        return 0.0
    return float(covariance / np.sqrt(spread * scale))


@compiled
def variance_break(returns: Series, end: int, count: int) -> float:
    """Inclan & Tiao's (1994) statistic of a change of variance in the ``count`` returns that end at row ``end``.

    ``sqrt(n / 2) * max_k |C_k / C_n - k / n|`` with ``C_k`` the sum of the first ``k`` squares; above 1.358 at the 5
    % level.
    """
    first = max(end - count + 1, 0)
    length = end + 1 - first
    total = 0.0
    for t in range(first, end + 1):
        total += returns[t] ** 2
    if total <= 0.0:
        return 0.0
    running, largest = 0.0, 0.0
    for t in range(first, end + 1):
        running += returns[t] ** 2
        largest = max(largest, abs(running / total - (t + 1 - first) / length))
    return float(np.sqrt(length / 2.0) * largest)
