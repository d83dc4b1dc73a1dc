"""What averaging gradients over two processes costs: the learner's one all-reduce a network, and its peer.

The peer is the same networks as torch's modules under DistributedDataParallel, with autograd. Both learn from the same
batch under ``torchrun`` with Gloo, one thread a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from app.mappo import Learner, distributed
from benchmarks.environments.windows import Windows
from benchmarks.figures import Figure, summarise
from benchmarks.learner import TACTICAL
from benchmarks.plain_mappo import mlp

PROCESSES = 2
RUNS = 200


def measure() -> list[Figure]:
    """One gradient step of three actors of 102,405 parameters and a critic, 30 samples a process; ten seconds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    done = subprocess.run(
        [*command, "-m", "benchmarks.data_parallel"], check=True, capture_output=True, text=True, timeout=120
    )
    runs: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    figures = []
    for name, seconds in runs.items():
        value, spread = summarise([1e3 * second for second in seconds])
        figures.append(Figure(name=name, value=value, spread=spread, unit="ms", note="2 processes, Gloo, loopback"))
    return figures


def _seconds(step: Callable[[], object]) -> list[float]:
    """Of each run; the processes begin each one together."""
    found = []
    for run in range(RUNS + 5):
        dist.barrier()
        start = time.perf_counter()
        step()
        if run >= 5:
            found.append(time.perf_counter() - start)
    return found


def _learner_step() -> Callable[[], None]:
    learner = Learner(Windows(), TACTICAL, seed=0)
    with torch.no_grad():
        rollout = learner.collector.collect(learner.action_generator, 0)
        prepared, _ = learner.updater.prepare(rollout)
        batch = prepared.by_network(learner.actor.by_network)

    def step() -> None:
        with torch.no_grad():
            learner.updater._gradient_step(batch)  # noqa: SLF001 - what is measured

    return step


def _module_step() -> Callable[[], None]:
    env = Windows()
    features = torch.Size(env.observation_shape).numel()
    networks = nn.ModuleList(
        [mlp(features, TACTICAL.actor_hidden_sizes, env.num_actions, 0.01) for _ in range(env.num_agents)]
        + [mlp(features, TACTICAL.critic_hidden_sizes, env.num_agents, 1.0)]
    )
    module = DistributedDataParallel(_Together(networks))
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-4, fused=True)
    window = torch.randn(TACTICAL.rollout_steps, features)

    def step() -> None:
        optimiser.zero_grad()
        module(window).backward()
        for network in networks:
            nn.utils.clip_grad_norm_(network.parameters(), TACTICAL.max_gradient_norm)
        optimiser.step()

    return step


class _Together(nn.Module):
    """All networks in one forward pass, so that DistributedDataParallel can overlap their reductions."""

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """Some loss of every output."""
        return torch.stack([network(window).square().mean() for network in self.networks]).sum()


def main() -> None:
    """Of one process under ``torchrun``; the first prints the seconds of each run."""
    torch.set_num_threads(1)
    with distributed.process_group():
        runs = {
            "gradient step, one all-reduce a network": _seconds(_learner_step()),
            "the same, modules under DistributedDataParallel": _seconds(_module_step()),
        }
        if distributed.rank() == 0:
            print(json.dumps(runs))


if __name__ == "__main__":
    main()
