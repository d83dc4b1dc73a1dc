"""What all commands share: options, the one-line error, and how an answer is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import BaseModel
from rich.console import Console

from app.contract import Service
from ops.errors import OpsError
from ops.target import Target, find_target

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Directory = Annotated[Path, typer.Option(help="Where `make serve` keeps its state.")]
StrategicUrl = Annotated[str | None, typer.Option(help="Base URL of the strategic service, instead of a local system.")]
TacticalUrl = Annotated[str | None, typer.Option(help="Base URL of the tactical service, instead of a local system.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="CA certificate of these URLs; the system's own by default.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig: act on that cluster.")]
Storage = Annotated[str, typer.Option(help="Directory, or s3://bucket/prefix.", envvar="BACKUP_LOCATION")]
ServiceName = Annotated[Service, typer.Argument(help="Which service.")]

OUT: Final = Console()
ERR: Final = Console(stderr=True)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A mistake is one line on standard error and exit code 2."""
    try:
        yield
    except OpsError as error:
        ERR.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        ERR.print("interrupted", highlight=False)
        raise typer.Exit(130) from None


def print_json(value: BaseModel) -> None:
    """One answer as JSON on standard output."""
    sys.stdout.write(value.model_dump_json(indent=2) + "\n")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless ``yes``; a no ends the command with exit code 2."""
    if not yes and not typer.confirm(question):
        raise typer.Exit(2)


def show(report: BaseModel, *, json: bool) -> None:
    """A report field by field, or as JSON."""
    if json:
        print_json(report)
        return
    for name, value in report.model_dump(mode="json").items():
        items = value if isinstance(value, list) else [value]
        OUT.print(f"{name}: " + "; ".join(str(item) for item in items), highlight=False, markup=False)


def write_text(file: Path, text: str) -> None:
    """Write a file and the directories above it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpsError(f"{file}: cannot be written: {error.strerror}") from None


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows on standard error what is being done now."""
    with ERR.status("") as status:
        yield status.update


def named_target(directory: Path, strategic_url: str | None, tactical_url: str | None, ca: Path | None) -> Target:
    """The system that the shared options name."""
    return find_target(directory, strategic_url=strategic_url, tactical_url=tactical_url, ca_certificate=ca)
