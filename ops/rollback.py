"""Going back: a workload to an earlier image, the tactical model to an earlier version."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

from app.contract import TACTICAL, Service
from ops.cluster import Cluster
from ops.errors import OpsError
from ops.target import Target

_MODELS = f"{TACTICAL.api_prefix}/models"


class RollbackPlan(BaseModel):
    """What a rollback will change."""

    model_config = ConfigDict(frozen=True)

    what: str
    current: str
    wanted: str


def plan_workload(cluster: Cluster, service: Service, digest: str | None) -> RollbackPlan:
    """The image to go back to: the newest revision before the current one, or the one with ``digest``.

    Raises:
        OpsError: when Kubernetes knows no such revision.
    """
    current = cluster.workload(service).image
    earlier = [revision.image for revision in cluster.revisions(service) if revision.image != current]
    candidates = [image for image in earlier if digest is None or image.endswith(f"@{digest}")]
    if not candidates:
        known = ", ".join(image.rpartition("@")[2] for image in earlier) or "none"
        raise OpsError(f"{service}: no earlier revision{f' with {digest}' if digest else ''}; known digests: {known}")
    return RollbackPlan(what=f"image of {service} in {cluster.context}", current=current, wanted=candidates[-1])


def roll_back_workload(cluster: Cluster, service: Service, plan: RollbackPlan) -> None:
    """Roll over to the planned image and wait until every pod runs it.

    Raises:
        OpsError: when they do not become ready; Kubernetes keeps the old pods serving meanwhile.
    """
    cluster.set_image(service, plan.wanted)
    cluster.wait_rolled_out(service)
    if (running := cluster.workload(service).image) != plan.wanted:
        raise OpsError(f"{service}: runs {running}, not {plan.wanted}")


def plan_model(target: Target, version: str | None) -> RollbackPlan:
    """The model version to go back to: the one that was active before, or ``version``.

    Raises:
        OpsError: when there is no such version.
    """
    models = _models(target)
    active = next((model["version"] for model in models if model.get("active")), None)
    others = [model["version"] for model in models if model["version"] != active]
    wanted = version or (others[0] if others else None)
    if wanted is None or wanted not in {model["version"] for model in models}:
        known = ", ".join(others[:10]) or "none"
        raise OpsError(f"no tactical model {version or 'to go back to'}; known versions: {known}")
    return RollbackPlan(what="tactical model", current=str(active), wanted=wanted)


def roll_back_model(target: Target, plan: RollbackPlan) -> None:
    """Activate the planned version; the service verifies its checksum before it serves it.

    Raises:
        OpsError: when the service refuses, or another version is active afterwards.
    """
    with target.client(TACTICAL) as client:
        answer = client.post(f"{_MODELS}/{plan.wanted}/activate")
    if not answer.is_success:
        raise OpsError(f"the tactical service refuses {plan.wanted}: {answer.status_code} {answer.text[:200]}")
    active = next((model["version"] for model in _models(target) if model.get("active")), None)
    if active != plan.wanted:
        raise OpsError(f"version {active} is active, not {plan.wanted}")


def _models(target: Target) -> list[dict[str, Any]]:
    try:
        with target.client(TACTICAL) as client:
            answer = client.get(_MODELS)
    except httpx.HTTPError as error:
        raise OpsError(f"the tactical service cannot be reached: {error}") from None
    if not answer.is_success:
        raise OpsError(f"the tactical service does not list its models: {answer.status_code} {answer.text[:200]}")
    models: list[dict[str, Any]] = answer.json()["models"]
    return models
