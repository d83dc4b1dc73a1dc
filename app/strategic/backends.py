"""What can compute the model's products: NumPy anywhere, OpenVINO for batches, compiled loops for a few matrices."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app.strategic.agents import BARS, FEATURES, SIGNAL_WIDTH
from app.strategic.kernels import add_bias_relu
from app.strategic.model import ModelWeights, round_to_bfloat16
from app.strategic.native import layers_of, products

if TYPE_CHECKING:
    import openvino

# OpenVINO's tools, which its import loads, report their use to an analytics service from a process that they fork. A
# module that is None counts as not installed (the import system's rule), and then they do without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

Float32 = NDArray[np.float32]
ProductPrecision = Literal["float32", "bfloat16"]

BLOCK: Final = 256
"""Most samples of one call: what a block needs stays in the second-level cache."""
BUCKETS: Final = (16, 32, 64, 128, BLOCK)
"""Batch sizes that OpenVINO is compiled for; a fixed shape is up to twice as fast as a free one."""
_CALL: Final = 4
"""Samples that could be answered in the time that a call takes beside its samples."""


def _first_buckets() -> tuple[int, ...]:
    """For 0 to `BLOCK` samples the first of the buckets that take them in the shortest time."""
    costs, firsts = [0], [0]
    for count in range(1, BLOCK + 1):
        choices = [(size + _CALL + costs[max(count - size, 0)], -size) for size in BUCKETS]
        costs.append(min(choices)[0])
        firsts.append(-min(choices)[1])
    return tuple(firsts)


_FIRST_BUCKETS: Final = _first_buckets()


def block_size(count: int) -> int:
    """How many of ``count`` samples (at least 1) form the next block."""
    return min(count, _FIRST_BUCKETS[min(count, BLOCK)])


class Backend(Protocol):
    """Computes the model's products for one block at a time; one instance a thread."""

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """Return heads (N, 4 A + 21) and variance roots (N, H + K).

        ``windows`` is (N, 624) and ``signals`` (N, 32), views of the first N <= `BLOCK` rows of buffers that stay the
        same from call to call. The results may be overwritten by the next call.
        """


class BlasBackend:
    """NumPy's matrix products in float32: runs anywhere, and recorded the answers that all others are compared with."""

    def __init__(self, weights: ModelWeights) -> None:
        # Blocks are shared between our own threads; OpenBLAS' would fight them and spin while they wait.
        threadpool_limits(1, user_api="blas")
        self._weights = weights
        self._first = np.empty((BLOCK, weights.first_weight.shape[1]), np.float32)
        self._units = np.empty((BLOCK, len(weights.second_weight)), np.float32)
        self._second = np.empty((BLOCK, weights.embedding), np.float32)
        self._features = np.empty((BLOCK, weights.head_weight.shape[0]), np.float32)
        self._bayesian = np.empty((BLOCK, weights.embedding + weights.sketch), np.float32)
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        weights = self._weights
        n = len(windows)
        rectified, embedding = weights.trunk + SIGNAL_WIDTH, weights.embedding
        first, units, second = self._first[:n], self._units[:n], self._second[:n]
        features, bayesian = self._features[:n], self._bayesian[:n]
        np.matmul(windows, weights.first_weight, out=first)
        add_bias_relu(first, weights.first_bias, rectified)
        units[:, :rectified] = first[:, :rectified]
        units[:, rectified:] = signals
        np.matmul(units, weights.second_weight, out=second)
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
        large = (weights.first_weight, weights.second_weight, weights.head_weight, weights.covariance_factor)
        packed = all(np.array_equal(round_to_bfloat16(weight), weight) for weight in large)
        self._layers = layers_of(weights, packed=packed)
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`."""
        heads, roots = self._heads[: len(windows)], self._roots[: len(windows)]
        products(windows, signals, self._layers, heads, roots)
        return heads, roots


class OpenVinoBackend:
    """OpenVINO's products; in bfloat16 by AMX or AVX-512 where the CPU has them.

    Two programs follow each other: the first product, in float32 or bfloat16, and all that comes after it in float32.
    Windows and weights of the first product are bfloat16 numbers (`agents.prepare`, `training`) and it is summed in
    float32, so that both precisions give the same answers; rounding the layers after it as well would save a tenth of
    the time and cost up to 0.01 of a probability.

    Each instance compiles its own programs (0.15 s, 10 MiB): threads that share one program's streams wait for each
    other, and two of them answered a tenth more than one instead of twice as much.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: It cannot compile for this CPU.
    """

    def __init__(self, weights: ModelWeights, precision: ProductPrecision) -> None:
        import openvino  # noqa: PLC0415 - 60 MB that only this backend needs

        self._windows = np.zeros((BLOCK, BARS * FEATURES), np.float32)
        self._signals = np.zeros((BLOCK, 2 * SIGNAL_WIDTH), np.float32)
        self._heads = np.empty((BLOCK, weights.head_weight.shape[1]), np.float32)
        self._roots = np.empty((BLOCK, weights.covariance_factor.shape[1]), np.float32)
        self._first = np.empty((BLOCK, weights.first_weight.shape[1]), np.float32)
        core = openvino.Core()
        settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        first = settings | {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        rest = settings | {"INFERENCE_PRECISION_HINT": "f32"}
        self._requests = {
            size: (
                core.compile_model(_first_product(weights, size), "CPU", first).create_infer_request(),
                core.compile_model(_other_products(weights, size), "CPU", rest).create_infer_request(),
            )
            for size in BUCKETS
        }
        for size, requests in self._requests.items():
            self._share_buffers(size, *requests)

    def _share_buffers(self, size: int, first: openvino.InferRequest, rest: openvino.InferRequest) -> None:
        """Let the programs read and write this object's arrays in place; the requests do not keep them alive."""
        from openvino import Tensor  # noqa: PLC0415 - see `__init__`

        first.set_input_tensor(0, Tensor(self._windows[:size], shared_memory=True))
        first.set_output_tensor(0, Tensor(self._first[:size], shared_memory=True))
        rest.set_input_tensor(0, Tensor(self._first[:size], shared_memory=True))
        rest.set_input_tensor(1, Tensor(self._signals[:size], shared_memory=True))
        rest.set_output_tensor(0, Tensor(self._heads[:size], shared_memory=True))
        rest.set_output_tensor(1, Tensor(self._roots[:size], shared_memory=True))

    @property
    def inputs(self) -> tuple[Float32, Float32]:
        """The buffers (`BLOCK`, 624) and (`BLOCK`, 32) that the programs read."""
        return self._windows, self._signals

    def products(self, windows: Float32, signals: Float32) -> tuple[Float32, Float32]:
        """See `Backend.products`; ``windows`` and ``signals`` are the first rows of `inputs`."""
        count = len(windows)
        if not (np.shares_memory(windows, self._windows) and np.shares_memory(signals, self._signals)):
            raise ValueError("windows and signals must be views of this backend's inputs")
        first, rest = self._requests[next(size for size in BUCKETS if size >= count)]
        first.infer()
        rest.infer()
        return self._heads[:count], self._roots[:count]


def _affine(value: Any, weight: Float32, bias: Float32) -> Any:  # noqa: ANN401 - OpenVINO's nodes are untyped
    from openvino import opset13 as ops  # noqa: PLC0415 - see `OpenVinoBackend`

    product = ops.matmul(value, ops.constant(np.ascontiguousarray(weight)), transpose_a=False, transpose_b=False)
    return ops.add(product, ops.constant(bias[None]))


def _first_product(weights: ModelWeights, size: int) -> openvino.Model:
    """Windows (size, 624) to the first layer before its rectifier."""
    import openvino  # noqa: PLC0415 - see `OpenVinoBackend`
    from openvino import opset13 as ops  # noqa: PLC0415

    windows = ops.parameter([size, BARS * FEATURES], np.float32, name="windows")
    first = _affine(windows, weights.first_weight, weights.first_bias)
    return openvino.Model([ops.result(first)], [windows], "first")


def _other_products(weights: ModelWeights, size: int) -> openvino.Model:
    """The first layer and signals (size, 32) to heads and variance roots."""
    import openvino  # noqa: PLC0415 - see `OpenVinoBackend`
    from openvino import opset13 as ops  # noqa: PLC0415

    rectified = weights.trunk + SIGNAL_WIDTH
    width = weights.first_weight.shape[1]

    def columns(value: Any, start: int, stop: int) -> Any:  # noqa: ANN401 - OpenVINO's nodes are untyped
        return ops.slice(value, *(np.array([number]) for number in (start, stop, 1, 1)))

    first = ops.parameter([size, width], np.float32, name="first")
    signals = ops.parameter([size, 2 * SIGNAL_WIDTH], np.float32, name="signals")
    units = ops.relu(columns(first, 0, rectified))
    seen = ops.concat([units, signals], axis=1)
    embedding = ops.relu(_affine(seen, weights.second_weight, weights.second_bias))
    mlmi = columns(units, weights.trunk, rectified)
    heads = _affine(ops.concat([embedding, mlmi, signals], axis=1), weights.head_weight, weights.head_bias)
    bayesian = ops.concat([embedding, columns(first, rectified, width)], axis=1)
    roots = _affine(bayesian, weights.covariance_factor, weights.covariance_bias)
    return openvino.Model([ops.result(heads), ops.result(roots)], [first, signals], "rest")
