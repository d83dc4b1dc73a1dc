"""The on-call's command line: ``python -m ops COMMAND --help``.

Exit codes: 0 done; 1 something is not well (a check failed, a promise was missed); 2 wrong use, nothing was changed.
"""

from __future__ import annotations

import typer

from ops import changing, checking, keeping

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
for command in (
    checking.health,
    checking.validate,
    checking.diagnose,
    keeping.maintain,
    keeping.backup,
    keeping.restore,
    changing.rollback,
    changing.serve,
):
    app.command()(command)

emergency = typer.Typer(no_args_is_help=True, help="Stop everything, and start it again.")
emergency.command("shutdown")(changing.emergency_shutdown)
emergency.command("recover")(changing.emergency_recover)
app.add_typer(emergency, name="emergency")
