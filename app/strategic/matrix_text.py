"""Reads a matrix from JSON text straight into float32, in one compiled pass that also checks its shape.

A JSON library makes 624 Python objects (28-41 us a matrix) or flattens ragged rows silently. This reads only what it
is sure about: 48 arrays of 13 plain JSON numbers within float32. Anything else is left to the general decoder, which
names the mistake; so every refusal and every rarity goes one way, and both ways agree (a property test holds them to
it).
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from app.contract import MATRIX_BARS, MATRIX_FEATURES

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)

_TENS: Final = np.array([10.0**exponent for exponent in range(23)])  # exact in a double up to 10^22
_BARS: Final = MATRIX_BARS
_FEATURES: Final = MATRIX_FEATURES
_MOST_DIGITS: Final = 18  # fit a signed 64-bit integer

_LONGEST_PLAIN: Final = 24  # a sign, 18 digits and a point at most, and the character after them

_inlined = numba.njit(cache=True, error_model="numpy", nogil=True, inline="always")
_TEXT = numba.types.Array(numba.types.uint8, 1, "C", readonly=True)
_SIGNATURE = numba.types.int64(_TEXT, numba.types.int64, numba.types.float32[:, ::1])
_compiled = numba.njit(_SIGNATURE, cache=True, error_model="numpy", nogil=True)


@_inlined
def _skip_space(text: NDArray[np.uint8], position: int, end: int) -> int:
    while position < end and (
        text[position] == 32 or text[position] == 10 or text[position] == 13 or text[position] == 9
    ):
        position += 1
    return position


@_inlined
def _read_plain_number(text: NDArray[np.uint8], position: int, end: int) -> tuple[float, int]:
    """Read a number of at most 18 digits without an exponent, as nearly all are; position -1 for any other.

    The digits are read without a look at the end of the text, and so only where more than enough is left of it.
    """
    if end - position < _LONGEST_PLAIN:
        return 0.0, -1
    negative = text[position] == 45
    if negative:
        position += 1
    first, mantissa, places = position, 0, 0
    stop = first + _MOST_DIGITS + 1
    while position < stop and 48 <= text[position] <= 57:
        mantissa = mantissa * 10 + (text[position] - 48)
        position += 1
    if position in (first, stop) or (text[first] == 48 and position - first > 1):
        return 0.0, -1
    if text[position] == 46:
        position += 1
        point = position
        while position <= stop and 48 <= text[position] <= 57:
            mantissa = mantissa * 10 + (text[position] - 48)
            position += 1
        places = position - point
        if places == 0 or position > stop:
            return 0.0, -1
    if (text[position] | 32) == 101:
        return 0.0, -1
    value = mantissa / _TENS[places]
    return (-value if negative else value), position


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _read_any_number(text: NDArray[np.uint8], position: int, end: int) -> tuple[float, int]:  # noqa: C901, PLR0912 - a grammar
    """Read any JSON number that float32 holds and whose power of ten is not extreme; position -1 for anything else."""
    negative = position < end and text[position] == 45  # -
    if negative:
        position += 1
    mantissa, digits, exponent = 0, 0, 0
    first = position
    while position < end and 48 <= text[position] <= 57:
        if digits < _MOST_DIGITS:
            mantissa = mantissa * 10 + (text[position] - 48)
            if mantissa > 0:
                digits += 1
        else:
            exponent += 1
        position += 1
    if position == first or (position - first > 1 and text[first] == 48):
        return 0.0, -1
    if position < end and text[position] == 46:  # .
        position += 1
        first = position
        while position < end and 48 <= text[position] <= 57:
            if digits < _MOST_DIGITS:
                mantissa = mantissa * 10 + (text[position] - 48)
                if mantissa > 0:
                    digits += 1
                exponent -= 1
            position += 1
        if position == first:
            return 0.0, -1
    if position < end and (text[position] | 32) == 101:  # e, E
        position += 1
        falling = False
        if position < end and (text[position] in (43, 45)):
            falling = text[position] == 45
            position += 1
        first, power = position, 0
        while position < end and 48 <= text[position] <= 57 and power < 1000:
            power = power * 10 + (text[position] - 48)
            position += 1
        if position == first:
            return 0.0, -1
        exponent += -power if falling else power
    value = float(mantissa)
    if mantissa != 0:
        if exponent < -44 or exponent > 38:
            return 0.0, -1
        if exponent < -22:
            value = value / _TENS[22] / _TENS[-22 - exponent]
        elif exponent < 0:
            value /= _TENS[-exponent]
        elif exponent > 22:
            value = value * _TENS[22] * _TENS[exponent - 22]
        else:
            value *= _TENS[exponent]
    if value > FLOAT32_MAX:
        return 0.0, -1
    return (-value if negative else value), position


def _read_matrix(text: NDArray[np.uint8], start: int, matrix: NDArray[np.float32]) -> int:
    end = len(text)
    position = _skip_space(text, start, end)
    if position >= end or text[position] != 91:  # [
        return -1
    position += 1
    for row in range(_BARS):
        position = _skip_space(text, position, end)
        if position >= end or text[position] != 91:
            return -1
        position += 1
        for column in range(_FEATURES):
            position = _skip_space(text, position, end)
            value, after = _read_plain_number(text, position, end)
            if after < 0:
                value, after = _read_any_number(text, position, end)
                if after < 0:
                    return -1
            matrix[row, column] = value
            position = _skip_space(text, after, end)
            if position >= end or text[position] != (44 if column < _FEATURES - 1 else 93):  # , and ]
                return -1
            position += 1
        position = _skip_space(text, position, end)
        if position >= end or text[position] != (44 if row < _BARS - 1 else 93):
            return -1
        position += 1
    return position


_parse = _compiled(_read_matrix)


def read_matrix(text: bytes, start: int, matrix: NDArray[np.float32]) -> int:
    """Read the JSON matrix that begins at ``start`` (white space allowed) into ``matrix``.

    Args:
        text: the whole JSON document.
        start: index into ``text``.
        matrix: (48, 13), contiguous; undefined where -1 is returned.

    Returns:
        The index after the closing bracket, or -1 when this is anything but 48 arrays of 13 numbers that float32 holds.
    """
    result: Any = _parse(np.frombuffer(text, np.uint8), start, matrix)
    return int(result)
