"""The bulk indicators give TA-Lib's values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.market.indicators import macd, rsi


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(40, 300), period=st.integers(2, 30))
def test_rsi_is_talibs(seed: int, length: int, period: int) -> None:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).standard_normal((3, length)) * 0.01, axis=1))
    ours = rsi(close, period)
    for row, series in zip(ours, close, strict=True):
        np.testing.assert_allclose(row[period:], talib.RSI(series, period)[period:], atol=1e-9)
    assert (ours[:, :period] == 50).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(60, 300), fast=st.integers(2, 20), more=st.integers(1, 15))
def test_macd_is_talibs(seed: int, length: int, fast: int, more: int) -> None:
    slow = fast + more
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).standard_normal(length) * 0.01))
    expected = talib.MACD(close, fast, slow, 9)[0]
    first = slow + 7  # TA-Lib leaves out what comes before its signal line
    np.testing.assert_allclose(macd(close, fast, slow)[first:], expected[first:], atol=1e-9)


def test_rsi_of_extremes() -> None:
    rising, flat = np.arange(1.0, 101.0), np.full(100, 3.0)
    assert rsi(rising)[-1] == 100
    assert rsi(rising[::-1].copy())[-1] == 0
    assert rsi(flat)[-1] == 50


@pytest.mark.parametrize("call", [lambda x: rsi(x, 0), lambda x: macd(x, 0, 2), lambda x: macd(x, 5, 5)])
def test_a_senseless_period_is_refused(call: Callable[[NDArray[np.float64]], object]) -> None:
    with pytest.raises(ValueError, match="period"):
        call(np.ones(10))


def test_a_short_series_is_no_trouble() -> None:
    for length in (1, 2, 13):
        assert rsi(np.ones(length)).shape == (length,)
        assert (macd(np.ones(length)) == 0).all()
