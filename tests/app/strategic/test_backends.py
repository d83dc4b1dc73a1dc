"""Every way to compute the products against NumPy in float64, and what happens when one of them errs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.strategic import runtime
from app.strategic.agents import SIGNAL_WIDTH, prepare
from app.strategic.backends import BLOCK, Backend, BlasBackend, NativeBackend, OpenVinoBackend
from app.strategic.model import DEFAULT_MODEL, FAMILIAR, ModelError, ModelWeights, load_model, round_to_bfloat16
from app.strategic.native import pack_bfloat16

MODEL = load_model(DEFAULT_MODEL)


def unrounded() -> ModelWeights:
    """Weights that bfloat16 does not hold, so that the compiled loops keep them in float32."""
    return replace(MODEL.weights, second_weight=MODEL.weights.second_weight * np.float32(1.001))


def reference(
    weights: ModelWeights, windows: NDArray[np.float32], signals: NDArray[np.float32]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    first = windows.astype(np.float64) @ weights.first_weight + weights.first_bias
    rectified = weights.trunk + SIGNAL_WIDTH
    units = np.maximum(first[:, :rectified], 0.0)
    seen = np.concatenate([units, signals], axis=1)
    embedding = np.maximum(seen @ weights.second_weight + weights.second_bias, 0.0)
    features = np.concatenate([embedding, units[:, weights.trunk :], signals], axis=1)
    bayesian = np.concatenate([embedding, first[:, rectified:]], axis=1)
    heads = features @ weights.head_weight + weights.head_bias
    return heads, bayesian @ weights.covariance_factor + weights.covariance_bias


@pytest.mark.parametrize("count", [1, 16, 33, BLOCK])
@pytest.mark.parametrize(
    ("weights", "make"),
    [
        (MODEL.weights, BlasBackend),
        (MODEL.weights, NativeBackend),
        (unrounded(), NativeBackend),
        (MODEL.weights, lambda weights: OpenVinoBackend(weights, "float32")),
        (MODEL.weights, lambda weights: OpenVinoBackend(weights, "bfloat16")),
    ],
    ids=["blas", "native packed", "native float32", "openvino float32", "openvino bfloat16"],
)
def test_products_agree_with_float64(
    weights: ModelWeights, make: Callable[[ModelWeights], Backend], count: int
) -> None:
    matrices = np.resize(MODEL.probe.matrices[:FAMILIAR], (count, 48, 13))
    backend = make(weights)
    if isinstance(backend, OpenVinoBackend):
        windows, signals = (buffer[:count] for buffer in backend.inputs)
    else:
        windows = np.empty((count, 48 * 13), np.float32)
        signals = np.empty((count, 2 * SIGNAL_WIDTH), np.float32)
    prepare(matrices, weights.input_weights(), windows, signals)
    for found, expected in zip(backend.products(windows, signals), reference(weights, windows, signals), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_packed_weights_are_the_rounded_ones() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
    words = pack_bfloat16(weight)
    assert words.shape == (6, 4)
    low = (words << np.uint32(16)).view(np.float32)
    high = (words & np.uint32(0xFFFF0000)).view(np.float32)
    np.testing.assert_array_equal(np.concatenate([low, high[:, :3]], axis=1), round_to_bfloat16(weight))


def test_the_shipped_weights_lose_nothing_in_bfloat16() -> None:
    weights = MODEL.weights
    for weight in (weights.first_weight, weights.second_weight, weights.head_weight, weights.covariance_factor):
        np.testing.assert_array_equal(weight, round_to_bfloat16(weight))


def test_a_backend_that_errs_is_passed_over_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OpenVinoBackend.products

    def wrong(
        self: OpenVinoBackend, windows: NDArray[np.float32], signals: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        heads, roots = right(self, windows, signals)
        return heads + np.float32(0.1), roots

    monkeypatch.setattr(OpenVinoBackend, "products", wrong)
    _, report = runtime.choose(MODEL, threads=1, precision="auto")
    assert report.backend == "blas"
    assert "misses the recorded answers" in report.rejected["openvino-float32"]


def test_no_backend_serves_a_model_whose_recorded_answers_are_not_its_own() -> None:
    probe = replace(MODEL.probe, answers=np.roll(MODEL.probe.answers, 1, axis=0))
    with pytest.raises(ModelError, match=r"cannot be served: .*blas-float32: misses the recorded answers"):
        runtime.choose(replace(MODEL, probe=probe), threads=1, precision="auto")


def test_without_openvino_numpy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr(OpenVinoBackend, "__init__", missing)
    _, report = runtime.choose(MODEL, threads=1, precision="auto")
    assert report.backend == "blas"
    assert report.rejected["openvino-float32"] == "No module named 'openvino'"


def test_loading_the_engine_reports_nothing_to_anybody() -> None:
    """OpenVINO's tools would send events to an analytics service, from a forked process, once they are imported."""
    script = (
        "import os, sys, urllib.request\n"
        "def refuse(*_): raise AssertionError('something was sent or forked')\n"
        "urllib.request.urlopen = os.fork = refuse\n"
        "from app.strategic.engine import Engine\n"
        "Engine.load()\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3], timeout=120)
