"""``python -m app.tactical``: train the agents on a bar file, judge a model, or simulate bars to play with.

Exit codes: 0 done, 1 the training or the disk failed, 2 wrong input, 130 interrupted (the state is saved).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pydantic import ValidationError

from app.market.bars import BarError
from app.market.files import read_bars, write_bars
from app.market.simulator import Regime, SimulatorConfig, simulate
from app.tactical import checkpoint
from app.tactical.checkpoint import CheckpointError
from app.tactical.model import policy_of
from app.tactical.plan import BarsPlan
from app.tactical.report import compare, report_document, score_table, write_report
from app.tactical.tape import WindowError, tape_of_bars
from app.tactical.trainer import (
    CHECKPOINT,
    Progress,
    TrainingCancelledError,
    TrainingDivergedError,
    split,
    train_bars,
)

MODEL: Final = "model"
FAILED: Final = 1
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130
_BAR_WIDTH: Final = 28


class UsageError(ValueError):
    """The user asked for something that does not fit together; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (BarError, WindowError, UsageError, ValidationError) as error:
        return _fail(_one_line(error), WRONG_INPUT)
    except CheckpointError as error:
        return _fail(str(error), WRONG_INPUT if options.command == "evaluate" else FAILED)
    except TrainingDivergedError as error:
        return _fail(_one_line(error), FAILED)
    except TrainingCancelledError as error:
        return _fail(f"{error}; the state is saved, go on with --resume", INTERRUPTED)
    return 0


def _one_line(error: Exception) -> str:
    """What went wrong, for a person."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        option = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        return f"--{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}"
    return str(error)


def _train(options: argparse.Namespace) -> None:
    directory: Path = options.out
    if checkpoint.exists(directory, CHECKPOINT) and not options.resume:
        raise UsageError(f"{directory}: already holds a training; go on with --resume, or choose another --out")
    plan = BarsPlan(
        episodes=options.episodes,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        checkpoint_every=options.checkpoint_every,
        held_out=options.held_out,
    )
    plan.learner()  # a device that is not there is told before the bars are read
    tape = tape_of_bars(read_bars(options.bars, gaps=_gaps(options)), options.device)
    with _interrupts() as interrupted:
        show = _show_progress(quiet=options.json)
        trained = train_bars(
            tape,
            plan,
            directory=directory,
            resume=options.resume,
            on_progress=show,
            cancelled=lambda: bool(interrupted),
        )
    saved = checkpoint.save(directory, MODEL, trained.policy.state_dict(), trained.document())
    comparison = compare(trained.policy, split(tape, plan.held_out)[1], plan.costs, seed=plan.seed)
    files = write_report(directory, trained.summary, comparison, options.bars.name)
    if options.json:
        document = report_document(trained.summary, comparison, str(options.bars))
        _print_json(document | {"model": str(saved.payload), "sha256": saved.sha256})
        return
    summary = trained.summary
    print(f"\nreturn on held-out bars: {summary.return_before:+.3f} % before, {summary.return_after:+.3f} % after\n")
    print(score_table(comparison.scores))
    print(f"\nmodel   {saved.payload}\nreport  {files[0]}")


def _evaluate(options: argparse.Namespace) -> None:
    tensors, document = checkpoint.load(options.model, MODEL)
    policy, summary = policy_of(tensors, document, device=options.device, source=str(options.model))
    tape = tape_of_bars(read_bars(options.bars, gaps=_gaps(options)), options.device)
    comparison = compare(policy, tape, seed=options.seed)
    if options.out is not None:
        _make(options.out)
        write_report(options.out, summary, comparison, options.bars.name)
    if options.json:
        _print_json(report_document(summary, comparison, str(options.bars)))
    else:
        print(score_table(comparison.scores))


def _simulate(options: argparse.Namespace) -> None:
    if options.length < 1:
        raise UsageError(f"--bars must be at least 1, not {options.length}")
    if options.minutes < 1:
        raise UsageError(f"--minutes must be at least 1, not {options.minutes}")
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {options.seed}")
    try:
        config = SimulatorConfig(bar_minutes=options.minutes)
    except ValueError as error:
        raise UsageError(f"--minutes {options.minutes}: {error}") from error
    simulated = simulate(series=1, length=options.length, seed=options.seed, config=config)
    write_bars(options.file, simulated.bars.series(0))
    shares = {regime.name: float((simulated.regimes == regime).mean()) for regime in Regime}
    if options.json:
        _print_json({"file": str(options.file), "bars": options.length, "seed": options.seed, "regimes": shares})
    else:
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print(f"{options.file}: {options.length:,} bars of {options.minutes} minutes ({told})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.tactical", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train on a bar file and report beside the baselines")
    _bars_arguments(train)
    defaults = BarsPlan()
    train.add_argument("--episodes", type=int, default=defaults.episodes, help="default: %(default)s")
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, model, report and pictures")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    train.add_argument(
        "--checkpoint-every",
        type=int,
        default=defaults.checkpoint_every,
        metavar="EPISODES",
        help="default: %(default)s",
    )
    train.add_argument(
        "--held-out",
        type=float,
        default=defaults.held_out,
        metavar="SHARE",
        help="of the bars, at their end, never trained on; default: %(default)s",
    )
    train.add_argument("--threads", type=int, default=defaults.threads, help="default: %(default)s")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="play a trained model and the baselines over a bar file")
    _bars_arguments(evaluate)
    evaluate.add_argument("--model", type=Path, required=True, metavar="DIR", help="the --out of a training")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="write a report and pictures there")
    evaluate.set_defaults(run=_evaluate)

    simulated = commands.add_parser("simulate", help="write a bar file of a market with switching regimes")
    simulated.add_argument("file", type=Path, metavar="BARS", help="a .csv or .parquet file to write")
    simulated.add_argument("--bars", dest="length", type=int, default=50_000, help="default: %(default)s")
    simulated.add_argument("--minutes", type=int, default=5, help="length of a bar; default: %(default)s")
    simulated.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    simulated.add_argument("--json", action="store_true", help="print JSON")
    simulated.set_defaults(run=_simulate)
    return parser


def _bars_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bars", type=Path, metavar="BARS", help="a .csv or .parquet file of bars")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: %(default)s")
    parser.add_argument("--allow-gaps", action="store_true", help="for instruments that pause, for example over night")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and no progress")


def _gaps(options: argparse.Namespace) -> Any:  # noqa: ANN401 - a literal type that argparse cannot know
    return "allow" if options.allow_gaps else "error"


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be made ({error.strerror})") from error


def _show_progress(*, quiet: bool) -> Any:  # noqa: ANN401 - a callback
    """A bar that redraws itself on a terminal; ten lines where there is none."""
    started = time.monotonic()
    first: list[float] = []
    tenths = -1

    def show(progress: Progress) -> None:
        nonlocal tenths
        if quiet:
            return
        point, share = progress.point, progress.share
        first.append(share) if not first else None
        seconds = time.monotonic() - started
        left = f"{seconds * (1 - share) / (share - first[0]):.0f} s" if share > first[0] else "?"
        done = round(share * _BAR_WIDTH)
        text = (
            f"[{'#' * done}{'.' * (_BAR_WIDTH - done)}] {share:4.0%}  {point.episodes:,} episodes  "
            f"return {point.episode_return:+.3f} %  entropy {point.entropy:.2f}  {seconds:.0f} s, {left} left"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="\n" if share >= 1 else "", file=sys.stderr, flush=True)
        elif int(share * 10) > tenths:
            tenths = int(share * 10)
            print(text, file=sys.stderr, flush=True)

    return show


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects the first SIGINT or SIGTERM instead of dying: the training stops between two updates and is saved."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's interface
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, allow_nan=False))


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
