"""The engine on the model that ships."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.strategic.answers import ANSWER_WIDTH, ConfidenceLevel, Decisions
from app.strategic.engine import Engine
from app.strategic.model import DEFAULT_MODEL
from app.strategic.quality import sample_windows, unfamiliarity
from app.strategic.runtime import Lane

Matrices = NDArray[np.float32]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(threads=2)


@pytest.fixture(scope="module")
def matrices() -> Matrices:
    markets, ends = sample_windows(seed=31, count=700)
    return markets.windows(ends)


def columns_of(decisions: Decisions) -> list[NDArray[np.float32]]:
    return [
        decisions.action_probabilities,
        decisions.agent_probabilities,
        decisions.agent_weights,
        decisions.confidence,
        decisions.epistemic,
        decisions.aleatoric,
        decisions.regime_probabilities,
        decisions.regime_confidence,
        decisions.pattern,
    ]


def assert_sound(decisions: Decisions) -> None:
    assert all(np.isfinite(column).all() for column in columns_of(decisions))
    for probabilities in (
        decisions.action_probabilities,
        decisions.agent_probabilities,
        decisions.agent_weights,
        decisions.regime_probabilities,
    ):
        assert probabilities.min(initial=0.0) >= 0.0
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, atol=1e-5)
    for share in (decisions.confidence, decisions.epistemic, decisions.aleatoric):
        assert share.min(initial=0.0) >= 0.0
        assert share.max(initial=0.0) <= 1.0
    assert np.abs(decisions.pattern).max(initial=0.0) <= 1.0


def test_an_answer_is_consistent_in_itself(engine: Engine, matrices: Matrices) -> None:
    decisions = engine.process(matrices)
    assert len(decisions) == len(matrices)
    assert_sound(decisions)
    mixture = np.einsum("na,nac->nc", decisions.agent_weights, decisions.agent_probabilities)
    np.testing.assert_allclose(decisions.action_probabilities, mixture, atol=1e-5)
    np.testing.assert_array_equal(decisions.decision, decisions.action_probabilities.argmax(axis=1))
    np.testing.assert_array_equal(decisions.regime, decisions.regime_probabilities.argmax(axis=1))
    np.testing.assert_allclose(decisions.regime_confidence, decisions.regime_probabilities.max(axis=1))
    for row in range(len(decisions)):
        expected = ConfidenceLevel.LOW
        if decisions.confidence[row] >= np.float32(0.5):
            expected = ConfidenceLevel.MEDIUM
        if decisions.confidence[row] >= np.float32(0.8):
            expected = ConfidenceLevel.HIGH
        assert decisions.level_name(row) is expected
    assert decisions.model_version == engine.version


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 63, 64, 65, 255, 257, 700])
def test_a_batch_is_answered_as_its_matrices_one_by_one(engine: Engine, matrices: Matrices, count: int) -> None:
    together = engine.answers(matrices[:count])
    alone = np.concatenate([engine.answers(matrices[row : row + 1]) for row in range(count)])
    # Where two actions are within rounding of each other, the decision and its confidence (column 23) may differ.
    tied = np.abs(np.diff(np.sort(together[:, :5], axis=1)[:, -2:], axis=1))[:, 0] < 1e-4
    together[tied, 23] = alone[tied, 23]
    np.testing.assert_allclose(together, alone, atol=5e-4)


def test_no_matrices_give_no_answers(engine: Engine) -> None:
    assert len(engine.process(np.empty((0, 48, 13), np.float32))) == 0


@pytest.mark.parametrize("shape", [(48, 13), (1, 13, 48), (2, 48, 12), (1, 47, 13)])
def test_another_shape_is_refused_by_name(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 48, 13\)"):
        engine.process(np.zeros(shape, np.float32))


def test_strides_and_other_number_types_change_nothing(engine: Engine, matrices: Matrices) -> None:
    expected = engine.answers(matrices[:5])
    fortran = np.asfortranarray(matrices[:5])
    np.testing.assert_array_equal(engine.answers(fortran), expected)
    np.testing.assert_array_equal(engine.answers(matrices[:5].astype(np.float64)), expected)


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(
        np.float32,
        (3, 48, 13),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
        fill=st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e-30]).map(np.float32),
    )
)
def test_every_finite_matrix_has_a_sound_answer(engine: Engine, values: Matrices) -> None:
    assert_sound(engine.process(values))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e30, -1e30, 3.4e38])
def test_constant_matrices_have_a_sound_answer(engine: Engine, value: float) -> None:
    for count in (1, 40):
        assert_sound(engine.process(np.full((count, 48, 13), value, np.float32)))


def test_the_threads_of_an_engine_end_with_it() -> None:
    before = threading.active_count()
    short_lived = Engine.load(threads=3)
    assert threading.active_count() == before + 2
    del short_lived
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_what_fails_in_another_thread_is_raised_and_the_engine_works_on(
    matrices: Matrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(threads=2)
    answer, main = Lane.answer, threading.main_thread()

    def failing(lane: Lane, *arrays: Any) -> None:
        if threading.current_thread() is not main:
            raise MemoryError("no room")
        answer(lane, *arrays)

    with monkeypatch.context() as patched:
        patched.setattr(Lane, "answer", failing)
        with pytest.raises(MemoryError, match="no room"):
            engine.process(matrices)
    assert len(engine.process(matrices)) == len(matrices)


def test_many_threads_may_ask_one_engine(engine: Engine, matrices: Matrices) -> None:
    expected = engine.answers(matrices)

    def ask(turn: int) -> bool:
        start = turn * 7 % 300
        count = 1 + turn * 13 % 400
        answers = engine.answers(matrices[start : start + count])
        return bool(np.abs(answers - expected[start : start + count])[:, :23].max() < 5e-4)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


def test_unfamiliar_windows_raise_the_epistemic_uncertainty(engine: Engine) -> None:
    separation = unfamiliarity(engine, seed=77, count=600)
    assert np.mean(list(separation.values())) >= 0.9
    assert separation["features ten times too large"] >= 0.99


def test_confidence_falls_and_ignorance_rises_far_from_the_training_markets(engine: Engine, matrices: Matrices) -> None:
    familiar = engine.process(matrices)
    strange = engine.process(np.ascontiguousarray(matrices[:, ::-1] * np.float32(20.0)))
    assert strange.epistemic.mean() > 0.9
    assert familiar.epistemic.mean() < 0.3
    assert strange.regime_confidence.mean() < familiar.regime_confidence.mean()


def test_the_runtime_tells_what_it_chose(engine: Engine) -> None:
    runtime = engine.runtime
    assert f"{runtime.backend}-{runtime.precision}" in runtime.samples_per_second
    assert runtime.samples_per_second[f"{runtime.backend}-{runtime.precision}"] == max(
        runtime.samples_per_second.values()
    )
    assert runtime.largest_error < 5e-4
    assert set(runtime.labels()) == {"backend", "precision", "threads", "instruction_sets"}


def test_float32_is_kept_when_asked_for() -> None:
    assert Engine.load(precision="float32").runtime.precision == "float32"


def test_serving_imports_no_torch() -> None:
    script = "import sys; from app.strategic.engine import Engine; Engine.load(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_shipped_model_agrees_with_its_report(engine: Engine) -> None:
    report = json.loads(DEFAULT_MODEL.with_suffix(".json").read_text())
    assert report["checksum"] == engine.model.checksum == engine.model.weights.checksum()
    assert report["version"] == engine.version
    assert report["report"] == engine.model.report
    assert report["report"]["flops_per_sample"] == engine.model.weights.flops()
    assert 0.5e6 < engine.model.weights.flops() < 0.75e6
    assert engine.model.probe.answers.shape == (len(engine.model.probe.matrices), ANSWER_WIDTH)
    assert engine.check() < 5e-4
