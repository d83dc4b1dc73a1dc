"""Commands that look: health, validate, diagnose."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ops.console import (
    OUT,
    Ca,
    Directory,
    Json,
    StrategicUrl,
    TacticalUrl,
    named_target,
    one_line_errors,
    print_json,
    progress,
    write_text,
)
from ops.target import DEFAULT_DIRECTORY


def health(
    directory: Directory = DEFAULT_DIRECTORY,
    strategic_url: StrategicUrl = None,
    tactical_url: TacticalUrl = None,
    ca: Ca = None,
    json: Json = False,
) -> None:
    """Ask every part whether it is well; exit 1 when one is not."""
    from ops.health import check_health

    with one_line_errors():
        report = check_health(named_target(directory, strategic_url, tactical_url, ca))
    if json:
        print_json(report)
    else:
        table = Table("part", "", "ms", "detail", box=None)
        for check in report.checks:
            style = "green" if check.status == "ok" else "bold red"
            table.add_row(check.name, f"[{style}]{check.status}[/]", f"{check.milliseconds:.0f}", check.detail)
        OUT.print(table)
    raise typer.Exit(0 if report.healthy else 1)


def validate(
    directory: Directory = DEFAULT_DIRECTORY,
    strategic_url: StrategicUrl = None,
    tactical_url: TacticalUrl = None,
    ca: Ca = None,
    requests: Annotated[int, typer.Option(min=1, help="Strategic requests in the burst.")] = 100,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads, each with a connection of its own.")] = 10,
    matrices: Annotated[
        int, typer.Option(min=1, max=4096, help="Matrices in each request of the sustained load.")
    ] = 1024,
    trainings: Annotated[int, typer.Option(min=0, help="Tactical trainings.")] = 5,
    sustained: Annotated[float, typer.Option(min=0, help="Seconds of sustained load after the burst.")] = 10.0,
    report_directory: Annotated[Path, typer.Option(help="Where the two reports go.")] = Path("build/validation"),
    json: Json = False,
) -> None:
    """Health and promises of a running system; writes a JSON and a Markdown report; exit 1 when one is missed."""
    from ops.validate import Load, render_markdown
    from ops.validate import validate as run_validation

    load = Load(
        requests=requests,
        threads=threads,
        matrices_per_request=matrices,
        trainings=trainings,
        sustained_seconds=sustained,
    )
    with one_line_errors(), progress() as tell:
        report = run_validation(
            named_target(directory, strategic_url, tactical_url, ca),
            load,
            tell,
        )
        write_text(report_directory / "validation.json", report.model_dump_json(indent=2) + "\n")
        write_text(report_directory / "validation.md", render_markdown(report))
    if json:
        print_json(report)
    else:
        table = Table("promise", "measured", "limit", "", box=None)
        for goal in report.goals:
            verdict = "[green]met[/]" if goal.met else "[bold red]missed[/]"
            sign = "<=" if goal.better == "lower" else ">="
            table.add_row(
                goal.name, f"{goal.measured:,.2f} {goal.unit}", f"{sign} {goal.limit:,g} {goal.unit}", verdict
            )
        failed = [check for check in report.health.checks if check.status != "ok"]
        for check in failed:
            OUT.print(f"[bold red]not well:[/] {check.name}: {check.detail}")
        OUT.print(table)
        OUT.print(f"reports: {report_directory}/validation.json, validation.md", highlight=False)
    raise typer.Exit(0 if report.passed else 1)


def diagnose(
    directory: Directory = DEFAULT_DIRECTORY,
    strategic_url: StrategicUrl = None,
    tactical_url: TacticalUrl = None,
    ca: Ca = None,
    output: Annotated[Path | None, typer.Option(help="The bundle; diagnosis-<time>.tar.gz by default.")] = None,
) -> None:
    """Collect health, metrics, logs and database statistics into one redacted bundle."""
    from ops.diagnose import collect, write_bundle

    with one_line_errors():
        files = collect(named_target(directory, strategic_url, tactical_url, ca))
        bundle = output or Path(f"diagnosis-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
        OUT.print(f"{write_bundle(files, bundle)}: {len(files)} files, redacted", highlight=False)
