"""The databases' schema: roles, extensions and alembic revisions in plain SQL, applied by one command.

``python -m app.service.migrations --database strategic`` brings a database to the newest revision. It needs no
superuser: on RDS the master user does (CREATEROLE, CREATEDB, rds_superuser for the two extensions). Runs are serialised
over the whole server by an advisory lock, since roles belong to the server and not to a database.
"""

from app.service.migrations.apply import (
    MigrationError,
    MigrationReport,
    current_revision,
    downgrade,
    head_revision,
    migrate,
)
from app.service.migrations.roles import Roles
from app.service.migrations.script import run_sql

__all__ = [
    "MigrationError",
    "MigrationReport",
    "Roles",
    "current_revision",
    "downgrade",
    "head_revision",
    "migrate",
    "run_sql",
]
