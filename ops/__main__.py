"""``python -m ops``: the command line of whoever runs the system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def main() -> None:
    """The command line of whoever runs the system."""


@app.command()
def serve(
    directory: Annotated[Path, typer.Option(help="Data, certificates and passwords; kept between starts.")] = Path(
        ".serve"
    ),
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the strategic service.")] = 2,
    strategic_port: Annotated[int, typer.Option(min=0, max=65535, help="0: 8000 if free, else any.")] = 0,
    tactical_port: Annotated[int, typer.Option(min=0, max=65535, help="0: 8001 if free, else any.")] = 0,
    *,
    once: Annotated[bool, typer.Option("--once", help="Stop as soon as everything is ready.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON object.")] = False,
) -> None:
    """Run both services on loopback over TLS, with a PostgreSQL and a cache of their own."""
    # Not above: the other commands run where the services' packages are not installed.
    from app.service.migrations import MigrationError  # noqa: PLC0415
    from ops.local import stack  # noqa: PLC0415
    from ops.local.process import MissingPartError, StartError  # noqa: PLC0415

    options = stack.StackOptions(
        directory=directory, strategic_workers=workers, strategic_port=strategic_port, tactical_port=tactical_port
    )
    try:
        raise typer.Exit(stack.serve(options, once=once, as_json=as_json))
    except (MissingPartError, StartError, MigrationError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, MissingPartError) else 1) from None


if __name__ == "__main__":
    app()
