from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app.strategic.agents import prepare
from app.strategic.engine import Engine
from app.strategic.model import load_model
from app.strategic.networks import SignalNetwork
from app.strategic.simulation import LONG, NONE, SHORT, simulate_markets
from app.strategic.trading import AgentsEnv, CoordinatorEnv, Recording, utility
from app.strategic.training import TrainingConfig, _standardisation


def run_training(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.strategic.train", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_training_command_makes_a_model_that_serves_and_makes_it_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    done = run_training("--tiny", "--seed", "3", "--out", str(first), "--json")
    assert done.returncode == 0, done.stderr
    assert all(stage in done.stderr for stage in ("simulate", "calibrate", "wrote"))
    assert json.loads(done.stdout)["seed"] == 3
    assert run_training("--tiny", "--seed", "3", "--out", str(second)).returncode == 0
    assert load_model(first).checksum == load_model(second).checksum
    engine = Engine.load(first)
    assert engine.check() < 5e-4
    assert json.loads(first.with_suffix(".json").read_text())["version"] == engine.version


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seed", "-1", "--out", "x"], "--seed must be 0 or more"),
        (["--seed", "x", "--out", "x"], "invalid int value"),
        ([], "required: --out"),
    ],
)
def test_wrong_arguments_are_told_in_a_line(arguments: list[str], complaint: str) -> None:
    done = run_training(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_the_signals_that_are_learned_are_those_that_serve() -> None:
    torch.manual_seed(0)
    markets = simulate_markets(series=2, length=400, seed=5)
    network = SignalNetwork()
    inputs = _standardisation(markets)._replace(
        metric=network.log_metric.exp().detach().numpy(),
        kernel_scales=torch.cat([network.log_scales.exp(), network.log_age.exp()[None]]).detach().numpy(),
        projection=network.projection.detach().numpy(),
    )
    matrices = markets.windows(markets.ends()[:20])
    windows, signals = np.empty((20, 624), np.float32), np.empty((20, 32), np.float32)
    prepare(matrices, inputs, windows, signals)
    shaped = torch.from_numpy(windows).view(20, 13, 48)
    with torch.no_grad():
        np.testing.assert_allclose(network.kernel_regression(shaped), signals[:, :9], atol=2e-3)
        np.testing.assert_allclose(network.discrepancy(shaped), signals[:, 16:19], atol=2e-3)


def test_windows_end_where_they_say_and_see_nothing_later() -> None:
    markets = simulate_markets(series=2, length=400, seed=6)
    ends = markets.ends()
    window = markets.windows(ends[-1:])[0]
    np.testing.assert_array_equal(window[-1], markets.features[1, 398])
    shorter = simulate_markets(series=2, length=400, seed=6).bars[:399]
    assert shorter.close.shape == (2, 399)
    assert ends[-1] == 2 * 400 - 2


def test_the_edge_is_the_side_on_which_bars_pay() -> None:
    markets = simulate_markets(series=200, length=600, seed=7)
    mean = [float(markets.returns[:, :-1][markets.edges[:, :-1] == edge].mean()) for edge in (SHORT, NONE, LONG)]
    assert mean[0] < -5e-4 < mean[1] < 5e-4 < mean[2]


def test_a_position_pays_its_return_less_cost_and_risk() -> None:
    held = utility(torch.tensor(0.5), torch.tensor(-1.0), torch.tensor(0.01))
    assert held.item() == pytest.approx(1000 * (0.5 * 0.01 - 1.5 * 1e-4 - 40 * 0.25 * 1e-4))


def test_agents_share_half_of_their_reward() -> None:
    recording = Recording(torch.zeros(1, 8, 3, 2), torch.full((1, 8), 0.01))
    env = AgentsEnv(recording, copies=1, horizon=4)
    assert env.reset(seed=0).shape == (1, 3, 2)
    _, reward, terminated, truncated = env.step(torch.tensor([[4, 2, 2]]))
    assert reward[0, 0] > reward[0, 1] == reward[0, 2] > 0
    assert not terminated.any()
    assert not truncated.any()
    for _ in range(3):
        _, _, _, truncated = env.step(torch.tensor([[2, 2, 2]]))
    assert truncated.all()


def test_the_coordinator_is_paid_for_whom_it_follows() -> None:
    recording = Recording(torch.zeros(1, 8, 1, 2), torch.full((1, 8), 0.01))
    proposals = torch.tensor([[4, 0, 2]])
    rewards = []
    for choice in range(3):
        env = CoordinatorEnv(recording, lambda _series, _time: proposals, copies=1, horizon=4)
        env.reset(seed=0)
        rewards.append(env.step(torch.tensor([[choice]]))[1].item())
    assert rewards[0] > rewards[2] == 0.0 > rewards[1]


def test_the_default_config_is_the_shipped_one() -> None:
    report = load_model(Path(__file__).parents[3] / "app/strategic/models/default.safetensors").report
    assert report["config"] == TrainingConfig().__dict__
