"""Running SQL files inside a revision."""

from __future__ import annotations

from importlib.resources import files

from alembic import op
from psycopg import sql

from app.contract import Service
from app.service.migrations.roles import Roles

_TAG = "service"


def load_sql(package: str, name: str) -> sql.SQL:
    """A SQL file of ``package`` with ``{role}`` placeholders; other braces, as in JSON, stand for themselves."""
    text = (files(package) / name).read_text()
    text = text.replace("{", "{{").replace("}", "}}")
    for key in Roles.of(Service.STRATEGIC).identifiers():
        text = text.replace("{{" + key + "}}", "{" + key + "}")
    return sql.SQL(text.replace("{{database}}", "{database}"))


def run_sql(package: str, *names: str) -> None:
    """Run SQL files of ``package`` in the revision's transaction, role placeholders filled in."""
    connection = op.get_bind().connection.driver_connection
    if connection is None:
        raise RuntimeError("a revision runs only with a connection")
    service = Service(op.get_context().opts[_TAG])
    for name in names:
        statement = load_sql(package, name).format(**Roles.of(service).identifiers())
        connection.execute(statement)
