"""What is stored and answered of the engine's decisions: packed numbers whose order is documented once, here.

``samples.outcome`` holds 30 little-endian float32: probabilities of the 5 actions, those of the 3 agents (5 each), the
weights of the agents, confidence, epistemic and aleatoric uncertainty, probabilities of the 4 regimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from app.strategic.answers import HIGH_CONFIDENCE, MEDIUM_CONFIDENCE

Float32 = NDArray[np.float32]

OUTCOME_WIDTH: Final = 30
PROBABILITIES: Final = slice(0, 5)
CONFIDENCE: Final = 23
EPISTEMIC: Final = 24
ALEATORIC: Final = 25
REGIME_PROBABILITIES: Final = slice(26, 30)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Decisions for N samples with consecutive ids.

    Attributes:
        first_id: of the first sample; 0 before ids were given.
        outcome: (N, 30) float32, see the module.
        pattern: (N, 13) float32.
        model_version: of the model that decided them all.
    """

    first_id: int
    outcome: Float32
    pattern: Float32
    model_version: str

    @classmethod
    def of(cls, answers: Float32, model_version: str) -> Self:
        """Outcomes out of the engine's rows of 43 numbers (`answers.ANSWER_COLUMNS`), not yet numbered."""
        return cls(0, answers[:, :OUTCOME_WIDTH], answers[:, OUTCOME_WIDTH:], model_version)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.outcome)

    def part(self, start: int, count: int) -> Outcomes:
        """``count`` samples from ``start``."""
        rows = slice(start, start + count)
        return Outcomes(self.first_id + start, self.outcome[rows], self.pattern[rows], self.model_version)

    def numbered(self, first_id: int) -> Outcomes:
        """The same with ids."""
        return Outcomes(first_id, self.outcome, self.pattern, self.model_version)

    @property
    def decision(self) -> NDArray[np.int64]:
        """(N,) index in ``ACTIONS`` of the most probable action."""
        return _place_of_maximum(self.outcome[:, PROBABILITIES])

    @property
    def regime(self) -> NDArray[np.int64]:
        """(N,) index in ``REGIMES`` of the most probable regime."""
        return _place_of_maximum(self.outcome[:, REGIME_PROBABILITIES])

    @property
    def level(self) -> NDArray[np.int64]:
        """(N,) index in ``LEVELS``."""
        confidence = self.outcome[:, CONFIDENCE]
        return np.where(confidence >= HIGH_CONFIDENCE, 0, np.where(confidence >= MEDIUM_CONFIDENCE, 1, 2))

    @property
    def sound(self) -> NDArray[np.bool_]:
        """(N,) whether every number is finite: a matrix of extreme values may overflow the model."""
        return np.asarray(np.isfinite(self.outcome).all(axis=1) & np.isfinite(self.pattern).all(axis=1))


def _place_of_maximum(columns: Float32) -> NDArray[np.int64]:
    return np.asarray(columns.argmax(axis=1), np.int64)
