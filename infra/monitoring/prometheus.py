"""``prometheus.yml``: what is scraped, how often, and how each side is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

SCRAPE_SECONDS: Final = 15
SERVICE_SCRAPE_SECONDS: Final = 10
RULES_FILE: Final = "rules.yml"


@dataclass(frozen=True)
class PodDiscovery:
    """Pods of ``namespace`` whose label ``app.kubernetes.io/name`` is ``name``, on ``port``."""

    namespace: str
    name: str
    port: int


@dataclass(frozen=True)
class FixedTargets:
    """Addresses as ``host:port``."""

    targets: Sequence[str]


@dataclass(frozen=True)
class ScrapeJob:
    """One job. With ``server_name`` it is scraped over TLS, and the certificate must carry that name."""

    name: str
    discovery: PodDiscovery | FixedTargets
    interval_seconds: int = SCRAPE_SECONDS
    server_name: str | None = None
    ca_file: str | None = None


def configuration(
    jobs: Sequence[ScrapeJob], *, alertmanagers: Sequence[str], external_labels: Mapping[str, str]
) -> dict[str, Any]:
    """The whole configuration, with :data:`RULES_FILE` beside it."""
    return {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": "8s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
            "external_labels": dict(external_labels),
        },
        "rule_files": [RULES_FILE],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [_scrape(job) for job in jobs],
    }


def _scrape(job: ScrapeJob) -> dict[str, Any]:
    config: dict[str, Any] = {"job_name": job.name, "scrape_interval": f"{job.interval_seconds}s"}
    if job.server_name is not None:
        config["scheme"] = "https"
        config["tls_config"] = {"server_name": job.server_name, "ca_file": job.ca_file, "min_version": "TLS12"}
    if isinstance(job.discovery, FixedTargets):
        config["static_configs"] = [{"targets": list(job.discovery.targets)}]
        return config
    pods = job.discovery
    config["kubernetes_sd_configs"] = [{"role": "pod", "namespaces": {"names": [pods.namespace]}}]
    config["relabel_configs"] = [
        _keep("__meta_kubernetes_pod_label_app_kubernetes_io_name", pods.name),
        _keep("__meta_kubernetes_pod_phase", "Running"),
        # A pod with several ports, or none declared, is found more than once: one address is left.
        {
            "source_labels": ["__meta_kubernetes_pod_ip"],
            "target_label": "__address__",
            "replacement": f"$1:{pods.port}",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
    ]
    return config


def _keep(label: str, value: str) -> dict[str, Any]:
    return {"source_labels": [label], "regex": value, "action": "keep"}
