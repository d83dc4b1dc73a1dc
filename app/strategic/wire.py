"""Values in PostgreSQL's binary form; columns of numbers are encoded by numpy, nothing in Python for a single value."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BYTEA, BIGINT, TEXT = 17, 20, 25
BYTEA_ARRAY, SMALLINT_ARRAY, TEXT_ARRAY, BIGINT_ARRAY, REAL_ARRAY, TIMESTAMPTZ_ARRAY = (
    1001,
    1005,
    1009,
    1016,
    1021,
    1185,
)
"""OIDs of the types, as in ``pg_type``."""

_HEADER: Final = struct.Struct(">iiIii")  # dimensions, has nulls, element type, length, lower bound
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = _LENGTH.pack(-1)
_POSTGRES_EPOCH: Final = 946_684_800_000_000  # 2000-01-01 in epoch microseconds: the zero of a binary timestamp


def _cell(value: str) -> np.dtype[Any]:
    return np.dtype([("length", ">i4"), ("value", value)])


_SMALLINT, _BIGINT, _REAL = _cell(">i2"), _cell(">i8"), _cell(">f4")


def bigint(value: int) -> bytes:
    """``bigint``."""
    return value.to_bytes(8, "big", signed=True)


def smallints(values: NDArray[Any]) -> bytes:
    """``smallint[]`` of a one-dimensional array."""
    return _array(21, _SMALLINT, values)


def bigints(values: NDArray[Any]) -> bytes:
    """``bigint[]`` of a one-dimensional array."""
    return _array(20, _BIGINT, values)


def reals(values: NDArray[Any]) -> bytes:
    """``real[]`` of a one-dimensional array."""
    return _array(700, _REAL, values)


def timestamps(values: NDArray[Any]) -> bytes:
    """``timestamptz[]`` of a one-dimensional array of epoch microseconds."""
    return _array(1184, _BIGINT, values - _POSTGRES_EPOCH)


def texts(values: Sequence[str | None]) -> bytes:
    """``text[]``; None is NULL."""
    return _strings(TEXT, [None if value is None else value.encode() for value in values])


def byte_strings(values: Sequence[bytes | None]) -> bytes:
    """``bytea[]``; None is NULL."""
    return _strings(BYTEA, values)


def _array(element: int, cell: np.dtype[Any], values: NDArray[Any]) -> bytes:
    cells = np.empty(len(values), cell)
    cells["length"] = cell["value"].itemsize
    cells["value"] = values
    return _HEADER.pack(1, 0, element, len(values), 1) + cells.tobytes()


def _strings(element: int, values: Sequence[bytes | None]) -> bytes:
    cells = [_NULL if value is None else _LENGTH.pack(len(value)) + value for value in values]
    return _HEADER.pack(1, int(None in values), element, len(values), 1) + b"".join(cells)
