"""What the learner asks of an environment, and the checks that keep a broken one from spoiling a policy silently."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class VectorEnv(Protocol):
    """E copies of one environment with A agents each, stepped together; all tensors on one device.

    An environment resets itself: after a step that ends an episode, ``observation`` already belongs to the next one,
    while the reward, ``terminated`` and ``truncated`` belong to the step that ended it.
    """

    num_envs: int
    num_agents: int
    num_actions: int
    observation_shape: tuple[int, ...]

    def reset(self, seed: int) -> Tensor:
        """Starts every copy anew; returns float observations ``(E, A, *observation_shape)``."""
        ...

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Takes int64 ``actions`` (E, A) in ``[0, num_actions)``.

        Returns:
            The next observation ``(E, A, *observation_shape)``, the reward ``(E, A)``, and bool ``terminated`` and
            ``truncated`` ``(E,)``.
        """
        ...


@runtime_checkable
class FinalObservationEnv(Protocol):
    """An environment that also keeps what its agents saw last in an episode; ``truncation="bootstrap"`` needs it."""

    final_observation: Tensor
    """``(E, A, *observation_shape)``; read only where the last step was truncated."""


@runtime_checkable
class ResumableEnv(Protocol):
    """An environment whose state goes into the learner's checkpoint: training goes on as if never interrupted."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        ...


class EnvironmentContractError(ValueError):
    """The environment returned what it must not: a wrong shape or dtype, or a number that is not finite."""


def check_step(
    env: VectorEnv, observation: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, *, device: torch.device
) -> None:
    """Compares shapes, dtypes and devices of one step with the contract of :class:`VectorEnv`.

    Raises:
        EnvironmentContractError: naming the tensor, what came and what was expected.
    """
    check_observation(env, observation, device=device)
    _check("reward", reward, (env.num_envs, env.num_agents), device)
    _check("terminated", terminated, (env.num_envs,), device)
    _check("truncated", truncated, (env.num_envs,), device)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag.dtype != torch.bool:
            raise EnvironmentContractError(f"environment: {name} has dtype {flag.dtype}, expected torch.bool")


def check_observation(env: VectorEnv, observation: Tensor, *, device: torch.device) -> None:
    """Compares an observation's shape and device with the contract.

    Raises:
        EnvironmentContractError: naming what came and what was expected.
    """
    _check("observation", observation, (env.num_envs, env.num_agents, *env.observation_shape), device)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if tuple(tensor.shape) != shape:
        raise EnvironmentContractError(f"environment: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    if tensor.device.type != device.type:
        raise EnvironmentContractError(f"environment: {name} is on {tensor.device}, the learner on {device}")


def check_finite(name: str, values: Tensor, first_frame: int) -> None:
    """Looks for NaN and infinity in ``values`` (T, E, A, ...) of one rollout.

    ``first_frame`` is the learner's frame count when the rollout began; copy ``e`` at step ``t`` is frame
    ``first_frame + t * E + e``.

    Raises:
        EnvironmentContractError: naming the first frame, the step, the copy and the agent that are not finite.
    """
    # A sum is finite only if every term is (or it overflows, which the exact search below then clears): one pass, no
    # temporary.
    if bool(torch.isfinite(values.sum())):
        return
    faults = (~torch.isfinite(values)).nonzero()
    if len(faults) == 0:
        return
    step, copy, agent, *feature = (int(index) for index in faults[0])
    where = (
        f"frame {first_frame + step * values.shape[1] + copy} (rollout step {step}, environment {copy}, agent {agent}"
    )
    where += f", feature {tuple(feature)})" if feature else ")"
    raise EnvironmentContractError(
        f"environment: {name} is {float(values[tuple(faults[0])])} at {where}; training stopped before it was learned"
    )
