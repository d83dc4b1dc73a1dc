"""A tape: the past as the environment plays it back, made of bars or of one window of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.market.bars import Bars
from app.market.features import TACTICAL_FEATURES, TACTICAL_WARMUP, VOLATILITY_SCALE, log_returns_of, tactical_features

FIRST_DECISION: Final = TACTICAL_WARMUP + WINDOW_BARS - 1
"""The first bar whose window holds only features with their full look-back."""
_PRICE_CHANGE: Final = TACTICAL_FEATURES.index("price_change")
_VOLATILITY: Final = TACTICAL_FEATURES.index("volatility")


class WindowError(ValueError):
    """A feature window that cannot be trained on; the message says what and where."""


@dataclass(frozen=True)
class Tape:
    """``S`` series of ``T`` bars on one device. Row ``t`` holds what is known when bar ``t`` has closed."""

    features: Tensor
    """``(S, T, 7)`` float32."""
    returns: Tensor
    """``(S, T)`` float64: ``C_t / C_{t-1} - 1``; 0 in row 0."""
    sigma: Tensor
    """``(S, T)`` float64: volatility of a bar's log return, as the feature ``volatility`` tells it."""
    first: int
    """The first row at which an agent may decide."""

    @property
    def series(self) -> int:
        """Number of series."""
        return self.features.shape[0]

    @property
    def length(self) -> int:
        """Bars in a series."""
        return self.features.shape[1]

    @property
    def decisions(self) -> int:
        """Rows at which a decision is followed by another bar."""
        return max(self.length - 1 - self.first, 0)

    def flat_windows(self) -> Tensor:
        """A view ``(S * T - 29, 210)``: row ``n`` is the window that begins at row ``n`` of the series laid end to end.

        Windows that span two series are in it too; whoever indexes it leaves them out.
        """
        rows = self.series * self.length - WINDOW_BARS + 1
        return self.features.as_strided((rows, WINDOW_BARS * WINDOW_FEATURES), (WINDOW_FEATURES, 1))

    def observations(self) -> Tensor:
        """A view ``(S, D, 30, 7)`` of what is seen at each of the ``decisions`` rows."""
        windows = self.features.unfold(1, WINDOW_BARS, 1).transpose(2, 3)
        begin = self.first - WINDOW_BARS + 1
        return windows[:, begin : begin + self.decisions]

    def rows(self, begin: int, end: int, *, first: int) -> Tape:
        """The rows from ``begin`` to ``end`` (exclusive) of every series; decisions begin at their row ``first``."""
        rows = slice(begin, end)
        features = self.features[:, rows].contiguous()
        return Tape(features, self.returns[:, rows], self.sigma[:, rows], first)


def tape_of_bars(bars: Bars, device: str = "cpu") -> Tape:
    """The tape of one or many series of bars.

    Raises:
        WindowError: when there are too few bars for one decision.
    """
    length = bars.shape[-1]
    if length < FIRST_DECISION + 2:
        raise WindowError(f"bars: {length} bars are too few; {FIRST_DECISION + 2} are needed for one decision")
    close = bars.close.reshape(-1, length)
    returns = np.zeros_like(close)
    returns[:, 1:] = close[:, 1:] / close[:, :-1] - 1.0
    return _tape(tactical_features(bars).reshape(-1, length, WINDOW_FEATURES), returns, FIRST_DECISION, device)


def tape_of_window(window: NDArray[np.float32], device: str = "cpu") -> Tape:
    """The tape of one 30x7 window, which holds features and no prices: 30 decisions, each followed by a row.

    The price path is rebuilt from ``price_change`` (the inverse of its formula, at most 2.65 % a bar), the volatility
    from ``volatility``. Before the window lies a neutral past of zeros: at step ``k`` an agent sees rows ``0`` to ``k -
    1`` and then earns the return of row ``k``. Rows that are still to come are never shown.

    Raises:
        WindowError: on a wrong shape or a value that is not finite.
    """
    rows = check_window(window)
    past = np.zeros_like(rows)
    returns = np.expm1(log_returns_of(rows[:, _PRICE_CHANGE]))
    features = np.concatenate([past, rows])[None]
    return _tape(features, np.concatenate([np.zeros(WINDOW_BARS), returns])[None], WINDOW_BARS - 1, device)


def check_window(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """The window as finite float32 of shape (30, 7).

    Raises:
        WindowError: naming the shape, or the first row and feature that are not finite in float32.
    """
    found = np.asarray(window)
    if found.shape != (WINDOW_BARS, WINDOW_FEATURES):
        raise WindowError(f"data: shape {found.shape}, expected ({WINDOW_BARS}, {WINDOW_FEATURES})")
    with np.errstate(over="ignore"):
        rows = found.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        row, column = (int(index) for index in wrong[0])
        raise WindowError(
            f"data: row {row}, {TACTICAL_FEATURES[column]} is {found[row, column]}; a finite number is needed"
        )
    return np.clip(rows, -1.0, 1.0)


def _tape(features: NDArray[np.float32], returns: NDArray[np.float64], first: int, device: str) -> Tape:
    share = np.clip(features[..., _VOLATILITY].astype(np.float64), 0.0, 0.99)
    return Tape(
        features=torch.from_numpy(np.ascontiguousarray(features)).to(device),
        returns=torch.from_numpy(returns).to(device),
        sigma=torch.from_numpy(VOLATILITY_SCALE * share / (1.0 - share)).to(device),
        first=first,
    )
