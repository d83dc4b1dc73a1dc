"""The band of regional services: one card for each concern, with what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.preview.model import STACK_TYPE, Capture, Resource, Value


@dataclass(frozen=True)
class Unit:
    """One thing that is drawn, by the URN it stands for."""

    urn: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A concern: its title, the colour's role, what it counts, and the names of what it holds."""

    title: str
    role: str
    count: str
    names: tuple[str, ...]
    urns: tuple[str, ...]


@dataclass(frozen=True)
class _Concern:
    title: str
    role: str
    counted: tuple[tuple[str, str], ...]
    named: tuple[str, ...]
    others: tuple[str, ...] = ()
    by_component: bool = False


_CONCERNS: Final = (
    _Concern(
        "DNS and certificates",
        "network",
        (("aws:route53/record:Record", "records"), ("aws:acm/certificate:Certificate", "certificates")),
        ("aws:route53/zone:Zone", "aws:acm/certificate:Certificate"),
        ("aws:acm/certificateValidation:CertificateValidation", "aws:route53/healthCheck:HealthCheck"),
    ),
    _Concern(
        "Encryption keys",
        "security",
        (("aws:kms/key:Key", "KMS keys"),),
        ("aws:kms/key:Key",),
        ("aws:kms/alias:Alias", "aws:kms/keyPolicy:KeyPolicy"),
    ),
    _Concern(
        "Secrets Manager",
        "security",
        (
            ("aws:secretsmanager/secret:Secret", "secrets"),
            ("aws:secretsmanager/secretRotation:SecretRotation", "rotated by schedule"),
        ),
        ("aws:secretsmanager/secret:Secret",),
        (
            "aws:secretsmanager/secretRotation:SecretRotation",
            "aws:secretsmanager/secretVersion:SecretVersion",
            "aws:secretsmanager/secretPolicy:SecretPolicy",
        ),
    ),
    _Concern(
        "Identity",
        "security",
        (("aws:iam/role:Role", "roles"), ("aws:eks/podIdentityAssociation:PodIdentityAssociation", "pod identities")),
        ("aws:eks/podIdentityAssociation:PodIdentityAssociation", "aws:iam/role:Role"),
        (
            "aws:iam/policy:Policy",
            "aws:iam/rolePolicy:RolePolicy",
            "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
            "aws:eks/accessEntry:AccessEntry",
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        ),
    ),
    _Concern(
        "Image repositories",
        "compute",
        (
            ("aws:ecr/repository:Repository", "ECR repositories"),
            ("docker-build:index:Image", "images"),
            ("aws:ecr/pullThroughCacheRule:PullThroughCacheRule", "pull-through"),
        ),
        ("aws:ecr/repository:Repository",),
        (
            "aws:ecr/lifecyclePolicy:LifecyclePolicy",
            "aws:ecr/repositoryPolicy:RepositoryPolicy",
            "aws:ecr/repositoryCreationTemplate:RepositoryCreationTemplate",
        ),
    ),
    _Concern("Object storage", "data", (("aws:s3/bucket:Bucket", "S3 buckets"),), ("aws:s3/bucket:Bucket",)),
    _Concern(
        "Backup",
        "data",
        (
            ("aws:backup/vault:Vault", "vaults"),
            ("aws:backup/plan:Plan", "plans"),
            ("aws:backup/restoreTestingPlan:RestoreTestingPlan", "restore drills"),
        ),
        ("aws:backup/plan:Plan", "aws:backup/vault:Vault"),
        (
            "aws:backup/selection:Selection",
            "aws:backup/vaultLockConfiguration:VaultLockConfiguration",
            "aws:backup/vaultPolicy:VaultPolicy",
            "aws:backup/vaultNotifications:VaultNotifications",
            "aws:backup/restoreTestingSelection:RestoreTestingSelection",
        ),
    ),
    _Concern(
        "CloudWatch",
        "operations",
        (("aws:cloudwatch/metricAlarm:MetricAlarm", "alarms"), ("aws:cloudwatch/logGroup:LogGroup", "log groups")),
        ("aws:cloudwatch/metricAlarm:MetricAlarm",),
        ("aws:cloudwatch/dashboard:Dashboard",),
        by_component=True,
    ),
    _Concern(
        "Notifications",
        "operations",
        (("aws:sns/topic:Topic", "topics"), ("aws:sns/topicSubscription:TopicSubscription", "subscriptions")),
        ("aws:sns/topic:Topic",),
        ("aws:sns/topicPolicy:TopicPolicy",),
    ),
    _Concern(
        "Automation",
        "operations",
        (
            ("aws:lambda/function:Function", "functions"),
            ("aws:scheduler/schedule:Schedule", "schedules"),
            ("aws:cloudwatch/eventRule:EventRule", "event rules"),
        ),
        (
            "aws:lambda/function:Function",
            "aws:scheduler/schedule:Schedule",
            "aws:cloudwatch/eventRule:EventRule",
            "aws:sqs/queue:Queue",
        ),
        ("aws:cloudwatch/eventTarget:EventTarget", "aws:lambda/permission:Permission", "aws:sqs/queue:Queue"),
    ),
    _Concern(
        "Budgets",
        "cost",
        (("aws:budgets/budget:Budget", "budgets"), ("aws:costexplorer/anomalyMonitor:AnomalyMonitor", "monitors")),
        ("aws:budgets/budget:Budget",),
        ("aws:costexplorer/anomalySubscription:AnomalySubscription",),
    ),
)


def read_cards(capture: Capture) -> tuple[tuple[Card, ...], frozenset[str]]:
    """The cards that ``capture`` gives rise to, and the URNs they stand for."""
    cards = []
    for concern in _CONCERNS:
        counts = [(len(capture.of_type(token)), label) for token, label in concern.counted]
        tokens = dict.fromkeys((*(token for token, _ in concern.counted), *concern.named, *concern.others))
        members = capture.of_type(*tokens)
        if not members:
            continue
        count = ", ".join(
            f"{number} {label if number != 1 else _singular(label)}" for number, label in counts if number
        )
        names = _names(concern, capture)
        cards.append(Card(concern.title, concern.role, count, names, tuple(r.urn for r in members)))
    # What belongs to a bucket (its policy, its encryption) is of many types, and not worth a line each.
    urns = {urn for card in cards for urn in card.urns} | {
        r.urn for r in capture.custom if r.type.startswith("aws:s3/bucket")
    }
    return tuple(cards), frozenset(urns)


def at(resource: Resource, path: str) -> Value:
    """The known input at the dotted ``path`` (a number selects a list's element), or None."""
    value: Any = resource.inputs
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            return None
    return None if isinstance(value, Mapping) and ("$unknown" in value or "$secret" in value) else value


def own_name(resource: Resource, capture: Capture) -> str:
    """The logical name without that of the component around it: ``entry-gateway`` inside ``entry`` is ``gateway``."""
    parent = capture.by_urn.get(resource.parent)
    prefix = f"{parent.name}-" if parent is not None else ""
    return resource.name.removeprefix(prefix) or resource.name


def _singular(label: str) -> str:
    if label.endswith("ies"):
        return label.removesuffix("ies") + "y"
    return label.removesuffix("s")


def _names(concern: _Concern, capture: Capture) -> tuple[str, ...]:
    found = [resource for token in concern.named for resource in capture.of_type(token)]
    if concern.by_component:
        counts: dict[str, int] = {}
        for resource in found:
            outermost = [a for a in capture.ancestors(resource) if a.type != STACK_TYPE]
            name = outermost[-1].name if outermost else resource.name
            counts[name] = counts.get(name, 0) + 1
        return tuple(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return tuple(dict.fromkeys(_label(resource, capture) for resource in found))


def _label(resource: Resource, capture: Capture) -> str:
    """What a person calls the resource."""
    if resource.type == "aws:budgets/budget:Budget":
        amount, unit = at(resource, "limitAmount"), at(resource, "limitUnit")
        return f"{own_name(resource, capture)}: {amount} {unit}" if amount and unit else own_name(resource, capture)
    for path in ("domainName", "endpoint", "serviceAccount"):
        if isinstance(text := at(resource, path), str):
            return text
    return own_name(resource, capture)
