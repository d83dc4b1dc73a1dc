"""Reads market data from JSON text straight into arrays, in one compiled pass over a whole body that checks its shape.

A JSON library makes 624 Python objects of a matrix (28-41 us) or flattens ragged rows silently. This reads only what it
is sure about: the members in their usual order, ordinary timestamps, 48 arrays of 13 plain JSON numbers within float32.
Anything else is left to the general decoder, which names the mistake; so every refusal and every rarity goes one way,
and both ways agree (property tests hold them to it).

Positions are addresses (`app.strategic.memory`). Eight digits are read at once (Lemire 2021, "Number parsing at a
gigabyte per second", section 5), which assumes a little-endian processor, as x86-64 and arm64 are. What belongs to one
compiled function stays in this file: the compiler's cache notices no change in another one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from app.contract import MATRIX_BARS, MATRIX_FEATURES
from app.strategic.memory import byte_at, signed, trailing_zeros, word_at

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST: Final = 0
LATEST: Final = (datetime(2100, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Word = np.uint64

_BARS: Final = MATRIX_BARS
_FEATURES: Final = MATRIX_FEATURES
_SHORTEST: Final = 2 * MATRIX_BARS * MATRIX_FEATURES
"""Characters that any matrix has."""
_ORDINARY: Final = 3000
"""Characters that nearly any object with a matrix has."""
_LIST_START = re.compile(rb"\s*\[")

_TENS: Final = np.array([10.0**exponent for exponent in range(23)])  # exact in a double up to 10^22
_WHOLE_TENS: Final = np.array([10**exponent for exponent in range(19)], np.uint64)
_MOST_DIGITS: Final = 18  # fit a signed 64-bit integer
_ROOM: Final = 48
"""Characters that must be left of the text where it is read without a look at its end: more than a number, or a name,
with the word after it."""

_ZEROS: Final = np.uint64(0x3030303030303030)
_SIXES: Final = np.uint64(0x0606060606060606)
_HIGH: Final = np.uint64(0xF0F0F0F0F0F0F0F0)
_PAIRS: Final = np.uint64(0x00FF00FF00FF00FF)
_FOURS: Final = np.uint64(0x0000FFFF0000FFFF)
_U3, _U8, _U16, _U32, _U64 = (np.uint64(number) for number in (3, 8, 16, 32, 64))
_U0, _U9, _U10, _U48 = (np.uint64(number) for number in (0, 9, 10, 48))
_TIMES_PAIRS: Final = np.uint64(10 * 2**8 + 1)
_TIMES_FOURS: Final = np.uint64(100 * 2**16 + 1)
_TIMES_EIGHT: Final = np.uint64(10_000 * 2**32 + 1)


def _word(text: bytes) -> np.uint64:
    """Up to eight characters as they look when they are read as one word."""
    return np.uint64(int.from_bytes(text, "little"))


_MARKET_DATA: Final = (_word(b'"market_'), _word(b'data"'))
_TIMESTAMP: Final = (_word(b'"timesta'), _word(b'mp"'))
_DATA: Final = _word(b'"data"')


_inlined = numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=True)
_compiled = numba.njit(cache=True, error_model="numpy", nogil=True)


@_inlined
def _skip_space(at: int, end: int) -> int:
    while at < end:
        byte = byte_at(at)
        if byte not in (32, 10, 13, 9):
            break
        at += 1
    return at


@_compiled
def _is_next(at: int, end: int, character: int) -> bool:
    return at < end and byte_at(at) == character


@_inlined
def _digits_of(word: Word) -> Word:
    """How many of eight characters are digits before the first that is none."""
    digits = word ^ _ZEROS
    # A carry only runs into characters after the first that is no digit.
    count: Word = trailing_zeros(((digits + _SIXES) | digits) & _HIGH) >> _U3
    return count


@_inlined
def _value_of(word: Word, count: Word) -> Word:
    """The number that the first ``count`` (1 to 8) of eight characters make."""
    digits = (word ^ _ZEROS) << (_U64 - (count << _U3))
    pairs = (digits * _TIMES_PAIRS) >> _U8
    fours = ((pairs & _PAIRS) * _TIMES_FOURS) >> _U16
    return ((fours & _FOURS) * _TIMES_EIGHT) >> _U32


@_inlined
def _read_plain_number(at: int, end: int) -> tuple[float, int]:  # noqa: C901 - a grammar
    """Read a number of at most 18 digits without an exponent, as nearly all are; address -1 for any other."""
    if end - at < _ROOM:
        return 0.0, -1
    negative = byte_at(at) == 45
    at += signed(negative)
    first, mantissa = at, _U0
    while True:
        digit = np.uint64(byte_at(at)) - _U48
        if digit > _U9 or at - first > _MOST_DIGITS:
            break
        mantissa = mantissa * _U10 + digit
        at += 1
    whole, places = at - first, 0
    if whole == 0 or (whole > 1 and byte_at(first) == 48):
        return 0.0, -1
    if byte_at(at) == 46:
        word = word_at(at + 1)
        count = _digits_of(word)
        if count == _U0:
            return 0.0, -1
        fraction, places = _value_of(word, count), signed(count)
        if places == 8:
            word = word_at(at + 9)
            count = _digits_of(word)
            if count > _U0:
                fraction = fraction * _WHOLE_TENS[signed(count)] + _value_of(word, count)
                places += signed(count)
        if whole + places > _MOST_DIGITS:
            return 0.0, -1
        mantissa = mantissa * _WHOLE_TENS[places] + fraction
        at += 1 + places
    after = byte_at(at)
    if np.uint64(after) - _U48 <= _U9 or (after | 32) == 101 or whole > _MOST_DIGITS:
        return 0.0, -1
    value = np.float64(signed(mantissa)) / _TENS[places]
    return (-value if negative else value), at


@_compiled
def _read_any_number(at: int, end: int) -> tuple[float, int]:  # noqa: C901, PLR0912 - a grammar
    """Read any JSON number that float32 holds and whose power of ten is not extreme; address -1 for anything else."""
    negative = at < end and byte_at(at) == 45  # -
    if negative:
        at += 1
    mantissa, digits, exponent = 0, 0, 0
    first = at
    while at < end and 48 <= byte_at(at) <= 57:
        if digits < _MOST_DIGITS:
            mantissa = mantissa * 10 + signed(byte_at(at) - 48)
            if mantissa > 0:
                digits += 1
        else:
            exponent += 1
        at += 1
    if at == first or (at - first > 1 and byte_at(first) == 48):
        return 0.0, -1
    if at < end and byte_at(at) == 46:  # .
        at += 1
        first = at
        while at < end and 48 <= byte_at(at) <= 57:
            if digits < _MOST_DIGITS:
                mantissa = mantissa * 10 + signed(byte_at(at) - 48)
                if mantissa > 0:
                    digits += 1
                exponent -= 1
            at += 1
        if at == first:
            return 0.0, -1
    if at < end and (byte_at(at) | 32) == 101:  # e, E
        at += 1
        falling = False
        if at < end and (byte_at(at) in (43, 45)):
            falling = byte_at(at) == 45
            at += 1
        first, power = at, 0
        while at < end and 48 <= byte_at(at) <= 57 and power < 1000:
            power = power * 10 + signed(byte_at(at) - 48)
            at += 1
        if at == first:
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
    return (-value if negative else value), at


@_compiled
def _read_two_digits(at: int) -> int:
    """A number of two digits; something far below zero where there are none."""
    tens, ones = signed(byte_at(at)) - 48, signed(byte_at(at + 1)) - 48
    return 10 * tens + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -10_000


@_compiled
def _read_date_time(at: int) -> tuple[int, int]:
    """Read what follows the quote: ``2026-01-05T14:30:00``, perhaps a fraction to six digits, ``Z`` or an offset.

    The date is Hinnant's ``days_from_civil`` (chrono-compatible algorithms). Address -1 for any other spelling.
    """
    year = 100 * _read_two_digits(at) + _read_two_digits(at + 2)
    month, day = _read_two_digits(at + 5), _read_two_digits(at + 8)
    hour, minute, second = _read_two_digits(at + 11), _read_two_digits(at + 14), _read_two_digits(at + 17)
    marks = byte_at(at + 4) == 45 and byte_at(at + 7) == 45 and byte_at(at + 13) == 58 and byte_at(at + 16) == 58
    if not marks or byte_at(at + 10) not in (84, 32) or not 1900 <= year <= 2100 or not 1 <= month <= 12:
        return 0, -1
    long_february = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    days = 28 + long_february if month == 2 else 30 + ((month + (month > 7)) & 1)
    if not (1 <= day <= days and 0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return 0, -1
    at += 19
    microseconds = 0
    if byte_at(at) == 46:
        word = word_at(at + 1)
        count = signed(_digits_of(word))
        if not 1 <= count <= 6:
            return 0, -1
        microseconds = signed(_value_of(word, np.uint64(count)) * _WHOLE_TENS[6 - count])
        at += 1 + count
    ahead = 0
    mark = byte_at(at)
    if mark == 90:  # Z
        at += 1
    elif mark in (43, 45):
        hours, minutes = _read_two_digits(at + 1), _read_two_digits(at + 4)
        if not (0 <= hours <= 23 and 0 <= minutes <= 59 and byte_at(at + 3) == 58):
            return 0, -1
        ahead = (60 * hours + minutes) * (1 if mark == 43 else -1)
        at += 6
    if month <= 2:
        year -= 1
    year_of_era = year % 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    date = year // 400 * 146_097 + 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
    seconds = ((24 * date + hour) * 60 + minute - ahead) * 60 + second
    return 1_000_000 * seconds + microseconds, at


@_compiled
def _read_timestamp(at: int, end: int) -> tuple[int, int]:
    """Read a quoted date and time, or epoch microseconds, of our time; address -1 for anything else, or for -1."""
    if at < 0 or end - at < _ROOM:
        return 0, -1
    if byte_at(at) == 34:
        timestamp, after = _read_date_time(at + 1)
        if after < 0 or byte_at(after) != 34:
            return 0, -1
        at = after + 1
    else:
        first, timestamp = at, 0
        while 48 <= byte_at(at) <= 57 and at - first <= 16:
            timestamp = 10 * timestamp + signed(byte_at(at)) - 48
            at += 1
        digits = at - first
        if digits == 0 or digits > 16 or (digits > 1 and byte_at(first) == 48):
            return 0, -1
    return (timestamp, at) if EARLIEST <= timestamp < LATEST else (0, -1)


@_compiled
def _read_matrix(at: int, end: int, matrix: Float32) -> int:
    """Read 48 arrays of 13 numbers; the address after them, -1 where they are not next, or for -1."""
    if at < 0 or not _is_next(at, end, 91):  # [
        return -1
    at += 1
    for row in range(_BARS):
        at = _skip_space(at, end)
        if not _is_next(at, end, 91):
            return -1
        at += 1
        for column in range(_FEATURES):
            at = _skip_space(at, end)
            value, after = _read_plain_number(at, end)
            if after < 0:
                value, after = _read_any_number(at, end)
                if after < 0:
                    return -1
            matrix[row, column] = value
            at = _skip_space(after, end)
            if not _is_next(at, end, 44 if column < _FEATURES - 1 else 93):  # , and ]
                return -1
            at += 1
        at = _skip_space(at, end)
        if not _is_next(at, end, 44 if row < _BARS - 1 else 93):
            return -1
        at += 1
    return at


@_compiled
def _pass(at: int, end: int, character: int) -> int:
    """The address of what follows ``character`` and white space around it; -1 where it is not next, or for -1."""
    if at < 0:
        return -1
    at = _skip_space(at, end)
    return _skip_space(at + 1, end) if _is_next(at, end, character) else -1


@_compiled
def _pass_word(at: int, end: int, word: Word, length: int) -> int:
    """The address of what follows the ``length`` characters of ``word``; -1 where they are not next, or for -1."""
    if at < 0 or end - at < _ROOM:
        return -1
    unwanted = _U64 - np.uint64(8 * length)
    return at + length if word_at(at) << unwanted == word << unwanted else -1


@_compiled
def _read_object(at: int, end: int, matrix: Float32) -> tuple[int, int]:
    """Read ``{"market_data": {"timestamp": ..., "data": ...}}``: the timestamp, and the address after it or -1."""
    at = _pass(at, end, 123)  # {
    at = _pass_word(_pass_word(at, end, _MARKET_DATA[0], 8), end, _MARKET_DATA[1], 5)
    at = _pass(_pass(at, end, 58), end, 123)  # :
    at = _pass_word(_pass_word(at, end, _TIMESTAMP[0], 8), end, _TIMESTAMP[1], 3)
    timestamp, at = _read_timestamp(_pass(at, end, 58), end)
    at = _pass_word(_pass(at, end, 44), end, _DATA, 6)  # ,
    at = _read_matrix(_pass(at, end, 58), end, matrix)
    return timestamp, _pass(_pass(at, end, 125), end, 125)  # }


_TEXT = types.Array(types.uint8, 1, "C", readonly=True)


@numba.njit(
    types.int64(_TEXT, types.int64, types.int64[::1], types.float32[:, :, ::1]),
    cache=True, error_model="numpy", nogil=True,
)  # fmt: skip
def _read_objects(text: NDArray[np.uint8], start: int, timestamps: Int64, matrices: Float32) -> int:
    """Read one object if ``start`` is 0, else objects with commas up to a bracket, to the end of the text.

    Returns:
        How many; -1 where the text is not what is read here, -2 where there are more than the arrays hold.
    """
    address = signed(text.ctypes.data)
    at, end = address + start, address + len(text)
    count = 0
    while True:
        if count == len(timestamps):
            return -2
        timestamps[count], at = _read_object(at, end, matrices[count])
        if at < 0:
            return -1
        count += 1
        if start == 0:
            return count if at == end else -1
        if not _is_next(at, end, 44):
            break
        at += 1
    return count if _pass(at, end, 93) == end else -1


def read_market_data(body: bytes, most: int) -> tuple[Int64, Float32, bool] | None:
    """Read a JSON body of one object or a list of them, each ``{"market_data": {"timestamp": ..., "data": ...}}``.

    Args:
        body: the whole document.
        most: objects that are read.

    Returns:
        Epoch microseconds (N,), matrices (N, 48, 13), and whether it was a list; None for anything unusual.
    """
    opening = _LIST_START.match(body)
    start = opening.end() if opening else 0
    text = np.frombuffer(body, np.uint8)
    for shortest in (_ORDINARY, _SHORTEST):
        room = min(len(body) // shortest + 1, most) if opening else 1
        timestamps, matrices = np.empty(room, np.int64), np.empty((room, _BARS, _FEATURES), np.float32)
        count: Any = _read_objects(text, start, timestamps, matrices)
        if count > 0:
            return timestamps[:count], matrices[:count], opening is not None
        if count == -1:
            return None
    return None
