from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from app.mappo import count_parameters
from app.mappo.config import Activation
from app.mappo.networks import ParallelMlp
from app.mappo.optimiser import Adam, clip_gradient_norm_

CPU = torch.device("cpu")
ACTIVATIONS: dict[Activation, torch.nn.Module] = {
    "tanh": torch.nn.Tanh(),
    "relu": torch.nn.ReLU(),
    "elu": torch.nn.ELU(),
}


def reference(network: ParallelMlp, group: int, parameters: Tensor, inputs: Tensor) -> Tensor:
    """One of the networks, recorded by autograd."""
    start, hidden = 0, inputs
    for index, (rows, columns) in enumerate(pairwise(network.sizes)):
        weight = parameters[group, start : start + rows * columns].view(rows, columns)
        bias = parameters[group, start + rows * columns : start + (rows + 1) * columns]
        start += (rows + 1) * columns
        hidden = hidden @ weight + bias
        if index < len(network.sizes) - 2:
            hidden = ACTIVATIONS[network.activation](hidden)
    return hidden


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("groups", [1, 3])
def test_outputs_and_gradients_agree_with_autograd(activation: Activation, groups: int) -> None:
    network = ParallelMlp(groups, (6, 9, 7, 4), activation, device=CPU)
    network.initialise(torch.Generator().manual_seed(0), output_gain=1.0)
    network.parameters.add_(0.1 * torch.randn(network.parameters.shape, generator=torch.Generator().manual_seed(1)))
    inputs = torch.randn(groups, 11, 6, generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(groups, 11, 4, generator=torch.Generator().manual_seed(3))
    parameters = network.parameters.clone().requires_grad_()
    expected = torch.stack([reference(network, group, parameters, inputs[group]) for group in range(groups)])
    (expected_gradients,) = torch.autograd.grad(expected, parameters, upstream)

    activations = network.activations(inputs)
    network.backward(activations, upstream)

    torch.testing.assert_close(activations[-1], expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.gradients, expected_gradients, rtol=1e-4, atol=1e-5)


def test_bfloat16_products_stay_close_and_parameters_stay_float32() -> None:
    exact, reduced = (
        ParallelMlp(2, (8, 32, 4), "tanh", device=CPU, precision=p) for p in (torch.float32, torch.bfloat16)
    )
    for network in (exact, reduced):
        network.initialise(torch.Generator().manual_seed(0), output_gain=1.0)
    inputs = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(2))
    for network in (exact, reduced):
        network.backward(network.activations(inputs), upstream)
    assert reduced.parameters.dtype == reduced.gradients.dtype == torch.float32
    torch.testing.assert_close(reduced.forward(inputs), exact.forward(inputs), rtol=0.05, atol=0.05)
    difference = torch.linalg.vector_norm(reduced.gradients - exact.gradients) / torch.linalg.vector_norm(
        exact.gradients
    )
    assert float(difference) < 0.02


def test_initial_weights_are_orthogonal_with_the_gain_asked_for() -> None:
    network = ParallelMlp(1, (5, 12, 3), "relu", device=CPU)
    network.initialise(torch.Generator().manual_seed(0), output_gain=0.01)
    first = network.parameters[0, :60].view(5, 12)
    last = network.parameters[0, 72:108].view(12, 3)
    torch.testing.assert_close(first @ first.mT, 2.0 * torch.eye(5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last.mT @ last, 1e-4 * torch.eye(3), rtol=1e-4, atol=1e-8)
    assert not network.parameters[0, 60:72].any()


def test_parameters_are_counted() -> None:
    assert count_parameters((3, 4, 2)) == 3 * 4 + 4 + 4 * 2 + 2
    assert count_parameters((210, 232, 192, 44, 5)) == 102_405


def test_adam_agrees_with_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    mine = torch.randn(2, 50, generator=generator)
    theirs = mine.clone().requires_grad_()
    adam = Adam(mine, learning_rate=0.01, epsilon=1e-5)
    reference_adam = torch.optim.Adam([theirs], lr=0.01, eps=1e-5)
    for _ in range(5):
        gradients = torch.randn(2, 50, generator=generator)
        adam.step(gradients)
        theirs.grad = gradients
        reference_adam.step()
    torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_network_by_network() -> None:
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    norms = clip_gradient_norm_(gradients, 1.0)
    assert norms.tolist() == pytest.approx([5.0, 0.5])
    assert gradients.flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4], rel=1e-5)
