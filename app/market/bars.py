"""Bars: open, high, low, close and volume of consecutive intervals, of one series or of many with the same clock."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

PRICE_COLUMNS: Final = ("open", "high", "low", "close")
VALUE_COLUMNS: Final = (*PRICE_COLUMNS, "volume")
TIME_UNIT: Final = "datetime64[us]"

Gaps = Literal["error", "allow"]


class BarError(ValueError):
    """Bars that cannot be true. The message is one line and names what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Bars:
    """Bars of ``S`` series (leading axes, possibly none) at ``T`` shared times.

    ``time`` has shape ``(T,)``, dtype ``datetime64[us]`` in UTC and tells when each bar opens; the bar is known one
    interval later. ``open``, ``high``, ``low``, ``close`` (currency) and ``volume`` (units traded) have shape ``(...,
    T)``, dtype float64. Construction checks the shapes only; ``check_bars`` checks the values.
    """

    time: NDArray[np.datetime64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.time.ndim != 1:
            raise BarError(f"bars: time must be one-dimensional, not {self.time.shape}")
        object.__setattr__(self, "time", self.time.astype(TIME_UNIT, copy=False))
        for name in VALUE_COLUMNS:
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != self.open.shape or values.shape[-1:] != self.time.shape:
                raise BarError(
                    f"bars: {name} has shape {values.shape}, open has {self.open.shape}, time has {self.time.shape}; "
                    "the values must agree and end in the length of time"
                )
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        """The number of times."""
        return len(self.time)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(..., T)``: the leading series axes, then time."""
        return self.close.shape

    def __getitem__(self, times: slice) -> Bars:
        """The bars of a slice of time, as views, for every series."""
        return Bars(self.time[times], **{name: getattr(self, name)[..., times] for name in VALUE_COLUMNS})

    def series(self, index: int) -> Bars:
        """One series out of many, as views, along the first axis."""
        return Bars(self.time, **{name: getattr(self, name)[index] for name in VALUE_COLUMNS})

    @property
    def interval(self) -> np.timedelta64:
        """The length of a bar: the commonest distance between a time and the next, later one."""
        steps = np.diff(self.time)
        distances, counts = np.unique(steps[steps > np.timedelta64(0, "us")], return_counts=True)
        if not len(distances):
            raise BarError("bars: one bar has no interval; at least two are needed")
        return np.timedelta64(distances[int(np.argmax(counts))])


def bars_equal(one: Bars, other: Bars) -> bool:
    """Whether two sets of bars hold the same times and values, bit for bit."""
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Bars))


def check_bars(bars: Bars, *, source: str = "bars", first_row: int = 0, gaps: Gaps = "error") -> None:
    """Check that the values can be a market's.

    Args:
        bars: one series, or many.
        source: what the message calls the origin, for example a file name.
        first_row: the row number that the message gives to the first bar.
        gaps: whether a missing interval is an error.

    Raises:
        BarError: naming source, row and column, for the earliest bad row: a value that is not finite, a price that is
            not positive, a negative volume, a high below or a low above the bar's other prices, a time that repeats,
            runs backwards or leaves a gap.
    """
    if len(bars) == 0:
        raise BarError(f"{source}: holds no bars")
    problems = [
        problem for problem in (_bad_value(bars), _bad_order(bars), _bad_time(bars, gaps)) if problem is not None
    ]
    if problems:
        row, column, what = min(problems, key=lambda problem: problem[0])
        raise BarError(f"{source}: row {row + first_row}, column {column}: {what}")


Problem = tuple[int, str, str]


def _first_row(bad: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Index of the earliest bad bar over all series, time last; None when every bar is good."""
    if not bad.any():
        return None
    row = int(np.argmax(bad.reshape(-1, bad.shape[-1]).any(axis=0)))
    series = np.argwhere(bad[..., row])[0]
    return (*map(int, series), row)


def _bad_value(bars: Bars) -> Problem | None:
    worst: Problem | None = None
    for column in VALUE_COLUMNS:
        values = getattr(bars, column)
        not_finite = ~np.isfinite(values)
        too_low = values < 0 if column == "volume" else values <= 0
        at = _first_row(not_finite | too_low)
        if at is None or (worst is not None and worst[0] <= at[-1]):
            continue
        rule = (
            "must be a finite number"
            if not_finite[at]
            else "must be 0 or more"
            if column == "volume"
            else "must be above 0"
        )
        worst = (at[-1], column, f"{column} is {values[at]:g}; it {rule}")
    return worst


def _bad_order(bars: Bars) -> Problem | None:
    worst: Problem | None = None
    for column, limit, word in (("high", np.maximum, "below"), ("low", np.minimum, "above")):
        values = getattr(bars, column)
        bound = limit(limit(bars.open, bars.close), bars.low if column == "high" else bars.high)
        at = _first_row(values < bound if column == "high" else values > bound)
        if at is not None and (worst is None or at[-1] < worst[0]):
            worst = (at[-1], column, f"{column} {values[at]:g} is {word} the bar's other prices ({bound[at]:g})")
    return worst


def _bad_time(bars: Bars, gaps: Gaps) -> Problem | None:
    if np.isnat(bars.time).any():
        return int(np.argmax(np.isnat(bars.time))), "time", "time is missing"
    steps = np.diff(bars.time)
    backwards = steps <= np.timedelta64(0, "us")
    wrong = backwards
    if gaps == "error" and not backwards.all():
        wrong = backwards | (steps != bars.interval)
    if not wrong.any():
        return None
    at = int(np.argmax(wrong))
    now, before = bars.time[at + 1], bars.time[at]
    if backwards[at]:
        word = "repeats" if now == before else "runs backwards from"
        return at + 1, "time", f"{now} {word} {before}; times must rise: sort the bars and keep one of each time"
    what = f"{now} follows {before}, {_minutes(steps[at])} instead of {_minutes(bars.interval)} later"
    return at + 1, "time", f"{what}; fill the gap or allow gaps"


def _minutes(step: np.timedelta64) -> str:
    return f"{step / np.timedelta64(1, 'm'):g} minutes"
