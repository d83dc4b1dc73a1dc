"""Loads and stores at addresses, for compiled functions that read or write text.

Between compiled functions numba counts references to every array that is passed or sliced; where that happens for each
number of a text, it takes as long as the text itself. An address is a number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_Given = Any
"""One of numba's own objects for typing and generating code; they have no public types."""


def _load(width: int) -> _Given:
    """An intrinsic that reads an unsigned integer of ``width`` bits from an address."""

    def load(_: _Given, address: _Given) -> _Given:  # noqa: ARG001 - names the argument
        def generate(_: _Given, builder: _Given, __: _Given, arguments: _Given) -> _Given:
            kind = ir.IntType(width)
            return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=1)

        return getattr(types, f"uint{width}")(types.int64), generate

    return intrinsic(load)


def _store(width: int) -> _Given:
    """An intrinsic that writes the low ``width`` bits of an integer to an address."""

    def store(_: _Given, address: _Given, value: _Given) -> _Given:  # noqa: ARG001 - names the arguments
        def generate(_: _Given, builder: _Given, signature: _Given, arguments: _Given) -> _Given:
            kind = ir.IntType(width)
            number = arguments[1] if signature.args[1].bitwidth == width else builder.trunc(arguments[1], kind)
            builder.store(number, builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
            return ir.Constant(ir.IntType(64), 0)

        return types.int64(types.int64, types.uint64), generate

    return intrinsic(store)


def _count(builder_method: str) -> _Given:
    def count(_: _Given, word: _Given) -> _Given:
        def generate(_: _Given, builder: _Given, __: _Given, arguments: _Given) -> _Given:
            return getattr(builder, builder_method)(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.uint64(word), generate

    return intrinsic(count)


byte_at: Any = _load(8)
"""The byte at an address, as uint8."""
word_at: Any = _load(64)
"""Eight bytes from an address, as uint64; the first one is the lowest."""
put_byte: Any = _store(8)
"""Write the lowest byte of a number."""
put_word: Any = _store(64)
"""Write eight bytes, the lowest first."""
trailing_zeros: Any = _count("cttz")
"""Bits below the lowest that is set; 64 for 0."""
leading_zeros: Any = _count("ctlz")
"""Bits above the highest that is set; 64 for 0."""
signed: Any = np.int64
"""Makes an address or a count of a word; ``int()`` would leave it unsigned."""
