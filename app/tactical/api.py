"""Routes of the tactical service besides ``act``: trainings, jobs, models."""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.service.application import require
from app.service.database import Connection
from app.service.idempotency import RESPONSE_HEADERS, Within, keep_answer, request_key
from app.service.permissions import Permission, Principal
from app.service.problems import ProblemError
from app.service.request_key import RequestKey
from app.tactical.events import last_event_id
from app.tactical.job_store import JobRow
from app.tactical.parts import Parts
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
from app.tactical.store import Activated, ModelRow, Requester
from app.tactical.synchronous import train_and_keep
from app.tactical.training import checked_bars, encode_bars

router = APIRouter()

Reader = Annotated[Principal, Depends(require(Permission.READ))]
Trainer = Annotated[Principal, Depends(require(Permission.TRAIN))]
Activator = Annotated[Principal, Depends(require(Permission.ACTIVATE))]
Key = Annotated[RequestKey | None, Depends(request_key)]
Limit = Annotated[int, Query(ge=1, le=200)]


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


UsedParts = Annotated[Parts, Depends(_parts)]


def _requester(request: Request, principal: Principal) -> Requester:
    return Requester(principal.subject, request.scope["request_id"])


@router.post(
    "/train",
    tags=["training"],
    summary="Train there and then",
    operation_id="train",
    responses={200: {"headers": RESPONSE_HEADERS}},
)
async def train(
    request: Request, response: Response, body: TrainRequest, principal: Trainer, parts: UsedParts, key: Key
) -> TrainAnswer:
    """Trains the three agents on one window. The answer is sent when the new model version is committed."""
    requester = _requester(request, principal)
    return await parts.answered.once(key, TrainAnswer, lambda: train_and_keep(parts, body, requester, key), response)


@router.post(
    "/jobs",
    tags=["jobs"],
    summary="Queue a longer training",
    status_code=202,
    operation_id="create_job",
    responses={202: {"headers": RESPONSE_HEADERS}},
)
async def create_job(
    request: Request, response: Response, body: JobRequest, principal: Trainer, parts: UsedParts, key: Key
) -> Job:
    """Queues a training on bars. The answer is sent when the job is committed; it survives any restart."""
    requester = _requester(request, principal)
    return await parts.answered.once(key, Job, lambda: _queue(parts, body, requester, key), response)


async def _queue(parts: Parts, body: JobRequest, requester: Requester, key: RequestKey | None) -> Job:
    bars = await asyncio.to_thread(checked_bars, body)
    content = await asyncio.to_thread(encode_bars, bars)
    source = "bars" if body.simulation is None else "simulation"
    parameters = {"episodes": body.episodes, "seed": body.seed, "bars": len(bars), "source": source}

    async def keep(connection: Connection, row: JobRow) -> None:
        await keep_answer(connection, key, _job(row))

    row = await parts.jobs.add(requester, parameters, content, keep)
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
    responses={200: {"headers": RESPONSE_HEADERS}, 404: {"description": "No such version."}},
)
async def activate_model(
    request: Request, response: Response, version: str, principal: Activator, parts: UsedParts, key: Key
) -> Activation:
    """Loads and verifies the version first; every process takes it up within a second."""

    async def activate() -> Activation:
        if await parts.models.get(version) is None:
            raise ProblemError(404, "unknown-model", f"There is no model version {version!r}.")
        await parts.policies.get(version)
        change = await parts.models.activate(version, _requester(request, principal), _activation_keeper(key))
        await parts.policies.follow()
        return _activation(change)

    return await parts.answered.once(key, Activation, activate, response)


@router.post(
    "/models/rollback",
    tags=["models"],
    summary="Let the version before act again",
    operation_id="roll_back_model",
    responses={200: {"headers": RESPONSE_HEADERS}, 409: {"description": "There is no version before."}},
)
async def roll_back_model(
    request: Request, response: Response, principal: Activator, parts: UsedParts, key: Key
) -> Activation:
    """Goes back to the version that acted before the present one; twice goes back two versions."""

    async def roll_back() -> Activation:
        change = await parts.models.roll_back(_requester(request, principal), _activation_keeper(key))
        if change is None:
            raise ProblemError(409, "no-previous-model", "There is no version to go back to.")
        await parts.policies.follow()
        return _activation(change)

    return await parts.answered.once(key, Activation, roll_back, response)


def _activation(change: Activated) -> Activation:
    return Activation(version=change.version, previous=change.previous)


def _activation_keeper(key: RequestKey | None) -> Within[Activated]:
    return lambda connection, change: keep_answer(connection, key, _activation(change))


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
