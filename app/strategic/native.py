"""The products for one or a few matrices, compiled: the overhead of a library's call would cost more than they do.

A product of one sample reads every weight once, so that the width of a weight in memory decides its time: weights can
be kept in bfloat16 (arithmetic stays in float32), two to a 32-bit word.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from app.strategic.agents import SIGNAL_WIDTH
from app.strategic.model import ModelWeights, round_to_bfloat16

FloatArray = NDArray[Any]
Words = NDArray[np.uint32]

_fast = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", nogil=True)


class Layers(NamedTuple):
    """Weights of the four products, each (inputs, outputs) float32 or packed by `pack_bfloat16`, with their biases."""

    first: NDArray[Any]
    first_bias: FloatArray
    second: NDArray[Any]
    second_bias: FloatArray
    heads: NDArray[Any]
    heads_bias: FloatArray
    covariance: NDArray[Any]
    covariance_bias: FloatArray


def pack_bfloat16(weight: FloatArray) -> Words:
    """Round (inputs, outputs) to bfloat16 and pack columns j and j + ceil(outputs / 2) into one word.

    The low half of a word is column j; an odd count is padded with a zero column.
    """
    inputs, outputs = weight.shape
    half = (outputs + 1) // 2
    bits = np.zeros((inputs, 2 * half), np.uint32)
    bits[:, :outputs] = round_to_bfloat16(weight).view(np.uint32) >> np.uint32(16)
    return np.ascontiguousarray(bits[:, :half] | (bits[:, half:] << np.uint32(16)))


def _float_of_bits(_: Any, bits: Any) -> Any:  # noqa: ANN401 - numba's typing objects have no public types
    """The float32 whose bits a uint32 holds, as numba's compiler wants it told."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), generate


_as_float: Any = intrinsic(_float_of_bits)


@_fast
def _affine_float32(inputs: FloatArray, weight: FloatArray, bias: FloatArray, out: FloatArray) -> None:
    """Write inputs @ weight + bias for one sample, eight rows of the weight at a time."""
    outputs = len(bias)
    for j in range(outputs):
        out[j] = bias[j]
    whole = len(inputs) // 8 * 8
    for i in range(0, whole, 8):
        a, b, c, d = inputs[i], inputs[i + 1], inputs[i + 2], inputs[i + 3]
        e, f, g, h = inputs[i + 4], inputs[i + 5], inputs[i + 6], inputs[i + 7]
        for j in range(outputs):
            left = a * weight[i, j] + b * weight[i + 1, j] + c * weight[i + 2, j] + d * weight[i + 3, j]
            right = e * weight[i + 4, j] + f * weight[i + 5, j] + g * weight[i + 6, j] + h * weight[i + 7, j]
            out[j] += left + right
    for i in range(whole, len(inputs)):
        for j in range(outputs):
            out[j] += inputs[i] * weight[i, j]


@_fast
def _affine_bfloat16(inputs: FloatArray, weight: Words, bias: FloatArray, out: FloatArray) -> None:
    """As `_affine_float32` with weights from `pack_bfloat16`."""
    outputs = len(bias)
    half = weight.shape[1]
    high = np.uint32(0xFFFF0000)
    shift = np.uint32(16)
    for j in range(outputs):
        out[j] = bias[j]
    upper = out[half:]
    # The last word of an odd count has no upper column.
    pairs = outputs - half
    whole = len(inputs) // 4 * 4
    for i in range(0, whole, 4):
        a, b, c, d = inputs[i], inputs[i + 1], inputs[i + 2], inputs[i + 3]
        for j in range(pairs):
            wa, wb, wc, wd = weight[i, j], weight[i + 1, j], weight[i + 2, j], weight[i + 3, j]
            low = a * _as_float(np.uint32(wa << shift)) + b * _as_float(np.uint32(wb << shift))
            low += c * _as_float(np.uint32(wc << shift)) + d * _as_float(np.uint32(wd << shift))
            out[j] += low
            top = a * _as_float(np.uint32(wa & high)) + b * _as_float(np.uint32(wb & high))
            top += c * _as_float(np.uint32(wc & high)) + d * _as_float(np.uint32(wd & high))
            upper[j] += top
        if half > pairs:
            j = half - 1
            for k in range(4):
                out[j] += inputs[i + k] * _as_float(np.uint32(weight[i + k, j] << shift))
    for i in range(whole, len(inputs)):
        for j in range(half):
            out[j] += inputs[i] * _as_float(np.uint32(weight[i, j] << shift))
        for j in range(pairs):
            upper[j] += inputs[i] * _as_float(np.uint32(weight[i, j] & high))


def _affine(inputs: FloatArray, weight: NDArray[Any], bias: FloatArray, out: FloatArray) -> None:
    """One of the two products above, by the type of ``weight``; exists in compiled code only."""
    raise NotImplementedError("compiled code only")


@overload(_affine, strict=False)
def _affine_by_type(inputs, weight, bias, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
    """Tell the compiler which product is meant; it compares these arguments with those of the implementations."""

    def packed(inputs, weight, bias, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        _affine_bfloat16(inputs, weight, bias, out)

    def plain(inputs, weight, bias, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        _affine_float32(inputs, weight, bias, out)

    return packed if weight.dtype == types.uint32 else plain


@_fast
def products(windows: FloatArray, signals: FloatArray, layers: Layers, heads: FloatArray, roots: FloatArray) -> None:
    """Write the heads (N, 4 A + 21) and variance roots (N, H + K) of windows (N, 624) and signals (N, 32)."""
    embedding = len(layers.second_bias)
    rectified = len(layers.second) - 2 * SIGNAL_WIDTH
    units = np.empty(len(layers.second), np.float32)
    first = np.empty(len(layers.first_bias), np.float32)
    features = np.empty(embedding + 3 * SIGNAL_WIDTH, np.float32)
    bayesian = np.empty(len(layers.covariance_bias), np.float32)
    zero = np.float32(0.0)
    for n in range(windows.shape[0]):
        _affine(windows[n], layers.first, layers.first_bias, first)
        for j in range(rectified):
            units[j] = max(first[j], zero)
        units[rectified:] = signals[n]
        second = features[:embedding]
        _affine(units, layers.second, layers.second_bias, second)
        for j in range(embedding):
            second[j] = max(second[j], zero)
            bayesian[j] = second[j]
        features[embedding : embedding + SIGNAL_WIDTH] = units[rectified - SIGNAL_WIDTH : rectified]
        features[embedding + SIGNAL_WIDTH :] = signals[n]
        bayesian[embedding:] = first[rectified:]
        _affine(features, layers.heads, layers.heads_bias, heads[n])
        _affine(bayesian, layers.covariance, layers.covariance_bias, roots[n])


def layers_of(weights: ModelWeights, *, packed: bool) -> Layers:
    """The four products of a model, in float32 or packed to bfloat16."""
    lay = pack_bfloat16 if packed else np.ascontiguousarray
    return Layers(
        lay(weights.first_weight),
        weights.first_bias,
        lay(weights.second_weight),
        weights.second_bias,
        lay(weights.head_weight),
        weights.head_bias,
        lay(weights.covariance_factor),
        weights.covariance_bias,
    )
