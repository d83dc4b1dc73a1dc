"""How well the learner learns: public tasks, several seeds, held-out scores, curves.

``python -m benchmarks.learning --task simple_spread --seeds 5`` trains from seeds 0 to 4, judges every policy on
episodes that it never saw, and writes ``build/learning/<task>.json`` and ``.png``. Every number a result depends on
is in :data:`TASKS`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from app.mappo import Learner, MappoConfig, VectorEnv, evaluate
from benchmarks.environments.navigation import OBSERVATION_SCALE, BatchedNavigation
from benchmarks.environments.scaled import ScaledObservations
from benchmarks.environments.spread import BatchedSpread, PublicSpread
from benchmarks.environments.vmas_tasks import VmasEnv

FOLDER = Path("build/learning")
HELD_OUT_SEED = 1_000_000
HELD_OUT_EPISODES = 500


@dataclass(frozen=True)
class Task:
    """A public task, what is spent on it and what must come out."""

    make: Callable[[int], VectorEnv]
    """The training environment, of so many copies."""
    judge: Callable[[int], VectorEnv]
    """The held-out environment."""
    num_envs: int
    frames: int
    config: MappoConfig
    bar: float
    aim: float
    published: str
    """Reference points of other implementations on this task; not measured here."""


def _navigation(copies: int) -> VectorEnv:
    return ScaledObservations(BatchedNavigation(copies), OBSERVATION_SCALE)


def _public_navigation(copies: int) -> VectorEnv:
    return ScaledObservations(VmasEnv("navigation", copies, n_agents=3, shared_rew=False), OBSERVATION_SCALE)


def _balance(copies: int) -> VectorEnv:
    return VmasEnv("balance", copies)


TASKS = {
    "simple_spread": Task(
        make=BatchedSpread,
        judge=PublicSpread,
        num_envs=128,
        frames=256_000,
        config=MappoConfig(
            rollout_steps=25,
            minibatches=4,
            gamma=0.95,
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            anneal_frames=256_000,
            threads=1,
        ),
        bar=-19.5,
        aim=-18.5,
        published="on-policy -18.8 and -20.3, BenchMARL -19.2; random -25.7, a hand-written rule -7.9",
    ),
    "balance": Task(
        make=_balance,
        judge=_balance,
        num_envs=32,
        frames=96_000,
        config=MappoConfig(
            rollout_steps=100,
            minibatches=16,
            gamma=0.95,
            entropy_coefficient=0.0,
            actor_learning_rate=1e-3,
            critic_learning_rate=1e-3,
            anneal_frames=96_000,
            threads=1,
        ),
        bar=30.0,
        aim=34.0,
        published="on-policy 33.2, BenchMARL 24.0",
    ),
    "navigation": Task(
        make=_navigation,
        judge=_public_navigation,
        num_envs=120,
        frames=96_000,
        config=MappoConfig(
            rollout_steps=50,
            epochs=12,
            minibatches=20,
            gamma=0.95,
            gae_lambda=0.9,
            truncation="bootstrap",
            value_clip=None,
            entropy_coefficient=0.0,
            actor_learning_rate=2e-3,
            critic_learning_rate=2e-3,
            anneal_frames=96_000,
            normalise_observations=False,
            agent_specific_critic=True,
            threads=1,
        ),
        bar=0.95,
        aim=0.97,
        published="on-policy 0.97, BenchMARL 0.90",
    ),
}


@dataclass(frozen=True)
class Run:
    """One seed's training and its held-out scores (mean over episodes and agents of the summed rewards)."""

    seed: int
    held_out: float
    """Of the most probable actions."""
    held_out_drawn: float
    """Of actions drawn as in training."""
    before: float
    """Of the untrained policy, actions drawn."""
    frames_per_second: float
    seconds: float
    curve: list[tuple[int, float]]
    """Frames and the return of the episodes that ended in each rollout."""


def run(task: Task, seed: int) -> Run:
    """Trains one seed and judges it on seeds that training never uses."""
    learner = Learner(task.make(task.num_envs), task.config, seed)
    judge = task.judge(HELD_OUT_EPISODES if task.judge is not PublicSpread else 50)

    def score(*, deterministic: bool) -> float:
        policy = learner.policy()
        returns = evaluate(
            policy, judge, episodes=HELD_OUT_EPISODES, seed=HELD_OUT_SEED + seed, deterministic=deterministic
        )
        return float(returns.mean())

    before = score(deterministic=False)
    start = time.perf_counter()
    report = learner.train(task.frames)
    seconds = time.perf_counter() - start
    return Run(
        seed=seed,
        held_out=score(deterministic=True),
        held_out_drawn=score(deterministic=False),
        before=before,
        frames_per_second=report.frames_per_second,
        seconds=seconds,
        curve=[
            (stats.frames, stats.episode_return) for stats in report.updates_stats if stats.episode_return is not None
        ],
    )


def plot(name: str, task: Task, runs: list[Run], path: Path) -> None:
    """Draws every seed's training curve and its held-out score at the end."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only plots need it

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for result in runs:
        frames, returns = zip(*result.curve, strict=True)
        (line,) = axes.plot(frames, returns, linewidth=1, alpha=0.8, label=f"seed {result.seed}")
        axes.plot(task.frames, result.held_out, "o", color=line.get_color(), clip_on=False)
    axes.axhline(task.bar, color="black", linewidth=0.8, linestyle="--", label=f"bar {task.bar:g}")
    axes.set(xlabel="frames", ylabel="episode return", title=f"{name}: training, and held-out score (dots)")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def summary(name: str, task: Task, runs: list[Run]) -> dict[str, object]:
    """What goes into the JSON file."""
    scores = [result.held_out for result in runs]
    return {
        "task": name,
        "bar": task.bar,
        "aim": task.aim,
        "published": task.published,
        "mean": statistics.mean(scores),
        "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "held_out_episodes": HELD_OUT_EPISODES,
        "held_out_seed": HELD_OUT_SEED,
        "num_envs": task.num_envs,
        "frames": task.frames,
        "config": task.config.model_dump(mode="json"),
        "torch": torch.__version__,
        "runs": [vars(result) for result in runs],
    }


def main() -> int:
    """Returns 1 when the mean over the seeds misses the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[*TASKS, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="train from seeds 0 to N - 1 (default 5)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of lines")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds is {arguments.seeds}, expected at least 1")
    FOLDER.mkdir(parents=True, exist_ok=True)
    missed = False
    summaries = []
    for name in TASKS if arguments.task == "all" else [arguments.task]:
        task, runs = TASKS[name], []
        for seed in range(arguments.seeds):
            runs.append(run(task, seed))
            latest = runs[-1]
            print(
                f"{name} seed {seed}: held-out {latest.held_out:.2f} (drawn {latest.held_out_drawn:.2f}), "
                f"untrained {latest.before:.2f}, {latest.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        summaries.append(summary(name, task, runs))
        (FOLDER / f"{name}.json").write_text(json.dumps(summaries[-1], indent=1))
        plot(name, task, runs, FOLDER / f"{name}.png")
        mean = statistics.mean(result.held_out for result in runs)
        missed = missed or mean < task.bar
        if not arguments.json:
            print(f"{name}: {mean:.2f} over {len(runs)} seeds; bar {task.bar:g}, aim {task.aim:g}; {task.published}")
    if arguments.json:
        print(json.dumps(summaries))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
