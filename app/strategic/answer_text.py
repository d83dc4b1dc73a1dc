"""Writes answers as JSON text straight from the engine's numbers, in one compiled pass over a whole batch.

Building Python objects and letting a JSON library walk them took 30 us an answer, more than the engine and the
database's share together; this takes 1. The text of an answer is a template with slots; `template` makes it out of the
same nested description that a person would write down.
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

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]

PATTERN_START: Final = 30
"""Columns from here on are the pattern's; those before are an outcome's (`app.strategic.outcomes`)."""
_ID, _TIMESTAMP, _DECISION, _LEVEL, _REGIME, _REGIME_CONFIDENCE = -1, -2, -3, -4, -5, -6
_LONGEST_SLOT: Final = 27  # a timestamp; numbers below a million have 14 characters at most, ids 20
_DECIMALS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Template:
    """Text of an answer cut at its slots.

    Attributes:
        text: all pieces one after the other.
        ends: where each piece ends in ``text``; one more than there are slots.
        slots: what follows each piece but the last: a column, or one of the negative codes above.
    """

    text: Bytes
    ends: Int64
    slots: Int64


@functools.lru_cache(maxsize=8)
def template(model_version: str) -> Template:
    """The template of the answers of one model."""
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
    pieces: list[bytes] = []
    slots: list[int] = []
    first, *rest = orjson.dumps(document).split(b'"\\u0000')
    pieces.append(first)
    for part in rest:
        code, _, following = part.partition(b'"')
        slots.append(int(code))
        pieces.append(following)
    pieces[-1] += b","
    return Template(
        np.frombuffer(b"".join(pieces), np.uint8),
        np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
        np.array(slots, np.int64),
    )


def _slot(code: int) -> str:
    return f"\0{code}"


def _by_name(names: tuple[str, ...], start: int) -> dict[str, str]:
    return {name: _slot(start + place) for place, name in enumerate(names)}


def _words(names: tuple[str, ...]) -> Bytes:
    """Names as rows of equal length: the name in quotes, then zeros."""
    quoted = [orjson.dumps(name) for name in names]
    width = max(len(name) for name in quoted)
    return np.array([list(name.ljust(width, b"\0")) for name in quoted], np.uint8)


_DECISIONS: Final = _words(ACTIONS)
_LEVELS: Final = _words(tuple(LEVELS))
_REGIMES: Final = _words(REGIMES)

_compiled = numba.njit(cache=True, error_model="numpy", nogil=True)


@_compiled
def _write_digits(value: int, width: int, out: Bytes, at: int) -> int:
    """Write ``value`` with at least ``width`` digits."""
    digits, rest = 1, value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    digits = max(digits, width)
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = 48 + value % 10
        value //= 10
    return at + digits


@_compiled
def _write_number(value: float, out: Bytes, at: int) -> int:
    """Write ``value`` rounded to six decimals, without the zeros at their end."""
    scaled = int(np.rint(abs(value) * _DECIMALS))
    if value < 0 and scaled > 0:
        out[at] = 45
        at += 1
    at = _write_digits(scaled // _DECIMALS, 1, out, at)
    out[at] = 46
    at = _write_digits(scaled % _DECIMALS, 6, out, at + 1)
    for _ in range(5):
        if out[at - 1] != 48:
            break
        at -= 1
    return at


@_compiled
def _write_timestamp(microseconds: int, out: Bytes, at: int) -> int:
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
    out[at] = 34
    at = _write_digits(year, 4, out, at + 1)
    for mark, part in ((45, month), (45, day), (84, seconds // 3600), (58, seconds // 60 % 60), (58, seconds % 60)):
        out[at] = mark
        at = _write_digits(part, 2, out, at + 1)
    out[at] = 46
    at = _write_digits(micro, 6, out, at + 1)
    out[at], out[at + 1] = 90, 34
    return at + 2


@_compiled
def _write_word(words: Bytes, row: int, out: Bytes, at: int) -> int:
    for byte in words[row]:
        if byte == 0:
            break
        out[at] = byte
        at += 1
    return at


_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_WORDS = types.Array(types.uint8, 2, "C", readonly=True)
_WHOLE = types.Array(types.int64, 1, "A", readonly=True)
_REAL = types.Array(types.float32, 2, "A", readonly=True)


@numba.njit(
    types.int64(
        _BYTES, _WHOLE, _WHOLE, types.int64, _WHOLE, types.int64[:, ::1], _REAL, _REAL, _WORDS, _WORDS, _WORDS,
        types.uint8[::1], types.int64[::1],
    ),
    cache=True, error_model="numpy", nogil=True,
)  # fmt: skip
def _write(  # noqa: C901, PLR0913, PLR0917 - one compiled loop over arrays
    text: Bytes, ends: Int64, slots: Int64, first_id: int, timestamps: Int64, choices: Int64, outcome: Float32,
    pattern: Float32, decisions: Bytes, levels: Bytes, regimes: Bytes, out: Bytes, row_ends: Int64,
) -> int:  # fmt: skip
    """Write every answer of a batch; return where the last one ends."""
    at = 0
    for row in range(len(timestamps)):
        start = 0
        for place in range(len(ends)):
            for byte in text[start : ends[place]]:
                out[at] = byte
                at += 1
            start = ends[place]
            if place == len(slots):
                break
            slot = slots[place]
            if slot >= PATTERN_START:
                at = _write_number(pattern[row, slot - PATTERN_START], out, at)
            elif slot >= 0:
                at = _write_number(outcome[row, slot], out, at)
            elif slot == _ID:
                at = _write_digits(first_id + row, 1, out, at)
            elif slot == _TIMESTAMP:
                at = _write_timestamp(timestamps[row], out, at)
            elif slot == _DECISION:
                at = _write_word(decisions, choices[row, 0], out, at)
            elif slot == _LEVEL:
                at = _write_word(levels, choices[row, 1], out, at)
            elif slot == _REGIME:
                at = _write_word(regimes, choices[row, 2], out, at)
            else:
                at = _write_number(outcome[row, 26 + choices[row, 2]], out, at)
        row_ends[row] = at
    return at


def write_answers(
    model_version: str, first_id: int, timestamps: Int64, choices: Int64, outcome: Float32, pattern: Float32
) -> tuple[bytes, list[int]]:
    """JSON objects of N answers, each followed by a comma.

    Args:
        model_version: of the model that gave them.
        first_id: of the first answer; the others count up.
        timestamps: (N,) int64, epoch microseconds from 1970.
        choices: (N, 3) int64, contiguous: index of decision, confidence level and regime.
        outcome: (N, 30) float32, finite, below a million.
        pattern: (N, 13) float32, likewise.

    Returns:
        The text, and where each object's comma ends in it.
    """
    form = template(model_version)
    longest = len(form.text) + _LONGEST_SLOT * len(form.slots)
    out = np.empty(len(timestamps) * longest, np.uint8)
    row_ends = np.empty(len(timestamps), np.int64)
    size: Any = _write(
        form.text, form.ends, form.slots, first_id, timestamps, choices, outcome, pattern, _DECISIONS, _LEVELS,
        _REGIMES, out, row_ends,
    )  # fmt: skip
    return out[:size].tobytes(), row_ends.tolist()
