"""Bars from and to CSV and Parquet files.

A file has the columns ``time`` (or ``timestamp``, ``datetime``, ``date``), ``open``, ``high``, ``low``, ``close`` and
``volume``, in any order and case; others are ignored. Time is ISO 8601 (UTC where no zone is given), a Parquet
timestamp, or an integer of seconds, milliseconds or microseconds since 1970, told apart by its size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # ships no types
import pyarrow.compute as pc  # type: ignore[import-untyped] # the same
import pyarrow.csv  # type: ignore[import-untyped] # the same
import pyarrow.parquet  # type: ignore[import-untyped] # the same
from numpy.typing import NDArray

from app.market.bars import VALUE_COLUMNS, BarError, Bars, Gaps, check_bars

TIME_NAMES: Final = ("time", "timestamp", "datetime", "date")
_MICROSECONDS: Final = pa.timestamp("us")
_EPOCH_UNITS: Final = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
"""Integers below the first number count a unit of so many microseconds: seconds until the year 5138, and so on."""


def read_bars(path: Path | str, *, gaps: Gaps = "error") -> Bars:
    """Reads and checks one series of bars.

    Args:
        path: a file that ends in ``.csv`` or ``.parquet``.
        gaps: ``allow`` for instruments that pause, for example over night.

    Raises:
        BarError: naming the file and, where there is one, the row (as the file counts: the header of a CSV is row 1,
            the
            first bar of a Parquet file is row 1) and the column.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".parquet"}:
        raise BarError(f"{path}: ends in {suffix or 'nothing'!r}; expected .csv or .parquet")
    first_row = 2 if suffix == ".csv" else 1
    table = _read_table(path, suffix)
    columns = _columns(path, table)
    values = {
        name: _numbers(path, name, columns[name], first_row).astype(np.float64, copy=False) for name in VALUE_COLUMNS
    }
    bars = Bars(_times(path, columns["time"], first_row), **values)
    check_bars(bars, source=str(path), first_row=first_row, gaps=gaps)
    return bars


def write_bars(path: Path | str, bars: Bars) -> None:
    """Writes one series to a ``.csv`` or ``.parquet`` file that ``read_bars`` reads back to the same bars.

    Raises:
        BarError: when the path ends in neither, the bars are several series, or the disk refuses.
    """
    path = Path(path)
    if len(bars.shape) != 1:
        raise BarError(f"{path}: a file holds one series, not {bars.shape[:-1]}")
    table = pa.table(
        {"time": pa.array(bars.time, _MICROSECONDS)} | {name: pa.array(getattr(bars, name)) for name in VALUE_COLUMNS}
    )
    try:
        match path.suffix.lower():
            case ".csv":
                pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="none"))
            case ".parquet":
                pyarrow.parquet.write_table(table, path)
            case suffix:
                raise BarError(f"{path}: ends in {suffix or 'nothing'!r}; expected .csv or .parquet")
    except OSError as error:
        raise BarError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_table(path: Path, suffix: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    try:
        if suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
        with path.open("rb") as file:
            header = file.readline().decode("utf-8-sig").rstrip("\r\n")
        # Every column as text: a number that cannot be read is then told with its row, which the reader cannot.
        types = {name.strip().strip('"'): pa.string() for name in header.split(",")}
        options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        return pyarrow.csv.read_csv(path, convert_options=options)
    except OSError as error:
        raise BarError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        kind = "CSV" if suffix == ".csv" else "Parquet"
        raise BarError(f"{path}: not a {kind} file ({str(error).splitlines()[0]})") from error


def _columns(path: Path, table: Any) -> dict[str, Any]:  # noqa: ANN401
    """The columns we need, by our names.

    Raises:
        BarError: when one is missing or there twice.
    """
    found: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        plain = name.strip().strip("\ufeff").lower()
        plain = "time" if plain in TIME_NAMES else plain
        if plain in found:
            raise BarError(f"{path}: column {plain} is there twice")
        found[plain] = column
    missing = [name for name in ("time", *VALUE_COLUMNS) if name not in found]
    if missing:
        there = ", ".join(table.column_names) or "none"
        raise BarError(f"{path}: column {missing[0]} is missing; the columns are {there}")
    return found


def _numbers(path: Path, name: str, column: Any, first_row: int) -> NDArray[np.float64]:  # noqa: ANN401
    """One column as float64; an empty cell is told by its row."""
    if column.null_count:
        row = int(np.argmax(pc.is_null(column).to_numpy(zero_copy_only=False)))
        raise BarError(f"{path}: row {row + first_row}, column {name}: empty; every bar needs a number")
    try:
        numbers = column.cast(pa.float64())
    except (pa.ArrowException, pa.ArrowNotImplementedError) as error:
        row, value = _first_failure(column, pa.float64())
        raise BarError(f"{path}: row {row + first_row}, column {name}: {value!r} is not a number") from error
    return np.asarray(numbers.to_numpy(), dtype=np.float64)


def _times(path: Path, column: Any, first_row: int) -> NDArray[np.datetime64]:  # noqa: ANN401
    if column.null_count:
        row = int(np.argmax(pc.is_null(column).to_numpy(zero_copy_only=False)))
        raise BarError(f"{path}: row {row + first_row}, column time: empty; every bar needs a time")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parse_times(path, column, first_row)
    if pa.types.is_integer(column.type):
        return _epoch(path, np.asarray(column.to_numpy(), dtype=np.int64), first_row)
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise BarError(f"{path}: column time is {column.type}; expected timestamps, ISO 8601 text or integers")
    times = column.cast(_MICROSECONDS, safe=False) if column.type != _MICROSECONDS else column
    return np.asarray(times.to_numpy().astype("datetime64[us]"))


def _parse_times(path: Path, column: Any, first_row: int) -> Any:  # noqa: ANN401
    """Text as the first kind that the whole column is: integers, times without a zone, times with one."""
    kinds = (pa.int64(), _MICROSECONDS, pa.timestamp("us", tz="UTC"))
    for kind in kinds:
        try:
            return column.cast(kind)
        except pa.ArrowException:
            continue
    row, value = max(_first_failure(column, kind) for kind in kinds)
    raise BarError(f"{path}: row {row + first_row}, column time: {value!r} is not a time like the ones before it")


def _first_failure(column: Any, kind: Any) -> tuple[int, str]:  # noqa: ANN401
    """Row and text of the first value that cannot be cast, by halving: the cast of a column is quick, a loop is not."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).cast(kind)
            low = middle
        except (pa.ArrowException, pa.ArrowNotImplementedError):
            high = middle
    return low, str(column[low].as_py())


def _epoch(path: Path, numbers: NDArray[np.int64], first_row: int) -> NDArray[np.datetime64]:
    largest = int(numbers.max(initial=0))
    for limit, microseconds in _EPOCH_UNITS:
        if largest < limit:
            return (numbers * microseconds).astype("datetime64[us]")
    row = int(np.argmax(numbers >= _EPOCH_UNITS[-1][0]))
    raise BarError(f"{path}: row {row + first_row}, column time: {largest} is too large for an epoch in microseconds")
