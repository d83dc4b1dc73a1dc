"""The two losses of MAPPO, each with its gradient in closed form.

The gradients are with respect to the networks' outputs; :class:`app.mappo.networks.ParallelMlp` carries them on. The
tests compare both with numbers worked out by hand and with autograd.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """The clipped surrogate with entropy bonus over (G, M) samples; every scalar is a mean over all of them."""

    surrogate: Tensor
    entropy: Tensor
    approximate_kl: Tensor
    clip_fraction: Tensor


def policy_gradient(
    logits: Tensor,
    actions: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    entropy_coefficient: float,
) -> Tensor:
    """Gradient (G, M, n) of the clipped surrogate with entropy bonus, with respect to the logits.

    Each network minimises ``-mean(min(r A, clip(r, 1-c, 1+c) A)) - e mean(H)``.

    With probabilities p = softmax(z), the ratio r = exp(log p_a - old log p_a) and the entropy H:
    d log p_a / dz = onehot(a) - p, and dH / dz = -p (log p + H). Where the clipped branch is the smaller one the
    surrogate is flat.

    Args:
        logits: (G, M, n).
        actions: (G, M, 1) int64.
        old_log_probs: (G, M, 1) of the policy that acted.
        advantages: (G, M, 1).
        clip: c of the surrogate (Schulman et al. 2017, equation 7).
        entropy_coefficient: e.
    """
    samples = logits.shape[1]
    log_probs = torch.log_softmax(logits, dim=-1)
    probabilities = log_probs.exp()
    ratio = (log_probs.gather(-1, actions) - old_log_probs).exp_()
    unclipped = ratio * advantages
    active = unclipped <= ratio.clamp_(1.0 - clip, 1.0 + clip).mul_(advantages)
    likelihood_gradient = unclipped.mul_(active).div_(-samples)
    if entropy_coefficient > 0.0:
        negative_entropy = (probabilities * log_probs).sum(-1, keepdim=True)
        inner = (log_probs - negative_entropy).mul_(entropy_coefficient / samples).sub_(likelihood_gradient)
    else:
        inner = likelihood_gradient.neg()
    return (probabilities * inner).scatter_add_(-1, actions, likelihood_gradient)


def policy_loss(
    logits: Tensor, actions: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float
) -> PolicyLoss:
    """The numbers worth watching, for the same arguments as :func:`policy_gradient`.

    ``approximate_kl`` is the estimator ``mean((r - 1) - log r)`` (Schulman 2020, "Approximating KL divergence", k3).
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    log_ratio = log_probs.gather(-1, actions) - old_log_probs
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
    return PolicyLoss(
        surrogate=-surrogate.mean(),
        entropy=-(log_probs.exp() * log_probs).sum(-1).mean(),
        approximate_kl=((ratio - 1.0) - log_ratio).mean(),
        clip_fraction=((ratio - 1.0).abs() > clip).float().mean(),
    )


def value_gradient(values: Tensor, old_values: Tensor, targets: Tensor, *, clip: float | None, delta: float) -> Tensor:
    """Gradient (N, A) of :func:`value_loss` with respect to ``values``.

    Huber's derivative is the error clamped to ``delta``. It passes where the value is inside its clipping range (both
    values are the same there, but for rounding), and outside where the value's own loss is the larger one.
    """
    error = values - targets
    gradient = error.clamp(-delta, delta)
    if clip is not None:
        move = values - old_values
        clipped = old_values + move.clamp(-clip, clip)
        # Huber's loss grows with the absolute error, so comparing errors compares losses.
        gradient = gradient * ((move.abs() <= clip) | (error.abs() >= (clipped - targets).abs()))
    return gradient.div_(values.numel())


def value_loss(values: Tensor, old_values: Tensor, targets: Tensor, *, clip: float | None, delta: float) -> Tensor:
    """Clipped Huber loss, a scalar.

    The mean over (N, A) of the larger loss of the value and of the value kept within ``clip`` of the old one.

    Everything in normalised units (Yu et al. 2022, appendix A). Huber's loss is ``e^2 / 2`` up to ``delta``, linear
    beyond.
    """
    loss = torch.nn.functional.huber_loss(values, targets, reduction="none", delta=delta)
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, torch.nn.functional.huber_loss(clipped, targets, reduction="none", delta=delta))
    return loss.mean()
