"""How far probabilities can be believed: calibration error, temperature, and separation of the unfamiliar."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, by their size (Guo et al. 2017, eq. 3).

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) whether the prediction was right.
        bins: number of bins of [0, 1].
    """
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    size = np.bincount(place, minlength=bins)
    gap = np.bincount(place, weights=confidence - correct, minlength=bins)
    return float(np.abs(gap).sum() / size.sum())


def fit_temperature(
    logits: Floats, labels: NDArray[np.integer[Any]], moderation: Floats | None = None
) -> tuple[float, Floats]:
    """Slope and intercepts of the calibrated logits: vector scaling with one slope (Guo et al. 2017, section 4.2).

    Args:
        logits: (N, K).
        labels: (N,) in [0, K).
        moderation: (N,) factor of the calibrated logits of each sample, one by default.

    Returns:
        The slope (one over the temperature) and the intercepts (K,) which minimise the negative log-likelihood of
        moderation * (slope * logits + intercepts).
    """
    factor = np.ones(len(labels)) if moderation is None else moderation
    classes = logits.shape[1]
    # The loss is convex in slope and intercepts: Newton's method. The ridge is there because only differences of
    # intercepts count.
    columns = np.zeros((len(labels), classes, classes + 1))
    columns[:, :, 0] = logits * factor[:, None]
    columns[:, np.arange(classes), np.arange(classes) + 1] = factor[:, None]
    columns = columns - np.take_along_axis(columns, labels[:, None, None].astype(np.int64), axis=1)
    parameters = np.zeros(classes + 1)
    loss, gradient, curvature = _likelihood(columns, parameters)
    for _ in range(50):
        step = np.linalg.solve(curvature + 1e-6 * np.eye(classes + 1), gradient)
        for _ in range(30):
            tried = _likelihood(columns, parameters - step)
            if tried[0] <= loss:
                break
            step /= 2.0
        parameters -= step
        loss, gradient, curvature = tried
        if np.abs(step).max() < 1e-6:
            break
    return float(parameters[0]), parameters[1:] - parameters[1:].mean()


def _likelihood(columns: Floats, parameters: Floats) -> tuple[float, Floats, Floats]:
    """Negative log-likelihood, gradient and curvature; columns (N, K, P) are relative to those of the true class."""
    odds = columns @ parameters
    top = odds.max(axis=1, keepdims=True)
    exponentials = np.exp(odds - top)
    total = exponentials.sum(axis=1, keepdims=True)
    probabilities = exponentials / total
    mean = np.einsum("nk,nkp->np", probabilities, columns)
    second = np.einsum("nkp,nkq->pq", probabilities[:, :, None] * columns, columns, optimize=True)
    count = len(columns)
    return float((np.log(total) + top).mean()), mean.mean(axis=0), (second - mean.T @ mean) / count


def fit_logistic(scores: Floats, correct: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of a score's logit that best predict ``correct`` (Platt 1999)."""
    logit = np.log(scores / (1.0 - scores))
    two = np.stack([np.zeros_like(logit), logit], axis=1)
    slope, intercepts = fit_temperature(two, correct.astype(np.int64))
    return slope, float(intercepts[1] - intercepts[0])


def auroc(familiar: Floats, unfamiliar: Floats) -> float:
    """Chance that an unfamiliar sample scores above a familiar one, ties counting one half (Hanley and McNeil 1982)."""
    scores = np.concatenate([familiar, unfamiliar])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[len(familiar) :].sum() - len(unfamiliar) * (len(unfamiliar) + 1) / 2
    return float(above / (len(familiar) * len(unfamiliar)))


def macro_f1(predicted: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: int) -> float:
    """Unweighted mean over classes of the harmonic mean of precision and recall."""
    scores = []
    for label in range(classes):
        hits = np.sum((predicted == label) & (truth == label))
        total = np.sum(predicted == label) + np.sum(truth == label)
        scores.append(2.0 * hits / total if total else 0.0)
    return float(np.mean(scores))
