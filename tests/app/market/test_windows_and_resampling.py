"""Windows are views that end where they say; longer bars hold exactly what their shorter ones held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.bars import VALUE_COLUMNS, BarError, Bars, check_bars
from app.market.resample import resample, resampled_rows
from app.market.simulator import simulate
from app.market.windows import windows


@given(rows=st.integers(0, 60), length=st.integers(1, 30), first=st.integers(0, 20), series=st.sampled_from([(), (3,)]))
def test_window_n_holds_the_rows_that_begin_at_n(rows: int, length: int, first: int, series: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).standard_normal((*series, rows, 7)).astype(np.float32)
    found = windows(features, length, first=first)
    count = max(rows - first - length + 1, 0)
    assert found.shape == (*series, count, length, 7)
    for n in range(count):
        assert np.array_equal(found[..., n, :, :], features[..., n + first : n + first + length, :])


def test_a_million_windows_cost_no_memory() -> None:
    features = np.zeros((1_000_000, 7), dtype=np.float32)
    found = windows(features, 30)
    assert np.shares_memory(found, features)
    assert not found.flags.writeable


@pytest.mark.parametrize("arguments", [(np.zeros(5, np.float32), 2), (np.zeros((5, 7), np.float32), 0)])
def test_a_senseless_window_is_refused(arguments: tuple[np.ndarray, int]) -> None:
    with pytest.raises(ValueError, match=r"window|shape"):
        windows(*arguments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), length=st.integers(2, 100), offset=st.integers(0, 11))
def test_thirty_minutes_hold_what_their_six_bars_held(seed: int, length: int, offset: int) -> None:
    start = np.datetime64("2024-03-01", "us") + offset * np.timedelta64(5, "m")
    bars = simulate(series=2, length=length, seed=seed, start=start).bars
    longer = resample(bars, 30)
    firsts, lasts = resampled_rows(bars, 30)
    assert len(longer) == len(firsts) == max(length - (-offset) % 6, 0) // 6
    for n, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        part = bars[first : last + 1]
        assert len(part) == 6
        assert longer.time[n] == part.time[0]
        assert np.array_equal(longer.open[:, n], part.open[:, 0])
        assert np.array_equal(longer.close[:, n], part.close[:, -1])
        assert np.array_equal(longer.high[:, n], part.high.max(axis=1))
        assert np.array_equal(longer.low[:, n], part.low.min(axis=1))
        np.testing.assert_allclose(longer.volume[:, n], part.volume.sum(axis=1))
    if len(longer):
        check_bars(longer)


def test_a_longer_bar_with_a_hole_in_it_is_left_out() -> None:
    bars = simulate(series=1, length=24, seed=1).bars.series(0)
    kept = np.delete(np.arange(24), [8])
    holed = Bars(bars.time[kept], **{name: getattr(bars, name)[kept] for name in VALUE_COLUMNS})
    assert len(resample(bars, 30)) == 4
    longer = resample(holed, 30)
    assert len(longer) == 3
    assert np.array_equal(longer.close, bars.close[[5, 17, 23]])
    assert np.array_equal(longer.high, [bars.high[a : a + 6].max() for a in (0, 12, 18)])


def test_bars_of_an_odd_length_are_refused() -> None:
    bars = simulate(series=1, length=24, seed=1).bars
    for minutes in (7, 0):
        with pytest.raises(BarError, match="not a multiple of the bars' interval, 5 minutes"):
            resample(bars, minutes)
    with pytest.raises(BarError, match="one bar has no interval"):
        resample(bars[:1], 30)


def test_arrays_that_do_not_fit_are_refused() -> None:
    bars = simulate(series=1, length=24, seed=1).bars.series(0)
    with pytest.raises(BarError, match="close has shape"):
        Bars(bars.time, bars.open, bars.high, bars.low, bars.close[:-1], bars.volume)
    with pytest.raises(BarError, match="time must be one-dimensional"):
        Bars(bars.time[None], bars.open, bars.high, bars.low, bars.close, bars.volume)
