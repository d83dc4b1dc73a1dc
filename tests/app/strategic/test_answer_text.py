"""The compiled writer says what a JSON library would say of the same numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.strategic.answer_text import write_answers
from app.strategic.answers import ACTIONS, AGENTS, LEVELS, REGIMES
from app.strategic.codec import EARLIEST, EPOCH, LATEST

NUMBERS = st.floats(-1, 1, width=32)
MOMENTS = st.integers(EARLIEST, LATEST - 1)


def written(rows: np.ndarray[Any, Any], timestamps: list[int], choices: list[tuple[int, int, int]]) -> Any:
    text, ends = write_answers(
        'model "ü"', 41, np.array(timestamps), np.array(choices, np.int64), rows[:, :30], rows[:, 30:]
    )
    assert ends[-1] == len(text)
    return [orjson.loads(text[start : end - 1]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def expected(row: list[float], number: int, timestamp: int, choice: tuple[int, int, int]) -> dict[str, Any]:
    """The answer as one would write it down."""
    values = [round(value, 6) + 0.0 for value in row]
    decision, level, regime = choice
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
    st.tuples(*[st.integers(0, n) for n in (4, 2, 3)]),
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
