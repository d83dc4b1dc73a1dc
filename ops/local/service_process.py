"""One service of the local stack as a process: started, awaited, stopped, started again."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.contract import READY_PATH, ServiceContract
from ops.local import process
from ops.local.process import StartError

READY_TIMEOUT_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 15.0


@dataclass
class ServiceProcess:
    """A service, running or not. Its output goes to ``log``."""

    contract: ServiceContract
    url: str
    log: Path
    environment: Mapping[str, str] = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """Process id; None while it is stopped on purpose."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is None:
            command = [sys.executable, "-m", f"app.{self.contract.service}.main"]
            self._process = process.start(command, log=self.log, environment=self.environment)

    def stop(self) -> None:
        """Let it drain and end."""
        if self._process is not None:
            process.end(self._process, signal.SIGTERM, timeout=_STOP_SECONDS)
            self._process = None

    def failure(self) -> str | None:
        """How it ended by itself; None while it runs, or is stopped on purpose."""
        if self._process is None or self._process.poll() is None:
            return None
        code, last = self._process.returncode, process.last_line(self.log)
        return f"{self.contract.service} ended with code {code}: {last} (log: {self.log})"

    def await_ready(self, ca: Path) -> None:
        """Wait until it takes work.

        Raises:
            StartError: it ended, or did not become ready; the message says why.
        """
        context = ssl.create_default_context(cafile=ca)
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        missing = "no answer"
        while time.monotonic() < deadline:
            if failure := self.failure():
                raise StartError(failure)
            try:
                with urllib.request.urlopen(self.url + READY_PATH, timeout=5, context=context) as answer:  # noqa: S310 - ours
                    if answer.status == 200:
                        return
            except urllib.error.HTTPError as error:
                missing = str(json.loads(error.read()).get("detail", error))
            except OSError as error:
                missing = str(error)
            time.sleep(0.05)
        name, seconds = self.contract.service, READY_TIMEOUT_SECONDS
        raise StartError(f"{name} not ready after {seconds:.0f} s: {missing} (log: {self.log})")
