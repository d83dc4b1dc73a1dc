"""The command line as a person on call types it, well and badly."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from app.contract import Service
from ops import notify
from ops.cli import app
from ops.diagnose import redact, write_bundle
from ops.errors import OpsError
from ops.maintain import Tasks, maintain

runner = CliRunner()


@pytest.mark.parametrize(
    "arguments",
    [
        ["health"],
        ["validate"],
        ["diagnose"],
        ["maintain", "strategic"],
        ["backup", "tactical"],
        ["rollback", "model", "--yes"],
        ["rollback", "strategic", "--context", "nowhere", "--yes"],
        ["emergency", "shutdown", "--reason", "test", "--yes"],
        ["emergency", "recover", "--reason", "test", "--yes", "--context", "nowhere"],
    ],
)
def test_without_a_system_each_command_says_so_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command", ["health", "validate", "diagnose", "maintain", "backup", "restore", "rollback", "serve"]
)
def test_every_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--help" in result.stdout


def test_a_no_changes_nothing(tmp_path: Path) -> None:
    arguments = ["restore", "strategic", "--into", "postgresql://x@127.0.0.1:1/x", "--from", str(tmp_path)]
    assert runner.invoke(app, arguments, input="n\n").exit_code == 2


def test_maintenance_drops_what_is_over_and_a_dry_run_only_says_so(strategic_database: str) -> None:
    with psycopg.connect(strategic_database) as connection:
        connection.execute("SELECT create_partitions(now() - interval '400 days')")
        partitions = "SELECT count(*) FROM partitions WHERE upper_bound < now() - interval '365 days'"
        (old,) = connection.execute(partitions).fetchone() or (0,)
    assert old > 0
    planned = maintain(strategic_database, Service.STRATEGIC, Tasks(), dry_run=True)
    assert len(planned.partitions_dropped) >= old
    with psycopg.connect(strategic_database) as connection:
        assert connection.execute(partitions).fetchone() == (old,)
    done = maintain(strategic_database, Service.STRATEGIC, Tasks(), dry_run=False)
    assert set(planned.partitions_dropped) == set(done.partitions_dropped)
    assert done.vacuumed
    with psycopg.connect(strategic_database) as connection:
        assert connection.execute(partitions).fetchone() == (0,)


def test_maintenance_serves_both_databases(tactical_database: str) -> None:
    assert maintain(tactical_database, Service.TACTICAL, Tasks(), dry_run=False).index_statements == ()


SECRETS = {
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ",
    "url": "postgresql://app:hunter2hunter2@db:5432/strategic_db",
    "key": "AKIAABCDEFGHIJKLMNOP",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIcanary\n-----END PRIVATE KEY-----",
    "plain": "canary-of-the-environment",
}


@pytest.mark.parametrize("secret", list(SECRETS))
def test_a_bundle_holds_no_secret(secret: str) -> None:
    text = redact(f"before {SECRETS[secret]} after", [SECRETS["plain"]])
    assert "hunter2" not in text
    assert "canary" not in text
    assert "AKIA" not in text
    assert text.startswith("before ")
    assert text.endswith(" after")


def test_a_bundle_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    bundle = write_bundle({"a/b.txt": "text"}, tmp_path / "bundle.tar.gz")
    with tarfile.open(bundle) as archive:
        assert archive.getnames() == ["a/b.txt"]
    with pytest.raises(OpsError, match="cannot be written"):
        write_bundle({"a": "b"}, tmp_path / "missing" / "bundle.tar.gz")
    assert list(tmp_path.iterdir()) == [bundle]


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-path", received
    server.shutdown()
    server.server_close()


def test_people_are_told_by_webhook(webhook: tuple[str, list[Any]]) -> None:
    url, received = webhook
    assert notify.notify("subject", "message", environment={"NOTIFICATION_WEBHOOK": url}) == ["webhook: delivered"]
    assert received == [{"subject": "subject", "text": "message"}]


def test_a_dead_webhook_stops_nothing_and_is_not_printed() -> None:
    (result,) = notify.notify("s", "m", environment={"NOTIFICATION_WEBHOOK": "http://127.0.0.1:1/secret-path"})
    assert result == "webhook: not delivered (ConnectError)"


def test_it_is_said_when_nobody_can_be_told() -> None:
    (result,) = notify.notify("s", "m", environment={})
    assert result.startswith("nobody was told")
