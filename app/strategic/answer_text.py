"""Writes answers as JSON text straight from the engine's numbers, in one compiled pass over a whole batch.

Building Python objects and letting a JSON library walk them took 30 us an answer, more than the engine and the
database's share together; this takes less than one. A text is a template with slots; `Template.of` makes it out of the
same nested description that a person would write down. Positions are addresses (`app.strategic.memory`), and eight
characters are written at once, on a little-endian processor. What belongs to one compiled function stays in this file:
the compiler's cache notices no change in another one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import orjson
from numba import types
from numpy.typing import NDArray

from app.strategic.answers import ACTIONS, AGENTS, LEVELS, REGIMES
from app.strategic.memory import leading_zeros, put_byte, put_word, signed, word_at

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Word = np.uint64

PATTERN_START: Final = 30
"""Columns from here on are the pattern's; those before are an outcome's (`app.strategic.outcomes`)."""
_ID, _TIMESTAMP, _DECISION, _REGIME, _LEVEL, _REGIME_CONFIDENCE, _COUNT = -1, -2, -3, -4, -5, -6, -7
_LONGEST_SLOT: Final = 27  # a timestamp; numbers below a million have 14 characters at most, ids 20
_SLACK: Final = 16
"""Bytes that may be written, or read of a template, beyond what counts."""
_DECIMALS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Template:
    """Text of an answer cut at its slots.

    Attributes:
        text: all pieces one after the other, and some zeros.
        ends: where each piece ends in ``text``; one more than there are slots.
        slots: what follows each piece but the last: a column, or one of the negative codes above.
        widths: how many columns each slot takes.
    """

    text: Bytes
    ends: Int64
    slots: Int64
    widths: Int64

    @classmethod
    def of(cls, document: object, closing: bytes = b"") -> Template:
        """Cut a document at its `_slot` texts; ``closing`` follows it."""
        pieces: list[bytes] = []
        slots: list[tuple[int, int]] = []
        first, *rest = orjson.dumps(document).split(b'"\\u0000')
        pieces.append(first)
        for part in rest:
            slot, _, following = part.partition(b'"')
            code, _, width = slot.partition(b":")
            slots.append((int(code), int(width)))
            pieces.append(following)
        pieces[-1] += closing
        return cls(
            np.frombuffer(b"".join(pieces) + bytes(_SLACK), np.uint8),
            np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
            np.array([code for code, _ in slots], np.int64),
            np.array([width for _, width in slots], np.int64),
        )


@functools.lru_cache(maxsize=8)
def object_template(model_version: str) -> Template:
    """One answer of a model as an object, with a comma after it."""
    document = {
        "id": _slot(_ID),
        "timestamp": _slot(_TIMESTAMP),
        "decision": _slot(_DECISION),
        "probabilities": _by_name(ACTIONS, 0),
        "agents": {
            name: {"weight": _slot(20 + agent), "probabilities": _by_name(ACTIONS, 5 + 5 * agent)}
            for agent, name in enumerate(AGENTS)
        },
        "confidence": {"score": _slot(23), "level": _slot(_LEVEL)},
        "uncertainty": {"epistemic": _slot(24), "aleatoric": _slot(25)},
        "regime": {
            "classification": _slot(_REGIME),
            "confidence": _slot(_REGIME_CONFIDENCE),
            "probabilities": _by_name(REGIMES, 26),
        },
        "pattern": [_slot(PATTERN_START + place) for place in range(13)],
        "model_version": model_version,
    }
    return Template.of(document, b",")


@functools.lru_cache(maxsize=8)
def columns_template(model_version: str) -> Template:
    """The answers of a model as one object of columns."""
    return Template.of(
        {
            "count": _slot(_COUNT),
            "first_id": _slot(_ID),
            "model_version": model_version,
            "timestamp": _slot(_TIMESTAMP),
            "decision": _slot(_DECISION),
            "probabilities": _slot(0, 5),
            "agents": {name: _slot(5 + 5 * agent, 5) for agent, name in enumerate(AGENTS)},
            "agent_weights": _slot(20, 3),
            "confidence_score": _slot(23),
            "confidence_level": _slot(_LEVEL),
            "epistemic_uncertainty": _slot(24),
            "aleatoric_uncertainty": _slot(25),
            "regime": _slot(_REGIME),
            "regime_probabilities": _slot(26, 4),
            "pattern": _slot(PATTERN_START, 13),
        }
    )


def _slot(code: int, width: int = 1) -> str:
    return f"\0{code}:{width}"


def _by_name(names: tuple[str, ...], start: int) -> dict[str, str]:
    return {name: _slot(start + place) for place, name in enumerate(names)}


def _words(*vocabularies: tuple[str, ...]) -> Words:
    """Names in quotes, (vocabularies, names, 3): two words of text and its length."""
    table = np.zeros((len(vocabularies), max(len(names) for names in vocabularies), 3), np.uint64)
    for vocabulary, names in enumerate(vocabularies):
        for place, name in enumerate(names):
            quoted = orjson.dumps(name)
            table[vocabulary, place, :2] = np.frombuffer(quoted.ljust(16, b"\0"), "<u8")
            table[vocabulary, place, 2] = len(quoted)
    return table


_NAMES: Final = _words(ACTIONS, REGIMES, tuple(LEVELS))
"""In the order of the choices that `write_objects` takes."""
_NAME_BYTES: Final = 24
"""Of a row of `_NAMES`."""

_compiled = numba.njit(cache=True, error_model="numpy", nogil=True)
_inlined = numba.njit(cache=True, error_model="numpy", nogil=True, forceinline=True)
_ZEROS: Final = np.uint64(0x3030303030303030)
_HUNDREDS: Final = np.uint64(0x0000007F0000007F)
_TENS: Final = np.uint64(0x000F000F000F000F)
_U3, _U8, _U10, _U16, _U20, _U32 = (np.uint64(number) for number in (3, 8, 10, 16, 20, 32))
_LAST: Final = np.uint64(40)
"""Bits before the last of six digits."""
_TEN, _HUNDRED, _TEN_THOUSAND = (np.uint64(number) for number in (10, 100, 10_000))


@_inlined
def _digits(value: Word) -> Word:
    """The eight digits of a number below 10^8, one a byte, the first one lowest.

    Division by multiplication, two numbers a word, then four (Mula 2011, "SSE: conversion integers to decimal").
    """
    fours = value // _TEN_THOUSAND | (value % _TEN_THOUSAND) << _U32
    hundreds = ((fours * np.uint64(10_486)) >> _U20) & _HUNDREDS
    pairs = hundreds | (fours - _HUNDRED * hundreds) << _U16
    tens = ((pairs * np.uint64(103)) >> _U10) & _TENS
    return tens | (pairs - _TEN * tens) << _U8


@_compiled
def _write_whole(value: int, at: int) -> int:
    """Write a number that is not negative."""
    digits, rest = 1, value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for place in range(at + digits - 1, at - 1, -1):
        put_byte(place, 48 + value % 10)
        value //= 10
    return at + digits


@_inlined
def _write_number(value: float, at: int) -> int:
    """Write ``value`` rounded to six decimals, without the zeros at their end."""
    scaled = signed(np.rint(abs(value) * _DECIMALS))
    put_byte(at, 45)
    at += signed(value < 0 and scaled > 0)
    whole = scaled // _DECIMALS
    if whole < 10:
        put_byte(at, 48 + whole)
        at += 1
    else:
        at = _write_whole(whole, at)
    decimals = _digits(np.uint64(scaled - whole * _DECIMALS) * _HUNDRED)
    put_byte(at, 46)
    put_word(at + 1, decimals | _ZEROS)
    if decimals >> _LAST:  # nine times in ten; the processor then need not wait for the count
        return at + 7
    zeros: int = min(signed(leading_zeros(decimals) >> _U3), 7)
    return at + 9 - zeros


@_inlined
def _write_name(row: int, at: int) -> int:
    """Write the row of `_NAMES` at an address."""
    put_word(at, word_at(row))
    put_word(at + 8, word_at(row + 8))
    length: int = signed(word_at(row + 16))
    return at + length


@_inlined
def _write_pair(value: int, mark: int, at: int) -> int:
    """Write two digits and a character."""
    put_byte(at, 48 + value // 10)
    put_byte(at + 1, 48 + value % 10)
    put_byte(at + 2, mark)
    return at + 3


@_compiled
def _write_timestamp(microseconds: int, at: int) -> int:
    """Write RFC 3339 in UTC, quoted. The date is Hinnant's ``civil_from_days`` (chrono-compatible algorithms)."""
    days, rest = microseconds // 86_400_000_000, microseconds % 86_400_000_000
    days += 719_468
    era = days // 146_097
    day_of_era = days - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + 400 * era + (1 if month <= 2 else 0)
    seconds, micro = rest // 1_000_000, rest % 1_000_000
    put_byte(at, 34)
    at = _write_pair(year // 100, 48, at + 1) - 1
    at = _write_pair(year % 100, 45, at)
    at = _write_pair(month, 45, at)
    at = _write_pair(day, 84, at)
    at = _write_pair(seconds // 3600, 58, at)
    at = _write_pair(seconds // 60 % 60, 58, at)
    at = _write_pair(seconds % 60, 46, at)
    put_word(at, _digits(np.uint64(micro) * _HUNDRED) | _ZEROS)
    put_byte(at + 6, 90)
    put_byte(at + 7, 34)
    return at + 8


@_inlined
def _copy(start: int, end: int, at: int) -> int:
    """Copy text, and up to seven bytes more."""
    for offset in range(0, end - start, 8):
        put_word(at + offset, word_at(start + offset))
    return at + end - start


_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_NAMES_TYPE = types.Array(types.uint64, 3, "C", readonly=True)
_WHOLE = types.Array(types.int64, 1, "A", readonly=True)
_REAL = types.Array(types.float32, 2, "A", readonly=True)
_CHOICES = types.Array(types.int64, 2, "A", readonly=True)


@numba.njit(
    types.int64(
        _BYTES, _WHOLE, _WHOLE, _NAMES_TYPE, types.int64, _WHOLE, _CHOICES, _REAL, types.uint8[::1], types.int64[::1],
    ),
    cache=True, error_model="numpy", nogil=True,
)  # fmt: skip
def _write_objects(  # noqa: PLR0913, PLR0917 - one compiled loop over arrays
    text: Bytes, ends: Int64, slots: Int64, names: Words, first_id: int, timestamps: Int64, choices: Int64,
    numbers: Float32, out: Bytes, row_ends: Int64,
) -> int:  # fmt: skip
    """Write every answer of a batch; return where the last one ends."""
    piece: int = signed(text.ctypes.data)
    first_name: int = signed(names.ctypes.data)
    start: int = signed(out.ctypes.data)
    at = start
    for row in range(len(timestamps)):
        done = 0
        for place in range(len(slots)):
            at = _copy(piece + done, piece + ends[place], at)
            done = ends[place]
            slot = slots[place]
            if slot >= 0:
                at = _write_number(numbers[row, slot], at)
            elif slot == _ID:
                at = _write_whole(first_id + row, at)
            elif slot == _TIMESTAMP:
                at = _write_timestamp(timestamps[row], at)
            elif slot == _REGIME_CONFIDENCE:
                at = _write_number(numbers[row, 26 + choices[row, 1]], at)
            else:
                vocabulary = _DECISION - slot
                name = names.shape[1] * vocabulary + choices[row, vocabulary]
                at = _write_name(first_name + _NAME_BYTES * name, at)
        at = _copy(piece + done, piece + ends[len(slots)], at)
        row_ends[row] = at - start
    return at - start


@numba.njit(
    types.int64(
        _BYTES, _WHOLE, _WHOLE, _WHOLE, _NAMES_TYPE, types.int64, _WHOLE, _CHOICES, _REAL, types.uint8[::1],
    ),
    cache=True, error_model="numpy", nogil=True,
)  # fmt: skip
def _write_columns(  # noqa: PLR0913, PLR0917 - see `_write_objects`
    text: Bytes, ends: Int64, slots: Int64, widths: Int64, names: Words, first_id: int, timestamps: Int64,
    choices: Int64, numbers: Float32, out: Bytes,
) -> int:  # fmt: skip
    """Write the columns of a batch; return where they end."""
    piece: int = signed(text.ctypes.data)
    first_name: int = signed(names.ctypes.data)
    start: int = signed(out.ctypes.data)
    at, done, rows = start, 0, len(timestamps)
    for place in range(len(slots)):
        at = _copy(piece + done, piece + ends[place], at)
        done = ends[place]
        slot, width = slots[place], widths[place]
        if slot in (_COUNT, _ID):
            at = _write_whole(rows if slot == _COUNT else first_id, at)
            continue
        put_byte(at, 91)
        at += 1
        for row in range(rows):
            if slot >= 0:
                if width > 1:
                    put_byte(at, 91)
                    at += 1
                for column in range(slot, slot + width):
                    at = _write_number(numbers[row, column], at)
                    put_byte(at, 44)
                    at += 1
                if width > 1:
                    put_byte(at - 1, 93)
                    put_byte(at, 44)
                    at += 1
            elif slot == _TIMESTAMP:
                at = _write_whole(timestamps[row], at)
                put_byte(at, 44)
                at += 1
            else:
                vocabulary = _DECISION - slot
                name = names.shape[1] * vocabulary + choices[row, vocabulary]
                at = _write_name(first_name + _NAME_BYTES * name, at)
                put_byte(at, 44)
                at += 1
        put_byte(at - 1, 93)
    return _copy(piece + done, piece + ends[len(slots)], at) - start


def write_objects(
    model_version: str, first_id: int, timestamps: Int64, choices: Int64, numbers: Float32
) -> tuple[bytes, list[int]]:
    """N answers as JSON objects, each followed by a comma.

    Args:
        model_version: of the model that gave them.
        first_id: of the first answer; the others count up.
        timestamps: (N,) int64, epoch microseconds from 1970.
        choices: (N, 3) int64: index of decision, regime and confidence level.
        numbers: (N, 43) float32, outcome and pattern; finite, below a million.

    Returns:
        The text, and where each object's comma ends in it.
    """
    form = object_template(model_version)
    out = np.empty(len(timestamps) * (len(form.text) + _LONGEST_SLOT * len(form.slots)) + _SLACK, np.uint8)
    ends = np.empty(len(timestamps), np.int64)
    size: Any = _write_objects(
        form.text, form.ends, form.slots, _NAMES, first_id, timestamps, choices, numbers, out, ends
    )
    return out[:size].tobytes(), ends.tolist()


def write_columns(model_version: str, first_id: int, timestamps: Int64, choices: Int64, numbers: Float32) -> bytes:
    """N answers, at least one, as one JSON object of columns; arguments as for `write_objects`."""
    form = columns_template(model_version)
    cells = int(form.widths.sum())
    out = np.empty(len(timestamps) * (_LONGEST_SLOT + 1) * cells + len(form.text) + _SLACK, np.uint8)
    size: Any = _write_columns(
        form.text, form.ends, form.slots, form.widths, _NAMES, first_id, timestamps, choices, numbers, out
    )
    return out[:size].tobytes()
