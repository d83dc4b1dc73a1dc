"""What the tactical API takes and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.market.features import TACTICAL_FEATURES

MAXIMUM_EPISODES: Final = 200
"""Of a synchronous training, which must end within the request timeout on a busy machine too."""
MAXIMUM_JOB_EPISODES: Final = 1_000_000
MAXIMUM_BARS: Final = 100_000
MINIMUM_BARS: Final = 2

Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Row = Annotated[list[Finite], Field(min_length=WINDOW_FEATURES, max_length=WINDOW_FEATURES)]
Window = Annotated[list[Row], Field(min_length=WINDOW_BARS, max_length=WINDOW_BARS)]


def _whole(value: object) -> object:
    """1.0 is an integer to JSON Schema (draft 2020-12, section 6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True), BeforeValidator(_whole)]
Episodes = Annotated[int, Field(ge=1, le=MAXIMUM_EPISODES, strict=True), BeforeValidator(_whole)]
JobEpisodes = Annotated[int, Field(ge=1, le=MAXIMUM_JOB_EPISODES, strict=True), BeforeValidator(_whole)]
BarCount = Annotated[int, Field(ge=200, le=200_000, strict=True), BeforeValidator(_whole)]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$", examples=["20261123T010203-1f2e3d4c"])]


def example_window() -> list[Any]:
    """A window for the examples in OpenAPI: a calm market."""
    rows = np.sin(np.arange(WINDOW_BARS)[:, None] * 0.3 + np.arange(WINDOW_FEATURES)) * 0.2
    return [[round(float(value), 3) for value in row] for row in rows]


class Request(BaseModel):
    """Base of what is taken: unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


class TrainingData(Request):
    """One window and how long to learn from it."""

    data: Window = Field(description="30 bars x 7 features: " + ", ".join(TACTICAL_FEATURES))
    episodes: Episodes | None = Field(default=None, description="TACTICAL_TRAINING_EPISODES if absent.")
    seed: Seed = 0


class TrainRequest(Request):
    """Trains there and then."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"training_data": {"episodes": 10, "data": example_window()}}]},
    )

    training_data: TrainingData


class TrainAnswer(BaseModel):
    """What was learned; everything in it is committed."""

    model_version: str = Field(examples=["20261123T010203-1f2e3d4c"])
    episodes: int
    steps: int = Field(description="Environment steps learned from.")
    return_before: float = Field(description="Mean episode return before training, percent of equity.")
    return_after: float = Field(description="The same after training, over the same episodes.")
    policy_loss: list[float] = Field(description="One for each update.")
    value_loss: list[float] = Field(description="One for each update.")
    training_seconds: float
    total_seconds: float = Field(description="From request to all but its commit.")


Price = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Prices = Annotated[list[Price], Field(min_length=MINIMUM_BARS, max_length=MAXIMUM_BARS)]
Volume = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Volumes = Annotated[list[Volume], Field(min_length=MINIMUM_BARS, max_length=MAXIMUM_BARS)]


class BarColumns(Request):
    """Bars of one instrument, column by column, oldest first."""

    time: Annotated[list[datetime], Field(min_length=MINIMUM_BARS, max_length=MAXIMUM_BARS)] = Field(
        description="When each bar opens; ISO 8601, or seconds since the epoch."
    )
    open: Prices
    high: Prices
    low: Prices
    close: Prices
    volume: Volumes

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns must be equally long, not {lengths}")
        return self

    def column(self, name: str) -> NDArray[np.float64]:
        """One column of prices or volume."""
        return np.asarray(getattr(self, name), dtype=np.float64)


class SimulatedBars(Request):
    """Bars from the market simulator, for trying out."""

    bars: BarCount = 5_000
    seed: Seed = 0


class JobRequest(Request):
    """A longer training; give ``bars`` or ``simulation``."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"simulation": {"bars": 2000, "seed": 1}, "episodes": 100}],
            "oneOf": [
                {"required": ["bars"], "properties": {"bars": {"type": "object"}, "simulation": {"type": "null"}}},
                {
                    "required": ["simulation"],
                    "properties": {"simulation": {"type": "object"}, "bars": {"type": "null"}},
                },
            ],
        },
    )

    bars: BarColumns | None = None
    simulation: SimulatedBars | None = None
    episodes: JobEpisodes = 1000
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.bars is None) == (self.simulation is None):
            raise ValueError("give either 'bars' or 'simulation'")
        return self


JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Job(BaseModel):
    """A training in the queue."""

    id: UUID
    state: JobState
    parameters: dict[str, Any]
    progress: dict[str, Any] = Field(examples=[{"episodes": 120, "of": 1000, "mean_return": 0.4}])
    model_version: str | None = None
    error: str | None = None
    cancel_requested: bool = False
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobList(BaseModel):
    """One page of a client's jobs, newest first."""

    jobs: list[Job]
    next: UUID | None = Field(default=None, description="`before` of the next page; absent on the last.")


class Model(BaseModel):
    """A version of the agents."""

    version: str
    model_type: str
    active: bool
    checksum: str = Field(description="SHA-256 of its file.")
    size_bytes: int
    performance_metrics: dict[str, Any]
    created_at: datetime


class ModelList(BaseModel):
    """One page of versions, newest first."""

    models: list[Model]
    active: str | None = Field(description="The version that acts unless a request names another.")
    next: str | None = Field(default=None, description="`before` of the next page; absent on the last.")


class Activation(BaseModel):
    """Which version acts from now on."""

    version: str
    previous: str | None
