"""Data-parallel training under ``torchrun``.

Every process collects its own rollouts; gradients and statistics are averaged.

Every network's gradient is one flat tensor, so one all-reduce a network does what DistributedDataParallel does with
its buckets. Nothing here touches ``torch.distributed`` unless a process group exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def process_group(device: str = "cpu") -> Iterator[str]:
    """Joins the processes that ``torchrun`` started (NCCL on CUDA, Gloo elsewhere) and leaves them at the end.

    Yields the device of this process: ``cuda:LOCAL_RANK`` for ``cuda``. Without ``torchrun`` it yields ``device`` and
    does nothing.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield device
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, 0 when alone."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Number of processes that train together, 1 when alone."""
    return dist.get_world_size() if _active() else 1


def average_(tensor: Tensor) -> None:
    """Replaces ``tensor`` by its mean over all processes."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor.div_(world_size())


def share_(tensor: Tensor) -> None:
    """Replaces ``tensor`` by that of process 0."""
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
