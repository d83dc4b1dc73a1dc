"""``python -m infra.preview``: show a stack's whole estate, offline.

Exit codes: 0 when the estate was shown and nothing mandatory is violated, 1 when a mandatory rule is violated (or, with
``--forbid-losses``, when something that holds state is replaced or removed), 2 for wrong input.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# The SDKs are two million lines of classes that live until the end: collecting them again and again costs a fifth of
# the run.
gc.disable()

from infra.preview.errors import WrongInput  # noqa: E402 - the collector is off before anything large is imported


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m infra.preview", description="Show a stack's whole estate, offline.")
    line.add_argument("--stack", default="staging", help="the stack to preview (default: staging)")
    line.add_argument("--baseline", type=Path, metavar="FILE", help="a saved preview (JSON) to compare with")
    line.add_argument(
        "--output-dir",
        type=Path,
        default=Path("build/preview"),
        metavar="DIR",
        help="where <stack>.json, .md and .svg go",
    )
    line.add_argument("--no-policy", action="store_true", help="leave the policy pack out")
    line.add_argument(
        "--policy-pack", type=Path, metavar="DIR", help="the policy pack (default: policy/ beside Pulumi.yaml)"
    )
    line.add_argument("--json", action="store_true", help="print the preview as JSON instead of the tree")
    line.add_argument("--comment-limit", type=int, default=65_536, metavar="N", help="most characters of <stack>.md")
    line.add_argument(
        "--forbid-losses", action="store_true", help="exit 1 when something that holds state is replaced or removed"
    )
    line.add_argument("--program", type=Path, metavar="DIR", help="the program (default: `main` of Pulumi.yaml)")
    line.add_argument("--config-dir", type=Path, metavar="DIR", help="where Pulumi.yaml and Pulumi.<stack>.yaml are")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        return _preview(options)
    except WrongInput as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return 2


def _preview(options: argparse.Namespace) -> int:
    from infra.preview.configuration import load_configuration  # noqa: PLC0415 - a mistake in the arguments need not load an SDK

    root = options.config_dir or Path(__file__).resolve().parents[2]
    configuration = load_configuration(options.stack, root, program=options.program)
    baseline = _baseline(options.baseline)

    from infra.preview.policy_process import PolicyProcess  # noqa: PLC0415 - it starts before the SDKs are imported

    pack = options.policy_pack or root / "policy"
    with nullcontext() if options.no_policy else PolicyProcess(pack) as process:
        from infra.preview.report import produce  # noqa: PLC0415

        report = produce(configuration, process, baseline)
    report.write(options.output_dir, comment_limit=options.comment_limit)
    if options.json:
        sys.stdout.write(report.json)
    else:
        report.show()
        print(f"written: {options.output_dir / options.stack}.json, .md, .svg")
    return report.exit_code(forbid_losses=options.forbid_losses)


def _baseline(file: Path | None) -> dict[str, Any] | None:
    if file is None:
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongInput(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongInput(f"{file}: broken JSON: {error}") from None
    if not isinstance(document, dict):
        raise WrongInput(f"{file}: not a saved preview")
    return document


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written. Taking the SDKs' modules apart object by object would cost another 0.9 s.
    os._exit(code)
