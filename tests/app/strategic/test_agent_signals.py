"""The compiled signals against formulas written out in float64, one window and one pair of bars at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.strategic.agents import BARS, FEATURES, PRICE_CHANGE, SIGNAL_WIDTH, SPLITS, InputWeights, prepare
from app.strategic.model import DEFAULT_MODEL, load_model, round_to_bfloat16

Float64 = NDArray[np.float64]


@pytest.fixture(scope="module")
def weights() -> InputWeights:
    shipped = load_model(DEFAULT_MODEL).weights
    neutral = replace(
        shipped,
        signal_center=np.zeros(2 * SIGNAL_WIDTH, np.float32),
        signal_inverse_scale=np.ones(2 * SIGNAL_WIDTH, np.float32),
    )
    return neutral.input_weights()


def signals_of(matrices: NDArray[np.float32], weights: InputWeights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    windows = np.empty((len(matrices), BARS * FEATURES), np.float32)
    signals = np.empty((len(matrices), 2 * SIGNAL_WIDTH), np.float32)
    prepare(matrices, weights, windows, signals)
    return windows.reshape(-1, FEATURES, BARS), signals


def reference_regression(window: Float64, weights: InputWeights) -> list[float]:
    found = []
    for scale in weights.kernel_scales[:3].astype(float):
        kernel, followed = [], []
        for bar in range(BARS - 1):
            difference = window[:, -1] - window[:, bar]
            distance = float(np.sum(weights.metric.astype(float) * difference**2))
            distance += float(weights.kernel_scales[3]) * ((BARS - 1 - bar) / (BARS - 1)) ** 2
            kernel.append((1.0 + distance * scale) ** -1.0)
            followed.append(window[PRICE_CHANGE, bar + 1])
        k, y = np.array(kernel), np.array(followed)
        mean = np.sum(k * y) / np.sum(k)
        spread = np.sqrt(max(np.sum(k * y**2) / np.sum(k) - mean**2, 0.0))
        found += [mean, spread, np.sum(k) ** 2 / (len(k) * np.sum(k**2))]
    return found


def reference_discrepancy(window: Float64, weights: InputWeights, split: int) -> float:
    points = weights.projection.astype(float) @ window

    def kernel(i: int, j: int) -> float:
        return 1.0 / (1.0 + float(np.sum((points[:, i] - points[:, j]) ** 2)))

    older, recent = range(BARS - split), range(BARS - split, BARS)
    within_recent = np.mean([[kernel(i, j) for j in recent] for i in recent])
    within_older = np.mean([[kernel(i, j) for j in older] for i in older])
    between = np.mean([[kernel(i, j) for j in older] for i in recent])
    return float(np.sqrt(max(float(within_recent + within_older - 2.0 * between), 0.0)))


def reference_moments(window: Float64) -> list[float]:
    change = window[PRICE_CHANGE]
    found = [moment for bars in (6, 12, 24, 48) for moment in (change[-bars:].mean(), change[-bars:].std())]
    autocorrelation = np.sum(change[1:] * change[:-1]) / max(np.sum(change**2), 1e-6)
    return [*found, autocorrelation, np.abs(change).max()]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 0.01, 0.3, 1.0, 30.0]))
def test_signals_equal_their_formulas(weights: InputWeights, seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    matrices = (random.standard_normal((2, BARS, FEATURES)) * spread + random.standard_normal(FEATURES)).astype(
        np.float32
    )
    windows, signals = signals_of(matrices, weights)
    for window, row in zip(windows.astype(np.float64), signals, strict=True):
        np.testing.assert_allclose(row[:9], reference_regression(window, weights), atol=2e-3)
        expected = [reference_discrepancy(window, weights, split) for split in SPLITS]
        np.testing.assert_allclose(row[16:19], expected, atol=2e-3)
        np.testing.assert_allclose(row[19:29], reference_moments(window), atol=2e-3)
        assert not row[9:16].any()
        assert not row[29:].any()


def test_windows_are_standardised_clipped_and_laid_out_by_feature(weights: InputWeights) -> None:
    matrices = np.random.default_rng(1).standard_normal((3, BARS, FEATURES)).astype(np.float32)
    matrices[0, 5, 2] = 1e30
    windows, _ = signals_of(matrices, weights)
    standard = (matrices - weights.center) * weights.inverse_scale
    expected = np.clip(standard, -weights.clip, weights.clip).transpose(0, 2, 1)
    np.testing.assert_allclose(windows, expected, rtol=2**-8)
    np.testing.assert_array_equal(windows, round_to_bfloat16(windows))


def test_a_break_in_the_market_raises_the_discrepancy_and_an_even_market_has_none(weights: InputWeights) -> None:
    even = np.zeros((1, BARS, FEATURES), np.float32) + weights.center
    broken = even.copy()
    broken[:, -12:] += 2.0 / weights.inverse_scale
    _, signals = signals_of(np.concatenate([even, broken]), weights)
    assert signals[0, 16:19].max() < 1e-3
    assert signals[1, 17] > 0.5


def test_the_regression_forecasts_what_followed_bars_like_the_last_one(weights: InputWeights) -> None:
    # Every other bar looks like the last one and was followed by a rise, the rest by a fall.
    window = np.zeros((BARS, FEATURES), np.float32)
    window[1::2, 1:] = 3.0
    window[0::2, PRICE_CHANGE] = 1.0
    window[1::2, PRICE_CHANGE] = -1.0
    matrices = (window / weights.inverse_scale + weights.center)[None].astype(np.float32)
    sharp = weights._replace(metric=np.ones(FEATURES, np.float32))
    _, signals = signals_of(matrices, sharp)
    assert signals[0, 0] > 0.8
