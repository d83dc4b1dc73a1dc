"""Settings of the strategic service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from app.contract import MATRIX_BARS, MATRIX_FEATURES, STRATEGIC_TARGET_SAMPLES_PER_SECOND, Env
from app.service.settings import ServiceSettings


class StrategicSettings(ServiceSettings):
    """What only the strategic service is told."""

    performance_target: int = Field(
        default=STRATEGIC_TARGET_SAMPLES_PER_SECOND, gt=0, validation_alias=Env.STRATEGIC_PERFORMANCE_TARGET.value
    )
    matrix_size: str = Field(
        default=f"{MATRIX_BARS}x{MATRIX_FEATURES}", validation_alias=Env.STRATEGIC_MATRIX_SIZE.value
    )
    processing_threads: int = Field(default=1, ge=1, le=256, validation_alias=Env.STRATEGIC_PROCESSING_THREADS.value)
    """Threads of the engine in each worker process."""
    precision: Literal["auto", "float32"] = Field(default="auto", validation_alias="STRATEGIC_PRECISION")
    model_path: Path | None = Field(default=None, validation_alias="STRATEGIC_MODEL_PATH")
    """Another model than the shipped one; replaced there, it is taken over without a restart."""
    store_connections: int = Field(default=2, ge=1, le=32, validation_alias="STRATEGIC_STORE_CONNECTIONS")
    """Commits that a worker has under way at the same time."""
    batch_samples: int = Field(default=512, ge=1, le=65_536, validation_alias="STRATEGIC_BATCH_SAMPLES")
    """Most samples that a commit gathers from several requests; one request is never split."""
    queue_samples: int = Field(default=8192, ge=1, validation_alias="STRATEGIC_QUEUE_SAMPLES")
    """Samples that may wait; beyond it a request is asked to come again (503)."""
    commit_timeout: float = Field(default=10.0, gt=0, validation_alias="STRATEGIC_COMMIT_TIMEOUT")
    """Seconds after which the database counts as away although it has not said so."""
    search_probes: int = Field(default=10, ge=1, le=32_768, validation_alias="STRATEGIC_SEARCH_PROBES")
    """Lists of an IVFFlat index that a search reads: more find more of the true neighbours and take longer.

    10 of 1,000 lists find 0.97 of the ten nearest among a million patterns (``benchmarks.store``)."""

    @field_validator("matrix_size")
    @classmethod
    def _is_what_the_model_reads(cls, value: str) -> str:
        if value != f"{MATRIX_BARS}x{MATRIX_FEATURES}":
            raise ValueError(f"must be {MATRIX_BARS}x{MATRIX_FEATURES}: the models read nothing else")
        return value
