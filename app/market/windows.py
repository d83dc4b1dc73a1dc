"""Windows over rows of features, as views: a million overlapping windows cost no memory."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contract import MATRIX_BARS, WINDOW_BARS

STRATEGIC_BARS: Final = MATRIX_BARS
TACTICAL_BARS: Final = WINDOW_BARS


def windows(features: NDArray[np.float32], length: int, *, first: int = 0) -> NDArray[np.float32]:
    """Every run of ``length`` consecutive rows that begins at row ``first`` or later.

    Args:
        features: shape ``(..., T, F)``.
        length: rows in a window, at least 1.
        first: rows to leave out in front, usually the features' warm-up.

    Returns:
        A read-only view of shape ``(..., N, length, F)`` with ``N = max(T - first - length + 1, 0)``. Window ``n``
        ends at bar ``n + first + length - 1`` and so is known when that bar closes.

    Raises:
        ValueError: when ``length`` or ``first`` is out of range or ``features`` has fewer than two axes.
    """
    if features.ndim < 2:
        raise ValueError(f"features must have the shape (..., bars, features), not {features.shape}")
    if length < 1 or first < 0:
        raise ValueError(f"a window needs length >= 1 and first >= 0, not {length} and {first}")
    rows = features[..., first:, :]
    if rows.shape[-2] < length:
        return np.empty((*rows.shape[:-2], 0, length, rows.shape[-1]), dtype=features.dtype)
    view = np.lib.stride_tricks.sliding_window_view(rows, length, axis=-2)
    return np.moveaxis(view, -1, -2)
