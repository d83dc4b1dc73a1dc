"""A trained model: the policy, the summary of its training, and the one file that holds both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.mappo import MappoConfig, Policy
from app.tactical import checkpoint
from app.tactical.account import ACTIONS, Agent
from app.tactical.checkpoint import CheckpointError


class Point(BaseModel):
    """One update of the learning curve. Returns are in percent an episode, a mean over the episodes that just ended."""

    model_config = ConfigDict(frozen=True)

    episodes: int
    frames: int
    seconds: float
    episode_return: float
    policy_loss: float
    value_loss: float
    entropy: float
    approximate_kl: float
    explained_variance: float


class TrainingSummary(BaseModel):
    """What was learned, and what it took. Returns are rewards summed, in percent of equity after costs and drawdowns.

    ``return_before`` and ``return_after`` are means over the same plays: on the window itself, or on the held-out bars
    (then an account plays all of them, with the most probable actions).
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["window", "bars"]
    seed: int
    episodes: int
    frames: int
    updates: int
    seconds: float
    """Wall time of the training with both evaluations, over all runs that it was resumed in."""
    return_before: float
    return_after: float
    curve: tuple[Point, ...]
    parameters_per_agent: int
    device: str

    @property
    def losses(self) -> Point:
        """The last point of the curve."""
        return self.curve[-1]


@dataclass(frozen=True)
class Trained:
    """A policy and how it came about."""

    policy: Policy
    summary: TrainingSummary

    def encode(self) -> bytes:
        """The model as one safetensors file, with everything that ``load_policy`` needs in its header."""
        return checkpoint.encode(self.policy.state_dict(), self.document())

    def document(self) -> dict[str, Any]:
        """The header of the model file."""
        config = self.policy.config.model_copy(update={"device": "cpu"})
        return {
            "kind": "model",
            "config": config.model_dump(mode="json"),
            "summary": self.summary.model_dump(mode="json"),
        }


def load_policy(data: bytes, *, device: str = "cpu", source: str = "model") -> tuple[Policy, TrainingSummary]:
    """A policy out of the bytes of ``Trained.encode``.

    Raises:
        CheckpointError: when the bytes are damaged or hold no tactical model.
    """
    return policy_of(*checkpoint.decode(data, source=source), device=device, source=source)


def policy_of(
    tensors: dict[str, Tensor], document: dict[str, Any], *, device: str = "cpu", source: str = "model"
) -> tuple[Policy, TrainingSummary]:
    """A policy out of a decoded model.

    Raises:
        CheckpointError: when they are no tactical model.
    """
    if document.get("kind") != "model":
        raise CheckpointError(f"{source}: holds a {document.get('kind')!r}, expected a 'model'")
    try:
        config = MappoConfig.model_validate(document["config"] | {"device": device})
        summary = TrainingSummary.model_validate(document["summary"])
        policy = Policy(
            config, num_agents=len(Agent), num_actions=ACTIONS, observation_shape=(WINDOW_BARS, WINDOW_FEATURES)
        )
        policy.load_state_dict(tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: no tactical model ({str(error).splitlines()[0]})") from error
    return policy, summary
