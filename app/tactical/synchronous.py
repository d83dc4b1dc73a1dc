"""A synchronous training: on the least busy device, then committed with its file, its rows and its answer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import structlog

from app.service.idempotency import AlreadyAnsweredError, keep_answer
from app.service.problems import FieldError, ProblemError, unprocessable
from app.service.request_key import RequestKey
from app.tactical import metrics
from app.tactical.jobs import MODELS
from app.tactical.parts import Parts
from app.tactical.registry import StorageError, storage_problem
from app.tactical.schemas import TrainAnswer, TrainRequest
from app.tactical.store import NewModel, Requester
from app.tactical.tape import WindowError
from app.tactical.trainer import TrainingCancelledError, TrainingDivergedError
from app.tactical.training import TrainedModel, train_on_window

_log = structlog.stdlib.get_logger(__name__)


async def train_and_keep(parts: Parts, body: TrainRequest, requester: Requester, key: RequestKey | None) -> TrainAnswer:
    """Trains and commits the version together with ``key``, if there is one; returns after the commit.

    Raises:
        ProblemError: 408, 422, 503 or 507; nothing was stored.
        AlreadyAnsweredError: the key was answered meanwhile; nothing was stored.
    """
    began = time.perf_counter()
    try:
        trained = await _train(parts, requester.subject, body)
        answer = _answer(trained, time.perf_counter() - began)
        await _keep(parts, trained, requester, key, answer)
    except AlreadyAnsweredError:
        metrics.TRAININGS.labels("synchronous", "repeated").inc()
        raise
    except BaseException:
        metrics.TRAININGS.labels("synchronous", "failed").inc()
        raise
    _measure(trained, time.perf_counter() - began, target=parts.settings.training_target_seconds)
    return answer


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


async def _keep(
    parts: Parts, trained: TrainedModel, requester: Requester, key: RequestKey | None, answer: TrainAnswer
) -> None:
    path = f"{MODELS}/{trained.version}.safetensors"
    try:
        file = await asyncio.to_thread(parts.files.write, path, trained.content)
    except StorageError as error:
        raise storage_problem(error) from error
    model = NewModel(trained.version, file, trained.metrics, trained.episodes)
    try:
        await parts.models.add(model, requester, lambda connection, _: keep_answer(connection, key, answer))
    except AlreadyAnsweredError:
        await asyncio.to_thread(parts.files.delete, path)
        raise
    parts.policies.remember(trained.version, trained.policy)


def _answer(trained: TrainedModel, seconds: float) -> TrainAnswer:
    told: dict[str, Any] = trained.metrics
    return TrainAnswer(
        model_version=trained.version,
        episodes=told["episodes"],
        steps=trained.steps,
        return_before=told["return_before"],
        return_after=told["return_after"],
        policy_loss=[point["policy_loss"] for point in trained.episodes],
        value_loss=[point["value_loss"] for point in trained.episodes],
        training_seconds=told["seconds"],
        total_seconds=seconds,
    )


def _measure(trained: TrainedModel, seconds: float, *, target: float) -> None:
    metrics.TRAININGS.labels("synchronous", "succeeded").inc()
    metrics.TRAINING_TIME.set(seconds)
    metrics.TRAINING_DURATION.observe(seconds)
    metrics.TRAINING_STEPS.inc(trained.steps)
    for when in ("before", "after"):
        metrics.TRAINING_RETURN.labels(when).set(trained.metrics[f"return_{when}"])
    for network in ("policy", "value"):
        metrics.TRAINING_LOSS.labels(network).set(trained.metrics[f"{network}_loss"])
    if seconds > target:
        _log.warning("training slower than its target", seconds=seconds, target=target)
