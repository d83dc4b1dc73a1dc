"""What the stack may cost in a month, and who hears when it will cost more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.tags import Tags

_ALERTS: Final = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


@dataclass(frozen=True)
class BudgetArgs:
    """The limit and the topic."""

    monthly_usd: int
    topic_arn: pulumi.Input[str]
    tags: Tags


class Budget(pulumi.ComponentResource):
    """Monthly budget over everything that carries the stack's tag."""

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Budget", name, None, opts)
        aws.budgets.Budget(
            f"{name}-monthly",
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(args.monthly_usd),
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:stack${args.tags.stack}"])
            ],
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    notification_type=kind,
                    threshold=percent,
                    threshold_type="PERCENTAGE",
                    comparison_operator="GREATER_THAN",
                    subscriber_sns_topic_arns=[args.topic_arn],
                )
                for kind, percent in _ALERTS
            ],
            tags=args.tags.named("budget"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
