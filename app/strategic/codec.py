"""What the hot route reads and writes: JSON objects and lists, binary records, and JSON columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from app.contract import MATRIX_BARS, MATRIX_FEATURES
from app.service.problems import FieldError, ProblemError, json_pointer, unprocessable
from app.strategic.answer_text import write_columns, write_objects
from app.strategic.market_text import EARLIEST, EPOCH, FLOAT32_MAX, LATEST, read_market_data
from app.strategic.outcomes import Outcomes

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MATRIX_BYTES: Final = MATRIX_BARS * MATRIX_FEATURES * 4
RECORD: Final = np.dtype([("timestamp", "<i8"), ("matrix", "<f4", (MATRIX_BARS, MATRIX_FEATURES))])
"""One binary record: epoch microseconds, then the matrix row by row; 2,504 bytes without padding."""
ANSWER_RECORD: Final = np.dtype([("id", "<i8"), ("outcome", "<f4", 30), ("pattern", "<f4", 13)])
"""One binary answer: the sample's id, 30 numbers as the column ``samples.outcome`` documents them, and the pattern."""
MAXIMUM_SAMPLES: Final = 65_536
"""In one request: as many as one lease of ids."""

TIMESTAMP_RULE: Final = (
    "must be an RFC 3339 date-time or an integer of epoch microseconds, from 1970-01-01 to 2099-12-31"
)
_MAXIMUM_ERRORS: Final = 20


@dataclass(frozen=True, slots=True)
class Samples:
    """What one request asks to be processed.

    Attributes:
        timestamps: (N,) int64, epoch microseconds of the last bar.
        matrices: (N, 48, 13) finite float32, perhaps a view of the body.
    """

    timestamps: Int64
    matrices: Float32

    def __len__(self) -> int:
        """Number of matrices."""
        return len(self.timestamps)


def decode_json(body: bytes) -> tuple[Samples, bool]:
    """Samples of a JSON body, and whether it was a list.

    Raises:
        ProblemError: 400 not JSON, 413 too many, 422 with a JSON pointer to each offending element.
    """
    return decode_ordinary_json(body) or _decode_slowly(body)


def decode_ordinary_json(body: bytes) -> tuple[Samples, bool] | None:
    """As `decode_json` of a body that is written in the usual way; None for any other, right or wrong."""
    found = read_market_data(body, MAXIMUM_SAMPLES)
    return None if found is None else (Samples(found[0], found[1]), found[2])


def decode_binary(body: bytes) -> Samples:
    """Samples of N binary records.

    Raises:
        ProblemError: 413 too many, 422 not a whole number of records, or a timestamp or number out of range.
    """
    if not body or len(body) % RECORD.itemsize:
        whole, rest = divmod(len(body), RECORD.itemsize)
        detail = f"{whole} records of {RECORD.itemsize} bytes and {rest} bytes more; send whole records, at least one."
        raise unprocessable("The body is not a whole number of records.", [FieldError("", detail)])
    _check_count(len(body) // RECORD.itemsize)
    records = np.frombuffer(body, RECORD)
    timestamps = records["timestamp"].astype(np.int64)
    matrices = records["matrix"]
    errors = [
        FieldError(f"/{row}/timestamp", TIMESTAMP_RULE)
        for row in np.flatnonzero((timestamps < EARLIEST) | (timestamps >= LATEST))[:_MAXIMUM_ERRORS].tolist()
    ]
    if not np.isfinite(matrices).all():
        for row, bar, feature in np.argwhere(~np.isfinite(matrices))[:_MAXIMUM_ERRORS].tolist():
            errors.append(FieldError(f"/{row}/data/{bar}/{feature}", "must be a finite number"))
    if errors:
        raise unprocessable("Some records are wrong.", errors)
    return Samples(timestamps, matrices)


class Answers:
    """The answers of one batch; their JSON is written once for all requests of the batch, when the first one asks."""

    __slots__ = ("_ends", "_text", "outcomes", "timestamps")

    def __init__(self, outcomes: Outcomes, timestamps: Int64) -> None:
        self.outcomes = outcomes
        self.timestamps = timestamps
        self._text = b""
        self._ends: list[int] = []

    def json(self, rows: range) -> bytes:
        """The answers ``rows`` as JSON objects with commas between them; numbers rounded to 6 decimals."""
        if not self._ends:
            outcomes = self.outcomes
            self._text, self._ends = write_objects(
                outcomes.model_version, outcomes.first_id, self.timestamps, outcomes.choices, outcomes.numbers
            )
        start = self._ends[rows.start - 1] if rows.start > 0 else 0
        return self._text[start : self._ends[rows.stop - 1] - 1]


def encode_json(answers: Answers, rows: range, *, as_list: bool) -> bytes:
    """The answers ``rows`` of a batch: one object, or a list of them."""
    return b"[%b]" % answers.json(rows) if as_list else answers.json(rows)


def encode_columns(outcomes: Outcomes, timestamps: Int64) -> bytes:
    """The answers of a binary request as one object of columns; numbers rounded to 6 decimals."""
    return write_columns(outcomes.model_version, outcomes.first_id, timestamps, outcomes.choices, outcomes.numbers)


def encode_binary(outcomes: Outcomes) -> bytes:
    """The answers as `ANSWER_RECORD`; the model's version travels in a header."""
    records = np.empty(len(outcomes), ANSWER_RECORD)
    records["id"] = outcomes.first_id + np.arange(len(outcomes))
    records["outcome"] = outcomes.outcome
    records["pattern"] = outcomes.pattern
    return records.tobytes()


def parse_timestamp(value: object) -> int | None:
    """Epoch microseconds of a JSON timestamp: RFC 3339 (UTC where no offset is given) or an integer; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        value = (moment - EPOCH) // timedelta(microseconds=1)
    if not isinstance(value, int) or not EARLIEST <= value < LATEST:
        return None
    return value


def _decode_slowly(body: bytes) -> tuple[Samples, bool]:
    """The reference: any JSON, with a pointer to each mistake."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "invalid-json", f"The body is not JSON: {error}.") from None
    is_list = isinstance(document, list)
    items: list[object] = document if is_list else [document]
    if not items:
        raise unprocessable("The list is empty.", [FieldError("", "send at least one object")])
    _check_count(len(items))
    timestamps = np.zeros(len(items), np.int64)
    matrices = np.zeros((len(items), MATRIX_BARS, MATRIX_FEATURES), np.float32)
    errors: list[FieldError] = []
    for row, item in enumerate(items):
        _check_item(item, (row,) if is_list else (), timestamps[row : row + 1], matrices[row], errors)
        if len(errors) >= _MAXIMUM_ERRORS:
            break
    if errors:
        raise unprocessable("The request does not hold valid market data.", errors[:_MAXIMUM_ERRORS])
    return Samples(timestamps, matrices), is_list


def _check_item(
    item: object, path: Sequence[str | int], timestamp: Int64, matrix: Float32, errors: list[FieldError]
) -> None:
    inside = _member(item, "market_data", path, errors)
    if inside is None:
        return
    here = (*path, "market_data")
    if not isinstance(inside, dict):
        errors.append(FieldError(json_pointer(here), "must be an object with 'timestamp' and 'data'"))
        return
    errors += [
        FieldError(json_pointer((*here, unknown)), "is not known here")
        for unknown in sorted(inside.keys() - {"timestamp", "data"})
    ]
    if "timestamp" not in inside:
        errors.append(FieldError(json_pointer((*here, "timestamp")), "is missing"))
    else:
        parsed = parse_timestamp(inside["timestamp"])
        if parsed is None:
            errors.append(FieldError(json_pointer((*here, "timestamp")), TIMESTAMP_RULE))
        timestamp[0] = parsed or 0
    if "data" not in inside:
        errors.append(FieldError(json_pointer((*here, "data")), "is missing"))
    else:
        _check_matrix(inside["data"], (*here, "data"), matrix, errors)


def _member(item: object, name: str, path: Sequence[str | int], errors: list[FieldError]) -> object:
    if not isinstance(item, dict):
        errors.append(FieldError(json_pointer(path), f"must be an object with '{name}'"))
        return None
    errors += [
        FieldError(json_pointer((*path, unknown)), "is not known here") for unknown in sorted(item.keys() - {name})
    ]
    if item.get(name) is None:
        errors.append(FieldError(json_pointer((*path, name)), "is missing"))
    found: object = item.get(name)
    return found


def _check_matrix(data: object, path: Sequence[str | int], matrix: Float32, errors: list[FieldError]) -> None:
    if not isinstance(data, list) or len(data) != MATRIX_BARS:
        found = f"{len(data)} rows" if isinstance(data, list) else type(data).__name__
        errors.append(FieldError(json_pointer(path), f"must be an array of {MATRIX_BARS} rows, found {found}"))
        return
    for bar, row in enumerate(data):
        if not isinstance(row, list) or len(row) != MATRIX_FEATURES:
            found = f"{len(row)} numbers" if isinstance(row, list) else type(row).__name__
            rule = f"must be an array of {MATRIX_FEATURES} numbers, found {found}"
            errors.append(FieldError(json_pointer((*path, bar)), rule))
            continue
        for feature, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                errors.append(FieldError(json_pointer((*path, bar, feature)), "must be a number"))
            elif not abs(value) <= FLOAT32_MAX:
                errors.append(FieldError(json_pointer((*path, bar, feature)), "must be within the range of float32"))
            else:
                matrix[bar, feature] = value


def _check_count(count: int) -> None:
    if count > MAXIMUM_SAMPLES:
        raise ProblemError(413, "content-too-large", f"Send at most {MAXIMUM_SAMPLES} matrices in one request.")
