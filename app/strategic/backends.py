"""What can compute the model's products: NumPy anywhere, OpenVINO for batches, compiled loops for a few matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.strategic.agents import BARS, FEATURES, SIGNAL_WIDTH
from app.strategic.kernels import add_bias_relu
from app.strategic.model import ModelWeights, round_to_bfloat16
from app.strategic.native import layers_of, products_bfloat16, products_float32

if TYPE_CHECKING:
    import openvino

Float32 = NDArray[np.float32]
ProductPrecision = Literal["float32", "bfloat16"]

BLOCK: Final = 256
"""Most samples of one call: what a block needs stays in the second-level cache."""
BUCKETS: Final = (16, 64, BLOCK)
"""Batch sizes that OpenVINO is compiled for; a fixed shape is up to twice as fast as a free one."""


class Backend(Protocol):
    """Computes the model's products for one block at a time; one instance a thread."""

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """Return heads (N, 4 A + 20) and variance roots (N, H + K).

        ``windows`` is (N, 624) and ``signals`` (N, 32), views of the first N <= `BLOCK` rows of buffers that stay the
        same from call to call. The results may be overwritten by the next call.
        """


class BlasBackend:
    """NumPy's matrix products in float32: runs anywhere, and recorded the answers that all others are compared with."""

    def __init__(self, weights: ModelWeights) -> None:
        self._weights = weights
        self._first = np.empty((BLOCK, weights.first_weight.shape[1]), np.float32)
        self._second = np.empty((BLOCK, weights.embedding), np.float32)
        self._features = np.empty((BLOCK, weights.head_weight.shape[0]), np.float32)
        self._bayesian = np.empty((BLOCK, weights.embedding + weights.sketch), np.float32)
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        weights = self._weights
        n = len(windows)
        rectified, embedding = weights.second_weight.shape
        first, second, features, bayesian = self._first[:n], self._second[:n], self._features[:n], self._bayesian[:n]
        np.matmul(windows, weights.first_weight, out=first)
        add_bias_relu(first, weights.first_bias, rectified)
        np.matmul(first[:, :rectified], weights.second_weight, out=second)
        add_bias_relu(second, weights.second_bias, embedding)
        features[:, :embedding] = second
        features[:, embedding : embedding + SIGNAL_WIDTH] = first[:, weights.trunk : rectified]
        features[:, embedding + SIGNAL_WIDTH :] = signals
        bayesian[:, :embedding] = second
        bayesian[:, embedding:] = first[:, rectified:]
        heads, roots = self._heads[:n], self._roots[:n]
        np.matmul(features, weights.head_weight, out=heads)
        heads += weights.head_bias
        np.matmul(bayesian, weights.covariance_factor, out=roots)
        roots += weights.covariance_bias
        return heads, roots


class NativeBackend:
    """Compiled loops over samples, for blocks too small for a library: `app.strategic.native`.

    Weights are packed to half their memory where that changes none of them, which the training command sees to.
    """

    def __init__(self, weights: ModelWeights) -> None:
        products = (weights.first_weight, weights.second_weight, weights.head_weight, weights.covariance_factor)
        packed = all(np.array_equal(round_to_bfloat16(weight), weight) for weight in products)
        self._layers = layers_of(weights, packed=packed)
        self._products: Any = products_bfloat16 if packed else products_float32
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        heads, roots = self._heads[: len(windows)], self._roots[: len(windows)]
        self._products(windows, signals, self._layers, heads, roots)
        return heads, roots


class OpenVinoPrograms:
    """The products compiled by OpenVINO for each of `BUCKETS`, shared by the threads of one engine.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: It cannot compile for this CPU.
    """

    def __init__(self, weights: ModelWeights, precision: ProductPrecision, threads: int) -> None:
        import openvino  # noqa: PLC0415 - 60 MB that only this backend needs

        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        self._compiled = {size: core.compile_model(_graph(weights, size), "CPU", settings) for size in BUCKETS}

    def requests(self) -> dict[int, openvino.InferRequest]:
        """A new inference request of each size: one thread's own."""
        return {size: program.create_infer_request() for size, program in self._compiled.items()}


class OpenVinoBackend:
    """OpenVINO's fused products, in float32 or bfloat16 (AMX or AVX-512 where the CPU has them)."""

    def __init__(self, weights: ModelWeights, programs: OpenVinoPrograms) -> None:
        import openvino  # noqa: PLC0415 - see `OpenVinoPrograms`

        self._tensor = openvino.Tensor
        self._requests = programs.requests()
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)
        self._windows = np.zeros((BLOCK, BARS * FEATURES), np.float32)
        self._signals = np.zeros((BLOCK, 2 * SIGNAL_WIDTH), np.float32)
        for size, request in self._requests.items():
            tensors = (self._windows, self._signals), (self._heads, self._roots)
            for index, buffer in enumerate(tensors[0]):
                request.set_input_tensor(index, self._tensor(buffer[:size], shared_memory=True))
            for index, buffer in enumerate(tensors[1]):
                request.set_output_tensor(index, self._tensor(buffer[:size], shared_memory=True))

    @property
    def inputs(self) -> tuple[Float32, Float32]:
        """The buffers (`BLOCK`, 624) and (`BLOCK`, 32) which the programs read: fill these and nothing is copied."""
        return self._windows, self._signals

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        n = len(windows)
        if windows.ctypes.data != self._windows.ctypes.data:
            self._windows[:n] = windows
            self._signals[:n] = signals
        size = next(bucket for bucket in BUCKETS if bucket >= n)
        self._requests[size].infer()
        return self._heads[:n], self._roots[:n]


def _graph(weights: ModelWeights, size: int) -> openvino.Model:
    """The four products of ``size`` samples as an OpenVINO model."""
    import openvino  # noqa: PLC0415 - see `OpenVinoPrograms`
    from openvino import opset13 as ops  # noqa: PLC0415

    rectified, embedding = weights.second_weight.shape

    def affine(value: Any, weight: Float32, bias: Float32) -> Any:  # noqa: ANN401 - OpenVINO's nodes are untyped
        product = ops.matmul(value, ops.constant(np.ascontiguousarray(weight)), transpose_a=False, transpose_b=False)
        return ops.add(product, ops.constant(bias[None]))

    windows = ops.parameter([size, BARS * FEATURES], np.float32, name="windows")
    signals = ops.parameter([size, 2 * SIGNAL_WIDTH], np.float32, name="signals")
    units = ops.relu(affine(windows, weights.first_weight[:, :rectified], weights.first_bias[:rectified]))
    sketch = affine(windows, weights.first_weight[:, rectified:], weights.first_bias[rectified:])
    second = ops.relu(affine(units, weights.second_weight, weights.second_bias))
    start, stop, step, axis = (np.array([number]) for number in (weights.trunk, rectified, 1, 1))
    mlmi = ops.slice(units, start, stop, step, axis)
    heads = affine(ops.concat([second, mlmi, signals], axis=1), weights.head_weight, weights.head_bias)
    roots = affine(ops.concat([second, sketch], axis=1), weights.covariance_factor, weights.covariance_bias)
    return openvino.Model([ops.result(heads), ops.result(roots)], [windows, signals], "strategic")
