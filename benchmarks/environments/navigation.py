"""VMAS ``navigation`` (Bettini et al. 2022) as tensors over all copies: every agent walks to a goal of its own.

The same task as VMAS's at its defaults with three agents and rewards of their own, several times quicker, so that a
training measures the learner; ``tests/app/mappo/test_benchmark_environments.py`` demands the same rewards,
observations and ends of both. Held-out scores are VMAS's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

AGENTS = 3
EPISODE_STEPS = 100
AGENT_RADIUS = 0.1
GOAL_RADIUS = 0.05
START_DISTANCE = 2 * AGENT_RADIUS + 0.05
"""Between any two of the agents and goals when an episode begins."""
COLLISION_GAP = 0.005
COLLISION_PENALTY = 1.0
ALL_ON_GOAL_REWARD = 0.01
LIDAR_RANGE = 0.35
LIDAR_RAYS = 12
SUBSTEPS = 2
TIME_STEP = 0.1 / SUBSTEPS
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
TOUCHING = 2 * AGENT_RADIUS
SAME_PLACE = 1e-6
"""Two agents closer than this do not push each other: there is no direction to push in."""
STARTS = 256
"""Starts drawn at once; the same draws one at a time would cost more than the steps."""
OBSERVATION_SCALE = torch.tensor([2.0] * 2 + [4.0] * 2 + [2.0] * 2 + [25.0] * LIDAR_RAYS)
"""For :class:`benchmarks.environments.scaled.ScaledObservations`.

Under random actions position, velocity, way from the goal and rays have deviations of 0.61, 0.12, 0.87 and 0.019: what
matters for collisions is the smallest by far.
"""

_AXIS = torch.tensor([0.0, -1.0, 1.0])
_FORCES = torch.cartesian_prod(_AXIS, _AXIS)
_ANGLES = torch.linspace(0.0, 2.0 * math.pi, LIDAR_RAYS + 1)[:LIDAR_RAYS]
_ALONG_RAYS = torch.stack([_ANGLES.cos(), _ANGLES.sin()])
_ACROSS_RAYS = torch.stack([-_ANGLES.sin(), _ANGLES.cos()])
_APART = torch.eye(AGENTS) * 1e6
"""Added to distances between agents, so that none is near itself."""


class BatchedNavigation:
    """E copies in float32, which end one by one: when all agents are near their goals (0.1), or by the clock."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.num_agents = AGENTS
        self.num_actions = len(_FORCES)
        self.observation_shape: tuple[int, ...] = (6 + LIDAR_RAYS,)
        self.final_observation = torch.zeros(num_envs, AGENTS, *self.observation_shape)
        self._generator = torch.Generator()
        self.reset(seed=0)

    def reset(self, seed: int) -> Tensor:
        """Draws new starts for all copies."""
        self._generator.manual_seed(seed)
        self._starts = torch.empty(0, 2 * AGENTS, 2)
        starts = self._next_starts(self.num_envs)
        return self.set_state(starts[:, :AGENTS], starts[:, AGENTS:])

    def set_state(self, positions: Tensor, goals: Tensor) -> Tensor:
        """Begins episodes at rest at ``positions`` with ``goals`` (E, 3, 2)."""
        self.positions, self.goals = positions.clone(), goals.clone()
        self.velocities = torch.zeros_like(positions)
        self._to_goal = torch.linalg.vector_norm(positions - goals, dim=-1)
        self._steps = torch.zeros(self.num_envs, dtype=torch.int64)
        return observe(self.positions, self.velocities, self.goals)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps all copies and resets those that ended."""
        self.positions, self.velocities = move(self.positions, self.velocities, _FORCES[actions])
        to_goal = torch.linalg.vector_norm(self.positions - self.goals, dim=-1)
        reward = self._to_goal - to_goal + ALL_ON_GOAL_REWARD * (to_goal < GOAL_RADIUS).all(-1, keepdim=True)
        reward -= COLLISION_PENALTY * collisions(self.positions)
        self._to_goal = to_goal
        self._steps += 1
        observation = observe(self.positions, self.velocities, self.goals)
        terminated = (to_goal < AGENT_RADIUS).all(-1)
        ended = terminated | (self._steps >= EPISODE_STEPS)
        truncated = ended & ~terminated
        if bool(ended.any()):
            self.final_observation = observation
            observation = self._begin(ended.nonzero().squeeze(1), observation.clone())
        return observation, reward, terminated, truncated

    def _begin(self, copies: Tensor, observation: Tensor) -> Tensor:
        """Begins new episodes in ``copies`` and writes what is seen there into ``observation``."""
        starts = self._next_starts(len(copies))
        positions, goals = starts[:, :AGENTS], starts[:, AGENTS:]
        velocities = torch.zeros_like(positions)
        self.positions[copies], self.velocities[copies], self.goals[copies] = positions, velocities, goals
        self._to_goal[copies] = torch.linalg.vector_norm(positions - goals, dim=-1)
        self._steps[copies] = 0
        observation[copies] = observe(positions, velocities, goals)
        return observation

    def _next_starts(self, count: int) -> Tensor:
        """Agents' positions, then goals, (count, 6, 2)."""
        while len(self._starts) < count:
            self._starts = torch.cat([self._starts, draw_starts(STARTS, self._generator)])
        drawn, self._starts = self._starts[:count], self._starts[count:]
        return drawn


def draw_starts(count: int, generator: torch.Generator) -> Tensor:
    """Places (count, 6, 2) in [-1, 1]^2, one entity after another, redrawn while it is too near to an earlier one."""
    places = torch.empty(count, 2 * AGENTS, 2)
    for entity in range(2 * AGENTS):
        undecided = torch.arange(count)
        while len(undecided):
            drawn = torch.rand(len(undecided), 2, generator=generator) * 2.0 - 1.0
            places[undecided, entity] = drawn
            distances = torch.linalg.vector_norm(places[undecided, :entity] - drawn.unsqueeze(1), dim=-1)
            undecided = undecided[(distances < START_DISTANCE).any(-1)]
    return places


def move(positions: Tensor, velocities: Tensor, forces: Tensor) -> tuple[Tensor, Tensor]:
    """One step of semi-implicit Euler in substeps: velocities first, damped once, then positions; all (E, 3, 2)."""
    velocities = velocities * (1.0 - DAMPING)
    for _ in range(SUBSTEPS):
        velocities = velocities + (forces + contact_forces(positions)) * TIME_STEP
        positions = positions + velocities * TIME_STEP
    return positions, velocities


def contact_forces(positions: Tensor) -> Tensor:
    """Pushes agents that touch apart, (E, 3, 2), by VMAS's soft penalty."""
    offsets = positions.unsqueeze(2) - positions.unsqueeze(1)
    distances = torch.linalg.vector_norm(offsets, dim=-1)
    touching = (distances <= TOUCHING) & (distances >= SAME_PLACE)
    depth = torch.nn.functional.softplus((TOUCHING - distances) / CONTACT_MARGIN) * CONTACT_MARGIN
    scale = torch.where(touching, CONTACT_FORCE * depth / distances, 0.0)
    return (offsets * scale.unsqueeze(-1)).sum(2)


def collisions(positions: Tensor) -> Tensor:
    """How many others each agent collides with, (E, 3).

    VMAS counts two agents that are nearly touching only while the same two overlap in any copy.
    """
    distances = torch.linalg.vector_norm(positions.unsqueeze(2) - positions.unsqueeze(1), dim=-1) + _APART
    counted = (distances <= TOUCHING).any(0)
    count: Tensor = (counted & (distances - TOUCHING <= COLLISION_GAP)).sum(-1)
    return count


def observe(positions: Tensor, velocities: Tensor, goals: Tensor) -> Tensor:
    """Own position and velocity, the way from the goal, and how far into each ray's range another agent reaches."""
    others = positions.unsqueeze(1) - positions.unsqueeze(2)
    along, across = others @ _ALONG_RAYS, others @ _ACROSS_RAYS
    half_chord_squared = AGENT_RADIUS**2 - across.square_()
    hit = (half_chord_squared > 0.0) & (along > 0.0)
    reach = (half_chord_squared.clamp_(min=0.0).sqrt_().sub_(along).add_(LIDAR_RANGE)).mul_(hit)
    lidar = reach.amax(2).clamp_(min=0.0)
    return torch.cat([positions, velocities, positions - goals, lidar], dim=-1)
