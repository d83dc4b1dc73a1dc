"""A checkpoint is there whole or not at all, and nothing but a sound one is believed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch

from app.tactical import checkpoint
from app.tactical.checkpoint import CheckpointError

TENSORS = {"weights": torch.arange(5000, dtype=torch.float32), "count": torch.tensor([3])}
DOCUMENT = {"kind": "model", "note": "first"}


@contextmanager
def no_file_larger_than(limit: int) -> Iterator[None]:
    """The disk is full as far as this process can tell: a write beyond ``limit`` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path / "new", "model", TENSORS, DOCUMENT)
    tensors, document = checkpoint.load(tmp_path / "new", "model")
    assert document == DOCUMENT
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert saved.payload.stat().st_size == saved.size
    assert saved.sha256[:16] in saved.payload.name


def test_a_new_one_replaces_the_old_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, "model", TENSORS, DOCUMENT)
    checkpoint.save(tmp_path, "other", TENSORS, DOCUMENT)
    checkpoint.save(tmp_path, "model", TENSORS, {"kind": "model", "note": "second"})
    assert checkpoint.load(tmp_path, "model")[1]["note"] == "second"
    assert checkpoint.load(tmp_path, "other")[1]["note"] == "first"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path: Path, limit: int) -> None:
    checkpoint.save(tmp_path, "model", TENSORS, DOCUMENT)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with no_file_larger_than(limit), pytest.raises(CheckpointError, match=r"cannot be written \(File too large\)"):
        checkpoint.save(tmp_path, "model", TENSORS, {"kind": "model", "note": "second"})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert checkpoint.load(tmp_path, "model")[1] == DOCUMENT


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    writer = textwrap.dedent(
        f"""
        import pathlib, torch
        from app.tactical import checkpoint
        step = 0
        while True:
            step += 1
            values = torch.full((200_000,), float(step))
            checkpoint.save(pathlib.Path({str(tmp_path)!r}), "model", {{"values": values}}, {{"step": step}})
            print(step, flush=True)
        """
    )
    last = 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", writer], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5):
                last = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
        tensors, document = checkpoint.load(tmp_path, "model")
        assert document["step"] >= last
        assert (tensors["values"] == document["step"]).all()
    checkpoint.save(tmp_path, "model", TENSORS, DOCUMENT)
    assert len(list(tmp_path.iterdir())) == 2, "what the killed writers left is swept"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "emptied"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    payload = checkpoint.save(tmp_path, "model", TENSORS, DOCUMENT).payload
    data = bytearray(payload.read_bytes())
    if damage == "missing":
        payload.unlink()
    else:
        data[-1] ^= 1
        payload.write_bytes({"truncated": bytes(data[:-100]), "flipped": bytes(data), "emptied": b""}[damage])
    with pytest.raises(
        CheckpointError, match="cannot be read" if damage == "missing" else "the file is damaged"
    ) as caught:
        checkpoint.load(tmp_path, "model")
    assert str(payload) in str(caught.value)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", "nonsense", '{"file": "../x", "sha256": "0"}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "model.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"manifest|outside its directory"):
        checkpoint.load(tmp_path, "model")


def test_where_there_is_none_it_says_so(tmp_path: Path) -> None:
    assert not checkpoint.exists(tmp_path, "model")
    with pytest.raises(CheckpointError, match="not found; there is no checkpoint of that name"):
        checkpoint.load(tmp_path, "model")


def test_another_programs_tensors_are_refused() -> None:
    for metadata in (None, {"format": "pt"}):
        with pytest.raises(CheckpointError, match="made by another program"):
            checkpoint.decode(safetensors.torch.save(TENSORS, metadata=metadata))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04\x95" + b"0" * 100, b"\xff" * 64, b"\0" * 64])
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoint.decode(data)


def test_a_number_that_is_not_finite_never_leaves(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        checkpoint.save(tmp_path, "model", TENSORS, {"loss": float("nan")})
    with pytest.raises(CheckpointError, match="weights holds a number that is not finite"):
        checkpoint.save(tmp_path, "model", {"weights": torch.tensor([1.0, torch.inf])}, DOCUMENT)
    assert not list(tmp_path.iterdir())


def test_the_manifest_is_plain_json_for_people(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, "model", TENSORS, DOCUMENT)
    entry = json.loads(saved.manifest.read_text())
    assert (entry["file"], entry["sha256"], entry["bytes"]) == (saved.payload.name, saved.sha256, saved.size)
    assert entry["document"] == DOCUMENT
