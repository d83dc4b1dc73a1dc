"""Rules of prometheus-adapter: the services' own series as metrics that autoscalers may ask for."""

from __future__ import annotations

from typing import Any

from app.contract import SERVICES


def rules() -> list[dict[str, Any]]:
    """One rule for each service's autoscaling series, by pod."""
    return [
        {
            "seriesQuery": f'{contract.autoscaling_metric}{{namespace!="",pod!=""}}',
            "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
            "name": {"as": contract.autoscaling_metric},
            "metricsQuery": "max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
        }
        for contract in SERVICES
    ]
