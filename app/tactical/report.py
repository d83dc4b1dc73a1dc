"""How a policy did beside the baselines: scores, a Markdown and JSON report, and two pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from app.mappo import Policy
from app.tactical.account import Costs
from app.tactical.backtest import Backtest, backtest, policy_actions
from app.tactical.baselines import BASELINES
from app.tactical.checkpoint import write_atomically
from app.tactical.model import Point, TrainingSummary
from app.tactical.tape import Tape

TRAINED: Final = "trained"
NO_PICTURES: Final = "Pictures need matplotlib: pip install 'grandmodel[plots]', then evaluate the model again."
_LINES: Final[dict[str, dict[str, Any]]] = {
    TRAINED: {"color": "#0b6e99", "linewidth": 2.2, "zorder": 4},
    "buy_and_hold": {"color": "#c0562f", "linewidth": 1.3},
    "momentum_rule": {"color": "#7a5195", "linewidth": 1.3},
    "random": {"color": "#d19a1a", "linewidth": 1.3},
    "hold": {"color": "#6b6b6b", "linewidth": 1.3, "linestyle": (0, (4, 3))},
}


class Score(BaseModel):
    """One strategy over a tape; means over its series, all but the Sharpe ratio in percent."""

    model_config = ConfigDict(frozen=True)

    name: str
    reward: float
    """Sum of the rewards: what the agents were trained for."""
    log_return: float
    """Log return of the equity after costs."""
    max_drawdown: float
    costs: float
    """Costs paid, as a share of the equity at each trade, summed."""
    turnover: float
    """Equities traded: 200 is the whole equity bought and sold once."""
    sharpe: float
    """Mean over standard deviation of a bar's log return, not annualised."""


@dataclass(frozen=True)
class Comparison:
    """A policy beside the baselines over the same bars."""

    scores: tuple[Score, ...]
    equity: dict[str, Tensor]
    """Per strategy ``(D + 1,)``: equity, the geometric mean over the series."""
    series: int
    decisions: int


def compare(policy: Policy, tape: Tape, costs: Costs | None = None, *, seed: int = 0) -> Comparison:
    """Plays the policy's most probable actions and every baseline over a tape."""
    plays = {TRAINED: policy_actions(policy, tape)} | {name: rule(tape, seed) for name, rule in BASELINES.items()}
    books = {name: backtest(tape, actions, costs) for name, actions in plays.items()}
    return Comparison(
        scores=tuple(score(name, book) for name, book in books.items()),
        equity={name: book.equity.log().mean(dim=0).exp() for name, book in books.items()},
        series=tape.series,
        decisions=tape.decisions,
    )


def score(name: str, books: Backtest) -> Score:
    """The figures of one strategy's books."""
    return Score(
        name=name,
        reward=float(books.reward.mean()),
        log_return=float(books.log_return.mean()),
        max_drawdown=100.0 * float(books.max_drawdown.mean()),
        costs=100.0 * float(books.cost.sum(dim=1).mean()),
        turnover=100.0 * float(books.traded.sum(dim=1).mean()),
        sharpe=float(books.sharpe.mean()),
    )


def report_document(summary: TrainingSummary, comparison: Comparison, source: str) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "bars": source,
        "series": comparison.series,
        "decisions": comparison.decisions,
        "scores": [score.model_dump() for score in comparison.scores],
        "training": summary.model_dump(mode="json"),
    }


def score_table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table, best reward first."""
    lines = [
        "| strategy | reward % | log return % | deepest drawdown % | costs % | turnover % | Sharpe a bar |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.name} | {row.reward:+.2f} | {row.log_return:+.2f} | {row.max_drawdown:.2f} | {row.costs:.2f} "
        f"| {row.turnover:,.0f} | {row.sharpe:+.4f} |"
        for row in sorted(scores, key=lambda row: -row.reward)
    ]
    return "\n".join(lines)


def report_markdown(summary: TrainingSummary, comparison: Comparison, source: str, *, drawn: bool = True) -> str:
    """The report for people; it says how to get the pictures where they were not ``drawn``."""
    losses = summary.losses
    equity, learning = ("![Equity](equity.svg)", "![Learning curve](learning.svg)") if drawn else (NO_PICTURES, "")
    text = f"""\
# Tactical training on {source}

{summary.episodes:,} episodes, {summary.frames:,} steps, {summary.updates} updates in {summary.seconds:.1f} s on \
{summary.device}, seed {summary.seed}; 3 agents of {summary.parameters_per_agent:,} parameters.

Return on bars that were never trained on: {summary.return_before:+.3f} % before, {summary.return_after:+.3f} % after.

## Beside the baselines

The same bars and costs for all: {comparison.series} series, {comparison.decisions} decisions each.

{score_table(comparison.scores)}

{equity}

## Learning

Last update: policy loss {losses.policy_loss:+.4f}, value loss {losses.value_loss:.4f}, entropy {losses.entropy:.3f}, \
KL {losses.approximate_kl:.4f}, explained variance {losses.explained_variance:+.3f}.

{learning}
"""
    return text.rstrip() + "\n"


def write_report(directory: Path, summary: TrainingSummary, comparison: Comparison, source: str) -> list[Path]:
    """Writes ``report.md``, ``report.json`` and the pictures as PNG and SVG; returns the paths.

    Without matplotlib, which the images leave out, there are no pictures: a training that is over must not fail.

    Raises:
        CheckpointError: when the disk is full or refuses.
    """
    drawn = find_spec("matplotlib") is not None
    document = report_document(summary, comparison, source)
    files = {
        "report.md": report_markdown(summary, comparison, source, drawn=drawn).encode(),
        "report.json": (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
    }
    if drawn:
        files |= picture_files("learning", learning_figure(summary.curve))
        files |= picture_files("equity", equity_figure(comparison, source))
    for name, data in files.items():
        write_atomically(directory / name, data)
    return [directory / name for name in files]


def learning_figure(curve: Sequence[Point]) -> Any:  # noqa: ANN401 - matplotlib is imported only when it is needed
    """Return, entropy and explained variance over the episodes."""
    figure = _figure(8.0, 6.4)
    episodes = [point.episodes for point in curve]
    panels = (
        ("return of an episode, %", [point.episode_return for point in curve]),
        ("entropy, nats", [point.entropy for point in curve]),
        ("explained variance", [point.explained_variance for point in curve]),
    )
    axes = figure.subplots(len(panels), 1, sharex=True)
    for axis, (label, values) in zip(axes, panels, strict=True):
        axis.plot(episodes, values, color="#0b6e99", alpha=0.3, linewidth=1)
        axis.plot(episodes, _smooth(values), color="#0b6e99", linewidth=1.8)
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
        axis.margins(x=0)
    axes[0].axhline(0.0, color="#444444", linewidth=0.8)
    axes[0].set_title(
        "Learning curve (thin: each update, thick: mean of the updates around it)", fontsize=11, loc="left"
    )
    axes[-1].set_xlabel("episodes")
    axes[-1].xaxis.set_major_formatter("{x:,.0f}")
    return figure


def equity_figure(comparison: Comparison, source: str) -> Any:  # noqa: ANN401 - as above
    """Equity of the policy and the baselines over the decisions."""
    figure = _figure(9.0, 4.4)
    axis = figure.subplots()
    for name, equity in sorted(comparison.equity.items(), key=lambda item: -float(item[1][-1])):
        label = f"{name.replace('_', ' ')}  {100 * (float(equity[-1]) - 1):+.1f} %"
        axis.plot(equity.numpy(), label=label, **_LINES[name])
    axis.set_title(f"Equity after costs over {comparison.decisions:,} bars of {source}", fontsize=11, loc="left")
    axis.set_xlabel("bars")
    axis.set_ylabel("equity, start = 1")
    axis.margins(x=0)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.25)
    figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title="at the end, best first", alignment="left"
    )
    return figure


def picture_files(name: str, figure: Any) -> dict[str, bytes]:  # noqa: ANN401 - as above
    """A figure as ``name.png`` and ``name.svg``."""
    files = {}
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=130)
        files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def _figure(width: float, height: float) -> Any:  # noqa: ANN401 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415 - the service runs without matplotlib

    return Figure(figsize=(width, height), layout="constrained")


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and its neighbours, a twentieth of the curve to either side; fewer at the ends."""
    reach = max(len(values) // 20, 1)
    around = [values[max(i - reach, 0) : i + reach + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in around]
