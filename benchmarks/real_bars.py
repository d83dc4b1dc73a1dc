"""Real daily bars for benchmarks and tests: indices that the package ``arch`` ships, 5,031 days from 1999 to 2018."""

from __future__ import annotations

import importlib
from typing import Final

import numpy as np

from app.market.bars import Bars, check_bars

NAMES: Final = ("sp500", "nasdaq")


def daily_bars(name: str) -> Bars:
    """Daily open, high, low, close and volume of one index.

    Open or close lie a rounding error outside of high and low on some days: both are widened to enclose them.
    """
    frame = importlib.import_module(f"arch.data.{name}").load()
    opening, high, low, close, volume = (
        frame[column].to_numpy(dtype=np.float64) for column in ("Open", "High", "Low", "Close", "Volume")
    )
    bars = Bars(
        time=frame.index.to_numpy().astype("datetime64[us]"),
        open=opening,
        high=np.maximum.reduce([opening, high, close]),
        low=np.minimum.reduce([opening, low, close]),
        close=close,
        volume=volume,
    )
    check_bars(bars, source=f"arch.data.{name}", gaps="allow")
    return bars
