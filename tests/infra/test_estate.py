"""The whole estate, as both stacks declare it: what security, operations and the next engineer rely on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from infra.preview.model import UNKNOWN, Capture, Resource
from infra.settings import PROJECT

SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
WORLD = ("0.0.0.0/0", "::/0")
REQUIRED_TAGS = {"project", "stack", "owner", "cost-centre", "data-class", "Name"}

# What AWS lets nobody tag, or what is part of a tagged thing.
UNTAGGABLE = re.compile(
    r"aws:(ec2/(route|routeTableAssociation|networkAclRule):|s3/bucket[A-Z]|iam/(rolePolicy|rolePolicyAttachment):"
    r"|kms/alias:|route53/record:|acm/certificateValidation:|eks/accessPolicyAssociation:|ecr/(lifecyclePolicy"
    r"|repositoryPolicy|pullThroughCacheRule|repositoryCreationTemplate):|secretsmanager/secret(Policy|Rotation):"
    r"|lambda/permission:|sns/topic(Policy|Subscription):|backup/(selection|vault[A-Z]\w*|restoreTestingSelection):"
    r"|cloudwatch/dashboard:|autoscaling/schedule:)"
)


def of_aws(estate: Capture) -> list[Resource]:
    return [resource for resource in estate.custom if resource.package == "aws"]


def strings(value: Any) -> Iterator[str]:
    """Every text inside a property value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def policies(resource: Resource) -> Iterator[dict[str, Any]]:
    """Statements of every policy document among a resource's properties."""
    for key in ("policy", "assumeRolePolicy"):
        document = resource.inputs.get(key)
        if isinstance(document, str) and '"Statement"' in document:
            yield from json.loads(document)["Statement"]


def test_the_production_estate_is_whole(production: Capture) -> None:
    assert len(of_aws(production)) >= 150


def test_every_resource_belongs_to_a_component(estate: Capture) -> None:
    orphans = [r.name for r in estate.custom if not next(estate.ancestors(r)).type.startswith(f"{PROJECT}:components:")]
    assert orphans == []


def test_every_taggable_resource_carries_all_required_tags(estate: Capture) -> None:
    lacking = {
        resource.urn: sorted(REQUIRED_TAGS - set(resource.inputs.get("tags", {})))
        for resource in of_aws(estate)
        if not UNTAGGABLE.match(resource.type) and not set(resource.inputs.get("tags", {})) >= REQUIRED_TAGS
    }
    assert lacking == {}


def test_tags_tell_the_truth_about_the_stack(estate: Capture) -> None:
    assert {r.inputs["tags"]["stack"] for r in of_aws(estate) if "tags" in r.inputs} == {estate.stack}


def test_no_security_group_has_inline_rules(estate: Capture) -> None:
    groups = estate.of_type(SECURITY_GROUP)
    assert groups
    assert all("ingress" not in group.inputs and "egress" not in group.inputs for group in groups)


def test_the_world_reaches_port_443_of_the_load_balancer_and_nothing_else(estate: Capture) -> None:
    open_rules = [rule for rule in estate.of_type(INGRESS) if rule.inputs.get("cidrIpv4") in WORLD]
    assert [(rule.inputs["fromPort"], rule.inputs["toPort"]) for rule in open_rules] == [(443, 443)]
    assert "LoadBalancer" in open_rules[0].urn


def test_nothing_leaves_but_by_443_and_80(estate: Capture) -> None:
    ways_out = {r.inputs["fromPort"] for r in estate.of_type(EGRESS) if r.inputs.get("cidrIpv4") in WORLD}
    assert ways_out == {443, 80}
    assert all(r.inputs["ipProtocol"] != "-1" for r in estate.of_type(EGRESS, INGRESS))


def test_no_identity_may_do_everything_everywhere(estate: Capture) -> None:
    offenders = [
        (resource.urn, statement["Sid"])
        for resource in estate.of_type("aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy")
        for statement in policies(resource)
        if statement["Effect"] == "Allow"
        and "*" in statement.get("Resource", [])
        and any(action.endswith("*") for action in statement["Action"])
    ]
    assert offenders == []


def test_every_role_says_who_may_assume_it_and_on_whose_behalf(estate: Capture) -> None:
    for role in estate.of_type("aws:iam/role:Role"):
        for statement in policies(role):
            assert statement["Principal"] != "*"
            assert statement.get("Condition") or statement["Principal"] == {"Service": ["ec2.amazonaws.com"]}


def test_versions_are_pinned(estate: Capture) -> None:
    assert not any("$Latest" in text or "$Default" in text for r in of_aws(estate) for text in strings(dict(r.inputs)))
    assert all(
        re.fullmatch(r"v[\d.]+-eksbuild\.\d+", r.inputs["addonVersion"]) for r in estate.of_type("aws:eks/addon:Addon")
    )
    for group in estate.of_type("aws:eks/nodeGroup:NodeGroup"):
        assert re.fullmatch(r"1\.\d+\.\d+-\d{8}", group.inputs["releaseVersion"])
        assert group.inputs["launchTemplate"]["version"].isdigit()


def test_no_secret_value_is_in_the_state(estate: Capture) -> None:
    """Secrets are made by rotation or by RDS itself: the program never holds a value, not even an encrypted one."""
    forbidden = re.compile(r"^(password(s|Wo)?|authToken|secretString|secretBinary)$")
    found = [(r.urn, key) for r in estate.custom for key in r.inputs if forbidden.match(key)]
    assert found == []
    assert estate.of_type("aws:secretsmanager/secretVersion:SecretVersion") == ()
    assert [r.inputs["manageMasterUserPassword"] for r in estate.of_type("aws:rds/instance:Instance")] == [True]


def test_the_stacks_declare_the_same_types_from_the_same_code(staging: Capture, production: Capture) -> None:
    """They differ in data alone; the schedule that empties staging at night is such a datum."""

    def types(capture: Capture) -> set[str]:
        return {resource.type for resource in capture.resources} - {"aws:autoscaling/schedule:Schedule"}

    assert types(staging) == types(production)


def test_production_survives_a_zone_and_staging_is_cheap(staging: Capture, production: Capture) -> None:
    def count(capture: Capture, token: str) -> int:
        return len(capture.of_type(token))

    assert count(production, "aws:ec2/natGateway:NatGateway") == 3
    assert count(staging, "aws:ec2/natGateway:NatGateway") == 1
    (database,) = production.of_type("aws:rds/instance:Instance")
    assert database.inputs["multiAz"] is True


def test_what_holds_data_is_protected_in_production(production: Capture) -> None:
    stateful = production.of_type(
        "aws:rds/instance:Instance",
        "aws:elasticache/replicationGroup:ReplicationGroup",
        "aws:s3/bucket:Bucket",
        "aws:kms/key:Key",
        "aws:backup/vault:Vault",
        "aws:ecr/repository:Repository",
        "aws:secretsmanager/secret:Secret",
        "aws:eks/cluster:Cluster",
    )
    assert len(stateful) > 15
    assert [resource.name for resource in stateful if not resource.protect] == []


def test_staging_can_be_torn_down(staging: Capture) -> None:
    assert not any(resource.protect for resource in staging.resources)
    (database,) = staging.of_type("aws:rds/instance:Instance")
    assert database.inputs["deletionProtection"] is False


def test_no_logical_name_embeds_an_environment(estate: Capture) -> None:
    assert [r.name for r in estate.resources if estate.stack in r.name and r.type != "pulumi:pulumi:Stack"] == []


def test_the_nodes_cni_outlives_them_on_the_way_down(estate: Capture) -> None:
    """Otherwise their network interfaces block the VPC's deletion (pulumi-eks#779)."""
    (cni,) = [a for a in estate.of_type("aws:eks/addon:Addon") if a.inputs["addonName"] == "vpc-cni"]
    assert cni.inputs["preserve"] is True
    for group in estate.of_type("aws:eks/nodeGroup:NodeGroup"):
        assert cni.urn in group.dependencies
        attached = {urn for urn in group.dependencies if "RolePolicyAttachment" in urn}
        assert len(attached) == 2


def test_the_autoscaler_owns_the_size_of_node_groups(estate: Capture) -> None:
    for group in estate.of_type("aws:eks/nodeGroup:NodeGroup"):
        assert group.ignore_changes == ("scalingConfig.desiredSize",)


def test_alarms_tell_someone_what_to_do(estate: Capture) -> None:
    watched = estate.of_type("aws:cloudwatch/metricAlarm:MetricAlarm")
    assert len(watched) >= 15
    for alarm in watched:
        assert alarm.inputs["alarmActions"]
        assert re.search(r"Runbook: docs/runbooks/[a-z-]+\.md$", alarm.inputs["alarmDescription"])


def test_a_first_preview_knows_what_it_does_not_know(first_preview: Capture) -> None:
    """No unknown becomes a silent None: what AWS decides is marked, also deep inside."""
    outputs = first_preview.outputs
    for name in ("vpc_id", "cluster_endpoint", "cluster_certificate_authority", "database_master_secret_arn"):
        assert outputs[name] == UNKNOWN
    assert None not in list(outputs.values())


@pytest.mark.parametrize("output", ["database_master_secret_arn"])
def test_outputs_hold_arns_and_no_secrets(estate: Capture, output: str) -> None:
    assert output in estate.outputs
    assert not any("$secret" in text for text in strings(dict(estate.outputs)))
