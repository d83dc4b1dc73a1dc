"""CloudWatch alarms, born with the resource that they watch; each names its runbook and tells someone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.tags import Tags

RUNBOOKS: Final = "docs/runbooks"


@dataclass(frozen=True)
class AlarmSpec:
    """When an alarm fires, and the runbook (``docs/runbooks/<runbook>.md``) that tells what to do then."""

    label: str
    namespace: str
    metric: str
    threshold: float
    runbook: str
    summary: str
    statistic: str = "Average"
    comparison: str = "GreaterThanThreshold"
    period_seconds: int = 300
    periods: int = 1
    missing: str = "missing"


def alarms(
    name: str,
    specs: Sequence[AlarmSpec],
    *,
    dimensions: Mapping[str, pulumi.Input[str]],
    topic_arn: pulumi.Input[str],
    tags: Tags,
    opts: pulumi.ResourceOptions,
) -> None:
    """One alarm for each of ``specs`` on what ``dimensions`` name; it tells ``topic_arn`` of fire and of calm."""
    for spec in specs:
        aws.cloudwatch.MetricAlarm(
            f"{name}-{spec.label}",
            alarm_description=f"{spec.summary}. Runbook: {RUNBOOKS}/{spec.runbook}.md",
            namespace=spec.namespace,
            metric_name=spec.metric,
            dimensions=dict(dimensions),
            statistic=spec.statistic,
            comparison_operator=spec.comparison,
            threshold=spec.threshold,
            period=spec.period_seconds,
            evaluation_periods=spec.periods,
            treat_missing_data=spec.missing,
            actions_enabled=True,
            alarm_actions=[topic_arn],
            ok_actions=[topic_arn],
            tags=tags.named(f"{name}-{spec.label}"),
            opts=opts,
        )
