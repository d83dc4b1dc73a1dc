"""Compiling a loop over bars with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``function`` compiled on its first call, without the interpreter's lock, and kept on disk where one can write.

    numba refuses to cache at all when neither the source's directory, nor the user's cache, nor ``NUMBA_CACHE_DIR`` is
    writable (a container with a read-only root); then it is compiled anew in every process.
    """
    try:
        kernel = njit(cache=True, nogil=True)(function)
    except RuntimeError:
        kernel = njit(nogil=True)(function)
    return cast("Callable[Parameters, Result]", kernel)
