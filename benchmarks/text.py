"""What reading and writing the hot route's JSON costs, beside a JSON library: microseconds a matrix, in lists of 64."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from app.strategic.answer_text import write_columns, write_objects
from app.strategic.codec import decode_json
from app.strategic.engine import Engine
from app.strategic.quality import sample_windows
from benchmarks.figures import Figure, summarise, time_runs

COUNT: Final = 64
RUNS: Final = 99


def measure() -> list[Figure]:
    """Reading a body into float32 with all its checks, and writing answers as objects and as columns."""
    markets, ends = sample_windows(seed=3, count=COUNT)
    matrices = markets.windows(ends)[:COUNT]
    rounded = np.round(matrices.astype(np.float64), 6).tolist()
    documents = [{"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": data}} for data in rounded]
    body = json.dumps(documents).encode()
    decisions = Engine.load().process(matrices)
    answers = (decisions.model_version, 1, np.full(COUNT, 1_767_623_400_000_000), decisions.choices, decisions.answers)
    objects = orjson.loads(b"[" + write_objects(*answers)[0][:-1] + b"]")
    return [
        _figure("reading JSON", lambda: decode_json(body), f"{len(body) // COUNT:,} characters a matrix"),
        _figure("reading JSON, orjson and NumPy", lambda: _read_with_orjson(body), "no checks; ragged rows raise"),
        _figure("writing an answer as an object", lambda: write_objects(*answers), ""),
        _figure("writing an answer, orjson", lambda: orjson.dumps(objects), "of Python objects that are there already"),
        _figure("writing an answer in columns", lambda: write_columns(*answers), ""),
    ]


def _read_with_orjson(body: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([item["market_data"]["data"] for item in orjson.loads(body)], np.float32)


def _figure(name: str, work: Callable[[], object], note: str) -> Figure:
    value, spread = summarise([seconds / COUNT * 1e6 for seconds in time_runs(work, runs=RUNS, warmup=20)])
    return Figure(name=name, value=value, unit="us", spread=spread, note=note)
