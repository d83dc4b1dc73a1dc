"""What both peers take and answer: the same matrices and the same fields as the service, without ids."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from app.strategic.answers import ACTIONS, AGENTS, REGIMES, Decisions

Bar = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=13, max_length=13)]


class MarketData(BaseModel):
    """One matrix with its time."""

    timestamp: datetime
    data: Annotated[list[Bar], Field(min_length=48, max_length=48)]


class MatrixRequest(BaseModel):
    """As the service takes it."""

    market_data: MarketData


class Answer(BaseModel):
    """The service's fields."""

    decision: str
    probabilities: dict[str, float]
    agents: dict[str, dict[str, float]]
    agent_weights: dict[str, float]
    confidence: float
    confidence_level: str
    epistemic_uncertainty: float
    aleatoric_uncertainty: float
    regime: str
    regime_probabilities: dict[str, float]
    pattern: list[float]
    model_version: str


def matrices(requests: list[MatrixRequest]) -> NDArray[np.float32]:
    """(N, 48, 13) of validated requests."""
    return np.array([request.market_data.data for request in requests], np.float32)


def answer(decisions: Decisions, row: int) -> Answer:
    """One row of a batch as a document."""
    agents = decisions.agent_probabilities[row].tolist()
    return Answer(
        decision=ACTIONS[int(decisions.decision[row])],
        probabilities=dict(zip(ACTIONS, decisions.action_probabilities[row].tolist(), strict=True)),
        agents={name: dict(zip(ACTIONS, agent, strict=True)) for name, agent in zip(AGENTS, agents, strict=True)},
        agent_weights=dict(zip(AGENTS, decisions.agent_weights[row].tolist(), strict=True)),
        confidence=float(decisions.confidence[row]),
        confidence_level=decisions.level_name(row),
        epistemic_uncertainty=float(decisions.epistemic[row]),
        aleatoric_uncertainty=float(decisions.aleatoric[row]),
        regime=REGIMES[int(decisions.regime[row])],
        regime_probabilities=dict(zip(REGIMES, decisions.regime_probabilities[row].tolist(), strict=True)),
        pattern=decisions.pattern[row].tolist(),
        model_version=decisions.model_version,
    )
