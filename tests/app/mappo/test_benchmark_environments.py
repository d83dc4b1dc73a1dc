"""The public tasks behind the benchmark's adapters are the public tasks."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mpe2", reason="pip install mpe2")
pytest.importorskip("vmas", reason="pip install vmas")

from benchmarks.environments.navigation import START_DISTANCE, BatchedNavigation, draw_starts
from benchmarks.environments.scaled import ScaledObservations
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


def _walk_to_the_goal(observation: torch.Tensor) -> torch.Tensor:
    """Full force against the way from the goal and against the velocity, along each axis."""
    wanted = -3.0 * observation[..., 4:6] - 2.0 * observation[..., 2:4]
    axis = torch.where(wanted.abs() < 0.1, 0, torch.where(wanted > 0, 2, 1))
    return 3 * axis[..., 0] + axis[..., 1]


def test_the_batched_navigation_is_the_public_one_step_by_step() -> None:
    copies = 16
    public, batched = VmasEnv("navigation", copies, n_agents=3, shared_rew=False), BatchedNavigation(copies)
    public.reset(seed=1)
    agents = public._env.world.agents
    # Two copies begin with agents in each other, so that contact forces are compared from the first step.
    agents[1].state.pos[:2] = agents[0].state.pos[:2] + 0.05
    agents[1].pos_shaping = torch.linalg.vector_norm(agents[1].state.pos - agents[1].goal.state.pos, dim=-1)
    observation = batched.set_state(
        torch.stack([agent.state.pos for agent in agents], dim=1),
        torch.stack([agent.goal.state.pos for agent in agents], dim=1),
    )
    generator = torch.Generator().manual_seed(0)
    alive = torch.ones(copies, dtype=torch.bool)
    collided, arrived = 0, 0
    for step in range(100):
        # Mostly towards the goals: copies meet, collide and arrive; some never do, and end by the clock.
        actions = _walk_to_the_goal(observation)
        actions[::4] = torch.randint(9, (copies // 4, 3), generator=generator)
        mine, theirs = batched.step(actions), public.step(actions)
        observation = mine[0]
        torch.testing.assert_close(mine[1][alive], theirs[1][alive], atol=1e-4, rtol=0.0)
        assert torch.equal(mine[2][alive], theirs[2][alive])
        assert torch.equal(mine[3][alive], theirs[3][alive])
        ended = (mine[2] | mine[3]) & alive
        torch.testing.assert_close(
            batched.final_observation[ended], public.final_observation[ended], atol=1e-3, rtol=0.0
        )
        collided += int((mine[1][alive] < -0.5).sum())
        arrived += int((mine[2] & alive).sum())
        alive &= ~ended
        torch.testing.assert_close(mine[0][alive], theirs[0][alive], atol=1e-3, rtol=0.0)
        assert bool(alive.any()) == (step < 99)
    assert collided > 0, "no collision was compared"
    assert arrived > 0, "no arrival was compared"


def test_navigation_begins_anew_only_where_an_episode_ended() -> None:
    game = BatchedNavigation(32)
    observation = game.reset(seed=3)
    assert torch.equal(observation, game.reset(seed=3)), "the same seed, the same start"
    for _ in range(100):
        before, goals = observation, game.goals.clone()
        observation, _, terminated, truncated = game.step(_walk_to_the_goal(before))
        ended = terminated | truncated
        assert torch.equal((game.goals != goals).flatten(1).any(1), ended)
        assert torch.equal(observation[~ended], game.final_observation[~ended]) or not ended.any()
        if bool(ended.any()):
            assert (observation[ended][..., 2:4] == 0.0).all(), "new episodes begin at rest"
            return
    pytest.fail("no copy arrived")


def test_navigation_starts_keep_their_distance() -> None:
    places = draw_starts(200, torch.Generator().manual_seed(0))
    assert (places.abs() <= 1.0).all()
    distances = torch.cdist(places, places) + 10.0 * torch.eye(6)
    assert float(distances.min()) >= START_DISTANCE - 1e-5


def test_scaled_observations_change_what_is_seen_and_nothing_else() -> None:
    plain, game = BatchedNavigation(4), BatchedNavigation(4)
    scale = torch.arange(1.0, 19.0)
    scaled = ScaledObservations(game, scale)
    assert torch.equal(scaled.reset(seed=0), plain.reset(seed=0) * scale)
    for _ in range(100):
        actions = torch.full((4, 3), 4)
        mine, theirs = scaled.step(actions), plain.step(actions)
        assert torch.equal(mine[0], theirs[0] * scale)
        for one, other in zip(mine[1:], theirs[1:], strict=True):
            assert torch.equal(one, other)
    assert torch.equal(scaled.final_observation, plain.final_observation * scale)


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
