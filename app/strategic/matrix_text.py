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

_TEXT = numba.types.Array(numba.types.uint8, 1, "C", readonly=True)
_SIGNATURE = numba.types.int64(_TEXT, numba.types.int64, numba.types.float32[:, ::1])
_compiled = numba.njit(_SIGNATURE, cache=True, error_model="numpy", nogil=True)


def _read_matrix(text: NDArray[np.uint8], start: int, matrix: NDArray[np.float32]) -> int:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one compiled loop
    position, end = start, len(text)
    row, column = 0, 0
    depth = 0
    while position < end:
        byte = text[position]
        if byte in (32, 10, 13, 9):  # white space
            position += 1
        elif byte == 91:  # [
            if depth == 0 or (depth == 1 and column == 0 and row < _BARS):
                depth += 1
                position += 1
                if depth == 1:
                    continue
            else:
                return -1
            column = 0
            while True:
                while position < end and text[position] in (32, 10, 13, 9):
                    position += 1
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
                    return -1
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
                        return -1
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
                        return -1
                    exponent += -power if falling else power
                value = float(mantissa)
                if mantissa != 0:
                    if exponent < -44 or exponent > 38:
                        return -1
                    if exponent < -22:
                        value = value / _TENS[22] / _TENS[-22 - exponent]
                    elif exponent < 0:
                        value /= _TENS[-exponent]
                    elif exponent > 22:
                        value = value * _TENS[22] * _TENS[exponent - 22]
                    else:
                        value *= _TENS[exponent]
                if value > FLOAT32_MAX or column >= _FEATURES or row >= _BARS:
                    return -1
                matrix[row, column] = -value if negative else value
                column += 1
                while position < end and text[position] in (32, 10, 13, 9):
                    position += 1
                if position >= end:
                    return -1
                if text[position] == 44:  # ,
                    position += 1
                    continue
                if text[position] != 93 or column != _FEATURES:
                    return -1
                position += 1
                break
            depth = 1
            row += 1
            column = 0
            while position < end and text[position] in (32, 10, 13, 9):
                position += 1
            if position >= end:
                return -1
            if text[position] == 44 and row < _BARS:
                position += 1
                while position < end and text[position] in (32, 10, 13, 9):
                    position += 1
                if position >= end or text[position] != 91:
                    return -1
            elif text[position] == 93 and row == _BARS:
                return position + 1
            else:
                return -1
        else:
            return -1
    return -1


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
