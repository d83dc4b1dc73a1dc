"""Applies the revisions of one database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy import create_engine, pool
from sqlalchemy.exc import DBAPIError

from app.contract import Service
from app.service.migrations.roles import Roles, read_passwords, set_passwords
from app.service.migrations.script import load_sql

LOCK: Final = 0x6D696772617465  # "migrate"; the same for both services, since roles belong to the server
LOCK_TIMEOUT_SECONDS: Final = 300
EXTENSIONS: Final = ("vector", "pg_stat_statements")
OLDEST_SERVER: Final = 160000


class MigrationError(Exception):
    """The database cannot be migrated; the message is one line."""


class MigrationReport(BaseModel):
    """What a run found and did."""

    model_config = ConfigDict(frozen=True)

    service: Service
    database: str
    before: str | None
    """Revision found; None for an empty database."""
    after: str | None
    head: str
    created_database: bool = False
    seconds: float = 0.0

    @property
    def up_to_date(self) -> bool:
        """Whether the database is at the newest revision."""
        return self.after == self.head


def migrate(url: str, service: Service) -> MigrationReport:
    """Create what is missing (database, roles, extensions) and bring the schema to the newest revision.

    Safe to repeat and to run concurrently.

    Args:
        url: of the target database, as a user that may create roles.
        service: whose database it is.

    Raises:
        MigrationError: the server cannot be reached, is too old, lacks an extension, or refuses.
    """
    return _apply(url, service, command.upgrade, "head")


def downgrade(url: str, service: Service, revision: str) -> MigrationReport:
    """Go back to ``revision``; ``base`` drops every table with its rows.

    Raises:
        MigrationError: as `migrate`, or the revision is not known.
    """
    return _apply(url, service, command.downgrade, revision)


def _apply(url: str, service: Service, run: Callable[[Config, str], None], revision: str) -> MigrationReport:
    started = time.perf_counter()
    database = _database_of(url)
    try:
        with psycopg.connect(_with_database(url, "postgres"), autocommit=True) as server, _serialised(server):
            created = _prepare_server(server, service, database)
            before = current_revision(url)
            _prepare_database(url, service, database)
            _run_revisions(url, service, run, revision)
        after = current_revision(url)
    except (psycopg.Error, DBAPIError, CommandError) as error:
        raise MigrationError(f"cannot migrate {database}: {_one_line(error)}") from error
    return MigrationReport(
        service=service,
        database=database,
        before=before,
        after=after,
        head=head_revision(service),
        created_database=created,
        seconds=time.perf_counter() - started,
    )


def current_revision(url: str) -> str | None:
    """Revision of a database; None while it has none.

    Raises:
        psycopg.Error: the database cannot be reached.
    """
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('public.alembic_version')").fetchone() == (None,):
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def head_revision(service: Service) -> str:
    """The newest revision that this release knows."""
    head = ScriptDirectory.from_config(_configuration(service)).get_current_head()
    if head is None:
        raise MigrationError(f"no revision found for {service}")
    return head


@contextlib.contextmanager
def _serialised(server: psycopg.Connection[Any]) -> Iterator[None]:
    server.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(f"{LOCK_TIMEOUT_SECONDS}s")))
    server.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.OperationalError):  # the lock goes with the connection
            server.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _prepare_server(server: psycopg.Connection[Any], service: Service, database: str) -> bool:
    if server.info.server_version < OLDEST_SERVER:
        raise MigrationError(f"PostgreSQL 16 or newer is needed, found {server.info.server_version // 10000}")
    roles = Roles.of(service)
    server.execute(load_sql("app.service.migrations", "roles.sql").format(**roles.identifiers()))
    set_passwords(server, read_passwords(roles))
    created = False
    if server.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        created = True
    server.execute(
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), sql.Identifier(roles.owner))
    )
    return created


def _prepare_database(url: str, service: Service, database: str) -> None:
    roles = Roles.of(service)
    with psycopg.connect(url, autocommit=True) as connection:
        for extension in EXTENSIONS:
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(extension)))
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(roles.owner)))
        statement = load_sql("app.service.migrations", "database.sql")
        connection.execute(statement.format(database=sql.Identifier(database), **roles.identifiers()))


def _run_revisions(url: str, service: Service, run: Callable[[Config, str], None], revision: str) -> None:
    """Run alembic's ``upgrade`` or ``downgrade`` as the owner of the schema."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=pool.NullPool)
    configuration = _configuration(service)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'SET ROLE "{Roles.of(service).owner}"')
        connection.commit()
        configuration.attributes["connection"] = connection
        run(configuration, revision)


def _configuration(service: Service) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(files("app.service.migrations")))
    configuration.set_main_option("version_locations", str(files(f"app.{service}.migrations")))
    configuration.set_main_option("path_separator", "newline")
    configuration.attributes["service"] = str(service)
    return configuration


def _database_of(url: str) -> str:
    name = unquote(urlsplit(url).path.lstrip("/"))
    if not name:
        raise MigrationError("DATABASE_URL names no database: postgresql://user:password@host:port/DATABASE")
    return name


def _with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(database, safe='')}"))


def _one_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split())
