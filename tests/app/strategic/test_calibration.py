from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from app.strategic.calibration import auroc, expected_calibration_error, fit_logistic, fit_temperature, macro_f1


def test_a_calibrated_forecaster_has_no_calibration_error_and_a_boaster_has() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1.0, 200_000)
    correct = random.random(len(confidence)) < confidence
    assert expected_calibration_error(confidence, correct) < 0.01
    assert expected_calibration_error(np.full(1000, 0.99), np.arange(1000) % 2 == 0) == pytest.approx(0.49)


def test_confidence_of_exactly_one_has_a_bin() -> None:
    assert expected_calibration_error(np.ones(4), np.ones(4, bool)) == 0.0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_logits_is_recovered(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.standard_normal((50_000, 4)) * 2.0 + np.array([0.5, 0.0, -0.5, 0.0])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) < random.random((len(logits), 1))).sum(axis=1)
    slope, intercepts = fit_temperature(logits * temperature, labels)
    assert slope == pytest.approx(1.0 / temperature, rel=0.03)
    np.testing.assert_allclose(intercepts, 0.0, atol=0.05)


def test_an_overconfident_score_is_corrected() -> None:
    random = np.random.default_rng(2)
    truth = random.uniform(0.05, 0.95, 100_000)
    correct = random.random(len(truth)) < truth
    boasted = 1 / (1 + np.exp(-3.0 * np.log(truth / (1 - truth)) - 0.5))
    slope, intercept = fit_logistic(boasted, correct)
    corrected = 1 / (1 + np.exp(-slope * np.log(boasted / (1 - boasted)) - intercept))
    assert expected_calibration_error(boasted, correct) > 0.05
    assert expected_calibration_error(corrected, correct) < 0.01


def test_separation_and_f1_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(3)
    familiar, unfamiliar = random.integers(0, 20, 300).astype(float), random.integers(5, 25, 200).astype(float)
    expected = roc_auc_score(np.repeat([0, 1], [300, 200]), np.concatenate([familiar, unfamiliar]))
    assert auroc(familiar, unfamiliar) == pytest.approx(expected)
    predicted, truth = random.integers(0, 4, 500), random.integers(0, 4, 500)
    assert macro_f1(predicted, truth, 4) == pytest.approx(f1_score(truth, predicted, average="macro"))
