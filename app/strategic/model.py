"""The strategic model as numbers: its weights, its file, its checksum and the answers it must reproduce."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from app.strategic.agents import BARS, FEATURES, KERNEL_SCALES, MMD_DIMENSIONS, SIGNAL_WIDTH, InputWeights
from app.strategic.answers import ACTIONS, AGENTS, EDGES, PATTERN_SIZE, REGIMES
from app.strategic.kernels import OutputWeights

FORMAT: Final = "grandmodel-strategic-1"
DEFAULT_MODEL: Final = Path(__file__).parent / "models" / "default.safetensors"

Float32 = NDArray[np.float32]


class ModelError(ValueError):
    """A model file cannot be used; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All float32 arrays of one model.

    T trunk units, 16 MLMI units, K sketch units, H embedding units, A hidden units of each actor. A window is
    standardised, clipped and laid out feature by feature (624 = 13 x 48) before the first product.

    Attributes:
        center: (13,) mean of each feature.
        inverse_scale: (13,) one over the standard deviation of each feature.
        clip: (1,) bound of a standardised feature.
        metric: (13,) weights of the features in NWRQK's distance.
        kernel_scales: (3 + 1,) values of 1 / (2 l^2), then the weight of a bar's age.
        projection: (4, 13) of the regime agent's discrepancy.
        signal_center: (32,) mean of the signals of NWRQK and Regime.
        signal_inverse_scale: (32,) one over their standard deviation.
        first_weight: (624, T + 16 + K); the MLMI columns are zero outside the RSI rows, the sketch columns are whitened
            random directions.
        first_bias: (T + 16 + K,).
        second_weight: (T + 16 + 32, H). Rows are the first layer's units, then the signals of NWRQK and Regime.
        second_bias: (H,).
        head_weight: (H + 48, 4 A + 4 + 3 + 1 + 13): hidden units of the three actors and of the coordinator, logits of
            regime, edge and familiarity, pattern. Rows are the embedding, then 16 signals of each agent.
        head_bias: (4 A + 4 + 3 + 1 + 13,).
        actor_weight: (3, 5, A).
        actor_bias: (3, 5).
        coordinator_weight: (3, A).
        coordinator_bias: (3,).
        covariance_factor: (H + K, H + K) L with L L^T the posterior covariance of the last layer over (embedding,
            sketch), scaled to a mean variance of one on the training data.
        covariance_bias: (H + K,) minus the training mean of (embedding, sketch), times L.
        uncertainty: (3,) factor of the moderation of the logits; median and 99th percentile of the variance on familiar
            windows.
        confidence: (2,) slope and intercept of the confidence's logit.
    """

    center: Float32
    inverse_scale: Float32
    clip: Float32
    metric: Float32
    kernel_scales: Float32
    projection: Float32
    signal_center: Float32
    signal_inverse_scale: Float32
    first_weight: Float32
    first_bias: Float32
    second_weight: Float32
    second_bias: Float32
    head_weight: Float32
    head_bias: Float32
    actor_weight: Float32
    actor_bias: Float32
    coordinator_weight: Float32
    coordinator_bias: Float32
    covariance_factor: Float32
    covariance_bias: Float32
    uncertainty: Float32
    confidence: Float32

    @property
    def embedding(self) -> int:
        """H, units of the shared embedding."""
        return int(self.second_weight.shape[1])

    @property
    def trunk(self) -> int:
        """T, units of the first layer that see every feature."""
        return int(self.second_weight.shape[0]) - 3 * SIGNAL_WIDTH

    @property
    def sketch(self) -> int:
        """K, whitened directions that show a window unlike the training data."""
        return int(self.first_weight.shape[1]) - self.trunk - SIGNAL_WIDTH

    @property
    def hidden(self) -> int:
        """A, hidden units of each actor."""
        return int(self.actor_weight.shape[2])

    def input_weights(self) -> InputWeights:
        """The weights before the products."""
        return InputWeights(*(getattr(self, name) for name in InputWeights._fields))

    def output_weights(self) -> OutputWeights:
        """The weights after the products."""
        return OutputWeights(*(getattr(self, name) for name in OutputWeights._fields))

    def flops(self) -> int:
        """Floating-point operations a sample: two for each multiply-add of the products, kernels included.

        Counts 4 for each pair of bars and dimension of the discrepancy, 4 for each bar and feature of the regression.
        """
        products = sum(
            2 * weight.size
            for weight in (
                self.first_weight,
                self.second_weight,
                self.head_weight,
                self.actor_weight,
                self.coordinator_weight,
                self.covariance_factor,
            )
        )
        kernels = (
            2 * MMD_DIMENSIONS * FEATURES * BARS
            + (3 * MMD_DIMENSIONS + 2) * BARS * BARS
            + 4 * FEATURES * BARS
            + 10 * KERNEL_SCALES * BARS
        )
        return products + kernels

    def checksum(self) -> str:
        """SHA-256 over names, shapes and bytes of all arrays, in hexadecimal."""
        digest = hashlib.sha256()
        for field in fields(self):
            array: Float32 = getattr(self, field.name)
            digest.update(f"{field.name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return digest.hexdigest()

    def validate(self) -> None:
        """Check shapes, dtypes and finiteness.

        Raises:
            ModelError: The first array that does not fit, with what was expected.
        """
        trunk, sketch, embedding, hidden = self.trunk, self.sketch, self.embedding, self.hidden
        heads = (len(AGENTS) + 1) * hidden + len(REGIMES) + EDGES + 1 + PATTERN_SIZE
        if min(trunk, sketch, embedding, hidden) < 1:
            raise ModelError(
                "layers do not follow each other: trunk, sketch, embedding and hidden units must be positive"
            )
        expected = {
            "center": (FEATURES,),
            "inverse_scale": (FEATURES,),
            "clip": (1,),
            "metric": (FEATURES,),
            "kernel_scales": (KERNEL_SCALES + 1,),
            "projection": (MMD_DIMENSIONS, FEATURES),
            "signal_center": (2 * SIGNAL_WIDTH,),
            "signal_inverse_scale": (2 * SIGNAL_WIDTH,),
            "first_weight": (BARS * FEATURES, trunk + SIGNAL_WIDTH + sketch),
            "first_bias": (trunk + SIGNAL_WIDTH + sketch,),
            "second_weight": (trunk + 3 * SIGNAL_WIDTH, embedding),
            "second_bias": (embedding,),
            "head_weight": (embedding + 3 * SIGNAL_WIDTH, heads),
            "head_bias": (heads,),
            "actor_weight": (len(AGENTS), len(ACTIONS), hidden),
            "actor_bias": (len(AGENTS), len(ACTIONS)),
            "coordinator_weight": (len(AGENTS), hidden),
            "coordinator_bias": (len(AGENTS),),
            "covariance_factor": (embedding + sketch, embedding + sketch),
            "covariance_bias": (embedding + sketch,),
            "uncertainty": (3,),
            "confidence": (2,),
        }
        for name, shape in expected.items():
            array: Float32 = getattr(self, name)
            if array.shape != shape:
                raise ModelError(f"{name} has shape {array.shape}, expected {shape}")
            if array.dtype != np.float32:
                raise ModelError(f"{name} is {array.dtype}, expected float32")
            if not np.isfinite(array).all():
                raise ModelError(f"{name} holds a value that is not finite")


FAMILIAR: Final = 56
"""Matrices of a probe that come from held-out markets; those after them are constant or absurd."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Matrices and the float32 answers which every backend must reproduce before it serves."""

    matrices: Float32
    """(P, 48, 13), P > `FAMILIAR`."""
    answers: Float32
    """(P, 43): the columns of `answers.ANSWER_COLUMNS`."""


@dataclass(frozen=True, slots=True)
class StrategicModel:
    """A model with its identity: what a file holds."""

    weights: ModelWeights
    probe: Probe
    name: str
    report: dict[str, Any]
    """How it was trained: seeds, sizes and figures."""
    checksum: str

    @property
    def version(self) -> str:
        """Name and the start of the checksum: two models never share it."""
        return f"{self.name}-{self.checksum[:12]}"


def round_to_bfloat16(values: Float32) -> Float32:
    """``values`` rounded to the nearest number that bfloat16 holds (ties to even), still as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def save_model(path: Path, weights: ModelWeights, probe: Probe, name: str, report: dict[str, Any]) -> StrategicModel:
    """Write a model file and return what was written.

    Raises:
        ModelError: The weights do not fit each other.
    """
    weights.validate()
    checksum = weights.checksum()
    tensors = {key: np.ascontiguousarray(value) for key, value in asdict(weights).items()}
    tensors |= {"probe.matrices": probe.matrices, "probe.answers": probe.answers}
    metadata = {"format": FORMAT, "name": name, "checksum": checksum, "report": json.dumps(report, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)
    return StrategicModel(weights, probe, name, report, checksum)


def load_model(path: Path) -> StrategicModel:
    """Read and verify a model file.

    Raises:
        ModelError: The file is missing, foreign, damaged, of another format, or its checksum does not match.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ModelError(
                    f"{path}: not a strategic model (format {metadata.get('format')!r}, expected {FORMAT!r})"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a safetensors handle does not iterate
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from error
    try:
        weights = ModelWeights(**{field.name: tensors[field.name] for field in fields(ModelWeights)})
        probe = Probe(tensors["probe.matrices"], tensors["probe.answers"])
        weights.validate()
        report = json.loads(metadata["report"])
        name, checksum = metadata["name"], metadata["checksum"]
    except (KeyError, IndexError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: incomplete model file, missing or malformed {error}") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if weights.checksum() != checksum:
        raise ModelError(f"{path}: checksum mismatch, the weights are not those that were saved")
    return StrategicModel(weights, probe, name, report, checksum)
