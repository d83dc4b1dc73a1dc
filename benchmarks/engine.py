"""The strategic engine: samples a second and microseconds of one sample, beside the same model in other runtimes.

The engine's figures are the whole way from float32 matrices to answers. The peers compute the model's four products
only, without the agents' signals before and the distributions after them: they have less to do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from app.strategic.agents import SIGNAL_WIDTH, prepare
from app.strategic.backends import BLOCK, BlasBackend
from app.strategic.engine import Engine
from app.strategic.model import ModelWeights
from app.strategic.quality import sample_windows
from benchmarks.figures import Figure, summarise

Float32 = NDArray[np.float32]
Call = Callable[[Float32, Float32], object]

THREADS = 2
BATCHES = (256, 512, 1024)
ROUNDS = 9
SECONDS = 0.15


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


def _torch_peers(weights: ModelWeights) -> dict[str, Call]:
    torch.set_num_threads(THREADS)
    module = TorchProducts(weights).eval()
    example = (torch.zeros(64, 624), torch.zeros(64, 32))
    with torch.inference_mode():
        frozen = torch.jit.freeze(torch.jit.trace(module, example))  # type: ignore[no-untyped-call]

    def call(run: Callable[[torch.Tensor, torch.Tensor], object], windows: Float32, signals: Float32) -> object:
        with torch.inference_mode():
            return run(torch.from_numpy(windows), torch.from_numpy(signals))

    return {"torch eager": partial(call, module), "torch jit.freeze": partial(call, frozen)}


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


def _seconds(work: Callable[[], object]) -> float:
    """Median seconds of a call, over calls for `SECONDS`."""
    taken: list[float] = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(taken) < 5:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _rounds(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each call in each of `ROUNDS`; the calls take turns, so that a disturbance meets all of them."""
    for call in calls.values():
        for _ in range(3):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            found[name].append(_seconds(call))
    return found


def _throughput(engines: dict[str, Engine], peers: dict[str, Call], matrices: Float32) -> list[Figure]:
    weights = engines["float32"].model.weights
    windows, signals = np.empty((len(matrices), 624), np.float32), np.empty((len(matrices), 32), np.float32)
    prepare(matrices, weights.input_weights(), windows, signals)
    figures = []
    for batch in BATCHES:
        calls: dict[str, Callable[[], object]] = {
            name: partial(engine.process, matrices[:batch]) for name, engine in engines.items()
        }
        calls |= {name: partial(peer, windows[:batch], signals[:batch]) for name, peer in peers.items()}
        for name, seconds in _rounds(calls).items():
            median, spread = summarise([batch / second for second in seconds])
            ours = name in engines
            precision = engines[name].runtime.precision if ours else ""
            figures.append(
                Figure(
                    name=f"engine, batch {batch}, {name}" if ours else f"products alone, batch {batch}, {name}",
                    value=median,
                    unit="samples/s",
                    spread=spread,
                    bar=250_000 if ours else None,
                    aim=(300_000 if precision == "float32" else 520_000) if ours else None,
                    better="higher",
                    note=_describe(engines[name]) if ours else "peer, without signals and distributions",
                )
            )
    return figures


def _describe(engine: Engine) -> str:
    runtime = engine.runtime
    megaflops = engine.model.weights.flops() / 1e6
    return (
        f"{runtime.backend}-{runtime.precision}, {runtime.threads} threads, {megaflops:.2f} MFLOP a sample, "
        f"answers within {runtime.largest_error:.1e} of float32"
    )


def _one_sample(engine: Engine, peers: dict[str, Call], matrices: Float32) -> list[Figure]:
    windows, signals = np.empty((1, 624), np.float32), np.empty((1, 32), np.float32)
    prepare(matrices[:1], engine.model.weights.input_weights(), windows, signals)
    calls: dict[str, Callable[[], object]] = {"engine": partial(engine.process, matrices[:1])}
    calls |= {name: partial(peer, windows, signals) for name, peer in peers.items()}
    figures = []
    for name, seconds in _rounds(calls).items():
        median, spread = summarise([second * 1e6 for second in seconds])
        ours = name == "engine"
        figures.append(
            Figure(
                name="engine, one sample" if ours else f"products alone, one sample, {name}",
                value=median,
                unit="us",
                spread=spread,
                bar=45 if ours else None,
                aim=30 if ours else None,
                note="float32 arithmetic, weights kept as bfloat16 without loss (aim for reduced precision: 22)"
                if ours
                else "peer, without signals and distributions",
            )
        )
    return figures


_START = """
import json, resource, sys, time
start = time.perf_counter()
from app.strategic.engine import Engine
imported = time.perf_counter()
engine = Engine.load(threads=2)
loaded = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"import": imported - start, "load": loaded - imported, "peak": peak}))
"""


def _start_up() -> list[Figure]:
    """Start-up and memory of fresh processes whose compiled code is cached, as it is from the second start on."""
    runs = []
    root = Path(__file__).parents[1]
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True, cwd=root)
        runs.append(json.loads(done.stdout))
    warm = runs[1:]
    seconds, seconds_spread = summarise([run["import"] + run["load"] for run in warm])
    memory, memory_spread = summarise([run["peak"] for run in warm])
    note = "fresh process, import and Engine.load, compiled code cached, no torch"
    return [
        Figure(name="engine, start-up", value=seconds, unit="s", spread=seconds_spread, note=note),
        Figure(name="engine, peak memory of a process", value=memory, unit="MiB", spread=memory_spread, note=note),
    ]


def measure() -> list[Figure]:
    """All figures of the engine; about a minute."""
    # They slow NumPy's products; OpenBLAS has read them already, but the processes started here have not.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    markets, ends = sample_windows(seed=40_001, count=max(BATCHES))
    matrices = markets.windows(ends)
    float32 = Engine.load(threads=THREADS, precision="float32")
    engines = {"float32": float32, "auto": Engine.load(threads=THREADS)}
    weights = float32.model.weights
    peers = _torch_peers(weights) | {
        "ONNX Runtime float32": _onnx_peer(weights),
        "OpenVINO float32": _openvino_peer(weights, "f32"),
        "OpenVINO bfloat16": _openvino_peer(weights, "bf16"),
        "NumPy": _numpy_peer(weights),
    }
    figures = _throughput(engines, peers, matrices)
    figures += _one_sample(Engine.load(), peers, matrices)
    return figures + _start_up()


if __name__ == "__main__":
    for row in measure():
        sys.stdout.write(f"{row.name:55s} {row.value:12.1f} {row.unit:10s} +- {row.spread:8.1f}  {row.note}\n")
