"""A bar file streams through the engine into the store, and goes on where it stopped."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest

from app.market.bars import BarError, Bars
from app.market.features import STRATEGIC_WARMUP
from app.market.files import write_bars
from app.strategic.backfill import backfill, main
from app.strategic.engine import Engine
from tests.app.strategic.conftest import REPOSITORY, SECRET, as_application

BARS = 700
MATRICES = BARS - STRATEGIC_WARMUP - 48 + 1


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def write_bar_file(path: Path, count: int) -> Path:
    random = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, count)))
    spread = 1 + np.abs(random.normal(0, 0.001, count))
    times = np.datetime64("2000-01-03T00:00", "us") + np.arange(count) * np.timedelta64(30, "m")
    opened = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(opened, close) * spread, np.minimum(opened, close) / spread
    write_bars(path, Bars(times, opened, high, low, close, random.uniform(1e3, 1e4, count)))
    return path


@pytest.fixture
def bar_file(tmp_path: Path) -> Path:
    return write_bar_file(tmp_path / "bars.parquet", BARS)


def stored(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*), count(DISTINCT timestamp) FROM samples").fetchone()
    assert row is not None
    return row[0], row[1]


def nothing(_done: int, _total: int, _seconds: float) -> None:
    return


def test_every_matrix_is_stored_once_and_a_second_run_stores_none(
    strategic_database: str, bar_file: Path, engine: Engine
) -> None:
    url = as_application(strategic_database)
    first = asyncio.run(backfill(url, bar_file, engine, nothing))
    assert (first.matrices, first.already_stored, first.stored) == (MATRICES, 0, MATRICES)
    assert stored(strategic_database) == (MATRICES, MATRICES)
    second = asyncio.run(backfill(url, bar_file, engine, nothing))
    assert (second.already_stored, second.stored) == (MATRICES, 0)
    assert stored(strategic_database) == (MATRICES, MATRICES)


def test_a_run_that_was_stopped_goes_on_where_it_stopped(
    strategic_database: str, bar_file: Path, engine: Engine
) -> None:
    url = as_application(strategic_database)

    def stop(done: int, _total: int, _seconds: float) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(backfill(url, bar_file, engine, stop, batch=64))
    assert stored(strategic_database) == (256, 256)
    rest = asyncio.run(backfill(url, bar_file, engine, nothing, batch=64))
    assert (rest.already_stored, rest.stored) == (256, MATRICES - 256)
    assert stored(strategic_database) == (MATRICES, MATRICES)


def start_backfill(path: Path, url: str, cache: str) -> subprocess.Popen[bytes]:
    settings = {"DATABASE_URL": url, "REDIS_URL": cache, "JWT_SECRET": SECRET, "ENVIRONMENT": "test"}
    command = [sys.executable, "-m", "app.strategic.backfill", str(path), "--batch", "16"]
    return subprocess.Popen(command, env={**os.environ, **settings}, cwd=REPOSITORY, stderr=subprocess.PIPE)


def done_of(progress: str) -> int:
    """Matrices that the last whole progress bar shows."""
    return max((int(done.replace(",", "")) for done in re.findall(r"\] ([\d,]+)/", progress)), default=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_kill_9_in_the_middle_loses_and_repeats_nothing(
    strategic_database: str, cache: str, tmp_path: Path, suffix: str
) -> None:
    url = as_application(strategic_database)
    bars = 20_000
    matrices = bars - STRATEGIC_WARMUP - 48 + 1
    path = write_bar_file(tmp_path / f"bars.{suffix}", bars)
    before = 0
    for _ in range(3):
        process = start_backfill(path, url, cache)
        assert process.stderr is not None
        progress = ""
        while done_of(progress) < before + 500:
            piece = process.stderr.read(80).decode()
            assert piece, progress
            progress += piece
        process.kill()
        process.wait()
        shown = done_of(progress)
        before, distinct = stored(strategic_database)
        assert before == distinct
        assert shown <= before < matrices
    rest = start_backfill(path, url, cache)
    progress = rest.communicate()[1].decode()
    assert rest.returncode == 0, progress
    assert progress.count("\n") == 1  # one bar that grows, and ends its line
    assert f"{matrices:,}/{matrices:,}" in progress
    assert stored(strategic_database) == (matrices, matrices)


def test_a_file_without_bars_is_refused(strategic_database: str, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BarError):
        asyncio.run(backfill(as_application(strategic_database), tmp_path / "no.csv", engine, nothing))


def test_the_command_needs_a_database(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert main(["bars.csv"]) == 2
    assert "error: DATABASE_URL: is missing" in capsys.readouterr().err
