"""Changing one setting changes what it should, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from infra.preview.changes import compare
from infra.preview.model import Capture, short_type

Vary = Callable[[str, Mapping[str, Any]], Capture]

PRODUCTION_ZONES = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("monthlyBudgetUsd", 31000, {"changed budgets.Budget budget-monthly"}),
        ("addonCoredns", "v1.12.9-eksbuild.1", {"changed eks.Addon addons-coredns"}),
        ("cpuAmiRelease", "1.34.9-20260101", {"changed eks.NodeGroup nodes-strategic"}),
        (
            "alarmEmails",
            ["on-call@example.com", "desk@example.com"],
            {"added sns.TopicSubscription notifications-desk-at-example.com"},
        ),
        (
            "trustedSourceRanges",
            ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "203.0.113.0/24"],
            {
                "added vpc.SecurityGroupIngressRule entry-strategic-from-203.0.113.0-24",
                "added vpc.SecurityGroupIngressRule entry-tactical-from-203.0.113.0-24",
                "changed networking.k8s.io/v1.NetworkPolicy strategic",
                "changed networking.k8s.io/v1.NetworkPolicy tactical",
            },
        ),
        (
            "publicSourceRanges",
            ["198.51.100.0/24"],
            {
                "removed vpc.SecurityGroupIngressRule entry-gateway-from-0.0.0.0-0",
                "added vpc.SecurityGroupIngressRule entry-gateway-from-198.51.100.0-24",
                "changed networking.k8s.io/v1.NetworkPolicy gateway",
            },
        ),
        ("clusterPublicAccessCidrs", ["203.0.113.0/24"], {"changed eks.Cluster cluster-control-plane"}),
        (
            "clusterViewerRoleArns",
            [],
            {
                "removed eks.AccessEntry cluster-access-on-call",
                "removed eks.AccessPolicyAssociation cluster-access-on-call",
            },
        ),
        (
            "githubRepository",
            "grandmodel/fork",
            {"changed iam.Role delivery-preview", "replaced core/v1.ConfigMap prometheus-configuration"},
        ),
        ("reservedCidrs", ["10.99.0.0/16"], set()),
        (
            "gpuInstanceType",
            "g6.4xlarge",
            {"replaced eks.NodeGroup nodes-tactical"},
        ),
    ],
)
def test_one_setting_changes_only_what_it_should(
    production: Capture, vary: Vary, key: str, value: Any, expected: set[str]
) -> None:
    after = vary("production", {f"grandmodel:{key}": value})
    assert described(production, after) == expected


def test_a_new_zone_adds_and_moves_nothing(production: Capture, vary: Vary) -> None:
    after = vary("production", {"grandmodel:availabilityZones": [*PRODUCTION_ZONES, "eu-west-1d"]})
    changes = compare(production, after)
    assert changes.losses == changes.of("removed") == ()
    # EKS cannot spread an existing managed node group over another subnet: new nodes come before the old ones go.
    assert {change.resource.name for change in changes.of("replaced")} == {"nodes-strategic", "nodes-tactical"}
    changed = {c.resource.name for c in changes.of("changed") if not c.resource.type.endswith(":NetworkPolicy")}
    # What lists subnets lists one more; so do the policies that name their addresses.
    spread = re.compile(r"(entry-nlb|cluster-control-plane|nodes-(strategic|tactical)|\w+-subnets|network-.*)")
    assert [name for name in changed if not spread.fullmatch(name)] == []


def test_another_owner_changes_tags_alone(production: Capture, vary: Vary) -> None:
    changes = compare(production, vary("production", {"grandmodel:owner": "another-team"}))
    paths = {p.path.split(".")[0].split("[")[0] for change in changes.of("changed") for p in change.properties}
    assert paths <= {"tags", "tagSpecifications", "resourceTags", "rules"}
    assert changes.of("added") == changes.of("replaced") == changes.of("removed") == ()


@pytest.mark.parametrize(
    ("stack", "before", "after"),
    [
        ("staging", "minimum", "recommended"),
        ("staging", "recommended", "optimal"),
        ("production", "recommended", "optimal"),
        ("production", "optimal", "recommended"),
    ],
)
def test_another_size_replaces_nothing_that_holds_data(vary: Vary, stack: str, before: str, after: str) -> None:
    changes = compare(*(vary(stack, {"grandmodel:profile": profile}) for profile in (before, after)))
    assert changes.losses == ()
    assert {"database-postgresql", "cache-valkey"} <= {change.resource.name for change in changes.of("changed")}


def described(before: Capture, after: Capture) -> set[str]:
    changes = compare(before, after)
    return {
        f"{change.kind} {short_type(change.resource.type)} {change.resource.name}"
        for kind in ("added", "changed", "replaced", "removed")
        for change in changes.of(kind)
    }
