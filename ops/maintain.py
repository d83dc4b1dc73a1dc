"""The databases' daily work: partitions ahead, old ones dropped, pattern indexes built, VACUUM (ANALYZE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from pydantic import BaseModel, ConfigDict

from app.contract import Service
from ops.errors import OpsError
from ops.owner import assume_owner


class MaintenanceReport(BaseModel):
    """What one run did, or would do."""

    model_config = ConfigDict(frozen=True)

    service: Service
    dry_run: bool
    partitions_created: int
    partitions_dropped: tuple[str, ...]
    idempotency_keys_expired: int
    index_statements: tuple[str, ...]
    vacuumed: bool


@dataclass(frozen=True)
class Tasks:
    """What to do of it."""

    retention: bool = True
    vacuum: bool = True


_EXPIRED: Final[LiteralString] = """
    SELECT p.partition FROM partitions AS p JOIN partition_policy AS policy ON policy.parent = p.parent
    WHERE p.upper_bound < now() - policy.keep ORDER BY 1
"""


def maintain(url: str, service: Service, tasks: Tasks, *, dry_run: bool) -> MaintenanceReport:
    """Do a day's maintenance on one database, as its owner; a dry run only says what is due.

    Raises:
        OpsError: when the database cannot be reached or refuses.
    """
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            assume_owner(connection, service)
            if dry_run:
                return _plan(connection, service, tasks)
            return _work(connection, service, tasks)
    except psycopg.Error as error:
        raise OpsError(f"maintenance of {service}: {str(error).splitlines()[0]}") from None


Connection = psycopg.Connection[tuple[Any, ...]]


def _plan(connection: Connection, service: Service, tasks: Tasks) -> MaintenanceReport:
    dropped = [row[0] for row in connection.execute(_EXPIRED).fetchall()] if tasks.retention else []
    return MaintenanceReport(
        service=service,
        dry_run=True,
        partitions_created=0,
        partitions_dropped=tuple(dropped),
        idempotency_keys_expired=0,
        index_statements=tuple(_index_statements(connection, service)),
        vacuumed=False,
    )


def _work(connection: Connection, service: Service, tasks: Tasks) -> MaintenanceReport:
    created = len(connection.execute("SELECT create_partitions()").fetchall())
    dropped: list[str] = []
    expired = 0
    if tasks.retention:
        dropped = [str(row[0]) for row in connection.execute("SELECT drop_expired_partitions()").fetchall() if row[0]]
        row = connection.execute("SELECT expire_idempotency_keys()").fetchone()
        expired = int(row[0]) if row and isinstance(row[0], int) else 0
    statements = _index_statements(connection, service)
    for statement in statements:
        # Made by the database itself with quoted names; each must run alone, outside a transaction (CONCURRENTLY).
        connection.execute(statement.encode())
    if service is Service.STRATEGIC:
        connection.execute("SELECT prepare_pattern_indexes()")
    if tasks.vacuum:
        connection.execute("VACUUM (ANALYZE)")
    return MaintenanceReport(
        service=service,
        dry_run=False,
        partitions_created=created,
        partitions_dropped=tuple(dropped),
        idempotency_keys_expired=expired,
        index_statements=tuple(statements),
        vacuumed=tasks.vacuum,
    )


def _index_statements(connection: Connection, service: Service) -> list[str]:
    if service is not Service.STRATEGIC:
        return []
    return [str(row[0]) for row in connection.execute("SELECT pattern_index_statements()").fetchall()]
