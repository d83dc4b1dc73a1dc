"""Commands that keep data well: maintain, backup, restore."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.contract import Env, Service
from ops.console import (
    OUT,
    Directory,
    DryRun,
    Json,
    ServiceName,
    Storage,
    Yes,
    confirm,
    one_line_errors,
    print_json,
    show,
)
from ops.target import DEFAULT_DIRECTORY, find_target


def maintain(
    service: ServiceName,
    directory: Directory = DEFAULT_DIRECTORY,
    vacuum: Annotated[bool, typer.Option(help="VACUUM (ANALYZE) at the end.")] = True,
    retention: Annotated[bool, typer.Option(help="Drop partitions and keys whose time is over.")] = True,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Do a day's work on a database: partitions, retention, pattern indexes, VACUUM (ANALYZE)."""
    from ops.maintain import Tasks
    from ops.maintain import maintain as run_maintenance

    with one_line_errors():
        url = _database_url(directory, service)
        report = run_maintenance(url, service, Tasks(retention=retention, vacuum=vacuum), dry_run=dry_run)
    show(report, json=json)


def backup(
    service: ServiceName,
    to: Storage = "backups",
    directory: Directory = DEFAULT_DIRECTORY,
    expire: Annotated[bool, typer.Option(help="Delete dumps older than four weeks afterwards.")] = True,
    json: Json = False,
) -> None:
    """Dump a database, with checksum and manifest."""
    from ops.backup import back_up, expire_backups
    from ops.storage import open_storage

    with one_line_errors():
        storage = open_storage(to)
        manifest = back_up(_database_url(directory, service), service, storage)
        expired = expire_backups(service, storage, now=datetime.now(UTC)) if expire else []
    if json:
        print_json(manifest)
    else:
        rows = sum(table.rows for table in manifest.tables.values())
        OUT.print(f"{manifest.name}: {rows} rows in {len(manifest.tables)} tables, {manifest.size_bytes} bytes")
        for name in expired:
            OUT.print(f"expired: {name}", highlight=False)


def restore(
    service: ServiceName,
    into: Annotated[
        str,
        typer.Option(
            help="URL of an EMPTY database; its password by PGPASSWORD or ~/.pgpass.", envvar="RESTORE_DATABASE_URL"
        ),
    ],
    source: Annotated[str, typer.Option("--from", help="Directory, or s3://bucket/prefix.")] = "backups",
    name: Annotated[str | None, typer.Option(help="Which dump; the newest by default.")] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Restore a dump into an empty database, and verify every table."""
    from ops.backup import restore as run_restore
    from ops.storage import open_storage

    confirm(f"Restore {name or 'the newest dump'} of {service} into the named database?", yes=yes)
    with one_line_errors():
        manifest = run_restore(into, service, open_storage(source), name)
    if json:
        print_json(manifest)
    else:
        OUT.print(f"{manifest.name}: restored and verified, {len(manifest.tables)} tables", highlight=False)


def _database_url(directory: Path, service: Service) -> str:
    """The service's database: from its own variable or ``DATABASE_URL``, or else the local system's."""
    variable = f"{service.upper()}_DATABASE_URL"
    given = os.environ.get(variable) or os.environ.get(Env.DATABASE_URL)
    return given or find_target(directory).database(service)
