"""Loops are compiled also where nothing can be kept on disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from app.market.compiled import compiled

PROGRAM = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
from app.market.indicators import rsi
import numpy as np
assert rsi(np.arange(1.0, 40.0))[-1] == 100
"""


def test_a_compiled_function_is_the_function() -> None:
    def double(value: float) -> float:
        return 2.0 * value

    assert compiled(double)(4.0) == 8.0


@pytest.mark.slow
def test_a_file_system_without_a_writable_place_is_no_trouble() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=os.environ | {"PYTHONPATH": "."})
