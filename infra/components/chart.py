"""Third parties' charts: pinned, installed by Helm itself, images through our own registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.charts import Chart

_TIMEOUT_SECONDS: Final = 600


@dataclass(frozen=True)
class ChartSpec:
    """One release. ``values`` are the chart's own; ``name`` is the chart's unless it says otherwise."""

    chart: Chart
    namespace: str
    values: Mapping[str, Any] = field(default_factory=dict)
    release_name: str | None = None

    @property
    def name(self) -> str:
        """What Helm calls the release."""
        return self.release_name or self.chart.name


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
        chart=spec.chart.name,
        version=spec.chart.version,
        namespace=spec.namespace,
        repository_opts=kubernetes.helm.v3.RepositoryOptsArgs(repo=spec.chart.repository),
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
