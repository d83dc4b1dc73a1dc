"""A bar file is read as it was written, and a bad one is refused with its file, row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # ships no types
import pyarrow.parquet  # type: ignore[import-untyped] # the same
import pytest

from app.market.bars import BarError, bars_equal
from app.market.files import read_bars, write_bars
from app.market.simulator import simulate

HEADER = "time,open,high,low,close,volume"
GOOD = [
    "2024-01-01T00:00:00,10,12,9,11,100",
    "2024-01-01T00:05:00,11,13,10,12,0",
    "2024-01-01T00:10:00,12,12,12,12,7",
    "2024-01-01T00:15:00,12,12,12,12,7",
]


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    file = path / "bars.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
def test_bars_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    bars = simulate(series=1, length=500, seed=2).bars.series(0)
    write_bars(tmp_path / name, bars)
    assert bars_equal(read_bars(tmp_path / name), bars)


@pytest.mark.parametrize(
    ("row", "line", "message"),
    [
        (
            3,
            "2024-01-01T00:05:00,11,10.5,10,12,0",
            "row 3, column high: high 10.5 is below the bar's other prices (12)",
        ),
        (3, "2024-01-01T00:05:00,11,13,11.5,12,0", "row 3, column low: low 11.5 is above the bar's other prices (11)"),
        (3, "2024-01-01T00:05:00,11,13,10,nan,0", "row 3, column close: close is nan; it must be a finite number"),
        (3, "2024-01-01T00:05:00,11,inf,10,11,0", "row 3, column high: high is inf; it must be a finite number"),
        (3, "2024-01-01T00:05:00,0,13,0,12,0", "row 3, column open: open is 0; it must be above 0"),
        (4, "2024-01-01T00:10:00,12,12,12,12,-1", "row 4, column volume: volume is -1; it must be 0 or more"),
        (3, "2024-01-01T00:05:00,eleven,13,10,12,0", "row 3, column open: 'eleven' is not a number"),
        (3, "2024-01-01T00:05:00,,13,10,12,0", "row 3, column open: '' is not a number"),
        (4, "2024-01-01T00:05:00,12,12,12,12,7", "row 4, column time: 2024-01-01T00:05:00.000000 repeats"),
        (4, "2024-01-01T00:02:00,12,12,12,12,7", "row 4, column time: 2024-01-01T00:02:00.000000 runs backwards from"),
        (4, "yesterday,12,12,12,12,7", "row 4, column time: 'yesterday' is not a time"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: int, line: str, message: str) -> None:
    rows = list(GOOD)
    rows[row - 2] = line
    file = write(tmp_path, rows)
    with pytest.raises(BarError) as caught:
        read_bars(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gap_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    file = write(tmp_path, [*GOOD[:3], "2024-01-01T09:00:00,12,12,12,12,7"])
    with pytest.raises(
        BarError, match=r"row 5, column time: .* 530 minutes instead of 5 minutes later; fill the gap or"
    ):
        read_bars(file)
    assert len(read_bars(file, gaps="allow")) == 4


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    file = write(tmp_path, ["2024-01-01,1,1,1,1"], header="time,open,high,low,close")
    with pytest.raises(BarError, match="column volume is missing; the columns are time, open, high, low, close"):
        read_bars(file)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, ["2024-01-01,2024-01-01,1,1,1,1,1"], header="time,date,open,high,low,close,volume")
    with pytest.raises(BarError, match="column time is there twice"):
        read_bars(file)


@pytest.mark.parametrize(
    "header", ["Date,Open,High,Low,Close,Volume", "timestamp, open, high, low, close, volume", "\ufeff" + HEADER]
)
def test_the_usual_spellings_of_the_columns_are_understood(tmp_path: Path, header: str) -> None:
    assert len(read_bars(write(tmp_path, GOOD, header=header))) == 4


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
def test_times_may_be_integers_of_any_usual_unit(tmp_path: Path, unit: int) -> None:
    rows = [f"{(1_704_067_200 + 300 * n) * unit},{line.split(',', 1)[1]}" for n, line in enumerate(GOOD)]
    assert read_bars(write(tmp_path, rows)).time[1] == np.datetime64("2024-01-01T00:05")


def test_times_with_a_zone_become_utc(tmp_path: Path) -> None:
    rows = [line.replace(":00,", ":00+01:00,", 1) for line in GOOD]
    assert read_bars(write(tmp_path, rows)).time[0] == np.datetime64("2023-12-31T23:00")


def test_an_empty_cell_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    bars = simulate(series=1, length=5, seed=2).bars.series(0)
    write_bars(tmp_path / "bars.parquet", bars)
    table = pyarrow.parquet.read_table(tmp_path / "bars.parquet")
    broken = table.set_column(4, "close", pa.array([1.0, 2.0, None, 4.0, 5.0]))
    pyarrow.parquet.write_table(broken, tmp_path / "bars.parquet")
    with pytest.raises(BarError, match="row 3, column close: empty"):
        read_bars(tmp_path / "bars.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bars.txt", b"", "expected .csv or .parquet"),
        ("bars.parquet", b"not parquet", "not a Parquet file"),
        ("bars.csv", b"", "not a CSV file"),
        ("bars.csv", b"\xff\xfe\x00", "not a CSV file"),
        ("bars.csv", HEADER.encode() + b"\n1,2\n", "not a CSV file"),
        ("bars.csv", HEADER.encode() + b"\n", "holds no bars"),
    ],
)
def test_what_is_no_bar_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BarError, match=message):
        read_bars(tmp_path / name)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BarError, match="cannot be read"):
        read_bars(tmp_path / "none.csv")
    with pytest.raises(BarError, match="cannot be read"):
        read_bars(tmp_path / "none.parquet")


def test_only_one_series_fits_into_a_file(tmp_path: Path) -> None:
    with pytest.raises(BarError, match="one series"):
        write_bars(tmp_path / "bars.csv", simulate(series=2, length=5, seed=2).bars)
