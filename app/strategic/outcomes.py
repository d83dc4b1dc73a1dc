"""What is stored and answered of the engine's decisions: packed numbers whose order is documented once, here.

``samples.outcome`` holds 30 little-endian float32: probabilities of the 5 actions, those of the 3 agents (5 each), the
weights of the agents, confidence, epistemic and aleatoric uncertainty, probabilities of the 4 regimes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from app.strategic.answers import HIGH_CONFIDENCE, MEDIUM_CONFIDENCE, Decisions

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

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
        numbers: (N, 43) float32: outcome, see the module, and pattern.
        choices: (N, 3) int64: index of decision, regime and confidence level.
        model_version: of the model that decided them all.
    """

    first_id: int
    numbers: Float32
    choices: Int64
    model_version: str

    @classmethod
    def of(cls, decisions: Decisions) -> Self:
        """Outcomes of the engine's decisions, not yet numbered."""
        return cls(0, decisions.answers, decisions.choices, decisions.model_version)

    @classmethod
    def read(cls, first_id: int, numbers: Float32, model_version: str) -> Self:
        """Outcomes of stored numbers, (N, 43) or (N, 30) without patterns; the choices follow from them."""
        confidence = numbers[:, CONFIDENCE]
        level = (confidence < HIGH_CONFIDENCE).astype(np.int64) + (confidence < MEDIUM_CONFIDENCE)
        decision, regime = (numbers[:, part].argmax(axis=1) for part in (PROBABILITIES, REGIME_PROBABILITIES))
        return cls(first_id, numbers, np.column_stack([decision, regime, level]), model_version)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.numbers)

    def part(self, start: int, count: int) -> Outcomes:
        """``count`` samples from ``start``."""
        rows = slice(start, start + count)
        return Outcomes(self.first_id + start, self.numbers[rows], self.choices[rows], self.model_version)

    def numbered(self, first_id: int) -> Outcomes:
        """The same with ids."""
        return Outcomes(first_id, self.numbers, self.choices, self.model_version)

    @property
    def outcome(self) -> Float32:
        """(N, 30), see the module."""
        return self.numbers[:, :OUTCOME_WIDTH]

    @property
    def pattern(self) -> Float32:
        """(N, 13) code of the window for similarity search."""
        return self.numbers[:, OUTCOME_WIDTH:]

    @property
    def decision(self) -> Int64:
        """(N,) index in ``ACTIONS`` of the most probable action."""
        return self.choices[:, 0]

    @property
    def regime(self) -> Int64:
        """(N,) index in ``REGIMES`` of the most probable regime."""
        return self.choices[:, 1]

    @property
    def level(self) -> Int64:
        """(N,) index in ``LEVELS`` of the confidence."""
        return self.choices[:, 2]

    @property
    def sound(self) -> NDArray[np.bool_]:
        """(N,) whether every number is finite: a matrix of extreme values may overflow the model."""
        return np.asarray(np.isfinite(self.numbers).all(axis=1))
