"""MPE ``simple_spread`` (Lowe et al. 2017): three agents cover three landmarks in 25 steps without colliding.

:class:`PublicSpread` steps Farama's ``mpe2.simple_spread_v3`` itself, one Python world a copy: held-out scores are its
scores. :class:`BatchedSpread` is the same task as tensors over all copies, quick enough that a training measures the
learner; ``tests/app/mappo/test_benchmark_environments.py`` demands the same rewards and observations of both.
"""

from __future__ import annotations

import numpy as np
import torch
from mpe2 import simple_spread_v3  # type: ignore[import-untyped]
from torch import Tensor

AGENTS = 3
EPISODE_STEPS = 25
LOCAL_RATIO = 0.5
AGENT_DIAMETER = 0.3
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
TIME_STEP = 0.1
DAMPING = 0.25
SENSITIVITY = 5.0

_FORCES = torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], dtype=torch.float64) * SENSITIVITY


class BatchedSpread:
    """E copies as float64 tensors; all episodes begin and end together."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.num_agents = AGENTS
        self.num_actions = len(_FORCES)
        self.observation_shape: tuple[int, ...] = (18,)
        self.final_observation = torch.zeros(num_envs, AGENTS, 18)
        self._generator = torch.Generator()
        self._others = torch.tensor([[1, 2], [0, 2], [0, 1]])
        self._apart = torch.eye(AGENTS, dtype=torch.float64) * 1e6
        self._silence = torch.zeros(num_envs, AGENTS, 4, dtype=torch.float64)
        self._ended = torch.ones(num_envs, dtype=torch.bool)
        self._going_on = torch.zeros(num_envs, dtype=torch.bool)
        self._begin()

    def reset(self, seed: int) -> Tensor:
        """Draws new positions for all copies."""
        self._generator.manual_seed(seed)
        self._begin()
        return self._observe()

    def set_state(self, positions: Tensor, landmarks: Tensor) -> Tensor:
        """Begins an episode at ``positions`` and ``landmarks`` (E, 3, 2)."""
        self._steps = 0
        self.positions, self.landmarks = positions.clone(), landmarks.clone()
        self.velocities = torch.zeros_like(positions)
        return self._observe()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of the MPE's semi-implicit physics: positions first, then velocities with the forces of before."""
        offsets = self.positions.unsqueeze(2) - self.positions.unsqueeze(1)
        distances = torch.linalg.vector_norm(offsets, dim=-1) + self._apart
        depth = torch.nn.functional.softplus((AGENT_DIAMETER - distances) / CONTACT_MARGIN) * CONTACT_MARGIN
        contact = (offsets * (CONTACT_FORCE * depth / distances).unsqueeze(-1)).sum(2)
        self.positions = self.positions + self.velocities * TIME_STEP
        self.velocities = self.velocities * (1.0 - DAMPING) + (_FORCES[actions] + contact) * TIME_STEP
        reward = self._reward()
        self._steps += 1
        observation = self._observe()
        if self._steps < EPISODE_STEPS:
            return observation, reward, self._going_on, self._going_on
        self.final_observation = observation
        self._begin()
        return self._observe(), reward, self._going_on, self._ended

    def _begin(self) -> None:
        shape = (2, self.num_envs, AGENTS, 2)
        drawn = torch.rand(shape, generator=self._generator, dtype=torch.float64) * 2.0 - 1.0
        self.set_state(drawn[0], drawn[1])

    def _reward(self) -> Tensor:
        to_landmarks = torch.cdist(self.landmarks, self.positions, compute_mode="donot_use_mm_for_euclid_dist")
        uncovered = to_landmarks.amin(-1).sum(-1, keepdim=True)
        between = torch.linalg.vector_norm(self.positions.unsqueeze(2) - self.positions.unsqueeze(1), dim=-1)
        collisions = (between + self._apart < AGENT_DIAMETER).sum(-1)
        reward: Tensor = -(1.0 - LOCAL_RATIO) * uncovered - LOCAL_RATIO * collisions
        return reward.float()

    def _observe(self) -> Tensor:
        own = self.positions.unsqueeze(2)
        landmarks = (self.landmarks.unsqueeze(1) - own).flatten(2)
        others = (self.positions[:, self._others] - own).flatten(2)
        return torch.cat([self.velocities, self.positions, landmarks, others, self._silence], dim=-1).float()


class PublicSpread:
    """E worlds of ``mpe2.simple_spread_v3`` behind the learner's interface."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.num_agents = AGENTS
        self.num_actions = 5
        self.observation_shape: tuple[int, ...] = (18,)
        self.final_observation = torch.zeros(num_envs, AGENTS, 18)
        self._worlds = [
            simple_spread_v3.parallel_env(N=AGENTS, local_ratio=LOCAL_RATIO, max_cycles=EPISODE_STEPS)
            for _ in range(num_envs)
        ]
        self._names = self._worlds[0].possible_agents

    def reset(self, seed: int) -> Tensor:
        """Resets every world with a seed of its own."""
        return self._stack([world.reset(seed=seed * 100_003 + copy)[0] for copy, world in enumerate(self._worlds)])

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps the worlds one after another."""
        results = [
            world.step(dict(zip(self._names, chosen, strict=True)))
            for world, chosen in zip(self._worlds, actions.tolist(), strict=True)
        ]
        observation = self._stack([result[0] for result in results])
        reward = torch.tensor([[result[1][name] for name in self._names] for result in results], dtype=torch.float32)
        terminated = torch.tensor([any(result[2].values()) for result in results])
        truncated = torch.tensor([any(result[3].values()) for result in results])
        ended = terminated | truncated
        if bool(ended.any()):
            self.final_observation = observation
            observation = observation.clone()
            for copy in ended.nonzero().flatten().tolist():
                observation[copy] = self._stack([self._worlds[copy].reset()[0]])[0]
        return observation, reward, terminated, truncated

    def _stack(self, observations: list[dict[str, np.ndarray]]) -> Tensor:
        return torch.from_numpy(np.stack([[seen[name] for name in self._names] for seen in observations])).float()


def cover_landmarks(observation: Tensor) -> Tensor:
    """A hand-written rule, (E, 3) actions: assign agents to landmarks at the least cost, walk to one's own and brake.

    All six assignments are compared by their summed distances.
    """
    landmarks = observation[..., 4:10].reshape(*observation.shape[:-1], AGENTS, 2)
    distances = torch.linalg.vector_norm(landmarks, dim=-1)
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    best = orders[distances[:, torch.arange(AGENTS), orders].sum(-1).argmin(-1)]
    wanted = landmarks.gather(2, best[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
    wanted = wanted - 0.4 * observation[..., :2]
    along_x = wanted[..., 0].abs() > wanted[..., 1].abs()
    move_x = torch.where(wanted[..., 0] > 0, 2, 1)
    move_y = torch.where(wanted[..., 1] > 0, 4, 3)
    moves = torch.where(along_x, move_x, move_y)
    return torch.where(wanted.abs().amax(-1) < 0.05, 0, moves)
