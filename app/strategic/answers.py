"""What the engine answers for a batch of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

ACTIONS: Final = ("STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY")
AGENTS: Final = ("MLMI", "NWRQK", "Regime")
REGIMES: Final = ("BULL", "BEAR", "SIDEWAYS", "VOLATILE")
PATTERN_SIZE: Final = 13
EDGES: Final = 3
"""Sides on which the next bar pays: SHORT, NONE, LONG."""

HIGH_CONFIDENCE: Final = 0.8
MEDIUM_CONFIDENCE: Final = 0.5


class ConfidenceLevel(StrEnum):
    """A confidence score in words: HIGH from 0.8, MEDIUM from 0.5, LOW below."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


LEVELS: Final = tuple(ConfidenceLevel)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The answers for N matrices, one row each, float32 unless said otherwise.

    Attributes:
        action_probabilities: (N, 5) over `ACTIONS`: the agents' distributions weighed by the coordinator; sum to 1.
        decision: (N,) int64, the index in `ACTIONS` of the most probable action.
        agent_probabilities: (N, 3, 5), agent by `AGENTS`, then action; each distribution sums to 1.
        agent_weights: (N, 3), how far the coordinator trusts each agent; rows sum to 1.
        confidence: (N,) in [0, 1], calibrated probability that the decision is on the right side: the next bar's true
            expected return is above 0.05 % when buying, below -0.05 % when selling, between them when holding.
        level: (N,) int64, index in `LEVELS`.
        epistemic: (N,) in [0, 1], ignorance of the model: 0.1 at the median of markets like those it was trained on,
            0.5 at their 99th percentile, near 1 far away from them.
        aleatoric: (N,) in [0, 1], noise of the market: entropy of what the model expects the right side to be (sell,
            hold, buy) over its maximum, log 3.
        regime_probabilities: (N, 4) over `REGIMES`, calibrated; rows sum to 1.
        regime: (N,) int64, index in `REGIMES` of the most probable regime.
        regime_confidence: (N,), its probability.
        pattern: (N, 13) in (-1, 1), the learned code of the window for similarity search.
        model_version: of the one model that computed the whole batch.
    """

    action_probabilities: NDArray[np.float32]
    decision: NDArray[np.int64]
    agent_probabilities: NDArray[np.float32]
    agent_weights: NDArray[np.float32]
    confidence: NDArray[np.float32]
    level: NDArray[np.int64]
    epistemic: NDArray[np.float32]
    aleatoric: NDArray[np.float32]
    regime_probabilities: NDArray[np.float32]
    regime: NDArray[np.int64]
    regime_confidence: NDArray[np.float32]
    pattern: NDArray[np.float32]
    model_version: str

    def __len__(self) -> int:
        """Number of matrices answered."""
        return len(self.decision)

    def level_name(self, row: int) -> ConfidenceLevel:
        """The confidence level of one row, in words."""
        return LEVELS[int(self.level[row])]
