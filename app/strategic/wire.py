"""Columns of numbers as PostgreSQL's binary arrays, encoded by numpy: nothing is done in Python for a single value."""

from __future__ import annotations

import struct
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER: Final = struct.Struct(">iiIii")  # dimensions, has nulls, element type, length, lower bound
_POSTGRES_EPOCH: Final = 946_684_800_000_000  # 2000-01-01 in epoch microseconds: the zero of a binary timestamp


class BinaryArray(bytes):
    """Binary form of a PostgreSQL array; the subclass tells of what."""

    __slots__ = ()
    element: ClassVar[int]
    array: ClassVar[int]
    cell: ClassVar[np.dtype[Any]]

    @classmethod
    def of(cls, values: NDArray[Any]) -> BinaryArray:
        """Encode a one-dimensional array."""
        cells = np.empty(len(values), cls.cell)
        cells["length"] = cls.cell["value"].itemsize
        cells["value"] = values
        return cls(_HEADER.pack(1, 0, cls.element, len(values), 1) + cells.tobytes())


def _cell(value: str) -> np.dtype[Any]:
    return np.dtype([("length", ">i4"), ("value", value)])


class SmallintArray(BinaryArray):
    """``smallint[]``."""

    element, array, cell = 21, 1005, _cell(">i2")


class BigintArray(BinaryArray):
    """``bigint[]``."""

    element, array, cell = 20, 1016, _cell(">i8")


class RealArray(BinaryArray):
    """``real[]``."""

    element, array, cell = 700, 1021, _cell(">f4")


class TimestampArray(BinaryArray):
    """``timestamptz[]`` out of epoch microseconds."""

    element, array, cell = 1184, 1185, _cell(">i8")

    @classmethod
    def of(cls, values: NDArray[Any]) -> BinaryArray:
        """Encode a one-dimensional array of epoch microseconds."""
        return super().of(values - _POSTGRES_EPOCH)


def register(connection: AsyncConnection[Any]) -> None:
    """Let ``connection`` take these arrays as parameters."""
    for kind in (SmallintArray, BigintArray, RealArray, TimestampArray):
        connection.adapters.register_dumper(kind, _dumper(kind.array))


def _dumper(array: int) -> type[Dumper]:
    class ArrayDumper(Dumper):
        oid = array
        format = Format.BINARY

        def dump(self, obj: Any) -> Buffer | None:  # noqa: ANN401 - signature of the base class
            encoded: bytes = obj
            return encoded

    return ArrayDumper
