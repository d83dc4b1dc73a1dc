"""The signals that the three agents see beside the shared trunk.

- MLMI looks at the RSI column only; its units are learned and live in the trunk's first product (`model.ModelWeights`).
- NWRQK asks what followed the bars that resembled the last one: Nadaraya-Watson regression (Nadaraya 1964, Watson 1964)
  with a rational quadratic kernel (Rasmussen and Williams 2006, eq. 4.19), at several length scales.
- Regime compares recent with older bars: maximum mean discrepancy (Gretton et al. 2012, eq. 5, the biased statistic),
  with a rational quadratic kernel, at several splits, and running moments of the price change.

`prepare` runs them over a batch. The functions are compiled for one window of standardised features laid out feature by
feature, (13, 48): sixteen bars fill one vector register. What belongs to one compiled function stays in this file: the
compiler's cache notices no change in another one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

BARS: Final = 48
FEATURES: Final = 13
PRICE_CHANGE: Final = 0
RSI: Final = 4

SIGNAL_WIDTH: Final = 16
"""Width of each agent's signals; unused places are zero."""

KERNEL_SCALES: Final = 3
"""Length scales of NWRQK; each gives three signals: estimate, spread and effective number of neighbours."""

SPLITS: Final = (6, 12, 24)
"""Recent bars of each discrepancy; all other bars of the window are the older ones."""

GROUPS: Final = (0, 24, 36, 42, 48)
"""Bounds of the groups of bars whose kernel sums give the discrepancy of every split."""

MOMENT_BARS: Final = (6, 12, 24, 48)
MMD_DIMENSIONS: Final = 4

REGRESSION_SIGNALS: Final = 3 * KERNEL_SCALES
REGIME_SIGNALS: Final = len(SPLITS) + 2 * len(MOMENT_BARS) + 2

FloatArray = NDArray[Any]

# Infinities and NaN keep their meaning: an overflow must not turn into a number.
_fast = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", nogil=True)


class InputWeights(NamedTuple):
    """What `prepare` needs of `app.strategic.model.ModelWeights`, under the same names."""

    center: FloatArray
    inverse_scale: FloatArray
    clip: FloatArray
    metric: FloatArray
    kernel_scales: FloatArray
    projection: FloatArray
    signal_center: FloatArray
    signal_inverse_scale: FloatArray


@_fast
def kernel_regression(
    window: FloatArray, metric: FloatArray, time_metric: float, scales: FloatArray, scratch: FloatArray, out: FloatArray
) -> None:
    """Write NWRQK's signals of one window.

    With d_i^2 = sum_f metric_f (x_47,f - x_i,f)^2 + time_metric ((47 - i) / 47)^2 and the rational quadratic kernel of
    alpha = 1, k_i = 1 / (1 + d_i^2 / (2 l^2)), for each length scale l: the estimate m = sum k_i y_i / sum k_i of the
    price change y_i that followed bar i (i = 0..46), the spread sqrt(sum k_i y_i^2 / sum k_i - m^2), and the effective
    share of neighbours (sum k_i)^2 / (47 sum k_i^2).

    Args:
        window: (13, 48) standardised features.
        metric: (13,) non-negative weights of the features in the distance.
        time_metric: non-negative weight of the age of a bar.
        scales: (K,) positive values of 1 / (2 l^2).
        scratch: (48,) working space.
        out: (>= 3 K,) receives estimate, spread, share for each scale.
    """
    last = BARS - 1
    for i in range(BARS):
        age = np.float32(last - i) * np.float32(1.0 / 47.0)
        distance = time_metric * age * age
        for f in range(FEATURES):
            difference = window[f, last] - window[f, i]
            distance += metric[f] * difference * difference
        scratch[i] = distance
    one = np.float32(1.0)
    # Sums are taken around the last price change: their difference then keeps its digits.
    origin = window[PRICE_CHANGE, last]
    for s in range(len(scales)):
        scale = scales[s]
        total = np.float32(0.0)
        squares = np.float32(0.0)
        first = np.float32(0.0)
        second = np.float32(0.0)
        for i in range(last):
            k = one / (one + scratch[i] * scale)
            y = window[PRICE_CHANGE, i + 1] - origin
            total += k
            squares += k * k
            first += k * y
            second += k * y * y
        mean = first / total
        out[3 * s] = origin + mean
        out[3 * s + 1] = np.sqrt(max(second / total - mean * mean, np.float32(0.0)))
        out[3 * s + 2] = total * total / (squares * np.float32(47.0))


@_fast
def _discrepancy_of_split(sums: FloatArray, split: int) -> np.float32:
    """Combine the kernel sums between groups of bars, (4, 4), into the discrepancy of the last ``split`` bars."""
    within_recent = np.float32(0.0)
    between = np.float32(0.0)
    within_older = np.float32(0.0)
    for a in range(4):
        for b in range(4):
            recent = (GROUPS[a] >= BARS - split) + (GROUPS[b] >= BARS - split)
            if recent == 2:
                within_recent += sums[a, b]
            elif recent == 1:
                between += sums[a, b]
            else:
                within_older += sums[a, b]
    r = np.float32(split)
    o = np.float32(BARS) - r
    # `between` holds both orders of each pair: the factor 2 of the statistic.
    squared = within_recent / (r * r) - between / (r * o) + within_older / (o * o)
    return np.float32(np.sqrt(max(squared, np.float32(0.0))))


@_fast
def _project(window: FloatArray, projection: FloatArray, points: FloatArray) -> None:
    """Write projection @ window, (4, 48)."""
    for d in range(MMD_DIMENSIONS):
        for i in range(BARS):
            total = np.float32(0.0)
            for f in range(FEATURES):
                total += projection[d, f] * window[f, i]
            points[d, i] = total


@_fast
def _kernel_sums(points: FloatArray, columns: FloatArray, sums: FloatArray) -> None:
    """Write the sums of the kernel between all pairs of `GROUPS`, (4, 4), computing each pair of groups once."""
    one = np.float32(1.0)
    for a in range(4):
        start = GROUPS[a]
        columns[start:] = 0.0
        # Three bars share one division, 1/x + 1/y + 1/z = (yz + xz + xy) / xyz: it costs more than all else here. Every
        # group has a multiple of three bars, and clipped features keep the product of three far below overflow.
        for i in range(start, GROUPS[a + 1], 3):
            for j in range(start, BARS):
                x, y, z = one, one, one
                for d in range(MMD_DIMENSIONS):
                    point = points[d, j]
                    dx, dy, dz = points[d, i] - point, points[d, i + 1] - point, points[d, i + 2] - point
                    x += dx * dx
                    y += dy * dy
                    z += dz * dz
                columns[j] += (y * z + x * (y + z)) / (x * y * z)
        for b in range(a, 4):
            total = np.float32(0.0)
            for j in range(GROUPS[b], GROUPS[b + 1]):
                total += columns[j]
            sums[a, b] = total
            sums[b, a] = total


@_fast
def discrepancy(
    window: FloatArray,
    projection: FloatArray,
    points: FloatArray,
    columns: FloatArray,
    sums: FloatArray,
    out: FloatArray,
) -> None:
    """Write the maximum mean discrepancy between recent and older bars for each of `SPLITS`.

    MMD = sqrt(max(0, mean k(r, r') - 2 mean k(r, o) + mean k(o, o'))) over recent bars r and older bars o, with
    k(x, y) = 1 / (1 + |P (x - y)|^2), a rational quadratic kernel on a learned projection P.

    Args:
        window: (13, 48) standardised features.
        projection: (4, 13); its scale is the kernel's inverse length scale.
        points: (4, 48) working space.
        columns: (48,) working space.
        sums: (4, 4) working space.
        out: (>= 3,) receives one discrepancy a split.
    """
    _project(window, projection, points)
    _kernel_sums(points, columns, sums)
    for s in range(len(SPLITS)):
        out[s] = _discrepancy_of_split(sums, SPLITS[s])


@_fast
def moments(window: FloatArray, out: FloatArray) -> None:
    """Write what the price change did: ten numbers.

    Mean and standard deviation over the last 6, 12, 24 and 48 bars in pairs, then the first autocorrelation
    sum x_i x_(i-1) / sum x_i^2 and the largest |x_i| of the window.

    Args:
        window: (13, 48) standardised features.
        out: (>= 10,).
    """
    total = np.float32(0.0)
    squares = np.float32(0.0)
    position = BARS
    origin = window[PRICE_CHANGE, BARS - 1]
    for m in range(len(MOMENT_BARS)):
        bars = MOMENT_BARS[m]
        while position > BARS - bars:
            position -= 1
            value = window[PRICE_CHANGE, position] - origin
            total += value
            squares += value * value
        mean = total / np.float32(bars)
        out[2 * m] = origin + mean
        out[2 * m + 1] = np.sqrt(max(squares / np.float32(bars) - mean * mean, np.float32(0.0)))
    followed = np.float32(0.0)
    energy = window[PRICE_CHANGE, 0] * window[PRICE_CHANGE, 0]
    largest = abs(window[PRICE_CHANGE, 0])
    for i in range(1, BARS):
        followed += window[PRICE_CHANGE, i] * window[PRICE_CHANGE, i - 1]
        energy += window[PRICE_CHANGE, i] * window[PRICE_CHANGE, i]
        largest = max(largest, abs(window[PRICE_CHANGE, i]))
    out[8] = followed / max(energy, np.float32(1e-6))
    out[9] = largest


@_fast
def prepare(matrices: FloatArray, weights: InputWeights, windows: FloatArray, signals: FloatArray) -> None:
    """Standardise each matrix and compute the signals of NWRQK and Regime.

    Standardised features are rounded to bfloat16 (to nearest even): the first and largest product then has operands
    that a bfloat16 unit takes as they are, and its result does not depend on the precision that serves.

    Args:
        matrices: (N, 48, 13) raw features.
        weights: of the input side.
        windows: (N, 624) receives the standardised features, feature by feature.
        signals: (N, 32) receives the standardised signals of NWRQK and Regime, 16 each.
    """
    patterns = windows.view(np.uint32)
    low, odd, high = np.uint32(0x7FFF), np.uint32(1), np.uint32(0xFFFF0000)
    scratch = np.empty(BARS, np.float32)
    points = np.empty((MMD_DIMENSIONS, BARS), np.float32)
    columns = np.empty(BARS, np.float32)
    sums = np.empty((4, 4), np.float32)
    bound = weights.clip[0]
    scales = weights.kernel_scales[:KERNEL_SCALES]
    age = weights.kernel_scales[KERNEL_SCALES]
    for n in range(matrices.shape[0]):
        window = windows[n].reshape((FEATURES, BARS))
        # Transposed first: arithmetic on strided reads takes a third longer.
        for f in range(FEATURES):
            for i in range(BARS):
                window[f, i] = matrices[n, i, f]
        for f in range(FEATURES):
            shift = weights.center[f]
            factor = weights.inverse_scale[f]
            for i in range(BARS):
                window[f, i] = min(max((window[f, i] - shift) * factor, -bound), bound)
        for j in range(FEATURES * BARS):
            bits = patterns[n, j]
            half = np.uint32((bits >> np.uint32(16)) & odd)
            patterns[n, j] = np.uint32(np.uint32(bits + np.uint32(low + half)) & high)
        signals[n, :] = 0.0
        kernel_regression(window, weights.metric, age, scales, scratch, signals[n])
        discrepancy(window, weights.projection, points, columns, sums, signals[n, SIGNAL_WIDTH:])
        moments(window, signals[n, SIGNAL_WIDTH + len(SPLITS) :])
        for j in range(2 * SIGNAL_WIDTH):
            signals[n, j] = (signals[n, j] - weights.signal_center[j]) * weights.signal_inverse_scale[j]
