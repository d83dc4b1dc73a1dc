"""Who waits when nodes are full: jobs before services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

SERVICE_PRIORITY: Final = "grandmodel-service"
JOB_PRIORITY: Final = "grandmodel-job"


class PriorityClasses(pulumi.ComponentResource):
    """Services push other pods aside; jobs never do."""

    def __init__(self, name: str, labels: Mapping[str, str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:PriorityClasses", name, None, opts)
        for class_name, value, preemption, description in (
            (SERVICE_PRIORITY, 100_000, "PreemptLowerPriority", "Services and gateway: what clients wait for"),
            (JOB_PRIORITY, 1_000, "Never", "Migrations and maintenance: may wait"),
        ):
            kubernetes.scheduling.v1.PriorityClass(
                class_name,
                metadata=kubernetes.meta.v1.ObjectMetaArgs(name=class_name, labels=dict(labels)),
                value=value,
                global_default=False,
                preemption_policy=preemption,
                description=description,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
