"""A backup is worth what a restore proves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from moto import mock_aws
from psycopg import sql

from app.contract import Service
from ops.backup import back_up, expire_backups, list_backups, restore
from ops.errors import OpsError
from ops.local.postgres import replace_database
from ops.storage import BucketStorage, DirectoryStorage, Storage

ROWS = 500


@pytest.fixture
def loaded(strategic_database: str) -> str:
    """A migrated database with rows in every documented table."""
    with psycopg.connect(strategic_database) as connection:
        connection.execute(
            "INSERT INTO samples (timestamp, matrix, decision) "
            "SELECT now() - n * interval '1 minute', decode(repeat('0000803f', 624), 'hex'), mod(n, 5) "
            "FROM generate_series(1, %s) AS n",
            [ROWS],
        )
        connection.execute(
            "INSERT INTO vector_patterns (timestamp, pattern_vector) "
            "SELECT now(), ('[' || array_to_string(array_fill(n, ARRAY[13]), ',') || ']')::vector "
            "FROM generate_series(1, %s) AS n",
            [ROWS],
        )
    return strategic_database


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """A new database, with nothing in it."""
    name = "restored"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield replace_database(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def storage(tmp_path: Path) -> DirectoryStorage:
    return DirectoryStorage(tmp_path / "backups")


def drop(postgres: str, url: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        name = url.rsplit("/", 1)[1]
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_destroyed_database_comes_back_whole(
    postgres: str, loaded: str, empty: str, storage: DirectoryStorage
) -> None:
    query = "SELECT id, timestamp, matrix, decision FROM samples ORDER BY id"
    with psycopg.connect(loaded) as connection:
        before = connection.execute(query).fetchall()
    manifest = back_up(loaded, Service.STRATEGIC, storage)
    assert manifest.tables["samples"].rows == ROWS
    drop(postgres, loaded)

    restored = restore(empty, Service.STRATEGIC, storage)

    assert restored == manifest
    with psycopg.connect(empty) as connection:
        assert connection.execute(query).fetchall() == before
        nearest = connection.execute(
            "SELECT count(*) FROM (SELECT FROM vector_patterns ORDER BY pattern_vector <-> %s::vector LIMIT 5) AS n",
            [str([1.0] * 13)],
        ).fetchone()
        assert nearest == (5,)
        # The restored database goes on working: ids continue, partitions take rows.
        copied = "SELECT timestamp, matrix_data FROM matrix_data LIMIT 1"
        connection.execute(f"INSERT INTO matrix_data (timestamp, matrix_data) {copied}")


def test_rows_written_during_a_backup_do_not_spoil_its_manifest(
    loaded: str, empty: str, storage: DirectoryStorage
) -> None:
    stop = threading.Event()

    def write() -> None:
        more = "SELECT now(), pattern_vector FROM vector_patterns LIMIT 10"
        with psycopg.connect(loaded, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute(f"INSERT INTO vector_patterns (timestamp, pattern_vector) {more}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifest = back_up(loaded, Service.STRATEGIC, storage)
    finally:
        stop.set()
        writer.join()
    assert restore(empty, Service.STRATEGIC, storage) == manifest
    assert manifest.tables["vector_patterns"].rows >= ROWS


def test_a_database_that_holds_something_is_not_touched(loaded: str, storage: DirectoryStorage) -> None:
    back_up(loaded, Service.STRATEGIC, storage)
    with pytest.raises(OpsError, match=r"is not empty .*samples.*nothing was changed"):
        restore(loaded, Service.STRATEGIC, storage)


def flip_a_byte(directory: Path) -> None:
    (dump,) = directory.rglob("*.dump")
    data = bytearray(dump.read_bytes())
    data[len(data) // 2] ^= 0xFF
    dump.write_bytes(data)


def truncate(directory: Path) -> None:
    (dump,) = directory.rglob("*.dump")
    dump.write_bytes(dump.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [flip_a_byte, truncate])
def test_a_damaged_dump_is_refused_before_anything_is_written(
    loaded: str, empty: str, storage: DirectoryStorage, damage: Callable[[Path], None]
) -> None:
    back_up(loaded, Service.STRATEGIC, storage)
    damage(storage.directory)
    with pytest.raises(OpsError, match="the dump is damaged"):
        restore(empty, Service.STRATEGIC, storage)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'samples'").fetchone() == (0,)


def test_a_manifest_that_lies_is_found_out(loaded: str, empty: str, storage: DirectoryStorage) -> None:
    back_up(loaded, Service.STRATEGIC, storage)
    (file,) = storage.directory.rglob("*.json")
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["tables"]["samples"]["rows"] += 1
    file.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(OpsError, match="differs from the manifest in samples"):
        restore(empty, Service.STRATEGIC, storage)


def test_an_interrupted_backup_does_not_count(loaded: str, storage: DirectoryStorage) -> None:
    manifest = back_up(loaded, Service.STRATEGIC, storage)
    (storage.directory / f"{manifest.name}.json").unlink()
    assert list_backups(Service.STRATEGIC, storage) == []
    with pytest.raises(OpsError, match="no backup"):
        restore(loaded, Service.STRATEGIC, storage)


def test_four_weeks_are_kept_and_the_newest_for_ever(loaded: str, storage: DirectoryStorage) -> None:
    manifest = back_up(loaded, Service.STRATEGIC, storage)
    old = manifest.model_copy(update={"name": "strategic/old", "at": manifest.at - timedelta(weeks=5)})
    (storage.directory / "strategic" / "old.json").write_text(old.model_dump_json(), encoding="utf-8")
    assert expire_backups(Service.STRATEGIC, storage, now=datetime.now(UTC)) == ["strategic/old"]
    assert expire_backups(Service.STRATEGIC, storage, now=datetime.now(UTC) + timedelta(weeks=52)) == []
    assert list_backups(Service.STRATEGIC, storage) == [manifest]


def test_an_unreachable_database_is_one_line(storage: Storage) -> None:
    with pytest.raises(OpsError, match="cannot be reached"):
        back_up("postgresql://nobody@127.0.0.1:1/nothing", Service.STRATEGIC, storage)


def test_backups_lie_in_s3_as_well(loaded: str, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        client: Any = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="backups")
        storage = BucketStorage("backups", "weekly", client)
        manifest = back_up(loaded, Service.STRATEGIC, storage)
        assert restore(empty, Service.STRATEGIC, storage) == manifest
        with pytest.raises(OpsError, match=r"s3://missing/: cannot be listed"):
            BucketStorage("missing", "", client).names()
