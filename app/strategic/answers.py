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

ANSWER_COLUMNS: Final = {
    "action_probabilities": slice(0, 5),
    "agent_probabilities": slice(5, 20),
    "agent_weights": slice(20, 23),
    "confidence": slice(23, 24),
    "epistemic": slice(24, 25),
    "aleatoric": slice(25, 26),
    "regime_probabilities": slice(26, 30),
    "pattern": slice(30, 43),
}
"""Where an answer's fields lie in a row of answers."""

ANSWER_WIDTH: Final = 43

Float32 = NDArray[np.float32]

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
    """The answers for N matrices, one row each; all columns are views of two arrays.

    Attributes:
        answers: (N, 43) float32, laid out by `ANSWER_COLUMNS`.
        choices: (N, 3) int64: decision, regime and confidence level.
        model_version: of the one model that computed the whole batch.
    """

    answers: Float32
    choices: NDArray[np.int64]
    model_version: str

    def __len__(self) -> int:
        """Number of matrices answered."""
        return len(self.choices)

    @property
    def action_probabilities(self) -> Float32:
        """(N, 5) over `ACTIONS`: the agents' distributions weighed by the coordinator; rows sum to 1."""
        return self.answers[:, ANSWER_COLUMNS["action_probabilities"]]

    @property
    def decision(self) -> NDArray[np.int64]:
        """(N,) index in `ACTIONS` of the most probable action."""
        return self.choices[:, 0]

    @property
    def agent_probabilities(self) -> Float32:
        """(N, 3, 5), agent by `AGENTS`, then action; each distribution sums to 1."""
        return self.answers[:, ANSWER_COLUMNS["agent_probabilities"]].reshape(-1, len(AGENTS), len(ACTIONS))

    @property
    def agent_weights(self) -> Float32:
        """(N, 3), how far the coordinator trusts each agent; rows sum to 1."""
        return self.answers[:, ANSWER_COLUMNS["agent_weights"]]

    @property
    def confidence(self) -> Float32:
        """(N,) in [0, 1], calibrated probability that the decision is on the right side.

        Right is buying when the next bar's true expected return is above 0.05 %, selling when it is below -0.05 %,
        holding when it is between them.
        """
        return self.answers[:, ANSWER_COLUMNS["confidence"].start]

    @property
    def level(self) -> NDArray[np.int64]:
        """(N,) index in `LEVELS` of the confidence."""
        return self.choices[:, 2]

    @property
    def epistemic(self) -> Float32:
        """(N,) in [0, 1], ignorance of the model.

        0.1 at the median of markets like those it was trained on, 0.5 at their 99th percentile, near 1 far away.
        """
        return self.answers[:, ANSWER_COLUMNS["epistemic"].start]

    @property
    def aleatoric(self) -> Float32:
        """(N,) in [0, 1], noise of the market.

        Entropy of what the model expects the right side to be (sell, hold, buy), over its maximum, log 3.
        """
        return self.answers[:, ANSWER_COLUMNS["aleatoric"].start]

    @property
    def regime_probabilities(self) -> Float32:
        """(N, 4) over `REGIMES`, calibrated; rows sum to 1."""
        return self.answers[:, ANSWER_COLUMNS["regime_probabilities"]]

    @property
    def regime(self) -> NDArray[np.int64]:
        """(N,) index in `REGIMES` of the most probable regime."""
        return self.choices[:, 1]

    @property
    def regime_confidence(self) -> Float32:
        """(N,) probability of the most probable regime."""
        return np.take_along_axis(self.regime_probabilities, self.choices[:, 1:2], axis=1)[:, 0]

    @property
    def pattern(self) -> Float32:
        """(N, 13) in (-1, 1), the learned code of the window for similarity search."""
        return self.answers[:, ANSWER_COLUMNS["pattern"]]

    def level_name(self, row: int) -> ConfidenceLevel:
        """The confidence level of one row, in words."""
        return LEVELS[int(self.level[row])]
