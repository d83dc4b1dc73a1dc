"""What is watched, who is told, and how long it is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from policy.checks import at_least
from policy.model import UNKNOWN, Resource, Secret
from policy.rule import Case, Finding, NotApplicable, Rule, Severity, Undecided, Violation
from policy.rules.documents import Statement, matches, statements
from policy.rules.types import (
    ALARM,
    CACHE,
    CLUSTER,
    COMPOSITE_ALARM,
    DATABASE,
    KMS_KEY,
    LOAD_BALANCER,
    LOG_GROUP,
    TARGET_GROUP,
    TOPIC,
    TOPIC_SUBSCRIPTION,
)

_WATCHED: Final = (DATABASE, CACHE, LOAD_BALANCER)
_DIMENSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "DBInstanceIdentifier": (DATABASE,),
    "CacheClusterId": (CACHE,),
    "ReplicationGroupId": (CACHE,),
    "LoadBalancer": (LOAD_BALANCER,),
    "TargetGroup": (TARGET_GROUP,),
    "ClusterName": (CLUSTER,),
}
_NAMES: Final = ("identifier", "name", "arnSuffix", "replicationGroupId", "id")


def _acts(case: Case) -> Iterator[Finding]:
    if case.node.flag("actionsEnabled") is False:
        yield Violation("actionsEnabled is false")
    if not case.node.read("alarmActions"):
        yield Violation("alarmActions is not set: it changes colour and tells nobody")


def _runbook(case: Case) -> Iterator[Finding]:
    if "runbook" not in (case.node.text("alarmDescription") or "").lower():
        yield Violation("alarmDescription names no runbook")


def _heard(case: Case) -> Iterator[Finding]:
    topics = case.estate.links(case.resource, "alarmActions", TOPIC)
    if case.node.raw("alarmActions") and not topics:
        yield Violation("alarmActions names no topic of the estate")
    for topic in topics:
        subscriptions = case.estate.referrers(topic, TOPIC_SUBSCRIPTION)
        if not any(case.estate.refers(s, "topic", topic) for s in subscriptions):
            yield Violation(f"topic {topic.name} has no subscription", topic.urn)


def _dimensions_resolve(case: Case) -> Iterator[Finding]:
    dimensions = case.node.mapping("dimensions")
    for name, types in _DIMENSIONS.items():
        value = dimensions.get(name)
        value = value.value if isinstance(value, Secret) else value
        if value is None:
            continue
        if value is UNKNOWN:
            if not case.estate.links(case.resource, "dimensions", *types):
                yield Violation(f"dimension {name} names no resource of the estate")
        elif not any(_names(target, str(value)) for target in case.estate.of(*types)):
            if any(_unnamed(target) for target in case.estate.of(*types)):
                yield Undecided(f"whether dimension {name} names a resource is known only after the update")
            else:
                yield Violation(f"dimension {name} names no resource of the estate")


def _names(target: Resource, value: str) -> bool:
    names = [target.id, *(target.output(path) for path in _NAMES)]
    # Members of a replication group are its id with a number.
    return any(isinstance(name, str) and name and (value == name or value.startswith(f"{name}-")) for name in names)


def _unnamed(target: Resource) -> bool:
    return any(target.output(path) is UNKNOWN for path in _NAMES)


def _watched(case: Case) -> Iterator[Finding]:
    estate, resource = case.estate, case.resource
    alarms = estate.referrers(resource, ALARM)
    if not alarms:
        alarms = [a for a in estate.of(ALARM) if _watches(a, resource)]
    if not alarms:
        yield Violation("no alarm watches it")


def _watches(alarm: Resource, resource: Resource) -> bool:
    dimensions = alarm.node.raw("dimensions")
    values = dimensions.values() if isinstance(dimensions, Mapping) else ()
    return any(isinstance(value, str) and _names(resource, value) for value in values)


def _belongs(case: Case) -> Iterator[Finding]:
    estate, group = case.estate, case.resource
    if any(user.type.startswith(("aws:", "kubernetes:")) for user in estate.referrers(group)):
        return
    path = case.node.text("name")
    if path is None:
        yield Violation("nothing writes to it")
        return
    parts = set(path.split("/"))
    owners = estate.of(CLUSTER, DATABASE, CACHE, "aws:lambda/function:Function")
    if not any(name in parts for owner in owners for name in _own_names(owner)):
        if path.startswith("/aws/containerinsights/") and estate.of(CLUSTER):
            return
        yield Violation("nothing of the estate writes to it")


def _own_names(owner: Resource) -> list[str]:
    return [name for path in _NAMES if isinstance(name := owner.output(path), str)]


def _key_admits(key: Resource, principal: str) -> bool | None:
    """Whether the policy of ``key`` lets the service ``principal`` use it; None where the policy is unknown."""
    if key.node.raw("policy") is UNKNOWN:
        return None
    return any(_admits(statement, principal) for statement in statements(key.node, "policy"))


def _admits(statement: Statement, principal: str) -> bool:
    wanted = any(name == principal or _same_service(name, principal) for name in statement.principals)
    return statement.allows and wanted and any(matches(action, "kms:GenerateDataKey") for action in statement.actions)


def _same_service(name: str, principal: str) -> bool:
    service = principal.partition(".")[0]
    return name.startswith(f"{service}.") and name.endswith(".amazonaws.com")


def _logs_key(case: Case) -> Iterator[Finding]:
    yield from _key_serves(case, "kmsKeyId", "logs.amazonaws.com")


def _alarm_topic_key(case: Case) -> Iterator[Finding]:
    if not any(
        case.estate.refers(a, "alarmActions", case.resource) for a in case.estate.referrers(case.resource, ALARM)
    ):
        yield NotApplicable("no alarm publishes to it")
        return
    yield from _key_serves(case, "kmsMasterKeyId", "cloudwatch.amazonaws.com")


def _key_serves(case: Case, path: str, principal: str) -> Iterator[Finding]:
    if case.node.raw(path) in (None, ""):
        yield NotApplicable(f"{path} is not set")
        return
    for key in case.estate.links(case.resource, path, KMS_KEY):
        admitted = _key_admits(key, principal)
        if admitted is None:
            yield Undecided(f"the policy of key {key.name} is known only after the update")
        elif not admitted:
            yield Violation(f"the policy of key {key.name} does not admit {principal.partition('.')[0]}", key.urn)


_HIGH, _MEDIUM, _LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW

RULES = (
    Rule(
        id="log-group-retention",
        title="Log groups are kept for a stated time, long enough to look back",
        reason=(
            "Without a retention logs are paid for for ever; with a short one, an intrusion is found too late "
            "to be told."
        ),
        remedy="Set retentionInDays.",
        types=(LOG_GROUP,),
        check=at_least("retentionInDays", "minimum_days", unit=" days"),
        severity=_MEDIUM,
        controls=("CloudWatch.16", "CKV_AWS_66", "CKV_AWS_338"),
        parameters={
            "minimum_days": {
                "type": "integer",
                "minimum": 1,
                "default": 365,
                "description": "what Security Hub asks for; an estate with an archive may ask for less",
            }
        },
    ),
    Rule(
        id="log-group-belongs",
        title="Every log group belongs to something",
        reason=(
            "A group that nothing writes to hides that the real one is missing, or made without a key by the service."
        ),
        remedy="Name the group where it is written to, or remove it.",
        types=(LOG_GROUP,),
        check=_belongs,
        severity=_LOW,
        scope="stack",
    ),
    Rule(
        id="log-group-key-admits",
        title="The key of a log group admits CloudWatch Logs",
        reason="Otherwise the group cannot be created, in the middle of the update.",
        remedy="Admit logs.<region>.amazonaws.com in the key's policy.",
        types=(LOG_GROUP,),
        check=_logs_key,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="alarm-acts",
        title="Alarms act",
        reason="An alarm without an action is a picture.",
        remedy="Set alarmActions, and leave actionsEnabled true.",
        types=(ALARM, COMPOSITE_ALARM),
        check=_acts,
        severity=_HIGH,
        controls=("CloudWatch.15", "CloudWatch.17", "CKV_AWS_319"),
    ),
    Rule(
        id="alarm-has-runbook",
        title="Alarms name their runbook",
        reason="At night, whoever is on call needs the next step, not a metric's name.",
        remedy='End alarmDescription with "Runbook: docs/runbooks/<name>.md".',
        types=(ALARM, COMPOSITE_ALARM),
        check=_runbook,
        severity=_LOW,
    ),
    Rule(
        id="alarm-is-heard",
        title="Somebody subscribes to every alarm's topic",
        reason="A topic without a subscription swallows alarms.",
        remedy="Declare an sns.TopicSubscription for the topic.",
        types=(ALARM,),
        check=_heard,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="alarm-watches-estate",
        title="Alarms watch resources of the estate",
        reason="An alarm on a name that is gone never fires.",
        remedy="Take the dimension's value from the resource's output.",
        types=(ALARM,),
        check=_dimensions_resolve,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="stateful-has-alarm",
        title="Every database, cache and load balancer has an alarm",
        reason="Its failure is otherwise told by customers.",
        remedy="Declare a cloudwatch.MetricAlarm on it.",
        types=_WATCHED,
        check=_watched,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="sns-key-admits-alarms",
        title="The key of an alarm topic admits CloudWatch",
        reason="Otherwise alarms fire and nothing arrives.",
        remedy="Admit cloudwatch.amazonaws.com in the key's policy.",
        types=(TOPIC,),
        check=_alarm_topic_key,
        severity=_HIGH,
        scope="stack",
    ),
)
