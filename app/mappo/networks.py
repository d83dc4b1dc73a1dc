"""Multilayer perceptrons over one flat parameter buffer, several of one shape evaluated as one batched product.

Forward and backward are written out rather than recorded by autograd: a gradient step of three small actors is bound
by the number of kernels, and this is about a third of them. ``tests/app/mappo/test_networks.py`` compares every
gradient with autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from app.mappo.config import Activation

NARROW = 16
"""Fewer outputs than this are multiplied transposed: five columns cost a CPU as much as thirty, five rows do not."""
FEW_ELEMENTS = 8_192
"""Below this an operation on the CPU takes about as long as starting it."""
_HIDDEN_GAINS: dict[Activation, float] = {"tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "elu": math.sqrt(2.0)}


def count_parameters(sizes: Sequence[int]) -> int:
    """Weights and biases of a multilayer perceptron with layer ``sizes`` (inputs first, outputs last)."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


class ParallelMlp:
    """G independent multilayer perceptrons of one shape.

    ``parameters`` is (G, P) float32, a row a network; ``gradients`` has the same shape and is written by
    :meth:`backward`. Every layer's weights are views of a row, so that an optimiser, a norm or a reduction over
    processes is one operation for all of them.
    """

    def __init__(
        self,
        groups: int,
        sizes: Sequence[int],
        activation: Activation,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.groups = groups
        self.sizes = tuple(sizes)
        self.activation = activation
        self.parameters = torch.zeros(groups, count_parameters(sizes), device=device)
        self.gradients = torch.zeros_like(self.parameters)
        # In float32 these are the same tensors; in bfloat16 the products read and write copies of half the size.
        self._working_parameters = self.parameters.to(precision)
        self._working_gradients = self.gradients.to(precision)
        self._weights, self._biases = self._layers(self._working_parameters)
        self._weight_gradients, self._bias_gradients = self._layers(self._working_gradients)
        self._precision = precision

    def _layers(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Views of ``flat`` (G, P): weights (G, inputs, outputs) and biases (G, 1, outputs), layer by layer."""
        weights, biases, start = [], [], 0
        for inputs, outputs in pairwise(self.sizes):
            end = start + inputs * outputs
            weights.append(flat[:, start:end].view(self.groups, inputs, outputs))
            biases.append(flat[:, end : end + outputs].view(self.groups, 1, outputs))
            start = end + outputs
        return weights, biases

    def initialise(self, generator: torch.Generator, *, output_gain: float) -> None:
        """Orthogonal weights (Saxe et al. 2014), zero biases; drawn on the CPU, so a seed means the same everywhere."""
        self.parameters.zero_()
        weights, _ = self._layers(self.parameters)
        gains = [_HIDDEN_GAINS[self.activation]] * (len(weights) - 1) + [output_gain]
        for layer, gain in zip(weights, gains, strict=True):
            for network in layer:
                network.copy_(_orthogonal(network.shape[0], network.shape[1], gain, generator))
        self.refresh()

    def refresh(self) -> None:
        """Call after ``parameters`` changed: renews the copy that the products read, if there is one."""
        if self._working_parameters is not self.parameters:
            self._working_parameters.copy_(self.parameters)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (G, N, outputs), float32, for ``inputs`` (G, N, inputs)."""
        return self.activations(inputs)[-1].float()

    def activations(self, inputs: Tensor) -> list[Tensor]:
        """Every layer's output, the inputs first and the raw outputs last: what :meth:`backward` needs."""
        layers = [inputs.to(self._precision)]
        last = len(self._weights) - 1
        for index, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            if _is_narrow(layers[-1], weight.shape[-1]):
                output = torch.baddbmm(bias.mT, weight.mT, layers[-1].mT).mT
            else:
                output = torch.baddbmm(bias, layers[-1], weight)
            layers.append(output if index == last else _activate_(output, self.activation))
        return layers

    def backward(self, activations: list[Tensor], gradient: Tensor) -> None:
        """Writes ``gradients``, given the loss's ``gradient`` (G, N, outputs) with respect to the outputs."""
        gradient = gradient.to(self._precision)
        for index in range(len(self._weights) - 1, -1, -1):
            inputs = activations[index]
            if _is_narrow(inputs, gradient.shape[-1]):
                self._weight_gradients[index].copy_(torch.bmm(gradient.mT, inputs).mT)
            else:
                torch.bmm(inputs.mT, gradient, out=self._weight_gradients[index])
            torch.sum(gradient, dim=1, keepdim=True, out=self._bias_gradients[index])
            if index > 0:
                gradient = _activation_gradient(torch.bmm(gradient, self._weights[index].mT), inputs, self.activation)
        if self._working_gradients is not self.gradients:
            self.gradients.copy_(self._working_gradients)


def _orthogonal(rows: int, columns: int, gain: float, generator: torch.Generator) -> Tensor:
    """A (rows, columns) matrix with orthonormal rows or columns, whichever are fewer, times ``gain``."""
    normal = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(normal)
    orthonormal: Tensor = q * r.diagonal().sign()
    return gain * (orthonormal if rows >= columns else orthonormal.mT)


def _is_narrow(inputs: Tensor, outputs: int) -> bool:
    """Whether a product of ``inputs`` (G, N, inputs) with ``outputs`` columns is better done transposed."""
    return outputs < NARROW <= inputs.shape[1]


def _activate_(values: Tensor, activation: Activation) -> Tensor:
    if activation == "tanh":
        if values.is_cuda or values.numel() < FEW_ELEMENTS:
            return values.tanh_()
        # The same function to 1e-7 in a quarter of the time: on a CPU torch's tanh is slow and its sigmoid is not.
        return values.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    if activation == "relu":
        return values.relu_()
    return torch.nn.functional.elu_(values)


def _activation_gradient(gradient: Tensor, output: Tensor, activation: Activation) -> Tensor:
    """``gradient`` times the activation's derivative, which all three activations can tell from their ``output``."""
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(gradient, output)  # type: ignore[no-any-return]
    if activation == "relu":
        return torch.ops.aten.threshold_backward(gradient, output, 0)  # type: ignore[no-any-return]
    return torch.ops.aten.elu_backward(gradient, 1, 1, 1, True, output)  # type: ignore[no-any-return]  # noqa: FBT003
