"""Bring the parts together: run the program in both modes, judge, compare, and render what is written or shown."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pulumi
from rich.console import Console

from infra.preview.capture import Run, run
from infra.preview.changes import Changes, compare
from infra.preview.comment import LIMIT, render_comment
from infra.preview.configuration import Configuration
from infra.preview.errors import WrongInput
from infra.preview.model import Capture, dump
from infra.preview.picture import draw
from infra.preview.policies import Judgement, PolicyClient
from infra.preview.policy_process import PolicyProcess
from infra.preview.tree import render

_PLAIN_WIDTH: Final = 140  # of a log or a file


@dataclass(frozen=True)
class Report:
    """A finished preview."""

    first: Run = field(repr=False)
    judgement: Judgement | None
    changes: Changes | None

    @property
    def capture(self) -> Capture:
        """The estate as a first preview sees it, with unknowns."""
        return self.first.capture

    @property
    def json(self) -> str:
        """The saved preview: the estate, and beside it verdicts and changes. Two runs give the same bytes."""
        document: dict[str, Any] = self.capture.to_json()
        document["policies"] = self.judgement.to_json() if self.judgement else None
        document["changes"] = self.changes.to_json() if self.changes else None
        return self.first.redact(dump(document))

    def comment(self, limit: int = LIMIT) -> str:
        """The pull request's comment, at most ``limit`` characters."""
        return self.first.redact(render_comment(self.capture, self.judgement, self.changes, limit))

    @property
    def picture(self) -> str:
        """The drawing."""
        return self.first.redact(draw(self.capture))

    def write(self, directory: Path, *, comment_limit: int = LIMIT) -> None:
        """Write ``<stack>.json``, ``.md`` and ``.svg`` into ``directory``."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for kind, text in (("json", self.json), ("md", self.comment(comment_limit)), ("svg", self.picture)):
                (directory / f"{self.capture.stack}.{kind}").write_text(text, encoding="utf-8")
        except OSError as error:
            raise WrongInput(f"{directory}: cannot be written: {error.strerror}") from None

    def show(self, console: Console | None = None) -> None:
        """Print the tree, the outputs, the verdicts and the changes."""
        target = console or (Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH))
        with target.capture() as shown:
            render(self.capture, self.judgement, self.changes, target)
        target.out(self.first.redact(shown.get()), highlight=False, end="")

    def exit_code(self, *, forbid_losses: bool = False) -> Literal[0, 1]:
        """1 when a mandatory rule is violated, or with ``forbid_losses`` when something stateful is lost."""
        lost = forbid_losses and self.changes is not None and bool(self.changes.losses)
        return 1 if lost or (self.judgement is not None and self.judgement.violated) else 0


def produce(configuration: Configuration, process: PolicyProcess | None, baseline: Mapping[str, Any] | None) -> Report:
    """Preview the stack of ``configuration``.

    Args:
        configuration: the project's and the stack's.
        process: the policy pack, started already; None leaves policies out.
        baseline: the content of an earlier ``<stack>.json``; None leaves the comparison out.

    Raises:
        WrongInput: settings, program, pack or baseline are at fault; one line for each mistake.
    """
    before = Capture.from_json(baseline) if baseline is not None else None
    if before is not None and (before.project, before.stack) != (configuration.project, configuration.stack):
        raise WrongInput(
            f"the baseline is of {before.project}/{before.stack}, not of {configuration.project}/{configuration.stack}"
        )
    try:
        first = run(configuration, resolved=False)
        if process is None:
            judgement = None
        else:
            # One after the other: a thread that judges while the program runs again takes its interpreter from it
            # (0.8 s more for the production stack on two cores).
            client = PolicyClient(process)
            opinions = [client.judge(first), client.judge(run(configuration, resolved=True))]
            judgement = client.conclude(opinions)
            client.close()
    except pulumi.RunError as error:
        raise WrongInput(*str(error).splitlines()) from None
    return Report(first, judgement, compare(before, first.capture) if before is not None else None)
