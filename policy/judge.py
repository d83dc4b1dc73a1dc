"""Judge an exported state from the command line, or any estate by one call.

``python -m policy.judge --state state.json`` prints what is violated, undecided and waived, and the counts. The exit
code is 1 where a mandatory rule is violated, 2 where the input is wrong, else 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from policy.catalog import RULES
from policy.model import Estate
from policy.report import to_json, to_text
from policy.sarif import to_sarif
from policy.settings import RuleSettings, SettingsError, own_settings, read_settings
from policy.state import StateError, read_state
from policy.verdict import Judge, Report

_PROGRESS_FROM: Final = 2000  # resources; below, the verdict is there before a line could be read


def judge(
    estate: Estate,
    settings: Mapping[str, RuleSettings] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """All rules on ``estate``, with the pack's own settings unless others are given."""
    return Judge.of(RULES, own_settings(RULES) if settings is None else settings).judge(estate, progress)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m policy.judge",
        description="Judge the exported state of a stack by the estate's policy pack.",
        epilog="exit code: 0 no mandatory rule is violated, 1 one is, 2 wrong input",
    )
    result.add_argument("--state", type=Path, required=True, metavar="FILE", help="output of `pulumi stack export`")
    result.add_argument(
        "--stack-config", type=Path, metavar="FILE", help="levels, waivers and parameters (default: the pack's own)"
    )
    form = result.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the report as JSON")
    form.add_argument("--sarif", action="store_true", help="the report as SARIF 2.1.0")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        settings = read_settings(options.stack_config, RULES) if options.stack_config else own_settings(RULES)
        estate = read_state(options.state)
    except (StateError, SettingsError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if not estate.resources:
        sys.stderr.write(f"warning: {options.state}: the state holds no resources\n")
    report = judge(estate, settings, _progress(len(estate.resources)))
    if options.json:
        sys.stdout.write(json.dumps(to_json(report), indent=2) + "\n")
    elif options.sarif:
        sys.stdout.write(json.dumps(to_sarif(report, options.state.as_posix()), indent=2) + "\n")
    else:
        sys.stdout.write(to_text(report) + "\n")
    return 1 if report.blocks else 0


def _progress(resources: int) -> Callable[[int, int], None] | None:
    if resources < _PROGRESS_FROM or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\rjudging {resources} resources: rule {done + 1} of {total}")
        if done + 1 == total:
            sys.stderr.write("\n")

    return show


if __name__ == "__main__":
    sys.exit(main())
