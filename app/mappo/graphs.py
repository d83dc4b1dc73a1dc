"""CUDA graphs: a gradient step of small networks is a hundred kernels of a few microseconds, launched as one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from app.mappo.batch import Batch

WARM_UP_STEPS = 3
"""Real steps before the capture, as torch's notes on CUDA graphs ask: libraries and allocations are then in place."""


class GraphedStep:
    """Runs ``step(batch)`` eagerly at first, then captures it once and replays it; CUDA only.

    The graph reads from its own copy of the batch. A batch of another shape (a smaller last minibatch) runs eagerly.
    """

    def __init__(self, step: Callable[[Batch], None]) -> None:
        self._step = step
        self._calls = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: Batch | None = None

    def __call__(self, batch: Batch) -> None:
        """One gradient step."""
        self._calls += 1
        if self._calls <= WARM_UP_STEPS:
            self._step(batch)
            return
        if self._inputs is None:
            self._inputs = batch.clone()
            torch.cuda.synchronize()
            with torch.cuda.graph(self._graph):  # records without running
                self._step(self._inputs)
        if self._inputs.actions.shape != batch.actions.shape:
            self._step(batch)
            return
        for mine, theirs in zip(self._inputs, batch, strict=True):
            mine.copy_(theirs)
        self._graph.replay()
