"""``python -m app.service.migrations --database strategic|tactical [--check] [--json]``, reading ``DATABASE_URL``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg

from app.contract import Env, Service
from app.service.migrations.apply import (
    MigrationError,
    MigrationReport,
    current_revision,
    downgrade,
    head_revision,
    migrate,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the database is at the newest revision, 1 when not, 2 for wrong input or a server's refusal."""
    parser = argparse.ArgumentParser(
        prog="python -m app.service.migrations",
        description="Bring a service's database to the newest revision.",
        epilog="Reads DATABASE_URL (or DATABASE_URL_FILE). A role may log in once <ROLE>_PASSWORD is set, for example "
        "STRATEGIC_APP_PASSWORD.",
    )
    parser.add_argument("--database", required=True, choices=[str(service) for service in Service])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a revision is missing")
    parser.add_argument("--downgrade", metavar="REVISION", help="go back to a revision; 'base' drops every table")
    parser.add_argument("--json", action="store_true", help="report as one JSON object")
    options = parser.parse_args(arguments)
    service = Service(options.database)
    try:
        url = _database_url()
        if options.check:
            report = _check(url, service)
        elif options.downgrade:
            report = downgrade(url, service, options.downgrade)
        else:
            report = migrate(url, service)
    except MigrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.model_dump_json() if options.json else _line(report))
    return 0 if report.up_to_date or options.downgrade else 1


def _database_url() -> str:
    path = os.environ.get(f"{Env.DATABASE_URL}_FILE")
    try:
        url = Path(path).read_text().strip() if path else os.environ.get(Env.DATABASE_URL, "")
    except OSError as error:
        raise MigrationError(f"DATABASE_URL_FILE: cannot read {path}: {error.strerror}") from None
    if not url.startswith(("postgresql://", "postgres://")):
        raise MigrationError("DATABASE_URL is not set to a URL: postgresql://user:password@host:port/database")
    return url


def _check(url: str, service: Service) -> MigrationReport:
    try:
        revision = current_revision(url)
        database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    except psycopg.Error as error:
        raise MigrationError(" ".join(str(error).split())) from error
    return MigrationReport(
        service=service, database=str(database), before=revision, after=revision, head=head_revision(service)
    )


def _line(report: MigrationReport) -> str:
    if report.before == report.after:
        state = "up to date" if report.up_to_date else f"behind: newest is {report.head}"
        return f"{report.database}: at {report.after or 'no revision'}, {state}"
    return f"{report.database}: {report.before or 'empty'} -> {report.after or 'empty'} in {report.seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
