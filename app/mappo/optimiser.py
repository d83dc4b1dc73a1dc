"""Adam (Kingma and Ba 2015) over one flat tensor.

``torch.optim.Adam`` imports ``torch._dynamo`` on first use, a second in a fresh process; the fused kernel it would
call is called here directly.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam with the learning rate in a tensor, so that a captured CUDA graph sees it change."""

    def __init__(self, parameters: Tensor, *, learning_rate: float, epsilon: float) -> None:
        self.parameters = parameters
        self.learning_rate = torch.tensor(learning_rate, dtype=torch.float32, device=parameters.device)
        self.mean = torch.zeros_like(parameters)
        self.variance = torch.zeros_like(parameters)
        self.steps = torch.zeros((), dtype=torch.float32, device=parameters.device)
        self._epsilon = epsilon

    def step(self, gradients: Tensor) -> None:
        """One update of ``parameters`` in place; ``gradients`` has their shape."""
        self.steps += 1
        torch._fused_adam_(  # the kernel behind torch.optim.Adam(fused=True); torch is pinned
            [self.parameters],
            [gradients],
            [self.mean],
            [self.variance],
            [],
            [self.steps],
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self._epsilon,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The moments and the step count; parameters belong to the network."""
        return {"mean": self.mean, "variance": self.variance, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self.mean.copy_(state["mean"])
        self.variance.copy_(state["variance"])
        self.steps.copy_(state["steps"])


def clip_gradient_norm_(gradients: Tensor, maximum: float) -> Tensor:
    """Scales rows of ``gradients`` (G, P) in place to norms of at most ``maximum``; returns the norms (G,) before."""
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    if gradients.is_cuda or bool((norms > maximum).any()):
        gradients.mul_((maximum / (norms + 1e-6)).clamp_(max=1.0).unsqueeze(1))
    return norms
