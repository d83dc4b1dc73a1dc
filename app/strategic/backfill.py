"""Streams a file of bars through the engine into the store: ``python -m app.strategic.backfill FILE``.

How far a file was read is committed together with its samples, under the SHA-256 of its content: a run that was stopped
goes on where it stopped, and a file that is complete is not stored again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import AsyncConnection
from pydantic import BaseModel, ConfigDict

from app.market.bars import BarError, Bars
from app.market.features import STRATEGIC_WARMUP, strategic_features
from app.market.resample import resample
from app.market.windows import STRATEGIC_BARS, windows
from app.service.database import Connection
from app.service.settings import SettingsError, load_settings
from app.strategic import store
from app.strategic.engine import Engine
from app.strategic.model import DEFAULT_MODEL, ModelError
from app.strategic.outcomes import Outcomes
from app.strategic.settings import StrategicSettings
from app.strategic.store import Batch

BAR_MINUTES: Final = 30
BATCH: Final = 512

Progress = Callable[[int, int, float], None]


class BackfillReport(BaseModel):
    """What a run did."""

    model_config = ConfigDict(frozen=True)

    file: str
    matrices: int
    """In the whole file."""
    already_stored: int
    stored: int
    seconds: float


async def backfill(url: str, path: Path, engine: Engine, progress: Progress, *, batch: int = BATCH) -> BackfillReport:
    """Store the decisions for every matrix of a bar file that is not stored yet.

    Args:
        url: of the database, as the application role.
        path: a CSV or Parquet file of bars, of 30 minutes or of a fraction of them.
        engine: computes the decisions.
        progress: told matrices done, matrices in all, and seconds so far, after each commit.
        batch: matrices in a commit.

    Raises:
        BarError: the file does not hold bars.
        psycopg.Error: the database refused; what was committed before stays, and the next run goes on from there.
    """
    started = time.perf_counter()
    source, times, matrices = await asyncio.to_thread(_read, path)
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await store.prepare(connection)
        first = await _resume(connection, source)
        ids = range(0)
        for start in range(first, len(matrices), batch):
            part = np.ascontiguousarray(matrices[start : start + batch])
            if len(ids) < len(part):
                ids = await store.lease_ids(connection)
            begun = time.perf_counter()
            outcomes = Outcomes.of(engine.process(part)).numbered(ids.start)
            ids = ids[len(part) :]
            milliseconds = np.full(len(part), 1000 * (time.perf_counter() - begun) / len(part), np.float32)
            samples = Batch(outcomes, times[start : start + batch], part, milliseconds, [len(part)], [None])
            async with connection.transaction():
                await store.commit(connection, samples)
                await _remember(connection, source, start + len(part), len(part))
            progress(start + len(part), len(matrices), time.perf_counter() - started)
    return BackfillReport(
        file=str(path),
        matrices=len(matrices),
        already_stored=first,
        stored=len(matrices) - first,
        seconds=time.perf_counter() - started,
    )


def _read(path: Path) -> tuple[str, np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
    """SHA-256 of the file, and what `_matrices` makes of its bars."""
    try:
        from app.market.files import read_bars  # noqa: PLC0415 - 100 MB that the service's image does without
    except ModuleNotFoundError as error:
        raise BarError(f"{path}: files of bars need {error.name}: pip install 'grandmodel[bars]'") from None
    bars = read_bars(path, gaps="allow")
    return hashlib.sha256(path.read_bytes()).hexdigest(), *_matrices(bars)


def _matrices(bars: Bars) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
    """Epoch microseconds of each matrix's last bar (N,), and the matrices (N, 48, 13) as a view."""
    if bars.interval < np.timedelta64(BAR_MINUTES, "m"):
        bars = resample(bars, BAR_MINUTES)
    matrices = windows(strategic_features(bars), STRATEGIC_BARS, first=STRATEGIC_WARMUP)
    last = bars.time[STRATEGIC_WARMUP + STRATEGIC_BARS - 1 :]
    return last.astype(np.int64), matrices


async def _resume(connection: Connection, source: str) -> int:
    cursor = await connection.execute("SELECT next_row FROM backfills WHERE source = %s", [source])
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def _remember(connection: Connection, source: str, next_row: int, samples: int) -> None:
    await connection.execute(
        "INSERT INTO backfills (source, next_row, samples) VALUES (%s, %s, %s) ON CONFLICT (source) DO UPDATE "
        "SET next_row = excluded.next_row, samples = backfills.samples + excluded.samples, updated_at = now()",
        [source, next_row, samples],
    )


def _bar(done: int, total: int, seconds: float) -> None:
    filled = 40 * done // max(total, 1)
    rate = done / seconds if seconds else 0.0
    end = "\n" if done == total else ""
    line = f"\r[{'#' * filled}{'.' * (40 - filled)}] {done:,}/{total:,}  {rate:,.0f}/s"
    print(line, end=end, file=sys.stderr, flush=True)


def _silent(_done: int, _total: int, _seconds: float) -> None:
    return


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the whole file is stored, 2 for a wrong file or environment, 1 when the database refused."""
    parser = argparse.ArgumentParser(prog="python -m app.strategic.backfill", description=__doc__)
    parser.add_argument("file", type=Path, help="bars as .csv or .parquet: time, open, high, low, close, volume")
    parser.add_argument("--batch", type=int, default=BATCH, help="matrices in a commit (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="report as one JSON object, no progress bar")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(StrategicSettings)
        engine = Engine.load(settings.model_path or DEFAULT_MODEL, threads=settings.processing_threads)
        url = settings.database_url.get_secret_value()
        work = backfill(url, options.file, engine, _silent if options.json else _bar, batch=max(1, options.batch))
        report = asyncio.run(work)
    except (SettingsError, BarError, ModelError, OSError) as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except psycopg.Error as error:
        print(f"error: stopped, run again to go on: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run again to go on", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report.model_dump()))
    else:
        print(f"{report.file}: {report.stored:,} matrices stored, {report.already_stored:,} were there before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
