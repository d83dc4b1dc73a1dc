"""IAM policy documents out of typed statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi


@dataclass(frozen=True)
class Statement:
    """One statement of a policy document.

    ``principals`` is None in identity policies; in resource and trust policies it maps a kind (``Service``, ``AWS``,
    ``Federated``) to its members, and ``EVERYONE`` is used by denials only.
    """

    sid: str
    actions: Sequence[str]
    resources: Sequence[pulumi.Input[str]] = ()
    principals: Mapping[str, Sequence[pulumi.Input[str]]] | str | None = None
    conditions: Mapping[str, Mapping[str, pulumi.Input[Any]]] = field(default_factory=dict)
    effect: str = "Allow"

    def render(self) -> dict[str, Any]:
        """The statement as IAM's JSON."""
        statement: dict[str, Any] = {"Sid": self.sid, "Effect": self.effect, "Action": list(self.actions)}
        if self.resources:
            statement["Resource"] = list(self.resources)
        if self.principals is not None:
            statement["Principal"] = (
                self.principals
                if isinstance(self.principals, str)
                else {kind: list(members) for kind, members in self.principals.items()}
            )
        if self.conditions:
            statement["Condition"] = {operator: dict(keys) for operator, keys in self.conditions.items()}
        return statement


EVERYONE = "*"


def policy_document(*statements: Statement) -> pulumi.Output[str]:
    """The policy document as JSON; known as soon as all that it names is."""
    return pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": [s.render() for s in statements]})


def service_trust(service: str, account_id: str) -> pulumi.Output[str]:
    """Trust policy for an AWS service, on behalf of this account only (the confused deputy)."""
    return policy_document(
        Statement(
            "AssumeByService",
            actions=["sts:AssumeRole"],
            principals={"Service": [service]},
            conditions={"StringEquals": {"aws:SourceAccount": account_id}},
        )
    )


def instance_trust() -> pulumi.Output[str]:
    """Trust policy for EC2 instances, which send no source account."""
    return policy_document(
        Statement("AssumeByInstance", actions=["sts:AssumeRole"], principals={"Service": ["ec2.amazonaws.com"]})
    )


def deny_without_tls(*resources: pulumi.Input[str], action: str) -> Statement:
    """Denial of every request that does not come over TLS."""
    return Statement(
        "DenyWithoutTls",
        effect="Deny",
        actions=[action],
        resources=resources,
        principals=EVERYONE,
        conditions={"Bool": {"aws:SecureTransport": "false"}},
    )
