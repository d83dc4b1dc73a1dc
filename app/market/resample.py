"""Longer bars out of shorter ones, for example 30 minutes out of 5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.market.bars import BarError, Bars


def resample(bars: Bars, minutes: int) -> Bars:
    """Bars of ``minutes``, aligned to the clock (UTC); see ``resampled_rows`` for which are kept.

    Open of the first, close of the last, highest high, lowest low, sum of the volumes; ``time`` is the opening of the
    longer bar.
    """
    firsts, lasts = resampled_rows(bars, minutes)
    if not len(firsts):
        return bars[:0]
    bars = bars[: lasts[-1] + 1]
    # Every second run is a longer bar; the runs between them are what was left out.
    edges = np.stack([firsts, lasts + 1], axis=1).ravel()[:-1]
    return Bars(
        time=bars.time[firsts].astype(f"datetime64[{minutes}m]").astype(bars.time.dtype),
        open=bars.open[..., firsts],
        high=np.maximum.reduceat(bars.high, edges, axis=-1)[..., ::2],
        low=np.minimum.reduceat(bars.low, edges, axis=-1)[..., ::2],
        close=bars.close[..., lasts],
        volume=np.add.reduceat(bars.volume, edges, axis=-1)[..., ::2],
    )


def resampled_rows(bars: Bars, minutes: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last row of the shorter bars in each longer one. A longer bar with a shorter one missing is left out.

    Raises:
        BarError: when ``minutes`` is not a multiple of the interval of ``bars``.
    """
    length = np.timedelta64(minutes, "m")
    interval = bars.interval
    if minutes < 1 or length % interval != np.timedelta64(0, "us"):
        found = f"{interval / np.timedelta64(1, 'm'):g} minutes"
        raise BarError(f"bars: {minutes} minutes is not a multiple of the bars' interval, {found}")
    count = int(length // interval)
    slot = (bars.time - np.datetime64(0, "us")) // length
    firsts = np.flatnonzero(np.diff(slot, prepend=slot[0] - 1))
    lasts = np.append(firsts[1:], len(bars)) - 1
    complete = lasts - firsts + 1 == count
    return firsts[complete], lasts[complete]
