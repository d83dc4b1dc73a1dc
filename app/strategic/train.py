"""Trains and writes a strategic model: ``python -m app.strategic.train --seed 0 --out model.safetensors``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.strategic.answers import ANSWER_WIDTH
from app.strategic.engine import Engine
from app.strategic.model import FAMILIAR, ModelError, ModelWeights, Probe, StrategicModel, load_model, save_model
from app.strategic.quality import evaluate, return_of_decisions, sample_windows, unfamiliarity
from app.strategic.runtime import reference_lane
from app.strategic.training import TrainingConfig, train_model

PROBE_SEED = 20_001
EVALUATION_SEED = 10_001

TINY = TrainingConfig(
    trunk=32,
    sketch=8,
    embedding=16,
    hidden=8,
    series=8,
    length=640,
    signal_steps=20,
    epochs=1,
    batch=128,
    trading_series=4,
    agent_frames=4096,
    coordinator_frames=4096,
    copies=64,
    calibration_series=4,
    altered_markets=5,
)
"""A model of the same shape in a few seconds: shows that the command works, and nothing else."""


def record_probe(weights: ModelWeights) -> Probe:
    """Held-out, constant and absurd matrices with the answers that NumPy's float32 products give."""
    markets, ends = sample_windows(seed=PROBE_SEED, count=FAMILIAR)
    matrices = np.concatenate([markets.windows(ends), np.zeros((8, 48, 13), np.float32)])
    random = np.random.default_rng(PROBE_SEED)
    matrices[57] = 1.0
    matrices[58] = -1.0
    matrices[59] = 1e30
    matrices[60] = -1e30
    matrices[61:] = random.standard_normal((3, 48, 13)) * np.array([0.1, 1.0, 10.0]).reshape(3, 1, 1)
    unrecorded = Probe(matrices, np.zeros((len(matrices), ANSWER_WIDTH), np.float32))
    lane = reference_lane(StrategicModel(weights, unrecorded, "unrecorded", {}, ""))
    lane.answer(matrices, unrecorded.answers, np.empty((len(matrices), 3), np.int64))
    return unrecorded


def train_and_save(path: Path, *, seed: int, name: str, config: TrainingConfig) -> StrategicModel:
    """Train, evaluate on held-out markets, and write the model with its report (also as JSON beside it)."""
    started = time.perf_counter()
    shown = 0.0

    def progress(step: str, share: float, text: str) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown >= 0.5 or share in {0.0, 1.0}:
            shown = now
            sys.stderr.write(f"{now - started:6.1f} s  {step:<12} {share:4.0%}  {text}\n")
            sys.stderr.flush()

    weights, report = train_model(config, seed, progress)
    probe = record_probe(weights)
    engine = Engine(StrategicModel(weights, probe, name, report, weights.checksum()), precision="float32")
    progress("evaluate", 0.0, f"held-out markets, seed {EVALUATION_SEED}")
    report["flops_per_sample"] = weights.flops()
    report["evaluation"] = {
        "seed": EVALUATION_SEED,
        **evaluate(engine, seed=EVALUATION_SEED),
        "unfamiliarity_auroc": unfamiliarity(engine, seed=EVALUATION_SEED),
        "basis_points_a_bar": return_of_decisions(engine, seed=EVALUATION_SEED),
    }
    model = save_model(path, weights, probe, name, report)
    written: dict[str, Any] = {"version": model.version, "checksum": model.checksum, "report": report}
    path.with_suffix(".json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    load_model(path)
    progress("evaluate", 1.0, f"wrote {path} ({model.version})")
    return model


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.strategic.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument(
        "--out", type=Path, required=True, help="model file to write; the report goes beside it as .json"
    )
    parser.add_argument("--name", default="strategic", help="first part of the model's version")
    parser.add_argument(
        "--threads", type=int, default=1, help="for torch (default 1: the same weights on any machine size)"
    )
    parser.add_argument("--epochs", type=int, help="over the simulated windows")
    parser.add_argument("--tiny", action="store_true", help="a toy model in seconds, to try the command")
    parser.add_argument("--json", action="store_true", help="print the report as JSON on standard output")
    options = parser.parse_args(arguments)
    if options.seed < 0 or options.threads < 1 or (options.epochs is not None and options.epochs < 1):
        parser.error("--seed must be 0 or more, --threads and --epochs at least 1")
    config = TINY if options.tiny else TrainingConfig()
    if options.epochs is not None:
        config = replace(config, epochs=options.epochs)
    torch.set_num_threads(options.threads)
    try:
        model = train_and_save(options.out, seed=options.seed, name=options.name, config=config)
    except (OSError, ModelError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.json:
        sys.stdout.write(json.dumps(model.report, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
