"""What comes after the products: the agents' distributions, the coordinator's mixture, and the uncertainties.

Compiled for one block of samples; whoever calls splits a batch over threads. Everything is float32. What belongs to one
compiled function stays in this file: the compiler's cache notices no change in another one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]
IntArray = NDArray[np.int64]

_LOG_9: Final = float(np.log(9.0))

_fast = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", nogil=True)


class OutputWeights(NamedTuple):
    """What `conclude` needs of `model.ModelWeights`, under the same names."""

    actor_weight: FloatArray
    actor_bias: FloatArray
    coordinator_weight: FloatArray
    coordinator_bias: FloatArray
    uncertainty: FloatArray
    confidence: FloatArray


@_fast
def add_bias_relu(values: FloatArray, bias: FloatArray, rectified: int) -> None:
    """Add ``bias`` to the rows of ``values`` in place and clip the first ``rectified`` columns at zero from below."""
    zero = np.float32(0.0)
    for n in range(values.shape[0]):
        for j in range(rectified):
            values[n, j] = max(values[n, j] + bias[j], zero)
        for j in range(rectified, values.shape[1]):
            values[n, j] += bias[j]


@_fast
def _exponential(values: FloatArray, bits: NDArray[np.int32], powers: FloatArray) -> None:
    """Replace ``values`` by their exponentials: Cephes' expf, written so that a vector unit runs it.

    Args:
        values: (L,), any L; arguments are bounded to [-87, 87] first.
        bits: (>= L,) working space.
        powers: the same memory as ``bits``, seen as float32.
    """
    for j in range(len(values)):
        x = min(max(values[j], np.float32(-87.0)), np.float32(87.0))
        n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        y = np.float32(1.9875691500e-4)
        y = y * r + np.float32(1.3981999507e-3)
        y = y * r + np.float32(8.3334519073e-3)
        y = y * r + np.float32(4.1665795894e-2)
        y = y * r + np.float32(1.6666665459e-1)
        y = y * r + np.float32(5.0000001201e-1)
        values[j] = y * r * r + r + np.float32(1.0)
        bits[j] = (np.int32(n) + np.int32(127)) << np.int32(23)
    for j in range(len(values)):
        values[j] *= powers[j]


@_fast
def _center(logits: FloatArray) -> None:
    """Subtract the greatest logit, so that no exponential overflows."""
    top = logits[0]
    for i in range(1, len(logits)):
        top = max(top, logits[i])
    for i in range(len(logits)):
        logits[i] -= top


@_fast
def _normalise(exponentials: FloatArray, out: FloatArray) -> None:
    """Write ``exponentials`` divided by their sum."""
    total = np.float32(0.0)
    for i in range(len(exponentials)):
        total += exponentials[i]
    for i in range(len(exponentials)):
        out[i] = exponentials[i] / total


@_fast
def _entropy(logits: FloatArray, exponentials: FloatArray) -> np.float32:
    """Entropy in nats of the softmax of ``logits``, log Z - sum p_i logit_i with Z the sum of ``exponentials``."""
    total = np.float32(0.0)
    expected = np.float32(0.0)
    for i in range(len(logits)):
        total += exponentials[i]
        expected += exponentials[i] * logits[i]
    return np.float32(max(np.log(total) - expected / total, np.float32(0.0)))


@_fast
def _argmax(values: FloatArray) -> int:
    """Index of the first greatest value."""
    best = 0
    for i in range(1, len(values)):
        if values[i] > values[best]:
            best = i
    return best


@_fast
def _linear(units: FloatArray, weight: FloatArray, bias: FloatArray, out: FloatArray) -> None:
    """Write weight @ units + bias."""
    for i in range(len(bias)):
        total = np.float32(0.0)
        for j in range(len(units)):
            total += units[j] * weight[i, j]
        out[i] = total + bias[i]


@_fast
def _mean_square(roots: FloatArray) -> np.float32:
    """Mean square of a row of variance roots."""
    total = np.float32(0.0)
    for j in range(len(roots)):
        total += roots[j] * roots[j]
    return total / np.float32(len(roots))


@_fast
def conclude(
    heads: FloatArray, variance_roots: FloatArray, weights: OutputWeights, answers: FloatArray, choices: IntArray
) -> None:
    """Turn the last products into answers.

    The logits of regime and edge are moderated by the variance v of the last layer: times sqrt((1 + c m) / (1 + c v))
    (MacKay 1992, "The evidence framework applied to classification networks"; m is the median of v, where they were
    calibrated), so that confidence falls where the model knows little. v is the mean square of the variance roots
    divided by the probability that the window resembles the training markets.

    Args:
        heads: (N, 4 A + 21) hidden units before tanh, logits of regime, edge and familiarity, pattern before tanh.
        variance_roots: (N, D).
        weights: of the output side.
        answers: (N, 43) receives the columns of `answers.ANSWER_COLUMNS`.
        choices: (N, 3) receives decision, regime and confidence level.
    """
    hidden = weights.actor_weight.shape[2]
    start = 4 * hidden
    one = np.float32(1.0)
    bits = np.empty(heads.shape[1], np.int32)
    powers = bits.view(np.float32)
    units = np.empty(heads.shape[1], np.float32)
    # Logits: three actors (0-14), coordinator (15-17), regime (18-21), edge (22-24), edge without moderation (25-27).
    logits = np.empty(28, np.float32)
    edge = np.empty(3, np.float32)
    noise = np.empty(3, np.float32)
    steepness = np.float32(_LOG_9) / np.log(max(weights.uncertainty[2] / weights.uncertainty[1], np.float32(1.0001)))
    for n in range(heads.shape[0]):
        for j in range(heads.shape[1]):
            units[j] = np.float32(2.0) * min(max(heads[n, j], np.float32(-10.0)), np.float32(10.0))
        _exponential(units, bits, powers)
        # One over the probability of being familiar is one plus the odds of not being so, exp(-logit).
        strangeness = one + one / np.sqrt(units[start + 7])
        for j in range(heads.shape[1]):
            units[j] = (units[j] - one) / (units[j] + one)

        variance = _mean_square(variance_roots[n]) * strangeness
        moderation = np.sqrt(
            (one + weights.uncertainty[0] * weights.uncertainty[1]) / (one + weights.uncertainty[0] * variance)
        )
        for a in range(3):
            part = logits[5 * a : 5 * a + 5]
            _linear(units[a * hidden : (a + 1) * hidden], weights.actor_weight[a], weights.actor_bias[a], part)
            _center(part)
        _linear(units[3 * hidden : start], weights.coordinator_weight, weights.coordinator_bias, logits[15:18])
        _center(logits[15:18])
        for r in range(7):
            logits[18 + r] = heads[n, start + r] * moderation
        logits[25:28] = heads[n, start + 4 : start + 7]
        _center(logits[18:22])
        _center(logits[22:25])
        _center(logits[25:28])
        noise[:] = logits[25:28]
        _exponential(logits, bits, powers)

        row = answers[n]
        _normalise(logits[15:18], row[20:23])
        row[0:5] = 0.0
        for a in range(3):
            _normalise(logits[5 * a : 5 * a + 5], row[5 + 5 * a : 10 + 5 * a])
            for i in range(5):
                row[i] += row[20 + a] * row[5 + 5 * a + i]
        _normalise(logits[18:22], row[26:30])
        _normalise(logits[22:25], edge)
        row[25] = _entropy(noise, logits[25:28]) * np.float32(1.0 / np.log(3.0))
        decision = _argmax(row[0:5])
        # Selling is right where the edge is SHORT, holding where there is NONE, buying where it is LONG.
        right = edge[(decision > 1) + (decision > 2)]
        right = min(max(right, np.float32(1e-6)), np.float32(1.0 - 1e-6))
        logit = weights.confidence[0] * np.log(right / (one - right)) + weights.confidence[1]
        row[23] = one / (one + np.exp(-logit))
        # A logistic curve in log v: 0.1 at the median of training, 0.5 at its 99th percentile.
        distance = np.log(max(variance, np.float32(1e-12)) / weights.uncertainty[2])
        row[24] = one / (one + np.exp(-steepness * distance))
        row[30:43] = units[start + 8 : start + 21]
        choices[n, 0] = decision
        choices[n, 1] = _argmax(row[26:30])
        choices[n, 2] = (row[23] < np.float32(0.8)) + (row[23] < np.float32(0.5))
