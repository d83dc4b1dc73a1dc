"""What learning costs: a tactical training, one update, throughput on public tasks, advantages.

Peers run here beside it: :mod:`benchmarks.plain_mappo`, and torchrl's advantages where it is installed. on-policy and
BenchMARL do not; their figures in the notes are published reference points from a comparable machine.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from app.mappo import Learner, MappoConfig, VectorEnv
from app.mappo.advantages import generalised_advantages
from app.mappo.networks import NARROW
from benchmarks.environments.windows import Windows
from benchmarks.figures import Figure, summarise, time_runs
from benchmarks.learning import TASKS
from benchmarks.plain_mappo import PlainMappo, advantages_by_loop

TACTICAL = MappoConfig(
    rollout_steps=30,
    epochs=10,
    share_actor=False,
    shared_observation=True,
    actor_hidden_sizes=(232, 192, 44),
    critic_hidden_sizes=(128, 64),
    threads=1,
)
"""Three separate actors of exactly 102,405 parameters on 30 x 7 windows with 5 actions, a critic of 35,459."""

UPDATE = MappoConfig(
    rollout_steps=30,
    epochs=10,
    actor_hidden_sizes=(128, 128),
    critic_hidden_sizes=(128, 128),
    threads=1,
)
"""An actor and a critic of 44,165 and 43,649 parameters, 87,814 together, each on all 900 samples."""

FRESH_PROCESS = """
import json, time
start = time.perf_counter()
from app.mappo import Learner
from benchmarks.environments.windows import Windows
from benchmarks.learner import TACTICAL, train_tactical
imported = time.perf_counter()
train_tactical()
print(json.dumps([imported - start, time.perf_counter() - imported]))
"""


def train_tactical() -> Learner:
    """10 episodes of 30 steps, 10 epochs after each, from nothing: what a synchronous training request computes."""
    learner = Learner(Windows(), TACTICAL, seed=0)
    learner.train(300)
    return learner


def measure() -> list[Figure]:
    """All rows on one thread; about a minute."""
    with _one_thread():
        return [*_tactical(), *_fresh_process(), *_update(), *_throughput(), *_advantages()]


def _tactical() -> Iterator[Figure]:
    def plain() -> None:
        PlainMappo(Windows(), TACTICAL, seed=0).train(300)

    note = "10 x 30 steps, 10 epochs each, 3 agents of 102,405 parameters + critic of 35,459; one thread"
    yield _figure(
        "tactical training in process, warm", time_runs(train_tactical, runs=15), "ms", bar=250.0, aim=100.0, note=note
    )
    yield _figure("the same, plain reference", time_runs(plain, runs=5), "ms", note="benchmarks/plain_mappo.py")
    learner = Learner(Windows(), TACTICAL, seed=0)
    yield _products_alone(learner, samples=30, steps=100)


def _products_alone(learner: Learner, *, samples: int, steps: int) -> Figure:
    """What no float32 implementation goes below here: the products of ``steps`` gradient steps, one after another."""
    products = []
    for network in (learner.actor.network, learner.critic.network):
        for layer, (inputs, outputs) in enumerate(pairwise(network.sizes)):
            shapes = ((samples, inputs), (inputs, outputs), (samples, outputs))
            read, weight, gradient = (torch.randn(network.groups, *shape) for shape in shapes)
            products += [(read, weight), (read.mT, gradient), (gradient, weight.mT)][: 3 if layer else 2]
    wide = [pair for pair in products if min(*pair[0].shape[1:], *pair[1].shape[1:]) >= NARROW]

    def multiply() -> None:
        for _ in range(steps):
            for left, right in wide:
                torch.bmm(left, right)

    operations = steps * sum(2 * left.numel() * right.shape[-1] for left, right in wide)
    note = f"{operations / 1e9:.1f} GFLOP in float32; layers of fewer than {NARROW} outputs left out"
    return _figure("the same, its products alone", time_runs(multiply, runs=9), "ms", note=note)


def _fresh_process() -> Iterator[Figure]:
    imports, trainings = [], []
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", FRESH_PROCESS], check=True, capture_output=True, text=True)
        imported, trained = json.loads(result.stdout.splitlines()[-1])
        imports.append(imported)
        trainings.append(trained)
    yield _figure(
        "tactical training, first in a fresh process",
        trainings,
        "s",
        bar=1.0,
        aim=0.3,
        note="no warm-up but the imports",
    )
    yield _figure(
        "imports in a fresh process", imports, "s", note="torch, the learner and the benchmark's public tasks"
    )


def _update() -> Iterator[Figure]:
    learner = Learner(Windows(30, num_agents=1), UPDATE, seed=0)
    with torch.no_grad():
        rollout = learner.collector.collect(learner.action_generator, 0)

        def update() -> None:
            learner.updater.update(rollout, learner.minibatch_generator)

        seconds = time_runs(update, runs=15)
    plain = PlainMappo(Windows(30, num_agents=1), UPDATE, seed=0)
    experience = plain.collect()
    yield _figure(
        "one update, 900 samples x 10 epochs, 88k parameters",
        seconds,
        "ms",
        bar=80.0,
        aim=40.0,
        note="one thread; published: on-policy 137, TorchRL 101, CleanRL 98, numpy 52, JAX 44",
    )
    yield _figure(
        "the same, plain reference",
        time_runs(lambda: plain.update(*experience), runs=5),
        "ms",
        note="benchmarks/plain_mappo.py",
    )
    yield _products_alone(learner, samples=900, steps=10)


def _throughput() -> Iterator[Figure]:
    rows = (
        ("simple_spread", 4, 5_200.0, 8_000.0, "on-policy 4,500, BenchMARL 5,200, CleanRL style 6,500"),
        ("balance", 2, 2_500.0, 3_300.0, "on-policy 2,350, BenchMARL 2,480, CleanRL style 2,970"),
        ("navigation", 2, 3_500.0, 5_500.0, "on-policy 3,200, BenchMARL 3,500, CleanRL style 4,800"),
    )
    for name, rollouts, bar, aim, published in rows:
        task = TASKS[name]
        frames = rollouts * task.num_envs * task.config.rollout_steps
        ours = _rates(task.make(task.num_envs), task.config, frames, Learner)
        plain = _rates(task.make(task.num_envs), task.config, frames, PlainMappo)
        note = f"{task.num_envs} copies x {task.config.rollout_steps} steps, {task.config.minibatches} minibatches"
        yield _figure(
            f"learning {name}, one thread",
            ours,
            "env steps/s",
            bar=bar,
            aim=aim,
            better="higher",
            note=f"{note}; published: {published}",
        )
        yield _figure("the same, plain reference", plain, "env steps/s", better="higher", note=note)


def _rates(env: VectorEnv, config: MappoConfig, frames: int, learner: type[Learner | PlainMappo]) -> list[float]:
    """Environment steps learned from per second of wall time, in each of three runs; ``frames`` in whole rollouts."""
    training = learner(env, config, seed=0)
    return [frames / seconds for seconds in time_runs(lambda: training.train(frames), runs=3)]


def _advantages() -> Iterator[Figure]:
    shape = (128, 1536)
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, *shape, generator=generator).unbind()
    last_values = torch.randn(shape[1], generator=generator)
    ends = torch.rand(shape, generator=generator) < 0.02
    config = MappoConfig()

    def ours() -> torch.Tensor:
        return generalised_advantages(
            rewards, values, last_values, ends, gamma=config.gamma, gae_lambda=config.gae_lambda
        )

    yield _figure("advantages (GAE) 128 x 1536", time_runs(ours, runs=200, warmup=5), "ms", bar=0.5, aim=0.15)
    float_ends = ends.float()
    yield _figure(
        "the same, plain loop",
        time_runs(lambda: advantages_by_loop(rewards, values, last_values, float_ends, config), runs=50),
        "ms",
        note="benchmarks/plain_mappo.py",
    )
    reference = _torchrl_advantages()
    if reference is not None:
        following = torch.cat([values[1:], last_values.unsqueeze(0)])
        inputs = [tensor.mT.contiguous().unsqueeze(-1) for tensor in (values, following, rewards, ends, ends)]
        seconds = time_runs(lambda: reference(config.gamma, config.gae_lambda, *inputs), runs=20)
        yield _figure("the same, torchrl", seconds, "ms", note="generalized_advantage_estimate")


def _torchrl_advantages() -> Callable[..., object] | None:
    try:
        functional = importlib.import_module("torchrl.objectives.value.functional")
    except ImportError:
        return None
    estimate: Callable[..., object] = functional.generalized_advantage_estimate
    return estimate


def _figure(name: str, runs: list[float], unit: str, **rest: object) -> Figure:
    scale = {"ms": 1e3}.get(unit, 1.0)
    value, spread = summarise([scale * measured for measured in runs])
    return Figure.model_validate({"name": name, "value": value, "unit": unit, "spread": spread, **rest})


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    start = time.perf_counter()
    for figure in measure():
        verdict = {None: "", True: "holds", False: "MISSES"}[figure.meets_bar]
        print(f"{figure.name:52} {figure.value:10.2f} ± {figure.spread:.2f} {figure.unit:12} {verdict:7} {figure.note}")
    print(f"{time.perf_counter() - start:.0f} s")
