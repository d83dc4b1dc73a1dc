from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.mappo.losses import policy_gradient, policy_loss, value_gradient, value_loss


def test_surrogate_by_hand() -> None:
    # Two actions, logits (0, ln 3): probabilities 1/4 and 3/4. Action 1 was taken with probability 1/2 (ratio 1.5) and
    # advantage 2: min(3, 1.2 * 2) = 2.4. Action 0 was taken with probability 1/2 (ratio 0.5) and advantage -1:
    # min(-0.5, 0.8 * -1) = -0.8. Loss: -(2.4 - 0.8) / 2 = -0.8. Both ratios left [0.8, 1.2].
    loss = policy_loss(
        torch.tensor([[[0.0, math.log(3.0)], [0.0, math.log(3.0)]]]),
        torch.tensor([[[1], [0]]]),
        torch.full((1, 2, 1), math.log(0.5)),
        torch.tensor([[[2.0], [-1.0]]]),
        clip=0.2,
    )
    assert float(loss.surrogate) == pytest.approx(-0.8)
    assert float(loss.entropy) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert float(loss.approximate_kl) == pytest.approx(((0.5 - math.log(1.5)) + (-0.5 - math.log(0.5))) / 2)
    assert float(loss.clip_fraction) == 1.0


def test_surrogate_gradient_by_hand() -> None:
    # Ratio 1 and advantage 3 of one sample: the loss is -3 r, so d loss / d log p = -3, and with probabilities (1/4,
    # 3/4)
    # and action 0 the gradient is -3 * (1 - 1/4, -3/4) = (-2.25, 2.25). Entropy off.
    arguments = torch.tensor([[[0.0, math.log(3.0)]]]), torch.tensor([[[0]]]), torch.tensor([[[math.log(0.25)]]])
    gradient = policy_gradient(*arguments, torch.tensor([[[3.0]]]), clip=0.2, entropy_coefficient=0.0)
    assert gradient.flatten().tolist() == pytest.approx([-2.25, 2.25])


def test_entropy_gradient_by_hand() -> None:
    # No advantage: only the bonus is left. dH/dz_i = -p_i (log p_i + H); the loss is -0.1 H.
    p = torch.tensor([0.25, 0.75])
    entropy = float(-(p * p.log()).sum())
    expected = 0.1 * p * (p.log() + entropy)
    arguments = torch.tensor([[[0.0, math.log(3.0)]]]), torch.tensor([[[0]]]), torch.tensor([[[math.log(0.25)]]])
    gradient = policy_gradient(*arguments, torch.zeros(1, 1, 1), clip=0.2, entropy_coefficient=0.1)
    torch.testing.assert_close(gradient.flatten(), expected)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05]), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_policy_gradient_agrees_with_autograd(seed: int, entropy_coefficient: float, networks: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (2.0 * torch.randn(networks, 16, 5, generator=generator)).requires_grad_()
    actions = torch.randint(5, (networks, 16, 1), generator=generator)
    old = torch.log_softmax(logits.detach(), -1).gather(-1, actions) + 0.3 * torch.randn(
        actions.shape, generator=generator
    )
    advantages = torch.randn(actions.shape, generator=generator)
    total = torch.zeros(())
    for network in range(networks):
        one = slice(network, network + 1)
        loss = policy_loss(logits[one], actions[one], old[one], advantages[one], clip=0.2)
        total = total + loss.surrogate - entropy_coefficient * loss.entropy
    (expected,) = torch.autograd.grad(total, logits)
    gradient = policy_gradient(
        logits.detach(), actions, old, advantages, clip=0.2, entropy_coefficient=entropy_coefficient
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_value_loss_by_hand() -> None:
    # Target 1, old value 0, clip 0.2, delta 10. A value of 0.5 (error 0.5) is kept at 0.2 (error 0.8): 0.8^2 / 2 =
    # 0.32.
    # A value of -30 (error 31, beyond delta: 10 * (31 - 5) = 260) beats its clipped -0.2 (0.72). Mean: 130.16.
    loss = value_loss(torch.tensor([[0.5], [-30.0]]), torch.zeros(2, 1), torch.ones(2, 1), clip=0.2, delta=10.0)
    assert float(loss) == pytest.approx(130.16)


def test_value_gradient_by_hand() -> None:
    # The same values: the first is held by the clipping (0), the second's derivative is -delta over two samples.
    gradient = value_gradient(torch.tensor([[0.5], [-30.0]]), torch.zeros(2, 1), torch.ones(2, 1), clip=0.2, delta=10.0)
    assert gradient.flatten().tolist() == [0.0, -5.0]


@given(st.integers(0, 2**32), st.sampled_from([None, 0.2]), st.sampled_from([0.5, 10.0]))
@settings(max_examples=50, deadline=None)
def test_value_gradient_agrees_with_autograd(seed: int, clip: float | None, delta: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, old_values, targets = torch.randn(3, 20, 2, generator=generator).unbind()
    values = values.clone().requires_grad_()
    loss = value_loss(values, old_values, targets, clip=clip, delta=delta)
    (expected,) = torch.autograd.grad(loss, values)
    gradient = value_gradient(values.detach(), old_values, targets, clip=clip, delta=delta)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
