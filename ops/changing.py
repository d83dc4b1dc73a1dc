"""Commands that change what runs: rollback, emergency, serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.contract import Service
from ops.console import (
    OUT,
    Ca,
    Context,
    Directory,
    DryRun,
    Json,
    StrategicUrl,
    TacticalUrl,
    Yes,
    confirm,
    named_target,
    one_line_errors,
    show,
)
from ops.errors import OpsError
from ops.target import DEFAULT_DIRECTORY, find_target


def rollback(
    what: Annotated[
        Literal["strategic", "tactical", "model"], typer.Argument(help="A workload, or the tactical model.")
    ],
    to: Annotated[str | None, typer.Option(help="Digest of the image, or version of the model.")] = None,
    context: Context = None,
    directory: Directory = DEFAULT_DIRECTORY,
    strategic_url: StrategicUrl = None,
    tactical_url: TacticalUrl = None,
    ca: Ca = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Go back to an earlier image or model: says what it will do, asks, does it, verifies it."""
    from ops import rollback as rolling
    from ops.cluster import Cluster

    with one_line_errors():
        act: Callable[[], None]
        if what == "model":
            target = named_target(directory, strategic_url, tactical_url, ca)
            plan = rolling.plan_model(target, to)
            act = lambda: rolling.roll_back_model(target, plan)  # noqa: E731
        else:
            cluster, service = Cluster(context), Service(what)
            if yes and context is None:
                raise OpsError(f"name the cluster with --context: nobody is asked whether {cluster.context} is meant")
            plan = rolling.plan_workload(cluster, service, to)
            act = lambda: rolling.roll_back_workload(cluster, service, plan)  # noqa: E731
        OUT.print(f"{plan.what}: {plan.current} -> {plan.wanted}", highlight=False)
        if dry_run:
            return
        confirm("Do it?", yes=yes)
        act()
        OUT.print("done and verified", highlight=False)


def serve(
    directory: Directory = DEFAULT_DIRECTORY,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the strategic service.")] = 2,
    strategic_port: Annotated[int, typer.Option(min=0, max=65535, help="0: 8000 if free, else any.")] = 0,
    tactical_port: Annotated[int, typer.Option(min=0, max=65535, help="0: 8001 if free, else any.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Stop as soon as everything is ready.")] = False,
    json: Json = False,
) -> None:
    """Both services over TLS on loopback, with a PostgreSQL and a cache of their own, until Ctrl-C."""
    from ops.local.stack import StackOptions
    from ops.local.stack import serve as run_stack

    with one_line_errors():
        options = StackOptions(
            directory=directory,
            strategic_workers=workers,
            strategic_port=strategic_port,
            tactical_port=tactical_port,
        )
        code = run_stack(options, once=once, as_json=json)
    raise typer.Exit(code)


def emergency_shutdown(
    reason: Annotated[str, typer.Option(help="Why: it goes to everyone who is told.")],
    context: Context = None,
    directory: Directory = DEFAULT_DIRECTORY,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Stop both services; databases stay up and nothing stored is touched."""
    _emergency("shutdown", reason, context, directory, dry_run=dry_run, yes=yes, json=json)


def emergency_recover(
    reason: Annotated[str, typer.Option(help="What was found: it goes to everyone who is told.")],
    context: Context = None,
    directory: Directory = DEFAULT_DIRECTORY,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Start both services with what they had, and wait until they are ready."""
    _emergency("recover", reason, context, directory, dry_run=dry_run, yes=yes, json=json)


def _emergency(
    action: Literal["shutdown", "recover"],
    reason: str,
    context: str | None,
    directory: Path,
    *,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> None:
    from ops import emergency as emergencies
    from ops.cluster import Cluster

    if not dry_run:
        where = f"cluster {context}" if context else "the local system"
        confirm(f"{action.capitalize()} both services of {where}?", yes=yes)
    with one_line_errors():
        if context:
            report = emergencies.in_cluster(Cluster(context), action, reason, dry_run=dry_run)
        else:
            report = emergencies.locally(find_target(directory), action, reason, dry_run=dry_run)
    show(report, json=json)
