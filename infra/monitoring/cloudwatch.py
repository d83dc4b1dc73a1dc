"""Configuration of the CloudWatch exporter: the cache admits no password, so its figures come from AWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_METRICS: Final[Sequence[tuple[str, str]]] = (
    ("EngineCPUUtilization", "Average"),
    ("DatabaseMemoryUsagePercentage", "Average"),
    ("CurrConnections", "Average"),
    ("Evictions", "Sum"),
    ("CacheHitRate", "Average"),
    ("ReplicationLag", "Maximum"),
)
_PERIOD_SECONDS: Final = 60
_LOOK_BACK_SECONDS: Final = 300


def configuration(region: str, cache_clusters: Sequence[Any]) -> dict[str, Any]:
    """Static jobs, one for each node of the cache; its ids may be outputs, which the caller resolves."""
    return {
        "apiVersion": "v1alpha1",
        "static": [
            {
                "namespace": "AWS/ElastiCache",
                "name": cluster,
                "regions": [region],
                "dimensions": [{"name": "CacheClusterId", "value": cluster}],
                "metrics": [
                    {
                        "name": name,
                        "statistics": [statistic],
                        "period": _PERIOD_SECONDS,
                        "length": _LOOK_BACK_SECONDS,
                    }
                    for name, statistic in _METRICS
                ],
            }
            for cluster in cache_clusters
        ],
    }
