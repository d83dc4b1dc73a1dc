"""A CUDA device without one: fake tensors that know shape, type and device of every result and hold no numbers.

torch checks the devices of every operation on them as it would on a GPU: mixing a CPU tensor in raises. Reading a
number back to the host is what a fake tensor cannot do, so that it shows wherever the code does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

HOST_READS = frozenset(
    {
        torch.ops.aten._local_scalar_dense.default,  # item(), bool(), float(), int(), tolist()
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
        torch.ops.aten.equal.default,
        torch.ops.aten.is_nonzero.default,
    }
)


def _getitem(tensor: Tensor, keys: Any) -> Tensor:
    if tensor.device.type != "cuda":
        return _ORIGINAL["__getitem__"](tensor, keys)  # type: ignore[no-any-return]
    return _indexed(tensor, keys if isinstance(keys, tuple) else (keys,))


def _invert(tensor: Tensor) -> Tensor:
    return torch.ops.aten.bitwise_not.default(tensor)  # type: ignore[no-any-return]


def _copy(tensor: Tensor, source: Tensor) -> Tensor:
    return torch.ops.aten.copy_.default(tensor, source)  # type: ignore[no-any-return]


def _to(tensor: Tensor, target: torch.dtype | torch.device | str) -> Tensor:
    if isinstance(target, torch.dtype):
        return tensor if tensor.dtype == target else torch.ops.aten._to_copy.default(tensor, dtype=target)
    device = torch.device(target)
    return tensor if tensor.device.type == device.type else torch.ops.aten._to_copy.default(tensor, device=device)


def _contiguous(tensor: Tensor, **kwargs: Any) -> Tensor:
    return tensor if tensor.is_contiguous() else torch.ops.aten.clone.default(tensor, **kwargs)


_AROUND: dict[str, Callable[..., Any]] = {
    "__getitem__": _getitem,
    "__invert__": _invert,
    "copy_": _copy,
    "to": _to,
    "contiguous": _contiguous,
}
"""The Python methods that ask a build without CUDA for its device, by the same operators below them."""
_ORIGINAL = {name: getattr(Tensor, name) for name in _AROUND}


def _indexed(tensor: Tensor, keys: tuple[Any, ...]) -> Tensor:
    if Ellipsis in keys:
        raise NotImplementedError("an ellipsis")
    dimension = 0
    for key in keys:
        if key is None:
            tensor, dimension = tensor.unsqueeze(dimension), dimension + 1
        elif isinstance(key, int):
            tensor = tensor.select(dimension, key)
        elif isinstance(key, slice):
            tensor = torch.ops.aten.slice.Tensor(tensor, dimension, key.start, key.stop, key.step or 1)
            dimension += 1
        else:
            raise NotImplementedError(f"an index {key!r}")
    return tensor


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that waits for the device or moves data between devices; answers reads with ``number``."""

    def __init__(self, number: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = number
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        flat = torch.utils._pytree.tree_leaves((args, kwargs or {}))
        devices = {leaf.device.type for leaf in flat if isinstance(leaf, Tensor)}
        if func in HOST_READS and "cuda" in devices:
            self.waits.append(str(func))
            if func is torch.ops.aten._local_scalar_dense.default and self.number is not None:
                return bool(self.number) if args[0].dtype == torch.bool else self.number
        if func is torch.ops.aten._fused_adam_.tensor_lr:  # torch has no fake one; in place, it makes no new tensor
            if devices != {"cuda"}:
                self.waits.append(f"{func}: {sorted(devices)}")
            return None
        if func is torch.ops.aten.exponential_.default:  # whose fake one takes no generator
            return args[0]
        result = func(*args, **(kwargs or {}))
        made = {leaf.device.type for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)}
        if "cuda" in devices | made and devices | made != {"cuda"} and not _only_scalars(flat):
            self.waits.append(f"{func}: {sorted(devices)} to {sorted(made)}")
        return result


def _only_scalars(leaves: list[Any]) -> bool:
    """Whether what is on the CPU are numbers, which travel with the kernel's arguments."""
    return all(leaf.dim() == 0 for leaf in leaves if isinstance(leaf, Tensor) and leaf.device.type == "cpu")


@contextmanager
def pretended_cuda(*, host_reads: float | None = None) -> Iterator[list[str]]:
    """Yields the list of what waited for the device or crossed to another one.

    ``host_reads`` is what a number read back is taken for; None lets the reading fail.
    """
    watch = _Watch(host_reads)
    with (
        patch.multiple(Tensor, **cast("dict[str, Any]", _AROUND)),
        FakeTensorMode(allow_non_fake_inputs=False),
        watch,
        torch.no_grad(),
    ):
        yield watch.waits
