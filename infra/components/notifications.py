"""The topic that alarms, backups and budgets speak to, and the people who listen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.components.iam import Statement, deny_without_tls, policy_document
from infra.tags import Tags

_PUBLISHERS: Final = ("cloudwatch", "backup", "budgets", "events.rds", "elasticache")


@dataclass(frozen=True)
class NotificationsArgs:
    """Who is told, and under which key."""

    account_id: str
    key_arn: pulumi.Input[str]
    emails: Sequence[str]
    tags: Tags


class Notifications(pulumi.ComponentResource):
    """Encrypted topic that services of this account may publish to, with a subscription for each address."""

    topic_arn: pulumi.Output[str]

    def __init__(self, name: str, args: NotificationsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Notifications", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        topic = aws.sns.Topic(
            f"{name}-alerts", kms_master_key_id=args.key_arn, tags=args.tags.named("alerts"), opts=child
        )
        aws.sns.TopicPolicy(
            f"{name}-alerts",
            arn=topic.arn,
            policy=policy_document(
                Statement(
                    "PublishFromThisAccount",
                    actions=["sns:Publish"],
                    resources=[topic.arn],
                    principals={"Service": [f"{service}.amazonaws.com" for service in _PUBLISHERS]},
                    conditions={"StringEquals": {"aws:SourceAccount": args.account_id}},
                ),
                deny_without_tls(topic.arn, action="sns:Publish"),
            ),
            opts=child,
        )
        for email in args.emails:
            aws.sns.TopicSubscription(
                f"{name}-{email.replace('@', '-at-')}", topic=topic.arn, protocol="email", endpoint=email, opts=child
            )
        self.topic_arn = topic.arn
        self.register_outputs({"topicArn": self.topic_arn})
