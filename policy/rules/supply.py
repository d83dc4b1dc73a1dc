"""Tags, names, regions and instance families: what the estate is made of and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from policy.model import Secret, walk
from policy.rule import Case, Finding, NotApplicable, Rule, Severity, Violation
from policy.rules.compute import SECRET_SHAPES
from policy.rules.types import (
    BUCKET,
    CACHE,
    CLUSTER,
    DATABASE,
    INSTANCE,
    LAUNCH_TEMPLATE,
    LOAD_BALANCER,
    NODE_GROUP,
    ROLE,
    TARGET_GROUP,
)

_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
_REQUIRED_TAGS = ["project", "stack", "owner", "cost-centre", "data-class"]
_REGIONS = ["eu-central-1", "eu-west-1", "eu-north-1", "us-east-1", "us-east-2", "us-west-2"]
_FAMILIES = [
    "c5",
    "c6a",
    "c6i",
    "c7a",
    "c7g",
    "c7i",
    "c8g",
    "g4dn",
    "g5",
    "g6",
    "m5",
    "m6a",
    "m6g",
    "m6i",
    "m7a",
    "m7g",
]
_FAMILIES += ["m7i", "m8g", "p3", "p4d", "p5", "r6g", "r6i", "r7g", "r7i", "r8g", "t3", "t3a", "t4g"]
_SIZED: Final = {
    DATABASE: ("instanceClass", "db."),
    CACHE: ("nodeType", "cache."),
    NODE_GROUP: ("instanceTypes", ""),
    INSTANCE: ("instanceType", ""),
    LAUNCH_TEMPLATE: ("instanceType", ""),
}
# Physical names: property and greatest length, from the services' quotas.
_NAMED: Final = {
    BUCKET: ("bucket", 63),
    LOAD_BALANCER: ("name", 32),
    TARGET_GROUP: ("name", 32),
    ROLE: ("name", 64),
    DATABASE: ("identifier", 63),
    CACHE: ("replicationGroupId", 40),
    CLUSTER: ("name", 100),
    "aws:ecr/repository:Repository": ("name", 256),
    "aws:sns/topic:Topic": ("name", 256),
    "aws:cloudwatch/logGroup:LogGroup": ("name", 512),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("name", 255),
    "aws:secretsmanager/secret:Secret": ("name", 512),
    "aws:kms/alias:Alias": ("name", 256),
    "aws:backup/vault:Vault": ("name", 50),
    "aws:lambda/function:Function": ("name", 64),
}
_ANSWER_TAGS: Final = ("stack", "environment")


def _tagged(case: Case) -> Iterator[Finding]:
    resource = case.resource
    if not resource.type.startswith("aws:") or (resource.node.raw("tags") is None and not _taggable(resource.type)):
        yield NotApplicable("not a taggable type")
        return
    tags = case.node.mapping("tags")
    missing = [key for key in case.parameters["keys"] if tags.get(key) in (None, "")]
    if missing:
        yield Violation(f"tags lacks {', '.join(missing)}")
    for key in _ANSWER_TAGS:
        value = tags.get(key)
        if isinstance(value, str) and key in case.parameters["keys"] and value != resource.stack:
            yield Violation(f"tag {key} does not name its stack, {resource.stack}")


def _taggable(token: str) -> bool:
    return token in _TAGGABLE


_TAGGABLE: Final = frozenset(
    {
        *(set(_NAMED) - {"aws:kms/alias:Alias"}),
        "aws:ec2/vpc:Vpc",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:ec2/natGateway:NatGateway",
        "aws:ec2/eip:Eip",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:ec2/launchTemplate:LaunchTemplate",
        "aws:kms/key:Key",
        "aws:eks/nodeGroup:NodeGroup",
        "aws:eks/addon:Addon",
        "aws:acm/certificate:Certificate",
        "aws:backup/plan:Plan",
    }
)


def _region(case: Case) -> Iterator[Finding]:
    allowed = case.parameters["regions"]
    for path in ("region", "availabilityZone"):
        value = case.node.text(path)
        if value is not None and not any(value.startswith(region) for region in allowed):
            yield Violation(f"{path} is {value}, outside the allowed regions")


def _family(case: Case) -> Iterator[Finding]:
    path, prefix = _SIZED[case.resource.type]
    for size in case.node.texts(path):
        family = size.removeprefix(prefix).partition(".")[0]
        if family not in case.parameters["families"]:
            yield Violation(f"{path} {size} is of family {family}, which is not allowed")


def _name_length(case: Case) -> Iterator[Finding]:
    path, limit = _NAMED[case.resource.type]
    name = case.node.text(path)
    if name is not None and len(name) > limit:
        yield Violation(f"{path} has {len(name)} characters, {limit} are allowed")


def _name_unique(case: Case) -> Iterator[Finding]:
    path, _ = _NAMED[case.resource.type]
    name = case.node.text(path)
    if name is None:
        yield NotApplicable("named by Pulumi")
        return
    twins = [twin for twin in case.estate.named(path, name) if twin.type == case.resource.type]
    if len(twins) > 1:
        yield Violation(f"{path} is also that of {', '.join(t.name for t in twins if t is not case.resource)}")


def _no_secret_in_inputs(case: Case) -> Iterator[Finding]:
    """Values of the shape of a credential, in any property that is not marked secret. The value is never shown."""
    for path, value in walk(case.resource.properties):
        if isinstance(value, str) and len(value) < 65536 and SECRET_SHAPES.search(value):
            yield Violation(f"{path} holds what looks like a credential and is not marked secret")


def _tags_without_secrets(case: Case) -> Iterator[Finding]:
    tags = case.node.raw("tags")
    if isinstance(tags, Mapping) and any(isinstance(value, Secret) for value in tags.values()):
        yield Violation("a tag holds a secret: tags are readable to everyone in the account")


RULES = (
    Rule(
        id="tags-required",
        title="Resources carry the tags that tell project, stack, owner, cost and class of data",
        reason="Costs, ownership and handling of data are read off the tags.",
        remedy="Pass the stack's tags to the resource.",
        types=("*",),
        check=_tagged,
        severity=Severity.LOW,
        parameters={"keys": {**_STRINGS, "default": _REQUIRED_TAGS, "description": "required tags"}},
    ),
    Rule(
        id="region-allowed",
        title="Resources stand in allowed regions",
        reason="Data elsewhere is under another law, and nobody watches it.",
        remedy="Choose an allowed region, or add it to the parameter.",
        types=("aws:ec2/subnet:Subnet", "pulumi:providers:aws", "aws:ebs/volume:Volume"),
        check=_region,
        severity=Severity.MEDIUM,
        parameters={"regions": {**_STRINGS, "default": _REGIONS, "description": "allowed regions"}},
    ),
    Rule(
        id="instance-family-allowed",
        title="Instances are of allowed families",
        reason="A typing error in a size costs thousands a month.",
        remedy="Choose an allowed family, or add it to the parameter.",
        types=tuple(_SIZED),
        check=_family,
        severity=Severity.MEDIUM,
        parameters={"families": {**_STRINGS, "default": _FAMILIES, "description": "allowed instance families"}},
    ),
    Rule(
        id="name-length",
        title="Physical names fit the services' limits",
        reason="The service refuses a longer one, in the middle of the update.",
        remedy="Shorten the name.",
        types=tuple(_NAMED),
        check=_name_length,
        severity=Severity.LOW,
    ),
    Rule(
        id="name-unique",
        title="No two resources share a physical name",
        reason="The second is refused, or takes over the first.",
        remedy="Give each its own name, or let Pulumi name it.",
        types=tuple(_NAMED),
        check=_name_unique,
        severity=Severity.MEDIUM,
        scope="stack",
    ),
    Rule(
        id="no-credentials-in-plain-inputs",
        title="No plain property holds a credential",
        reason="It lies in the state, in the preview and in every log of them.",
        remedy="Mark the value secret, or better: read it at run time.",
        types=("*",),
        check=_no_secret_in_inputs,
        severity=Severity.CRITICAL,
        controls=("C-0012", "CKV_AWS_41"),
    ),
    Rule(
        id="tags-without-secrets",
        title="No tag holds a secret",
        reason="Tags are readable to everyone in the account, and on every bill.",
        remedy="Take the secret out of the tags.",
        types=("*",),
        check=_tags_without_secrets,
        severity=Severity.HIGH,
    ),
)
