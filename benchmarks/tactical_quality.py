"""Does the tactical training learn? ``python -m benchmarks.tactical_quality --seeds 20``.

For every seed: a training on one simulated 30x7 window, and a long training on simulated bars that is judged on bars of
other simulated markets, beside the policy before training and the baselines. Then the same training on real daily bars,
whatever comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

from app.market.features import tactical_features
from app.market.simulator import simulate
from app.tactical.account import Costs
from app.tactical.backtest import backtest, policy_actions
from app.tactical.baselines import BASELINES, follow_momentum
from app.tactical.plan import BarsPlan, WindowPlan
from app.tactical.report import Score, compare, score, score_table
from app.tactical.tape import Tape, tape_of_bars
from app.tactical.trainer import split, train_bars, train_window
from benchmarks.figures import Figure, summarise
from benchmarks.real_bars import NAMES, daily_bars

TRAINING_SERIES, TRAINING_BARS = 32, 5_000
HELD_OUT_SERIES, HELD_OUT_BARS = 32, 2_000
HELD_OUT_SEED: Final = 1_000_000
"""Added to a training's seed: its held-out markets are others than it was trained on, and others for every seed."""
DEAD_BANDS: Final = (0.25, 0.5, 0.7, 0.8, 0.9)
TUNED: Final = "momentum_tuned"
OPPONENTS: Final = ("before", *BASELINES, TUNED)


@dataclass(frozen=True)
class Contest:
    """One training, judged on markets that it has not seen."""

    seed: int
    scores: dict[str, Score]
    seconds: float

    def beats(self, opponent: str) -> bool:
        """Whether the trained policy's log return after costs is higher."""
        return self.scores["trained"].log_return > self.scores[opponent].log_return

    def beats_by_reward(self, opponent: str) -> bool:
        """Whether the trained policy's reward, which charges the drawdown, is higher."""
        return self.scores["trained"].reward > self.scores[opponent].reward


def contest(seed: int) -> Contest:
    """Trains on simulated bars of one seed and plays held-out ones."""
    plan = BarsPlan(seed=seed)
    training = tape_of_bars(simulate(series=TRAINING_SERIES, length=TRAINING_BARS, seed=seed).bars)
    markets = simulate(series=HELD_OUT_SERIES, length=HELD_OUT_BARS, seed=HELD_OUT_SEED + seed).bars
    held_out = tape_of_bars(markets)
    trained = train_bars(training, plan)
    scores = {row.name: row for row in compare(trained.policy, held_out, plan.costs, seed=seed).scores}
    untrained = train_bars(training, plan.model_copy(update={"episodes": 1, "learning_rate": 1e-12}))
    before = backtest(held_out, policy_actions(untrained.policy, held_out), plan.costs)
    scores["before"] = score("before", before)
    scores[TUNED] = score(TUNED, backtest(held_out, follow_momentum(held_out, tuned_dead_band(training)), plan.costs))
    return Contest(seed, scores, trained.summary.seconds)


def tuned_dead_band(training: Tape) -> float:
    """The dead band with which the momentum rule would have earned most on the training's bars."""
    costs = Costs()

    def earned(dead_band: float) -> float:
        return float(backtest(training, follow_momentum(training, dead_band), costs).log_return.mean())

    return max(DEAD_BANDS, key=earned)


def window_gain(seed: int) -> tuple[float, float]:
    """Return before and after a training on one simulated window."""
    window = tactical_features(simulate(series=1, length=100, seed=seed).bars)[0, 60:90]
    summary = train_window(window, WindowPlan(seed=seed)).summary
    return summary.return_before, summary.return_after


def real_scores(name: str, seed: int = 0) -> list[Score]:
    """Trains on the first 80 % of a real index's days and plays the rest."""
    tape = tape_of_bars(daily_bars(name))
    plan = BarsPlan(seed=seed)
    trained = train_bars(tape, plan)
    return list(compare(trained.policy, split(tape, plan.held_out)[1], plan.costs, seed=seed).scores)


def share(contests: Sequence[Contest], opponent: str) -> float:
    """Percent of the contests in which training paid more than the opponent."""
    return 100.0 * sum(one.beats(opponent) for one in contests) / len(contests)


def measure(seeds: Sequence[int] = range(3)) -> list[Figure]:
    """Shares of seeds with which training pays; three seeds by default, since twenty take a quarter of an hour."""
    contests = [contest(seed) for seed in seeds]
    windows = [window_gain(seed) for seed in range(20)]
    return figures(contests, windows)


def figures(contests: Sequence[Contest], windows: Sequence[tuple[float, float]]) -> list[Figure]:
    """Contests and window trainings as rows of the bench table."""
    learned = 100.0 * sum(after > before for before, after in windows) / len(windows)
    rows = [
        Figure(
            name="tactical: window trainings whose return rose",
            value=learned,
            unit="%",
            bar=95.0,
            better="higher",
            note=f"{len(windows)} seeds",
        )
    ]
    rows.extend(
        Figure(
            name=f"tactical: held-out return beats {opponent}",
            value=share(contests, opponent),
            unit="%",
            bar=95.0 if opponent == "before" else None,
            better="higher",
            note=f"{len(contests)} seeds",
        )
        for opponent in OPPONENTS
    )
    for name in ("trained", *OPPONENTS):
        value, spread = summarise([one.scores[name].log_return for one in contests])
        note = f"{HELD_OUT_SERIES} series of {HELD_OUT_BARS} bars, after costs"
        title = f"tactical: held-out log return, {name}"
        rows.append(Figure(name=title, value=value, unit="%", spread=spread, better="higher", note=note))
    return rows


def contest_table(contests: Sequence[Contest]) -> str:
    """Mean scores of all contests, and the shares of seeds that the trained policy wins, in Markdown."""
    lines = [
        "| strategy | log return % | reward % | deepest drawdown % | costs % | Sharpe a bar | beaten | by reward |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("trained", *OPPONENTS):
        rows = [one.scores[name] for one in contests]
        means = [
            sum(getattr(row, field) for row in rows) / len(rows)
            for field in ("log_return", "reward", "max_drawdown", "costs", "sharpe")
        ]
        won = sum(one.beats(name) for one in contests)
        by_reward = sum(one.beats_by_reward(name) for one in contests)
        wins = "| | |" if name == "trained" else f"| {won}/{len(contests)} | {by_reward}/{len(contests)} |"
        told = f"{means[0]:+.2f} | {means[1]:+.2f} | {means[2]:.2f} | {means[3]:.2f} | {means[4]:+.4f}"
        lines.append(f"| {name} | {told} {wins}")
    return "\n".join(lines)


def main() -> int:
    """Runs the whole comparison and prints Markdown, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tactical_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side; default: %(default)s")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    contests = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for one in pool.map(contest, range(options.seeds)):
            contests.append(one)
            told = ", ".join(f"{name} {one.scores[name].log_return:+.2f}" for name in ("trained", *OPPONENTS))
            print(f"seed {one.seed}: {told} ({one.seconds:.0f} s)", file=sys.stderr, flush=True)
    windows = [window_gain(seed) for seed in range(options.seeds)]
    real = {name: real_scores(name) for name in NAMES}
    if options.json:
        rows = [figure.model_dump() for figure in figures(contests, windows)]
        days = {name: [row.model_dump() for row in scores] for name, scores in real.items()}
        print(json.dumps({"figures": rows, "real": days}, allow_nan=False))
        return 0
    print(contest_table(contests))
    learned = sum(after > before for before, after in windows)
    print(f"\nwindow trainings whose return rose: {learned} of {len(windows)}")
    for name, scores in real.items():
        print(f"\n{name}, daily bars\n\n{score_table(scores)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
