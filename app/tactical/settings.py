"""Settings of the tactical service on top of what both services are told."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from app.contract import Env
from app.service.settings import ServiceSettings


class TacticalSettings(ServiceSettings):
    """What the tactical service is told. Durations in seconds."""

    model_store_url: str = Field(
        default="file:///var/lib/grandmodel/models", validation_alias=Env.MODEL_STORE_URL.value
    )
    """Where model files and checkpoints are kept: ``file:///directory`` or ``s3://bucket/prefix``."""
    training_target_seconds: float = Field(default=1.0, gt=0, validation_alias=Env.TACTICAL_PERFORMANCE_TARGET.value)
    """A synchronous training that takes longer is logged as a warning."""
    default_episodes: int = Field(default=10, ge=1, le=200, validation_alias=Env.TACTICAL_TRAINING_EPISODES.value)
    """Episodes of a synchronous training whose request names none."""
    jit_enabled: bool = Field(default=True, validation_alias=Env.TACTICAL_JIT_ENABLED.value)
    """Lets a GPU replay the update as a CUDA graph; a CPU has nothing to compile that would pay within a training."""
    devices: str = Field(default="auto", validation_alias="TACTICAL_DEVICES")
    """Comma-separated torch devices that train, or ``auto``: every GPU, else the CPU."""
    checkpoint_seconds: float = Field(default=10.0, gt=0, validation_alias="TACTICAL_CHECKPOINT_SECONDS")
    """Longest stretch of a job's work that a kill can cost."""
    turn_seconds: float = Field(default=60.0, gt=0, validation_alias="TACTICAL_TURN_SECONDS")
    """How long a job keeps a device while another client's job waits."""
    job_lease_seconds: float = Field(default=15.0, gt=1, validation_alias="TACTICAL_JOB_LEASE_SECONDS")
    """Silence after which a job's process counts as dead."""

    @field_validator("model_store_url")
    @classmethod
    def _known_store(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "file" and not parts.netloc and Path(parts.path).is_absolute():
            return url
        if parts.scheme == "s3" and parts.netloc:
            return url
        raise ValueError("must be file:///absolute/directory or s3://bucket/prefix")
