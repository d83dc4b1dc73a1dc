"""Two processes under torchrun train as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("distributed_worker.py")
REPOSITORY = Path(__file__).parents[3]


def run(processes: int, mode: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run([*command, str(WORKER), mode, str(folder)], check=True, env=environment, timeout=200, cwd=folder)


@pytest.mark.slow
def test_every_process_ends_with_the_same_parameters_and_statistics(tmp_path: Path) -> None:
    run(2, "train", tmp_path)
    first, second = (load_file(tmp_path / f"train-{rank}-of-2.safetensors") for rank in range(2))
    shared = [name for name in first if name.startswith(("actor", "critic", "value_normaliser", "counters"))]
    for name in shared:
        if name != "action_generator":
            assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["observation"], second["observation"]), "each process collects its own experience"
    assert int(first["counters"][0]) == 2 * 3 * 8 * 4, "frames are counted over both"


@pytest.mark.slow
def test_two_processes_learn_from_halves_what_one_learns_from_the_whole(tmp_path: Path) -> None:
    """The same rollout, whole or split by environment: everything but the order of the sums is equal."""
    run(2, "update", tmp_path)
    run(1, "update", tmp_path)
    half = load_file(tmp_path / "update-0-of-2.safetensors")
    whole = load_file(tmp_path / "update-0-of-1.safetensors")
    for name in ("actor", "critic", "value_normaliser.mean", "value_normaliser.mean_square"):
        torch.testing.assert_close(half[name], whole[name], rtol=1e-4, atol=1e-5)
    initial = load_file(tmp_path / "initial.safetensors")
    assert float((whole["actor"] - initial["actor"]).abs().max()) > 1e-3, "the update changed something"


@pytest.mark.slow
def test_the_averaged_gradients_are_those_of_distributed_data_parallel(tmp_path: Path) -> None:
    """torch's modules, autograd and DistributedDataParallel against the flat gradient and its one all-reduce."""
    run(2, "gradients", tmp_path)
    first, second = (load_file(tmp_path / f"gradients-{rank}-of-2.safetensors") for rank in range(2))
    for name in ("actor", "critic"):
        for process in (first, second):
            torch.testing.assert_close(process[f"{name}.learner"], process[f"{name}.ddp"], rtol=1e-5, atol=1e-7)
        assert torch.equal(first[f"{name}.learner"], second[f"{name}.learner"])
        apart = (first[f"{name}.alone"] - second[f"{name}.alone"]).abs().max()
        assert float(apart) > 1e-3, "each process had experience of its own: without averaging they would differ"
