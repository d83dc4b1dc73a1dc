"""Routes of the tactical service besides ``act``: trainings, jobs, models."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Annotated
from uuid import UUID

import numpy as np
import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from app.service.application import require
from app.service.permissions import Permission, Principal
from app.service.problems import FieldError, ProblemError, unprocessable
from app.tactical import metrics
from app.tactical.events import last_event_id
from app.tactical.job_store import JobRow
from app.tactical.jobs import MODELS
from app.tactical.parts import Parts
from app.tactical.registry import StorageError, storage_problem
from app.tactical.schemas import (
    Activation,
    Job,
    JobList,
    JobRequest,
    JobState,
    Model,
    ModelList,
    TrainAnswer,
    TrainRequest,
)
from app.tactical.store import ModelRow, NewModel, Requester
from app.tactical.tape import WindowError
from app.tactical.trainer import TrainingCancelledError, TrainingDivergedError
from app.tactical.training import TrainedModel, checked_bars, encode_bars, train_on_window

router = APIRouter()
_log = structlog.stdlib.get_logger(__name__)

Reader = Annotated[Principal, Depends(require(Permission.READ))]
Trainer = Annotated[Principal, Depends(require(Permission.TRAIN))]
Activator = Annotated[Principal, Depends(require(Permission.ACTIVATE))]
Limit = Annotated[int, Query(ge=1, le=200)]


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


UsedParts = Annotated[Parts, Depends(_parts)]


def _requester(request: Request, principal: Principal) -> Requester:
    return Requester(principal.subject, request.scope["request_id"])


@router.post("/train", tags=["training"], summary="Train there and then", operation_id="train")
async def train(request: Request, body: TrainRequest, principal: Trainer, parts: UsedParts) -> TrainAnswer:
    """Trains the three agents on one window. The answer is sent when the new model version is committed."""
    began = time.perf_counter()
    try:
        trained = await _train(parts, principal.subject, body)
        model = await _keep(parts, trained, _requester(request, principal))
    except BaseException:
        metrics.TRAININGS.labels("synchronous", "failed").inc()
        raise
    seconds = time.perf_counter() - began
    metrics.TRAININGS.labels("synchronous", "succeeded").inc()
    metrics.TRAINING_TIME.set(seconds)
    metrics.TRAINING_DURATION.observe(seconds)
    metrics.TRAINING_STEPS.inc(trained.steps)
    metrics.TRAINING_RETURN.labels("before").set(trained.metrics["return_before"])
    metrics.TRAINING_RETURN.labels("after").set(trained.metrics["return_after"])
    metrics.TRAINING_LOSS.labels("policy").set(trained.metrics["policy_loss"])
    metrics.TRAINING_LOSS.labels("value").set(trained.metrics["value_loss"])
    if seconds > parts.settings.training_target_seconds:
        _log.warning("training slower than its target", seconds=seconds, target=parts.settings.training_target_seconds)
    return TrainAnswer(
        model_version=model.version,
        episodes=trained.metrics["episodes"],
        steps=trained.steps,
        return_before=trained.metrics["return_before"],
        return_after=trained.metrics["return_after"],
        policy_loss=[point["policy_loss"] for point in trained.episodes],
        value_loss=[point["value_loss"] for point in trained.episodes],
        training_seconds=trained.metrics["seconds"],
        total_seconds=seconds,
    )


async def _train(parts: Parts, client: str, body: TrainRequest) -> TrainedModel:
    data = body.training_data
    window = np.array(data.data, dtype=np.float64).clip(-1.0, 1.0).astype(np.float32)
    episodes = data.episodes if data.episodes is not None else parts.settings.default_episodes
    device = min(parts.devices, key=lambda candidate: candidate.waiting)
    given_up = threading.Event()
    try:
        return await device.run_short(
            client,
            lambda: train_on_window(
                window,
                episodes=episodes,
                seed=data.seed,
                device=device.name,
                jit=parts.settings.jit_enabled,
                cancelled=given_up.is_set,
            ),
        )
    except WindowError as error:
        raise unprocessable(str(error), [FieldError("/training_data/data", str(error))]) from error
    except TrainingDivergedError as error:
        raise unprocessable(f"Nothing was learned from this window: {error}.", []) from error
    except TrainingCancelledError as error:
        raise ProblemError(408, "request-timeout", str(error)) from error
    finally:
        given_up.set()  # nobody waits for it any more


async def _keep(parts: Parts, trained: TrainedModel, requester: Requester) -> NewModel:
    path = f"{MODELS}/{trained.version}.safetensors"
    try:
        file = await asyncio.to_thread(parts.files.write, path, trained.content)
    except StorageError as error:
        raise storage_problem(error) from error
    model = NewModel(trained.version, file, trained.metrics, trained.episodes)
    await parts.models.add(model, requester)
    parts.policies.remember(trained.version, trained.policy)
    return model


@router.post("/jobs", tags=["jobs"], summary="Queue a longer training", status_code=202, operation_id="create_job")
async def create_job(request: Request, body: JobRequest, principal: Trainer, parts: UsedParts) -> Job:
    """Queues a training on bars. The answer is sent when the job is committed; it survives any restart."""
    bars = await asyncio.to_thread(checked_bars, body)
    content = await asyncio.to_thread(encode_bars, bars)
    source = "bars" if body.simulation is None else "simulation"
    parameters = {"episodes": body.episodes, "seed": body.seed, "bars": len(bars), "source": source}
    row = await parts.jobs.add(_requester(request, principal), parameters, content)
    parts.runner.wake()
    return _job(row)


@router.get("/jobs", tags=["jobs"], summary="The client's jobs, newest first", operation_id="list_jobs")
async def list_jobs(
    principal: Reader,
    parts: UsedParts,
    state: JobState | None = None,
    limit: Limit = 50,
    before: UUID | None = None,
) -> JobList:
    """Jobs of the client; of all clients for who may activate models."""
    client = None if Permission.ACTIVATE in principal.permissions else principal.subject
    rows = await parts.jobs.page(client=client, state=state, limit=limit + 1, before=before)
    more = rows[limit - 1].id if len(rows) > limit else None
    return JobList(jobs=[_job(row) for row in rows[:limit]], next=more)


@router.get(
    "/jobs/{job_id}",
    tags=["jobs"],
    summary="One job",
    operation_id="get_job",
    responses={404: {"description": "No such job."}},
)
async def get_job(job_id: UUID, principal: Reader, parts: UsedParts) -> Job:
    """How far a job is."""
    return _job(await _job_of(parts, job_id, principal))


@router.post(
    "/jobs/{job_id}/cancel",
    tags=["jobs"],
    summary="Cancel a job",
    status_code=202,
    operation_id="cancel_job",
    responses={404: {"description": "No such job."}},
)
async def cancel_job(request: Request, job_id: UUID, principal: Trainer, parts: UsedParts) -> Job:
    """Ends a job that waits, and one that runs after its present update. A job that has ended stays as it is."""
    await _job_of(parts, job_id, principal)
    await parts.jobs.cancel(job_id, _requester(request, principal))
    return _job(await _job_of(parts, job_id, principal))


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    summary="A job's story as server-sent events",
    operation_id="watch_job",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Ends with the job.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        404: {"description": "No such job."},
    },
)
async def watch_job(
    job_id: UUID,
    principal: Reader,
    parts: UsedParts,
    last_seen: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """Events `queued`, `started`, `progress`, `checkpoint`, then `succeeded`, `failed` or `cancelled`.

    With `Last-Event-ID` the stream goes on after that event.
    """
    await _job_of(parts, job_id, principal)
    events = parts.streams.stream(job_id, last_event_id(last_seen))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _job_of(parts: Parts, job_id: UUID, principal: Principal) -> JobRow:
    row = await parts.jobs.get(job_id)
    if row is None or (row.client != principal.subject and Permission.ACTIVATE not in principal.permissions):
        raise ProblemError(404, "unknown-job", f"There is no job {job_id}.")
    return row


def _job(row: JobRow) -> Job:
    return Job.model_validate(row, from_attributes=True)


@router.get("/models", tags=["models"], summary="Model versions, newest first", operation_id="list_models")
async def list_models(
    _principal: Reader,
    parts: UsedParts,
    limit: Limit = 50,
    before: Annotated[str | None, Query(max_length=100, pattern=r"^[A-Za-z0-9._-]+$")] = None,
) -> ModelList:
    """Every version that was ever committed."""
    rows = await parts.models.page(limit=limit + 1, before=before)
    active = await parts.models.active() or parts.policies.active_version
    more = rows[limit - 1].version if len(rows) > limit else None
    return ModelList(models=[_model(row, active) for row in rows[:limit]], active=active, next=more)


@router.post(
    "/models/{version}/activate",
    tags=["models"],
    summary="Let a version act",
    operation_id="activate_model",
    responses={404: {"description": "No such version."}},
)
async def activate_model(request: Request, version: str, principal: Activator, parts: UsedParts) -> Activation:
    """Loads and verifies the version first; every process takes it up within a second."""
    row = await parts.models.get(version)
    if row is None:
        raise ProblemError(404, "unknown-model", f"There is no model version {version!r}.")
    await parts.policies.get(version)
    previous = await parts.models.activate(version, _requester(request, principal))
    await parts.policies.follow()
    return Activation(version=version, previous=previous)


@router.post(
    "/models/rollback",
    tags=["models"],
    summary="Let the version before act again",
    operation_id="roll_back_model",
    responses={409: {"description": "There is no version before."}},
)
async def roll_back_model(request: Request, principal: Activator, parts: UsedParts) -> Activation:
    """Goes back to the version that acted before the present one; twice goes back two versions."""
    change = await parts.models.roll_back(_requester(request, principal))
    if change is None:
        raise ProblemError(409, "no-previous-model", "There is no version to go back to.")
    await parts.policies.follow()
    return Activation(version=change[0], previous=change[1])


def _model(row: ModelRow, active: str | None) -> Model:
    return Model(
        version=row.version,
        model_type=row.model_type,
        active=row.version == active,
        checksum=row.checksum,
        size_bytes=row.size_bytes,
        performance_metrics=row.performance_metrics,
        created_at=row.created_at,
    )
