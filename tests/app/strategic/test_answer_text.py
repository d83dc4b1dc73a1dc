"""The compiled writer says what a JSON library would say of the same numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.strategic.answer_text import write_columns, write_objects
from app.strategic.answers import ACTIONS, AGENTS, LEVELS, REGIMES
from app.strategic.market_text import EARLIEST, EPOCH, LATEST

NUMBERS = st.floats(-1, 1, width=32)
MOMENTS = st.integers(EARLIEST, LATEST - 1)


def written(rows: np.ndarray[Any, Any], timestamps: list[int], choices: list[tuple[int, int, int]]) -> Any:
    text, ends = write_objects('model "ü"', 41, np.array(timestamps), np.array(choices, np.int64), rows)
    assert ends[-1] == len(text)
    return [orjson.loads(text[start : end - 1]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def expected(row: list[float], number: int, timestamp: int, choice: tuple[int, int, int]) -> dict[str, Any]:
    """The answer as one would write it down."""
    values = [round(value, 6) + 0.0 for value in row]
    decision, regime, level = choice
    return {
        "id": 41 + number,
        "timestamp": (EPOCH + timedelta(microseconds=timestamp)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "decision": ACTIONS[decision],
        "probabilities": dict(zip(ACTIONS, values[:5], strict=True)),
        "agents": {
            name: {
                "weight": values[20 + agent],
                "probabilities": dict(zip(ACTIONS, values[5 + 5 * agent : 10 + 5 * agent], strict=True)),
            }
            for agent, name in enumerate(AGENTS)
        },
        "confidence": {"score": values[23], "level": LEVELS[level]},
        "uncertainty": {"epistemic": values[24], "aleatoric": values[25]},
        "regime": {
            "classification": REGIMES[regime],
            "confidence": values[26 + regime],
            "probabilities": dict(zip(REGIMES, values[26:30], strict=True)),
        },
        "pattern": values[30:],
        "model_version": 'model "ü"',
    }


@given(
    arrays.arrays(np.float32, (2, 43), elements=NUMBERS),
    MOMENTS,
    MOMENTS,
    st.tuples(*[st.integers(0, n) for n in (4, 3, 2)]),
)
def test_it_agrees_with_a_json_library(
    rows: np.ndarray[Any, Any], first: int, second: int, choice: tuple[int, int, int]
) -> None:
    choices = [choice, (0, 0, 0)]
    for number, answer in enumerate(written(rows, [first, second], choices)):
        wanted = expected(rows[number].tolist(), number, (first, second)[number], choices[number])
        assert list(answer) == list(wanted)
        numbers, others = flat(answer), flat(wanted)
        assert numbers.keys() == others.keys()
        for name, value in numbers.items():
            if isinstance(value, float):
                assert abs(value - others[name]) <= 1.01e-6, name  # a tie may be rounded either way
            else:
                assert value == others[name], name


@given(st.floats(-1e6, 1e6, exclude_min=True, exclude_max=True, width=32))
def test_any_number_is_written_with_six_decimals(value: float) -> None:
    row = np.full((1, 43), value, np.float32)
    assert written(row, [0], [(0, 0, 0)])[0]["pattern"] == pytest.approx([round(value, 6)] * 13, abs=1.01e-6)


@pytest.mark.parametrize("value", ["0.0", "1.0", "0.25", "-0.1", "12.5", "0.000001", "-999999.0", "0.123456"])
def test_zeros_at_the_end_are_left_out(value: str) -> None:
    row = np.full((1, 43), float(value), np.float32)
    text, _ = write_objects("model", 0, np.zeros(1, np.int64), np.zeros((1, 3), np.int64), row)
    assert f'"pattern":[{value},{value},'.encode() in text


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(43)), elements=NUMBERS), MOMENTS)
def test_columns_hold_what_objects_hold(rows: np.ndarray[Any, Any], first: int) -> None:
    timestamps = [min(first + row, LATEST - 1) for row in range(len(rows))]
    choices = [(row % 5, row % 4, row % 3) for row in range(len(rows))]
    objects = written(rows, timestamps, choices)
    columns = orjson.loads(write_columns('model "ü"', 41, np.array(timestamps), np.array(choices, np.int64), rows))
    assert (columns["count"], columns["first_id"], columns["model_version"]) == (len(rows), 41, 'model "ü"')
    assert columns["timestamp"] == timestamps
    for row, one in enumerate(objects):
        assert columns["decision"][row] == one["decision"]
        assert columns["probabilities"][row] == list(one["probabilities"].values())
        for name, agent in one["agents"].items():
            assert columns["agents"][name][row] == list(agent["probabilities"].values())
        assert columns["agent_weights"][row] == [agent["weight"] for agent in one["agents"].values()]
        assert columns["confidence_score"][row] == one["confidence"]["score"]
        assert columns["confidence_level"][row] == one["confidence"]["level"]
        assert columns["epistemic_uncertainty"][row] == one["uncertainty"]["epistemic"]
        assert columns["aleatoric_uncertainty"][row] == one["uncertainty"]["aleatoric"]
        assert columns["regime"][row] == one["regime"]["classification"]
        assert columns["regime_probabilities"][row] == list(one["regime"]["probabilities"].values())
        assert columns["pattern"][row] == one["pattern"]


def test_every_day_of_a_century_is_written_as_the_calendar_has_it() -> None:
    days = [day * 86_400_000_000 for day in range(0, LATEST // 86_400_000_000, 7)]
    answers = written(np.zeros((len(days), 43), np.float32), days, [(2, 1, 0)] * len(days))
    assert [answer["timestamp"] for answer in answers] == [
        datetime.fromtimestamp(day / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for day in days
    ]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {name: leaf for key, item in value.items() for name, leaf in flat(item, f"{path}/{key}").items()}
    if isinstance(value, list):
        return {name: leaf for key, item in enumerate(value) for name, leaf in flat(item, f"{path}/{key}").items()}
    return {path: value}
