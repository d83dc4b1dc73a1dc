"""What can be shown of the GPU path on a machine without a GPU: devices agree, and the captured step never waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from app.mappo import MappoConfig, update
from app.mappo.advantages import generalised_advantages
from app.mappo.batch import Batch
from app.mappo.graphs import WARM_UP_STEPS, GraphedStep
from app.mappo.models import Actor, Critic
from app.mappo.rollout import Collector
from app.mappo.update import Updater
from tests.app.mappo.pretended_cuda import pretended_cuda

REPOSITORY = Path(__file__).parents[3]
Precision = Literal["float32", "bfloat16"]


def settings(device: str, **changes: Any) -> MappoConfig:
    """As the service trains, with smaller layers. Set afterwards: a device that is not there passes no validation."""
    config = MappoConfig(
        rollout_steps=6, epochs=2, share_actor=False, shared_observation=True, actor_hidden_sizes=(32, 16), **changes
    )
    return config.model_copy(update={"device": device, "cuda_graphs": False})


def networks(config: MappoConfig) -> tuple[Actor, Critic, Updater]:
    actor = Actor(config, num_agents=3, features=10, num_actions=5)
    critic = Critic(config, num_agents=3, features=10)
    actor.network.initialise(torch.Generator().manual_seed(0), output_gain=0.01)
    critic.network.initialise(torch.Generator().manual_seed(1), output_gain=1.0)
    return actor, critic, Updater(actor, critic, config)


def batch(device: str, steps: int = 24, seed: int = 0) -> Batch:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape).to(device)

    torch.manual_seed(seed)
    actions = torch.randint(5, (3, steps, 1)).to(device)
    per_agent = draw(3, steps, 10), actions, draw(3, steps, 1) - 1.6, draw(3, steps, 1)
    return Batch(*per_agent, draw(1, steps, 10), draw(1, steps, 3), draw(1, steps, 3))


class Trail:
    """Three agents walk along fixed numbers on any device; an episode has four steps."""

    num_envs = 4
    num_agents = 3
    num_actions = 5
    observation_shape: tuple[int, ...] = (10,)

    def __init__(self, device: str) -> None:
        self._numbers = torch.zeros(4, 3, 10, device=device)
        self._no, self._yes = (torch.full((4,), value, dtype=torch.bool, device=device) for value in (False, True))
        self.final_observation = self._numbers
        self._elapsed = 0

    def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
        return self._numbers

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        self._elapsed = (self._elapsed + 1) % 4
        return self._numbers, actions.float(), self._no, self._no if self._elapsed else self._yes


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_the_step_that_a_graph_captures_waits_for_nothing_and_stays_on_its_device(
    precision: Precision, activation: str
) -> None:
    with pretended_cuda() as waits:
        _, _, updater = networks(settings("cuda", precision=precision, activation=activation))
        updater.set_progress(0.5)
        inputs = batch("cuda")
        waits.clear()
        updater._gradient_step(inputs)
        assert waits == []


def test_a_wait_would_be_noticed() -> None:
    """The test above can fail: each of these would break a capture, and each is seen."""
    with pretended_cuda(host_reads=1.0) as waits:
        numbers = torch.ones(3, device="cuda")
        assert numbers.sum().item() == 1.0
        assert bool((numbers > 0).any())
        numbers.copy_(torch.zeros(3))
        assert len(waits) == 3
        with pytest.raises(RuntimeError, match="device"):
            numbers + torch.ones(3)


@pytest.mark.parametrize("truncation", ["terminal", "bootstrap"])
@pytest.mark.parametrize("share_actor", [True, False])
def test_a_rollout_and_its_update_stay_on_one_device(
    truncation: Literal["terminal", "bootstrap"], *, share_actor: bool
) -> None:
    """Mixing devices raises. What is read back: a flag a rollout step at most, and the losses once an update."""
    config = settings("cuda", truncation=truncation, minibatches=2).model_copy(update={"share_actor": share_actor})
    with pretended_cuda(host_reads=1.0) as waits:
        actor, critic, updater = networks(config)
        collector = Collector(Trail("cuda"), actor, critic, config)
        collector.begin(collector._env.reset(0))
        waits.clear()
        rollout = collector.collect(torch.Generator(), 0)
        assert len(waits) <= config.rollout_steps + 2
        waits.clear()
        order = torch.Generator()
        prepared, _ = updater.prepare(rollout)
        assert {tensor.device.type for tensor in prepared} == {"cuda"}
        assert waits == []
        updater.update(rollout, order)
        copies = [wait for wait in waits if "to ['cuda']" in wait]
        assert len(copies) == config.epochs, "the order of the minibatches, once an epoch"


def test_advantages_of_a_large_rollout_stay_on_the_device() -> None:
    """On the CPU this size goes through numba, which would have to copy it back."""
    with pretended_cuda() as waits:
        rewards, values = torch.zeros(128, 1536, device="cuda"), torch.zeros(128, 1536, device="cuda")
        ends = torch.zeros(128, 1536, dtype=torch.bool, device="cuda")
        advantages = generalised_advantages(rewards, values, values.select(0, 0), ends, gamma=0.99, gae_lambda=0.95)
        assert (advantages.device.type, tuple(advantages.shape)) == ("cuda", (128, 1536))
        assert waits == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_replayed_on_new_numbers_is_the_step(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded operator by operator and replayed without its Python, as a graph is: no state hides in Python."""
    monkeypatch.setattr(update, "clip_gradient_norm_", clip_without_looking)
    config = settings("cpu", precision=precision)
    actor, critic, updater = networks(config)
    twin_actor, twin_critic, twin = networks(config)
    with torch.no_grad():
        # Recording also runs it once, so the twin runs it once too.
        replay = make_fx(lambda *tensors: updater._gradient_step(Batch(*tensors)))(*batch("cpu", seed=0))
        twin._gradient_step(batch("cpu", seed=0))
        for seed in range(1, 6):
            for side in (updater, twin):
                side.set_progress(1.0 - seed / 10)
            replay(*batch("cpu", seed=seed))
            twin._gradient_step(batch("cpu", seed=seed))
    assert torch.equal(actor.network.parameters, twin_actor.network.parameters)
    assert torch.equal(critic.network.parameters, twin_critic.network.parameters)
    assert torch.equal(updater._actor_norms, twin._actor_norms)


def clip_without_looking(gradients: Tensor, maximum: float) -> Tensor:
    """What ``clip_gradient_norm_`` does on a GPU; on a CPU it first looks whether it has to."""
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    gradients.mul_((maximum / (norms + 1e-6)).clamp_(max=1.0).unsqueeze(1))
    return norms


class _Recording:
    """Stands where CUDA records: keeps the operations of the block, runs them at ``replay``."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


def test_a_graphed_step_reads_its_own_copy_and_runs_odd_batches_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choreography around the capture, with CUDA's three calls replaced: warm up, record once, copy in, replay."""
    seen: list[Batch] = []
    recorded: list[Batch] = []
    graph = _Recording()

    class Capturing:
        def __init__(self, recording: _Recording) -> None:
            assert recording is graph

        def __enter__(self) -> None:
            seen.append(batch("cpu"))  # a marker: what runs inside is recorded, not run

        def __exit__(self, *_: object) -> None:
            recorded.append(seen.pop())
            seen.pop()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", Capturing)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    step = GraphedStep(seen.append)
    for seed in range(WARM_UP_STEPS):
        step(batch("cpu", seed=seed))
    assert (len(seen), graph.replays, recorded) == (WARM_UP_STEPS, 0, [])
    for seed in (10, 11):
        given = batch("cpu", seed=seed)
        step(given)
        (inputs,) = recorded
        assert inputs.actor_inputs.data_ptr() != given.actor_inputs.data_ptr()
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(inputs, given, strict=True))
    assert (len(seen), graph.replays) == (WARM_UP_STEPS, 2)
    step(batch("cpu", steps=7))
    assert (len(seen), graph.replays) == (WARM_UP_STEPS + 1, 2)


POISON = """
import torch

def forbidden(name):
    def call(*_, **__):
        raise AssertionError(f"torch.cuda.{name} was called")
    return call

import torch.cuda, torch.backends.cuda
for name, value in list(vars(torch.cuda).items()):
    if callable(value) and not isinstance(value, type) and not name.startswith("__"):
        setattr(torch.cuda, name, forbidden(name))
for name in ("CUDAGraph", "graph", "Stream", "Event"):
    setattr(torch.cuda, name, forbidden(name))

import numpy as np
from app.mappo import evaluate
from app.market.simulator import simulate
from app.tactical.environment import TacticalEnv
from app.tactical.plan import BarsPlan, WindowPlan
from app.tactical.tape import tape_of_bars
from app.tactical.trainer import train_bars, train_window

train_window(np.zeros((30, 7), np.float32), WindowPlan(episodes=5))
tape = tape_of_bars(simulate(series=1, length=400, seed=1).bars)
trained = train_bars(tape, BarsPlan(episodes=16, num_envs=4, episode_steps=8))
evaluate(trained.policy, TacticalEnv(tape, num_envs=2, episode_steps=8), episodes=4, seed=0)
print("trained")
"""


def test_a_training_on_the_cpu_never_touches_cuda() -> None:
    done = subprocess.run(
        [sys.executable, "-c", POISON], capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=100
    )
    assert done.stdout.strip() == "trained", done.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_gpu_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="'cuda' asked for, but this machine has no CUDA device; use 'cpu'"):
        MappoConfig(device="cuda")
