"""Third parties' charts: pinned, installed by Helm itself, images through our own registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

_TIMEOUT_SECONDS: Final = 600


@dataclass(frozen=True)
class ChartSpec:
    """One release. ``values`` are the chart's own; ``version`` is exact."""

    name: str
    repository: str
    version: str
    namespace: str
    values: Mapping[str, Any] = field(default_factory=dict)
    chart: str | None = None
    """Name of the chart where the release is called otherwise."""


def release(
    spec: ChartSpec, *, opts: pulumi.ResourceOptions, depends_on: Sequence[pulumi.Resource] = ()
) -> kubernetes.helm.v3.Release:
    """Install ``spec``: all of it or nothing (``atomic``), and wait until it is ready.

    A Release runs the chart's hooks and previews without a cluster (pulumi-kubernetes#3027), and keeps the rendered
    manifest, with whatever secrets a chart makes, out of the state (#1353).
    """
    return kubernetes.helm.v3.Release(
        spec.name,
        name=spec.name,
        chart=spec.chart or spec.name,
        version=spec.version,
        namespace=spec.namespace,
        repository_opts=kubernetes.helm.v3.RepositoryOptsArgs(repo=spec.repository),
        values=dict(spec.values),
        atomic=True,
        cleanup_on_fail=True,
        max_history=5,
        timeout=_TIMEOUT_SECONDS,
        skip_await=False,
        create_namespace=False,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(depends_on))),
    )


def resources(cpu: str, memory: str) -> dict[str, dict[str, str]]:
    """Equal requests and limits."""
    amount = {"cpu": cpu, "memory": memory}
    return {"requests": amount, "limits": dict(amount)}


RESTRICTED_POD: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "runAsGroup": 65534,
    "fsGroup": 65534,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
