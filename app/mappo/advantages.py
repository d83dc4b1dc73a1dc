"""Generalised advantage estimation (Schulman et al. 2016, equation 16)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

COMPILED_FROM = 50_000
"""Elements from which a compiled recursion is worth importing numba for (0.3 s once); below it the tensor loop takes
under 0.3 ms."""


def generalised_advantages(
    rewards: Tensor, values: Tensor, last_values: Tensor, ends: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Advantages (T, ...) with ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lambda A_{t+1}``.

    Nothing flows back over the end of an episode: where ``ends`` is true the step's successor counts as zero.

    Args:
        rewards: (T, N...) float32.
        values: (T, N...) estimates of the states the steps began in, in the rewards' units.
        last_values: (N...) estimates of the states after the last step.
        ends: bool, broadcastable to (T, N...): terminated or truncated at this step.
        gamma: discount.
        gae_lambda: weight of longer estimates, 0 for one step, 1 for Monte Carlo.
    """
    rows = rewards.shape[0]
    deltas = torch.empty_like(rewards)
    large = rewards.device.type == "cpu" and rewards.numel() >= COMPILED_FROM
    recursion = _compiled_recursion() if large else None
    if recursion is not None:
        recursion(
            rewards.reshape(rows, -1).contiguous().numpy(),
            values.reshape(rows, -1).contiguous().numpy(),
            last_values.reshape(-1).contiguous().numpy(),
            ends.expand_as(rewards).reshape(rows, -1).contiguous().numpy(),
            gamma,
            gamma * gae_lambda,
            deltas.view(rows, -1).numpy(),
        )
        return deltas
    going_on = (~ends).to(rewards.dtype)
    discounts = gamma * going_on
    torch.addcmul(rewards - values, discounts, torch.cat([values[1:], last_values.unsqueeze(0)]), out=deltas)
    carried = (gae_lambda * discounts).unbind()
    advantages = deltas.unbind()
    for step in range(rows - 2, -1, -1):
        advantages[step].addcmul_(carried[step], advantages[step + 1])
    return deltas


@cache
def _compiled_recursion() -> Callable[..., None] | None:
    """The same recursion as one pass over memory, or None without numba.

    Compiled on first use, then from numba's cache on disk; on a read-only file system compiled once a process.
    """
    try:
        import numba  # noqa: PLC0415 - 0.3 s that small trainings never need
    except ImportError:
        return None

    def recursion(
        rewards: NDArray[np.float32],
        values: NDArray[np.float32],
        last_values: NDArray[np.float32],
        ends: NDArray[np.bool_],
        gamma: float,
        decay: float,
        advantages: NDArray[np.float32],
    ) -> None:
        gamma32, decay32 = numba.float32(gamma), numba.float32(decay)  # or every product would be a double's
        for column in range(rewards.shape[1]):
            going_on = numba.float32(not ends[-1, column])
            advantages[-1, column] = rewards[-1, column] + gamma32 * going_on * last_values[column] - values[-1, column]
        for row in range(rewards.shape[0] - 2, -1, -1):
            for column in range(rewards.shape[1]):
                going_on = numba.float32(not ends[row, column])
                following = gamma32 * values[row + 1, column] + decay32 * advantages[row + 1, column]
                advantages[row, column] = rewards[row, column] - values[row, column] + going_on * following

    try:
        compiled: Callable[..., None] = numba.njit(cache=True, fastmath=True)(recursion)
    except RuntimeError:  # numba finds no folder that it may write its cache to
        compiled = numba.njit(fastmath=True)(recursion)
    return compiled
