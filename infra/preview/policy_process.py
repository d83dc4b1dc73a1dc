"""Start the policy pack in its own environment, as the Pulumi engine does, and end it.

This module imports nothing large: the pack starts before the SDKs are imported, so that both warm up at the same time.
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Final, Self

from infra.preview.errors import WrongInput

_START_SECONDS: Final = 60
_END_SECONDS: Final = 5


class PolicyProcess:
    """A policy pack that is starting or running; a context manager that ends it.

    Args:
        directory: the pack's folder, with ``__main__.py``.
        python: the interpreter of the pack's own environment; ``<directory>/.venv/bin/python`` by default.

    Raises:
        WrongInput: the pack or its environment is not there.
    """

    def __init__(self, directory: Path, *, python: Path | None = None) -> None:
        self.directory = directory
        interpreter = python or directory / ".venv" / "bin" / "python"
        if not (directory / "__main__.py").is_file():
            raise WrongInput(
                f"{directory}: no policy pack there (expected __main__.py): --no-policy previews without verdicts"
            )
        if not interpreter.exists():
            raise WrongInput(
                f"{interpreter}: no environment for the policy pack: `python3.11 -m venv {directory / '.venv'}` and "
                f"install {directory / 'requirements.txt'} there, or pass --no-policy"
            )
        self._process = subprocess.Popen(  # noqa: S603 - the pack of this repository
            [str(interpreter), "-u", "-m", "pulumi.policy", "127.0.0.1:0", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")},
        )
        self._stderr: list[str] = []
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _drain(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - it was asked for
        self._stderr.extend(self._process.stderr)

    def port(self) -> int:
        """The port of its service on loopback, as soon as it has one.

        Raises:
            WrongInput: the pack ended before it had one.
        """
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.start()
        port = self._process.stdout.readline().strip()
        timer.cancel()
        if not port.isdigit():
            self._process.wait(timeout=_END_SECONDS)
            self._reader.join(timeout=_END_SECONDS)
            reason = next((line.strip() for line in reversed(self._stderr) if line.strip()), "it printed no port")
            raise WrongInput(f"policy pack {self.directory} did not start: {reason}")
        # Whatever the pack prints later must not fill the pipe.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()
        return int(port)
