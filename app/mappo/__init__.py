"""Multi-agent proximal policy optimisation (MAPPO), small enough to read and quick enough to train inside a request.

The learner knows nothing of markets: whatever speaks :class:`VectorEnv` trains with it. ``docs/learning.md`` has the
equations, the switches and the measured results.
"""

from app.mappo.config import MappoConfig
from app.mappo.environment import (
    EnvironmentContractError,
    FinalObservationEnv,
    ResumableEnv,
    VectorEnv,
)
from app.mappo.evaluation import evaluate
from app.mappo.learner import Learner
from app.mappo.networks import count_parameters
from app.mappo.policy import Policy
from app.mappo.statistics import TrainingReport, UpdateStats

__all__ = [
    "EnvironmentContractError",
    "FinalObservationEnv",
    "Learner",
    "MappoConfig",
    "Policy",
    "ResumableEnv",
    "TrainingReport",
    "UpdateStats",
    "VectorEnv",
    "count_parameters",
    "evaluate",
]
