"""The engine and other runtimes on one model, each in its own process: ``python -m benchmarks.peers.products NAME``.

In one process their thread pools spin into each other's turns: with torch beside it the engine lost two thirds. So each
gets a process, which is idle until it is told a batch size and seconds (a line of JSON on its standard input), runs for
so long and answers with the median seconds of a call.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.strategic.agents import SIGNAL_WIDTH, prepare
from app.strategic.backends import BLOCK, BlasBackend
from app.strategic.engine import Engine
from app.strategic.model import DEFAULT_MODEL, ModelWeights, load_model
from app.strategic.quality import sample_windows

Float32 = NDArray[np.float32]
Call = Callable[[Float32, Float32], object]

THREADS: Final = 2
LARGEST_BATCH: Final = 1024


def _linear(weight: Float32, bias: Float32) -> torch.nn.Linear:
    layer = torch.nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


class TorchProducts(torch.nn.Module):
    """The four products as a torch module."""

    def __init__(self, weights: ModelWeights) -> None:
        super().__init__()
        self.trunk = weights.trunk
        self.rectified = weights.trunk + SIGNAL_WIDTH
        self.first = _linear(weights.first_weight, weights.first_bias)
        self.second = _linear(weights.second_weight, weights.second_bias)
        self.heads = _linear(weights.head_weight, weights.head_bias)
        self.covariance = _linear(weights.covariance_factor, weights.covariance_bias)

    def forward(self, windows: torch.Tensor, signals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Heads and variance roots."""
        first = self.first(windows)
        units = torch.relu(first[:, : self.rectified])
        embedding = torch.relu(self.second(torch.cat([units, signals], 1)))
        features = torch.cat([embedding, units[:, self.trunk :], signals], 1)
        heads = self.heads(features)
        bayesian = torch.cat([embedding, first[:, self.rectified :]], 1)
        return heads, self.covariance(bayesian)


def onnx_products(weights: ModelWeights) -> bytes:
    """The four products as an ONNX model with a free batch size."""
    rectified, width = weights.trunk + SIGNAL_WIDTH, weights.first_weight.shape[1]
    tensors: dict[str, NDArray[Any]] = {
        "first_weight": weights.first_weight,
        "first_bias": weights.first_bias,
        "second_weight": weights.second_weight,
        "second_bias": weights.second_bias,
        "head_weight": weights.head_weight,
        "head_bias": weights.head_bias,
        "covariance_factor": weights.covariance_factor,
        "covariance_bias": weights.covariance_bias,
        "split": np.array([rectified, width - rectified], np.int64),
        "split_units": np.array([weights.trunk, SIGNAL_WIDTH], np.int64),
    }
    nodes = [
        helper.make_node("Gemm", ["windows", "first_weight", "first_bias"], ["first"]),
        helper.make_node("Split", ["first", "split"], ["linear", "sketch"], axis=1),
        helper.make_node("Relu", ["linear"], ["units"]),
        helper.make_node("Concat", ["units", "signals"], ["seen"], axis=1),
        helper.make_node("Gemm", ["seen", "second_weight", "second_bias"], ["second"]),
        helper.make_node("Relu", ["second"], ["embedding"]),
        helper.make_node("Split", ["units", "split_units"], ["trunk", "mlmi"], axis=1),
        helper.make_node("Concat", ["embedding", "mlmi", "signals"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "head_weight", "head_bias"], ["heads"]),
        helper.make_node("Concat", ["embedding", "sketch"], ["bayesian"], axis=1),
        helper.make_node("Gemm", ["bayesian", "covariance_factor", "covariance_bias"], ["roots"]),
    ]
    inputs = (("windows", 624), ("signals", 32))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("heads", "roots")],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    serialised: bytes = model.SerializeToString()
    return serialised


def _torch_peer(weights: ModelWeights, way: str) -> Call:
    torch.set_num_threads(THREADS)
    module = TorchProducts(weights).eval()
    run: Callable[[torch.Tensor, torch.Tensor], object] = module
    if way == "frozen":
        example = (torch.zeros(64, 624), torch.zeros(64, 32))
        with torch.inference_mode():
            run = torch.jit.freeze(torch.jit.trace(module, example))  # type: ignore[no-untyped-call]
    elif way == "compiled":
        run = torch.compile(module)

    def call(run: Callable[[torch.Tensor, torch.Tensor], object], windows: Float32, signals: Float32) -> object:
        with torch.inference_mode():
            return run(torch.from_numpy(windows), torch.from_numpy(signals))

    return partial(call, run)


def _onnx_peer(weights: ModelWeights) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_products(weights), options, providers=["CPUExecutionProvider"])
    return lambda windows, signals: session.run(None, {"windows": windows, "signals": signals})


def _openvino_peer(weights: ModelWeights, precision: str) -> Call:
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(onnx_products(weights))
    compiled = {}

    def call(windows: Float32, signals: Float32) -> object:
        size = len(windows)
        if size not in compiled:
            model.reshape({"windows": [size, 624], "signals": [size, 32]})
            compiled[size] = core.compile_model(model, "CPU", settings).create_infer_request()
        return compiled[size].infer({"windows": windows, "signals": signals}, share_inputs=True, share_outputs=True)

    return call


def _numpy_peer(weights: ModelWeights) -> Call:
    backend = BlasBackend(weights)

    def call(windows: Float32, signals: Float32) -> None:
        for start in range(0, len(windows), BLOCK):
            backend.products(windows[start : start + BLOCK], signals[start : start + BLOCK])

    return call


PEERS: Final[dict[str, Callable[[ModelWeights], Call]]] = {
    "torch eager": partial(_torch_peer, way="eager"),
    "torch jit.freeze": partial(_torch_peer, way="frozen"),
    "torch compiled": partial(_torch_peer, way="compiled"),
    "ONNX Runtime float32": _onnx_peer,
    "OpenVINO float32": partial(_openvino_peer, precision="f32"),
    "OpenVINO bfloat16": partial(_openvino_peer, precision="bf16"),
    "NumPy": _numpy_peer,
}
ENGINES: Final = {"engine float32": "float32", "engine auto": "auto"}


def contender(name: str) -> tuple[Callable[[int], object], dict[str, Any]]:
    """What answers a batch of a given size, and what is to be said of it."""
    markets, ends = sample_windows(seed=40_001, count=LARGEST_BATCH)
    matrices = markets.windows(ends)
    if name in ENGINES:
        several = Engine.load(threads=THREADS, precision="float32" if ENGINES[name] == "float32" else "auto")
        runtime = several.runtime
        described = {
            "backend": f"{runtime.backend}-{runtime.precision}",
            "precision": runtime.precision,
            "error": runtime.largest_error,
            "megaflops": several.model.weights.flops() / 1e6,
        }
        return lambda batch: several.process(matrices[:batch]), described
    weights = load_model(DEFAULT_MODEL).weights
    windows, signals = np.empty((len(matrices), 624), np.float32), np.empty((len(matrices), 32), np.float32)
    prepare(matrices, weights.input_weights(), windows, signals)
    peer = PEERS[name](weights)
    return lambda batch: peer(windows[:batch], signals[:batch]), {}


def median_seconds(work: Callable[[], object], seconds: float) -> float:
    """Median seconds of a call, over calls for ``seconds``, after three that do not count."""
    for _ in range(3):
        work()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 5:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main(name: str) -> None:
    """Obey until the standard input ends."""
    call, described = contender(name)
    for batch in (1, 256, 512, LARGEST_BATCH):
        call(batch)
    print(json.dumps(described), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(median_seconds(partial(call, order["batch"]), order["seconds"])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
