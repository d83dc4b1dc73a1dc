"""What the hot route reads: the compiled reader and the general one agree, and each mistake is pointed to."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.service.problems import ProblemError
from app.strategic import codec
from app.strategic.answers import ANSWER_COLUMNS
from app.strategic.codec import RECORD, decode_binary, decode_json, encode_binary, encode_columns, encode_json
from app.strategic.market_text import EPOCH, FLOAT32_MAX, LATEST, read_market_data
from app.strategic.outcomes import ALEATORIC, CONFIDENCE, EPISTEMIC, PROBABILITIES, REGIME_PROBABILITIES, Outcomes

WHEN = "2026-01-05T14:30:00Z"
MATRIX = np.random.default_rng(5).standard_normal((48, 13)).astype(np.float32)


def market_data(data: Any = None, timestamp: Any = WHEN) -> dict[str, Any]:
    return {"market_data": {"timestamp": timestamp, "data": MATRIX.tolist() if data is None else data}}


def cell(value: Any, bar: int = 3, feature: int = 4) -> list[list[Any]]:
    rows: list[list[Any]] = MATRIX.tolist()
    rows[bar][feature] = value
    return rows


def refusal(body: bytes) -> tuple[int, list[str]]:
    with pytest.raises(ProblemError) as caught:
        decode_json(body)
    return caught.value.status_code, [error.pointer for error in caught.value.errors]


NUMBERS = st.one_of(
    st.floats(-FLOAT32_MAX, FLOAT32_MAX, allow_nan=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-(10**30), 10**30),
    st.floats(-1, 1),
)


def read(data: bytes, timestamp: bytes = b'"2026-01-05T14:30:00Z"') -> tuple[int, np.ndarray[Any, Any]] | None:
    """What the compiled reader makes of one object, or None where it leaves it to the general one."""
    found = read_market_data(b'{"market_data": {"timestamp": %b, "data": %b}}' % (timestamp, data), 1)
    return None if found is None else (int(found[0][0]), found[1][0])


@given(st.lists(NUMBERS, min_size=13, max_size=13), st.sampled_from([None, 0, 2]))
def test_the_compiled_reader_agrees_with_the_general_one(row: list[float], indent: int | None) -> None:
    found = read(json.dumps([row] * 48, indent=indent).encode())
    if found is not None:
        expected = np.array([row] * 48, np.float64).astype(np.float32)
        np.testing.assert_allclose(found[1], expected, rtol=6e-8, atol=1.5e-45)


@given(st.integers(0, 10**17 - 1), st.integers(1, 17), st.booleans())
def test_the_compiled_reader_reads_every_ordinary_number_itself(digits: int, places: int, negative: bool) -> None:
    whole, rest = divmod(digits, 10**places)
    number = f"{'-' * negative}{whole}.{rest:0{places}d}"
    found = read(json.dumps([["NUMBER"] * 13] * 48).replace('"NUMBER"', number).encode())
    assert found is not None
    np.testing.assert_array_equal(found[1], np.float32(float(number)))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=13, max_size=13))
def test_a_float32_survives_the_way_through_json_exactly(row: list[float]) -> None:
    samples, _ = decode_json(orjson.dumps(market_data([row] * 48)))
    np.testing.assert_array_equal(samples.matrices[0], np.array([row] * 48, np.float32))


@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_the_compiled_reader_never_accepts_what_json_refuses(garbage: bytes, place: int, at_the_end: bool) -> None:
    text = orjson.dumps([market_data()] * 2)
    place = len(text) - place if at_the_end else place
    broken = text[:place] + garbage + text[place + len(garbage) :]
    found = read_market_data(broken, 9)
    if found is not None:
        expected = [item["market_data"]["data"] for item in orjson.loads(broken)]
        np.testing.assert_allclose(found[1], np.array(expected, np.float32), rtol=1e-6)


@pytest.mark.parametrize("length", range(1, 200))
def test_the_compiled_reader_accepts_no_part_of_a_text(length: int) -> None:
    text = orjson.dumps([market_data()])
    assert read_market_data(text, 9) is not None
    assert read_market_data(text[:-length], 9) is None
    assert read_market_data(text[:length], 9) is None


@pytest.mark.parametrize(
    "number", ["01", "1.", ".5", "+1", "1e", "--1", "1e+", "NaN", "Infinity", "0x1", "1_0", "", "null", "true", '"1"']
)
def test_the_compiled_reader_leaves_alone_what_is_no_json_number(number: str) -> None:
    for bar, feature in ((3, 4), (47, 12)):
        text = json.dumps(cell("HERE", bar, feature)).replace('"HERE"', number, 1).encode()
        assert read(text) is None


MATRIX_TEXT = orjson.dumps(MATRIX.tolist())
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 12, 31)),  # noqa: DTZ001 - with a zone in the next line
    st.one_of(st.none(), st.just(UTC), OFFSETS),
    st.sampled_from(["T", " "]),
    st.booleans(),
)
def test_timestamps_mean_what_the_standard_library_reads(
    moment: datetime, zone: timezone | None, mark: str, short: bool
) -> None:
    text = moment.replace(tzinfo=zone).isoformat(mark).replace("+00:00", "Z" if short else "+00:00")
    found = read(MATRIX_TEXT, orjson.dumps(text))
    expected = (moment.replace(tzinfo=zone or UTC) - EPOCH) // timedelta(microseconds=1)
    assert (None if found is None else found[0]) == (expected if 0 <= expected < LATEST else None)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+0000", "2026-1-1T00:00:00Z",
        "2026-01-01T00:00:00ZZ", "2026/01/01T00:00:00Z", "2026-01-01T00:00", "2026-01-01T00:00:00.1234567Z",
    ],
)  # fmt: skip
def test_the_compiled_reader_leaves_rare_and_wrong_timestamps_alone(text: str) -> None:
    assert read(MATRIX_TEXT, orjson.dumps(text)) is None


def test_an_integer_with_a_zero_in_front_is_no_timestamp() -> None:
    body = orjson.dumps(market_data(timestamp=123)).replace(b":123,", b":0123,")
    assert refusal(body)[0] == 400


def test_a_list_of_short_matrices_is_read_in_one_pass_too() -> None:
    short = market_data([[0] * 13] * 48)
    found = read_market_data(orjson.dumps([short] * 50), 100)
    assert found is not None
    assert found[1].shape == (50, 48, 13)
    assert read_market_data(orjson.dumps([short] * 50), 49) is None


@pytest.mark.parametrize("spelling", ["{}", " {} ", "\n{}\t"])
def test_single_and_list_are_told_apart_whatever_the_white_space(spelling: str) -> None:
    one = spelling.format(json.dumps(market_data())).encode()
    many = spelling.format(json.dumps([market_data(), market_data()], indent=1)).encode()
    single, is_list = decode_json(one)
    assert (len(single), is_list) == (1, False)
    several, is_list = decode_json(many)
    assert (len(several), is_list) == (2, True)
    np.testing.assert_array_equal(several.matrices, np.stack([MATRIX, MATRIX]))


def test_members_in_another_order_are_read_too() -> None:
    body = orjson.dumps({"market_data": {"data": MATRIX.tolist(), "timestamp": WHEN}})
    samples, _ = decode_json(body)
    np.testing.assert_array_equal(samples.matrices[0], MATRIX)


@pytest.mark.parametrize(
    ("timestamp", "microseconds"),
    [
        (WHEN, 1_767_623_400_000_000),
        ("2026-01-05T16:30:00+02:00", 1_767_623_400_000_000),
        ("2026-01-05T14:30:00", 1_767_623_400_000_000),
        ("2026-01-05 14:30:00.000001Z", 1_767_623_400_000_001),
        (1_767_623_400_000_000, 1_767_623_400_000_000),
        (0, 0),
    ],
)
def test_timestamps(timestamp: object, microseconds: int) -> None:
    assert decode_json(orjson.dumps(market_data(timestamp=timestamp)))[0].timestamps.tolist() == [microseconds]


@pytest.mark.parametrize(
    "timestamp",
    ["", "yesterday", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", -1, 10**18, 2**70, 1.5, True, None, []],
)
def test_an_absurd_timestamp_is_pointed_to(timestamp: object) -> None:
    body = json.dumps(market_data(timestamp=timestamp)).encode()
    if timestamp == 2**70:
        assert refusal(body)[0] in {400, 422}
    else:
        assert refusal(body) == (422, ["/market_data/timestamp"])


@pytest.mark.parametrize(
    ("data", "pointers"),
    [
        (MATRIX.tolist()[:47], ["/market_data/data"]),
        ([*MATRIX.tolist(), [0.0] * 13], ["/market_data/data"]),
        ([*MATRIX.tolist()[:46], [0.0] * 12, [0.0] * 14], ["/market_data/data/46", "/market_data/data/47"]),
        (cell("1.5"), ["/market_data/data/3/4"]),
        (cell(None), ["/market_data/data/3/4"]),
        (cell(True), ["/market_data/data/3/4"]),
        (cell([1]), ["/market_data/data/3/4"]),
        (cell(1e308), ["/market_data/data/3/4"]),
        (cell(-3.5e38), ["/market_data/data/3/4"]),
        ("x", ["/market_data/data"]),
        ({}, ["/market_data/data"]),
    ],
)  # fmt: skip
def test_each_mistake_in_a_matrix_is_pointed_to(data: object, pointers: list[str]) -> None:
    assert refusal(json.dumps(market_data(data)).encode()) == (422, pointers)
    listed = json.dumps([market_data(), market_data(data)]).encode()
    assert refusal(listed) == (422, [f"/1{pointer}" for pointer in pointers])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_not_json(value: float) -> None:
    assert refusal(json.dumps(market_data(cell(value))).encode()) == (400, [])


@pytest.mark.parametrize(
    ("body", "status", "pointers"),
    [
        (b"", 400, []),
        (b"{", 400, []),
        (b"\xff\xfe", 400, []),
        (b"[" * 2000, 400, []),
        (b"[]", 422, [""]),
        (b"{}", 422, ["/market_data"]),
        (b"null", 422, [""]),
        (b"[1]", 422, ["/0"]),
        (b'{"market_data": 1}', 422, ["/market_data"]),
        (b'{"market_data": {}}', 422, ["/market_data/timestamp", "/market_data/data"]),
    ],
)
def test_other_documents_are_refused(body: bytes, status: int, pointers: list[str]) -> None:
    assert refusal(body) == (status, pointers)


def test_an_unknown_member_is_pointed_to() -> None:
    document = market_data()
    document["market_data"]["bars"] = 1
    assert refusal(orjson.dumps(document)) == (422, ["/market_data/bars"])


def records(count: int = 3) -> np.ndarray[Any, Any]:
    made = np.empty(count, RECORD)
    made["timestamp"] = 1_767_623_400_000_000 + np.arange(count)
    made["matrix"] = MATRIX
    return made


def test_binary_records_are_read_as_documented() -> None:
    samples = decode_binary(records().tobytes())
    assert samples.timestamps.tolist() == [1_767_623_400_000_000 + row for row in range(3)]
    np.testing.assert_array_equal(samples.matrices, np.stack([MATRIX] * 3))
    assert RECORD.itemsize == 8 + 48 * 13 * 4


@pytest.mark.parametrize("length", [0, 1, 2503, 2505, 5007])
def test_a_truncated_or_oversized_binary_body_is_refused(length: int) -> None:
    with pytest.raises(ProblemError) as caught:
        decode_binary(records().tobytes()[:length])
    assert caught.value.status_code == 422


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_binary_numbers_must_be_finite(value: float) -> None:
    made = records()
    made["matrix"][1, 2, 3] = value
    with pytest.raises(ProblemError) as caught:
        decode_binary(made.tobytes())
    assert [error.pointer for error in caught.value.errors] == ["/1/data/2/3"]


@pytest.mark.parametrize("timestamp", [-1, 2**62, -(2**63)])
def test_binary_timestamps_must_be_sane(timestamp: int) -> None:
    made = records()
    made["timestamp"][2] = timestamp
    with pytest.raises(ProblemError) as caught:
        decode_binary(made.tobytes())
    assert [error.pointer for error in caught.value.errors] == ["/2/timestamp"]


def test_more_matrices_than_ids_are_leased_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAXIMUM_SAMPLES", 2)
    with pytest.raises(ProblemError) as caught:
        decode_binary(records(3).tobytes())
    assert caught.value.status_code == 413
    assert refusal(orjson.dumps([market_data()] * 3)) == (413, [])


def test_the_three_forms_of_an_answer_say_the_same() -> None:
    rng = np.random.default_rng(1)
    answers = rng.random((4, 43), dtype=np.float32)
    outcomes = Outcomes.read(100, answers, "model-1")
    timestamps = np.full(4, 1_767_623_400_000_000)
    objects = orjson.loads(encode_json(codec.Answers(outcomes, timestamps), range(4), as_list=True))
    columns = orjson.loads(encode_columns(outcomes, timestamps))
    raw = np.frombuffer(encode_binary(outcomes), codec.ANSWER_RECORD)
    for row, answer in enumerate(objects):
        assert answer["id"] == columns["first_id"] + row == raw["id"][row]
        assert answer["timestamp"].startswith("2026-01-05T14:30:00")
        assert answer["decision"] == columns["decision"][row]
        assert answer["regime"]["classification"] == columns["regime"][row]
        assert answer["confidence"]["score"] == pytest.approx(columns["confidence_score"][row], abs=1e-6)
        assert answer["confidence"]["level"] == columns["confidence_level"][row]
        assert list(answer["probabilities"].values()) == pytest.approx(columns["probabilities"][row], abs=1e-6)
        assert answer["pattern"] == pytest.approx(columns["pattern"][row], abs=1e-6)
        np.testing.assert_allclose(raw["outcome"][row], answers[row, :30])


def test_stored_numbers_lie_where_the_engine_puts_them() -> None:
    assert ANSWER_COLUMNS["action_probabilities"] == PROBABILITIES
    assert ANSWER_COLUMNS["confidence"].start == CONFIDENCE
    assert ANSWER_COLUMNS["epistemic"].start == EPISTEMIC
    assert ANSWER_COLUMNS["aleatoric"].start == ALEATORIC
    assert ANSWER_COLUMNS["regime_probabilities"] == REGIME_PROBABILITIES
