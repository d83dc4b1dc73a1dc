from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.strategic.engine import Engine
from app.strategic.hot_swap import HotSwap, SwapRejectedError
from app.strategic.model import DEFAULT_MODEL, ModelError, Probe, StrategicModel, load_model, save_model
from app.strategic.runtime import reference_lane

SHIPPED = load_model(DEFAULT_MODEL)


def write_other_model(path: Path) -> StrategicModel:
    """A model that trusts the third agent alone and answers visibly otherwise."""
    weights = replace(
        SHIPPED.weights, coordinator_bias=SHIPPED.weights.coordinator_bias + np.array([0, 0, 50], np.float32)
    )
    answers = np.empty_like(SHIPPED.probe.answers)
    lane = reference_lane(replace(SHIPPED, weights=weights))
    lane.answer(SHIPPED.probe.matrices, answers, np.empty((len(answers), 3), np.int64))
    return save_model(path, weights, Probe(SHIPPED.probe.matrices, answers), "other", {})


@pytest.fixture
def other(tmp_path: Path) -> tuple[Path, StrategicModel]:
    path = tmp_path / "other.safetensors"
    return path, write_other_model(path)


def test_answers_never_mix_two_models_while_they_are_swapped(other: tuple[Path, StrategicModel]) -> None:
    path, _ = other
    slot = HotSwap(Engine.load(threads=2))
    matrices = SHIPPED.probe.matrices[:56]
    expected = {
        slot.engine.version: slot.engine.process(matrices).agent_weights.copy(),
        Engine.load(path).version: Engine.load(path).process(matrices).agent_weights.copy(),
    }
    seen: set[str] = set()
    wrong: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            decisions = slot.process(matrices)
            seen.add(decisions.model_version)
            if np.abs(decisions.agent_weights - expected[decisions.model_version]).max() > 1e-3:
                wrong.append(decisions.model_version)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for turn in range(6):
        slot.swap(path if turn % 2 == 0 else DEFAULT_MODEL)
    stop.set()
    for asker in askers:
        asker.join()
    assert seen == set(expected)
    assert not wrong


def test_a_swap_tells_what_served_before_and_can_be_taken_back(other: tuple[Path, StrategicModel]) -> None:
    path, model = other
    slot = HotSwap(Engine.load())
    swap = slot.swap(path, checksum=model.checksum)
    assert (swap.before, swap.after) == (SHIPPED.version, model.version)
    assert slot.engine.version == model.version
    assert slot.roll_back().after == SHIPPED.version
    with pytest.raises(SwapRejectedError, match="no earlier model"):
        slot.roll_back()


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "foreign":
        path.write_bytes(b"PK\x03\x04 not a model")
    elif how == "other tensors":
        save_file({"weight": np.zeros(3, np.float32)}, path, metadata={"format": "pt"})
    elif how == "bit flip":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :])
    elif how == "wrong answers":
        probe = Probe(SHIPPED.probe.matrices, SHIPPED.probe.answers + np.float32(0.1))
        save_model(path, SHIPPED.weights, probe, "liar", {})


@pytest.mark.parametrize("how", ["missing", "truncated", "foreign", "other tensors", "bit flip", "wrong answers"])
def test_an_unsound_file_changes_nothing(other: tuple[Path, StrategicModel], how: str) -> None:
    path, _ = other
    damage(path, how)
    slot = HotSwap(Engine.load())
    with pytest.raises(SwapRejectedError, match="still serves"):
        slot.swap(path)
    assert slot.engine.version == SHIPPED.version
    assert slot.process(SHIPPED.probe.matrices).model_version == SHIPPED.version


def test_another_model_than_asked_for_is_refused(other: tuple[Path, StrategicModel]) -> None:
    path, _ = other
    slot = HotSwap(Engine.load())
    with pytest.raises(SwapRejectedError, match="not 0000"):
        slot.swap(path, checksum="0" * 64)
    assert slot.engine.version == SHIPPED.version


def test_a_model_that_fails_after_the_exchange_is_rolled_back(
    other: tuple[Path, StrategicModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = HotSwap(Engine.load())

    def fail(_: Engine) -> float:
        raise ModelError("recorded answers are missed by 0.3")

    monkeypatch.setattr(Engine, "check", fail)
    with pytest.raises(SwapRejectedError, match="rolled back to"):
        slot.swap(other[0])
    assert slot.engine.version == SHIPPED.version


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    bias = SHIPPED.weights.head_bias.copy()
    bias[3] = np.nan
    with pytest.raises(ModelError, match="head_bias holds a value that is not finite"):
        save_model(tmp_path / "nan.safetensors", replace(SHIPPED.weights, head_bias=bias), SHIPPED.probe, "nan", {})


def test_a_saved_model_is_read_back_as_it_was(other: tuple[Path, StrategicModel]) -> None:
    path, saved = other
    loaded = load_model(path)
    assert (loaded.checksum, loaded.version, loaded.report) == (saved.checksum, saved.version, saved.report)
    for name, tensor in load_file(path).items():
        if not name.startswith("probe."):
            np.testing.assert_array_equal(tensor, getattr(saved.weights, name))
