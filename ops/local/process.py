"""Child processes of the local stack: unprivileged, and gone when their parent is."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

UNPRIVILEGED_USER: Final = "nobody"
"""Every Linux and macOS has it, so that nothing outside the data directory must be created."""


class MissingPartError(RuntimeError):
    """A server binary or a tool is absent; the message is one line and names the command that installs it."""


class StartError(RuntimeError):
    """A server did not become ready; the message is one line and names its log."""


def free_port() -> int:
    """A TCP port that nobody listened on at the time of asking."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Whether a server could listen on loopback ``port`` now."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def unprivileged_identity() -> tuple[int, int] | None:
    """User and group id that servers run under when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED_USER)
    return entry.pw_uid, entry.pw_gid


def own_directory(directory: Path) -> None:
    """Create ``directory`` private to the identity that servers run under."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    identity = unprivileged_identity()
    if identity is not None:
        os.chown(directory, *identity)


def launcher(paths: Sequence[Path], *, death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """Command prefix that drops root and ends the child when this process dies.

    Args:
        paths: what the child must reach. Where a parent directory is closed to others (a clone under ``/root`` or
            ``mktemp -d``), the child keeps the one capability to search directories, and none to write.
        death_signal: what the kernel sends the child when its parent ends, however it ends.

    Raises:
        MissingPartError: we are root and ``setpriv`` is absent.
    """
    setpriv = shutil.which("setpriv")
    identity = unprivileged_identity()
    if setpriv is None:
        if identity is not None:
            raise MissingPartError("setpriv not found, PostgreSQL refuses to run as root: apt-get install util-linux")
        return []
    command = [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG")]
    if identity is not None:
        command += ["--reuid", str(identity[0]), "--regid", str(identity[1]), "--clear-groups"]
        if not all(map(_is_open_to_others, paths)):
            command += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return [*command, "--"]


def start(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own (a Ctrl-C reaches only us), its output appended to ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], sent: signal.Signals, *, timeout: float) -> None:
    """Signal ``process`` and wait; after ``timeout`` seconds kill it."""
    if process.poll() is not None:
        return
    process.send_signal(sent)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Process ids of the children of ``pid``; empty where the kernel does not tell."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def last_line(log: Path) -> str:
    """The last line that a server wrote, for a one-line error."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no output"


def _is_open_to_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.absolute().parents)
