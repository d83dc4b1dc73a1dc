"""Quality of the strategic model on markets it never saw, over several seeds, beside a Gaussian hidden Markov model.

``python -m benchmarks.strategic_quality`` prints the table of docs/strategic-model.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from hmmlearn.hmm import GaussianHMM
from numpy.typing import NDArray

from app.strategic.answers import REGIMES
from app.strategic.calibration import macro_f1
from app.strategic.engine import Engine
from app.strategic.quality import evaluate, return_of_decisions, sample_windows, unfamiliarity
from app.strategic.shifts import EXAMINATION
from app.strategic.simulation import SimulatedMarkets, simulate_markets
from benchmarks.figures import Figure, summarise

SEEDS = (50_001, 50_002, 50_003, 50_004, 50_005, 50_006, 50_007)
HMM_SEED = 60_001
LOOK_BACK = 255
"""Bars before the window's last one that the hidden Markov model filters; the engine sees 47 bars of features."""

BARS_OF = {
    "regime_accuracy": (None, "higher"),
    "regime_macro_f1": (None, "higher"),
    "regime_calibration_error": (0.05, "lower"),
    "confidence_calibration_error": (0.05, "lower"),
}


def _observations(markets: SimulatedMarkets) -> NDArray[np.float64]:
    """What the hidden Markov model sees of each bar, (S, T, 2): log return and log range."""
    bars = markets.bars
    log_return = np.diff(np.log(bars.close), axis=1, prepend=np.log(bars.close[:, :1]))
    log_range = np.log(np.log(bars.high / bars.low) + 1e-6)
    return np.stack([log_return * 100.0, log_range], axis=2)


def fit_hidden_markov_model() -> GaussianHMM:
    """A Gaussian HMM of four states fitted without labels, best of three starts; its states named by what they are."""
    markets = simulate_markets(series=24, length=1024, seed=HMM_SEED)
    observations = _observations(markets)
    flat, lengths = observations.reshape(-1, 2), [observations.shape[1]] * len(observations)
    fitted = []
    for seed in range(3):
        model = GaussianHMM(n_components=len(REGIMES), covariance_type="full", n_iter=60, random_state=seed)
        fitted.append(model.fit(flat, lengths))
    best = max(fitted, key=lambda model: float(model.score(flat, lengths)))
    states = best.predict(flat, lengths)
    counts = np.zeros((len(REGIMES), len(REGIMES)))
    np.add.at(counts, (states, markets.regimes.ravel()), 1.0)
    # The names that agree with most bars, each used once: the labels serve for nothing else.
    names = max(
        itertools.permutations(range(len(REGIMES))),
        key=lambda order: sum(counts[state, regime] for state, regime in enumerate(order)),
    )
    best.names = np.array(names)
    return best


def label_hidden_markov_model() -> GaussianHMM:
    """The same model with the labels' help: each state's law and the transitions are counted from the true regimes."""
    markets = simulate_markets(series=24, length=1024, seed=HMM_SEED)
    flat, regimes = _observations(markets).reshape(-1, 2), markets.regimes.ravel()
    model = GaussianHMM(n_components=len(REGIMES), covariance_type="full")
    model.startprob_ = np.bincount(regimes, minlength=len(REGIMES)) / len(regimes)
    transitions = np.zeros((len(REGIMES), len(REGIMES)))
    np.add.at(transitions, (markets.regimes[:, :-1].ravel(), markets.regimes[:, 1:].ravel()), 1.0)
    model.transmat_ = transitions / transitions.sum(axis=1, keepdims=True)
    model.means_ = np.stack([flat[regimes == regime].mean(axis=0) for regime in range(len(REGIMES))])
    model.covars_ = np.stack([np.cov(flat[regimes == regime], rowvar=False) for regime in range(len(REGIMES))])
    model.names = np.arange(len(REGIMES))
    return model


def evaluate_hidden_markov_model(model: GaussianHMM, name: str, *, seed: int, count: int) -> dict[str, float]:
    """Accuracy and macro-F1 of the state at each window's last bar, from that bar and those before it."""
    markets, ends = sample_windows(seed=seed, count=count)
    observations = _observations(markets).reshape(-1, 2)
    recent = observations[ends[:, None] + np.arange(-LOOK_BACK, 1)]
    # The posterior of a sequence's last bar has seen nothing after it: it is the filtered one.
    beliefs = model.predict_proba(recent.reshape(-1, 2), [recent.shape[1]] * len(recent))
    predicted = model.names[beliefs[LOOK_BACK :: LOOK_BACK + 1].argmax(axis=1)]
    truth = markets.regimes.ravel()[ends]
    return {
        f"{name}_regime_accuracy": float((predicted == truth).mean()),
        f"{name}_regime_macro_f1": macro_f1(predicted, truth, len(REGIMES)),
    }


def examine(seeds: Sequence[int] = SEEDS, count: int = 10_000) -> list[dict[str, Any]]:
    """All quality figures of the shipped model, one dictionary a seed."""
    engine = Engine.load()
    peers = {"hmm": fit_hidden_markov_model(), "labelled_hmm": label_hidden_markov_model()}
    runs = []
    for seed in seeds:
        run: dict[str, Any] = {"seed": seed}
        run |= evaluate(engine, seed=seed, count=count)
        for name, peer in peers.items():
            run |= evaluate_hidden_markov_model(peer, name, seed=seed, count=count)
        run |= {f"auroc: {name}": value for name, value in unfamiliarity(engine, seed=seed, count=2_000).items()}
        run |= {f"basis points a bar: {name}": value for name, value in return_of_decisions(engine, seed=seed).items()}
        run["auroc: mean"] = float(np.mean([run[f"auroc: {name}"] for name in EXAMINATION]))
        runs.append(run)
        sys.stderr.write(f"seed {seed} done ({len(runs)} of {len(seeds)})\n")
    return runs


def measure() -> list[Figure]:
    """The quality figures over `SEEDS`."""
    runs = examine()
    figures = []
    for name in runs[0]:
        if name == "seed":
            continue
        value, spread = summarise([run[name] for run in runs])
        bar, better = (0.9, "higher") if name == "auroc: mean" else BARS_OF.get(name, (None, "higher"))
        figures.append(
            Figure(
                name=f"strategic quality, {name.replace('_', ' ')}",
                value=value,
                unit="bp" if name.startswith("basis") else "",
                spread=spread,
                bar=bar,
                better="lower" if better == "lower" else "higher",
                note=_note(name, runs),
            )
        )
    return figures


def _note(name: str, runs: list[dict[str, Any]]) -> str:
    values = [run[name] for run in runs]
    note = f"{len(runs)} seeds, {min(values):.3f} to {max(values):.3f}"
    shift = EXAMINATION.get(name.removeprefix("auroc: "))
    if shift is not None:
        note += (
            ", a kind that training practised at other strengths" if shift.practised else ", a kind never trained on"
        )
    return note


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | median | quartile distance | bar | note |", "|---|---|---|---|---|"]
    for figure in figures:
        bar = "" if figure.bar is None else f"{'<=' if figure.better == 'lower' else '>='} {figure.bar}"
        name = figure.name.removeprefix("strategic quality, ")
        lines.append(f"| {name} | {figure.value:.3f} {figure.unit} | {figure.spread:.3f} | {bar} | {figure.note} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategic_quality", description=__doc__)
    parser.add_argument("--json", action="store_true", help="JSON on standard output instead of a Markdown table")
    options = parser.parse_args(arguments)
    figures = measure()
    shown = json.dumps([figure.model_dump() for figure in figures], indent=2) if options.json else table(figures)
    sys.stdout.write(f"{shown}\n")
    return 1 if any(figure.meets_bar is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
