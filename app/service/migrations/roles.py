"""The database roles of a service and the logins among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from app.contract import Env, Service


@dataclass(frozen=True)
class Roles:
    """Names of the roles that a service's migrations create. Backup and monitoring serve both databases."""

    owner: str
    """Owns every object; migrations act as it. It cannot log in unless it is given a password."""
    app: str
    """The service: reads and appends, no DDL."""
    reader: str
    """People and dashboards: SELECT."""
    backup: str = "grandmodel_backup"
    """pg_dump: reads everything."""
    monitoring: str = "grandmodel_monitoring"
    """The PostgreSQL exporter: statistics, no rows."""

    @classmethod
    def of(cls, service: Service) -> Self:
        """Roles of one service."""
        return cls(f"{service}_owner", f"{service}_app", f"{service}_reader")

    def identifiers(self) -> dict[str, sql.Composable]:
        """Placeholders of SQL files: ``{app}`` the quoted name, ``{app_name}`` the same as a string literal."""
        names = {"owner": self.owner, "app": self.app, "reader": self.reader}
        names |= {"backup": self.backup, "monitoring": self.monitoring}
        quoted: dict[str, sql.Composable] = {key: sql.Identifier(name) for key, name in names.items()}
        return quoted | {f"{key}_name": sql.Literal(name) for key, name in names.items()}

    def all(self) -> tuple[str, ...]:
        """Every role, the owner first."""
        return (self.owner, self.app, self.reader, self.backup, self.monitoring)


def password_variable(role: str) -> str:
    """Environment variable that holds a role's password, for example ``STRATEGIC_APP_PASSWORD``."""
    return f"{role.upper()}_PASSWORD"


def read_passwords(roles: Roles) -> dict[str, str]:
    """Passwords given in the environment or as files in ``SECRETS_DIR``, by role; a role without one stays as it is."""
    directory = os.environ.get(Env.SECRETS_DIR)
    found: dict[str, str] = {}
    for role in roles.all():
        variable = password_variable(role)
        mounted = Path(directory) / variable if directory else None
        password = os.environ.get(variable) or (mounted.read_text().strip() if mounted and mounted.is_file() else "")
        if password:
            found[role] = password
    return found


def set_passwords(connection: psycopg.Connection[tuple[object, ...]], passwords: Mapping[str, str]) -> None:
    """Let roles log in. The server sees only the SCRAM verifier, so no log of it can hold a password."""
    for role, password in passwords.items():
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
        connection.execute(statement)
