"""Stopping everything, and starting it again."""

from __future__ import annotations

import os
import signal
import time
from typing import Final, Literal

import httpx
from pydantic import BaseModel, ConfigDict

from app.contract import READY_PATH, SERVICES
from ops.cluster import Cluster, all_services
from ops.errors import OpsError
from ops.notify import notify
from ops.target import Target

Action = Literal["shutdown", "recover"]
_SIGNALS: Final[dict[Action, signal.Signals]] = {"shutdown": signal.SIGUSR1, "recover": signal.SIGUSR2}
_TIMEOUT: Final = 60.0


class EmergencyReport(BaseModel):
    """What was done, or would be."""

    model_config = ConfigDict(frozen=True)

    action: Action
    dry_run: bool
    steps: tuple[str, ...]
    notifications: tuple[str, ...]


def in_cluster(cluster: Cluster, action: Action, reason: str, *, dry_run: bool) -> EmergencyReport:
    """Scale both services to zero, or back to what they had; databases stay up and what they hold is not touched."""
    steps = []
    for service in all_services():
        workload = cluster.workload(service)
        if action == "shutdown":
            steps.append(f"{service}: {workload.replicas} replicas to 0")
        else:
            steps.append(
                f"{service}: 0 replicas to what it had" if not workload.replicas else f"{service}: runs already"
            )
    if dry_run:
        return EmergencyReport(action=action, dry_run=True, steps=tuple(steps), notifications=())
    for service in all_services():
        if action == "shutdown":
            cluster.scale_to_zero(service)
        elif not cluster.workload(service).replicas:
            cluster.scale_back(service)
            cluster.wait_rolled_out(service)
    return _told(action, reason, steps)


def locally(target: Target, action: Action, reason: str, *, dry_run: bool) -> EmergencyReport:
    """Stop or start the services of ``make serve``; its PostgreSQL and cache go on."""
    try:
        supervisor = target.processes["supervisor"]
    except KeyError:
        raise OpsError("the local system has no supervisor to speak to: start it with `make serve`") from None
    steps = [f"{contract.service}: {action}" for contract in SERVICES]
    if dry_run:
        return EmergencyReport(action=action, dry_run=True, steps=tuple(steps), notifications=())
    try:
        os.kill(supervisor, _SIGNALS[action])
    except ProcessLookupError:
        raise OpsError(
            f"the local system's supervisor (process {supervisor}) is gone: start `make serve` again"
        ) from None
    _await(target, answering=action == "recover")
    return _told(action, reason, steps)


def _told(action: Action, reason: str, steps: list[str]) -> EmergencyReport:
    message = f"Emergency {action}: {reason}. " + "; ".join(steps)
    told = notify(f"GrandModel: emergency {action}", message)
    return EmergencyReport(action=action, dry_run=False, steps=tuple(steps), notifications=tuple(told))


def _await(target: Target, *, answering: bool) -> None:
    """Wait until every service answers, or none does."""
    deadline = time.monotonic() + _TIMEOUT
    for contract in SERVICES:
        with target.client(contract, timeout=2.0) as client:
            while _answers(client) is not answering:
                if time.monotonic() > deadline:
                    state = "does not answer" if answering else "still answers"
                    raise OpsError(f"{contract.service} {state} after {_TIMEOUT:g} s")
                time.sleep(0.2)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get(READY_PATH).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
