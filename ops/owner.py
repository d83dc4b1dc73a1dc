"""Acting as a database's owner: the master user of RDS is a member of that role, and no superuser."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from app.contract import Service
from app.service.migrations import Roles


def assume_owner(connection: psycopg.Connection[tuple[Any, ...]], service: Service) -> str | None:
    """Take on the role that owns the service's tables, if the session may; returns it."""
    owner = Roles.of(service).owner
    query = "SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = %s"
    row = connection.execute(query, [owner]).fetchone()
    if row is None or not row[0]:
        return None
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
    return owner
