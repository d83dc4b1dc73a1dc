"""Normalisation of values and advantages; over all processes when training is distributed."""

from __future__ import annotations

import torch
from torch import Tensor

from app.mappo import distributed

MIN_VARIANCE = 1e-8
"""Keeps a constant return from dividing by zero; small enough for returns in fractions of a percent."""


class ValueNormaliser:
    """Debiased moving average of the returns' first two moments, one pair an agent (Yu et al. 2022, section 5.1).

    With decay b after n updates the average is ``sum_i b^(n-i) (1-b) moment_i / (1 - b^n)``, kept in float64: at b =
    0.99999 the first debiased averages divide by 1e-5.
    """

    def __init__(self, num_agents: int, *, decay: float, device: torch.device) -> None:
        self._decay = decay
        self._mean = torch.zeros(num_agents, dtype=torch.float64, device=device)
        self._mean_square = torch.zeros_like(self._mean)
        self._weight = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, returns: Tensor) -> None:
        """Takes in a batch of ``returns`` (N, A)."""
        batch = returns.double()
        moments = torch.stack([batch.mean(0), batch.square().mean(0)])
        distributed.average_(moments)
        self._mean.lerp_(moments[0], 1.0 - self._decay)
        self._mean_square.lerp_(moments[1], 1.0 - self._decay)
        self._weight.lerp_(torch.ones_like(self._weight), 1.0 - self._decay)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (A,) in float32; 0 and 1 before the first update."""
        weight = torch.where(self._weight > 0, self._weight, 1.0)
        mean = self._mean / weight
        variance = (self._mean_square / weight - mean.square()).clamp_(min=MIN_VARIANCE)
        variance = torch.where(self._weight > 0, variance, 1.0)
        return mean.float(), variance.sqrt().float()

    def normalise(self, returns: Tensor) -> Tensor:
        """Returns (..., A) in units of the moving standard deviation around the moving mean."""
        mean, deviation = self.moments()
        return (returns - mean) / deviation

    def denormalise(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        mean, deviation = self.moments()
        return values * deviation + mean

    def state_dict(self) -> dict[str, Tensor]:
        """The moving averages."""
        return {"mean": self._mean, "mean_square": self._mean_square, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self._mean.copy_(state["mean"])
        self._mean_square.copy_(state["mean_square"])
        self._weight.copy_(state["weight"])


def normalise_advantages(advantages: Tensor) -> Tensor:
    """Each row of ``advantages`` (G, N) to mean 0 and deviation 1, over the batches of all processes together."""
    batch = advantages.double()
    moments = torch.stack([batch.mean(1), batch.square().mean(1)])
    distributed.average_(moments)
    mean = moments[0]
    deviation = (moments[1] - mean.square()).clamp_(min=0.0).sqrt()
    return ((batch - mean.unsqueeze(1)) / (deviation.unsqueeze(1) + 1e-8)).float()
