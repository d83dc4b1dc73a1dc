"""Processor time that the parts of a system have used, as Linux counts it (proc_pid_stat(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psycopg

from ops.local import process

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields after the name, which ends at the last parenthesis


def seconds(processes: Iterable[int]) -> float:
    """Seconds of the user's and the system's time of all threads; a process that has ended counts for nothing."""
    total = 0
    for number in processes:
        try:
            fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[_USER]) + int(fields[_SYSTEM])
    return total / _TICKS_PER_SECOND


def with_descendants(number: int) -> list[int]:
    """A process and all that come from it."""
    return [number, *(each for child in process.children(number) for each in with_descendants(child))]


def of_database(url: str) -> list[int]:
    """The processes of a PostgreSQL server on this machine, but for those that come and go."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").fetchall()
    return [int(row[0]) for row in rows]
