from __future__ import annotations

import numpy as np
import pytest
import torch

from app.mappo.normalisation import ValueNormaliser, normalise_advantages

CPU = torch.device("cpu")


def test_long_running_statistics_agree_with_all_data_in_float64() -> None:
    # At decay 0.99999 the debiased average of 50 equal batches is their mean to a few parts in 10,000.
    data = np.random.default_rng(0).normal([3.0, -200.0], [0.5, 40.0], size=(50, 64, 2))
    normaliser = ValueNormaliser(2, decay=0.99999, device=CPU)
    for batch in data:
        normaliser.update(torch.from_numpy(batch).float())
    mean, deviation = normaliser.moments()
    everything = data.reshape(-1, 2)
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-3)
    np.testing.assert_allclose(deviation, everything.std(0), rtol=1e-3)


def test_a_moving_average_agrees_with_its_definition_in_float64() -> None:
    data = np.random.default_rng(1).normal(5.0, 2.0, size=(20, 30))
    weights = 0.9 ** np.arange(19, -1, -1) * 0.1 / (1.0 - 0.9**20)
    mean = (weights * data.mean(1)).sum()
    deviation = np.sqrt((weights * (data**2).mean(1)).sum() - mean**2)
    normaliser = ValueNormaliser(1, decay=0.9, device=CPU)
    for batch in data:
        normaliser.update(torch.from_numpy(batch).unsqueeze(1))
    measured = [float(moment) for moment in normaliser.moments()]
    assert measured == pytest.approx([mean, deviation], rel=1e-6)


def test_large_means_do_not_swallow_small_deviations() -> None:
    data = 10_000.0 + torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normaliser = ValueNormaliser(1, decay=0.99999, device=CPU)
    normaliser.update(data)
    assert float(normaliser.moments()[1]) == pytest.approx(float(data.std(correction=0)), rel=1e-4)


def test_normalising_and_back_is_the_identity() -> None:
    normaliser = ValueNormaliser(2, decay=0.99, device=CPU)
    values = torch.tensor([[1.0, -30.0], [2.0, 50.0]])
    assert torch.equal(normaliser.denormalise(values), values), "before the first update"
    normaliser.update(values)
    torch.testing.assert_close(normaliser.denormalise(normaliser.normalise(values)), values)


def test_constant_returns_stay_finite() -> None:
    normaliser = ValueNormaliser(1, decay=0.99999, device=CPU)
    normaliser.update(torch.full((10, 1), 5.0))
    assert float(normaliser.normalise(torch.tensor([[5.0]]))) == pytest.approx(0.0, abs=1e-3)


def test_advantages_have_mean_zero_and_deviation_one_for_each_network() -> None:
    advantages = 5.0 + 3.0 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    normalised = normalise_advantages(advantages)
    torch.testing.assert_close(normalised.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(1, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert not normalise_advantages(torch.ones(1, 4)).any(), "equal advantages carry no signal"
