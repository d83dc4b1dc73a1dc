"""The public tasks behind the benchmark's adapters are the public tasks."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mpe2", reason="pip install mpe2")
pytest.importorskip("vmas", reason="pip install vmas")

from benchmarks.environments.spread import BatchedSpread, PublicSpread, cover_landmarks
from benchmarks.environments.vmas_tasks import VmasEnv


def test_the_batched_simple_spread_is_the_public_one_step_by_step() -> None:
    public, batched = PublicSpread(6), BatchedSpread(6)
    expected = public.reset(seed=1)
    worlds = [world.unwrapped.world for world in public._worlds]
    positions = torch.tensor([[agent.state.p_pos.tolist() for agent in world.agents] for world in worlds])
    landmarks = torch.tensor([[mark.state.p_pos.tolist() for mark in world.landmarks] for world in worlds])
    # Two copies begin on top of each other, so that contact forces and collisions are compared too.
    positions[:2, 1] = positions[:2, 0] + 0.05
    for world, places in zip(worlds[:2], positions[:2], strict=True):
        world.agents[1].state.p_pos = places[1].double().numpy().copy()
    observation = batched.set_state(positions.double(), landmarks.double())
    torch.testing.assert_close(observation[2:], expected[2:], atol=1e-6, rtol=1e-6)
    generator = torch.Generator().manual_seed(0)
    collided = 0
    for step in range(25):
        actions = torch.randint(5, (6, 3), generator=generator)
        mine, theirs = batched.step(actions), public.step(actions)
        torch.testing.assert_close(mine[1], theirs[1], atol=1e-4, rtol=1e-4)
        assert torch.equal(mine[2], theirs[2])
        assert torch.equal(mine[3], theirs[3])
        torch.testing.assert_close(batched.final_observation, public.final_observation, atol=1e-4, rtol=1e-4)
        collided += int((mine[1][:, 0] != mine[1][:, 1]).sum())
        assert bool(mine[3].all()) == (step == 24)
    assert collided > 0, "no collision was compared"


def test_the_hand_written_rule_covers_most_landmarks() -> None:
    game = BatchedSpread(500)
    observation, total = game.reset(0), torch.zeros(500)
    for _ in range(25):
        observation, reward, _, _ = game.step(cover_landmarks(observation))
        total += reward.mean(1)
    assert -9.0 < float(total.mean()) < -7.5


@pytest.mark.parametrize(("scenario", "options"), [("balance", {}), ("navigation", {"n_agents": 3})])
def test_vmas_copies_that_end_begin_anew_and_show_what_was_last_seen(scenario: str, options: dict[str, int]) -> None:
    game = VmasEnv(scenario, 4, steps=10, **options)
    first = game.reset(seed=0)
    assert torch.equal(first, game.reset(seed=0)), "the same seed, the same start"
    seen = first
    for step in range(10):
        seen, reward, terminated, truncated = game.step(torch.zeros(4, game.num_agents, dtype=torch.int64))
        assert reward.shape == (4, game.num_agents)
        assert not (terminated & truncated).any()
        assert bool((terminated | truncated).all()) == (step == 9) or bool(terminated.any())
    assert not torch.equal(game.final_observation, seen)
