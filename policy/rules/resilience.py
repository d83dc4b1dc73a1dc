"""What survives mistakes, zones and fires: protection, backups, redundancy."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from policy.checks import is_true
from policy.model import Resource, is_opaque
from policy.rule import Case, Finding, NotApplicable, Rule, Severity, Undecided, Violation
from policy.rules.documents import statements
from policy.rules.types import (
    BACKUP_LOCK,
    BACKUP_PLAN,
    BACKUP_SELECTION,
    BACKUP_VAULT,
    BUCKET,
    BUCKET_LOGGING,
    CACHE,
    CLUSTER,
    DATABASE,
    KMS_KEY,
    LOAD_BALANCER,
    REPOSITORY,
    ROLE,
    ROLE_ATTACHMENT,
    ROLE_POLICY,
    SECRET,
    TARGET_GROUP,
)

_PRODUCTION = ("production",)
_STATEFUL = [DATABASE, CACHE, BUCKET, KMS_KEY, BACKUP_VAULT, REPOSITORY]


def _protected(case: Case) -> Iterator[Finding]:
    if case.resource.type not in case.parameters["types"]:
        yield NotApplicable("not a stateful type")
    elif case.resource.protect is None:
        yield Undecided("whether the resource is protected was not told")
    elif not case.resource.protect:
        yield Violation("the resource option protect is not set")


def _balancer_deletion(case: Case) -> Iterator[Finding]:
    yield from is_true("enableDeletionProtection")(case)


def _selected_by(case: Case, selection: Resource) -> bool:
    """Whether a backup selection takes the case's resource, by ARN or by tag."""
    if case.estate.refers(selection, "resources", case.resource):
        return True
    node = selection.node
    named = node.raw("resources")
    patterns = [text for text in named if isinstance(text, str)] if isinstance(named, list) else []
    arn = case.resource.output("arn")
    if any(pattern == "*" or (isinstance(arn, str) and fnmatchcase(arn, pattern)) for pattern in patterns):
        return True
    tags = _tags(case)
    for item in node.nodes("selectionTags"):
        if str(tags.get(item.text("key") or "")) == item.text("value"):
            return True
    equals = [e for condition in node.nodes("conditions") for e in condition.nodes("stringEquals")]
    return bool(equals) and all(
        str(tags.get((item.text("key") or "").removeprefix("aws:ResourceTag/"))) == item.text("value")
        for item in equals
    )


def _tags(case: Case) -> dict[str, object]:
    return case.node.mapping("tags")


def _backed_up(case: Case) -> Iterator[Finding]:
    estate = case.estate
    if case.resource.type == BUCKET:
        logs = estate.referrers(case.resource, BUCKET_LOGGING, LOAD_BALANCER)
        receives = any(estate.refers(log, "targetBucket", case.resource) for log in logs if log.type == BUCKET_LOGGING)
        if receives or any(log.type == LOAD_BALANCER for log in logs):
            yield NotApplicable("it holds access logs, which the lifecycle ends")
            return
    selections = estate.of(BACKUP_SELECTION)
    if any(_selected_by(case, selection) for selection in selections):
        return
    if any(is_opaque(selection.node.raw("resources")) for selection in selections):
        yield Undecided("what a backup selection takes is known only after the update")
    else:
        yield Violation("no backup selection takes it, by ARN or by tag")


_BACKUP_RIGHTS = {
    DATABASE: ("AWSBackupServiceRolePolicyForBackup",),
    BUCKET: ("AWSBackupServiceRolePolicyForS3Backup",),
}


def _role_may(case: Case) -> Iterator[Finding]:
    estate = case.estate
    kinds = {
        token
        for token in _BACKUP_RIGHTS
        for resource in estate.of(token)
        if _selected_by(Case(resource, estate), case.resource)
    }
    for role in estate.links(case.resource, "iamRoleArn", ROLE):
        rights = [r for r in estate.referrers(role, ROLE_ATTACHMENT) if estate.refers(r, "role", role)]
        names = {(right.node.text("policyArn") or "").rpartition("/")[2] for right in rights}
        own = [r for r in estate.referrers(role, ROLE_POLICY) if estate.refers(r, "role", role)]
        for kind in sorted(kinds):
            if not names.intersection(_BACKUP_RIGHTS[kind]) and not any(_mentions_backup(r) for r in own):
                yield Violation(f"its role lacks {_BACKUP_RIGHTS[kind][0]}, so {kind} is not backed up", role.urn)


def _mentions_backup(right: Resource) -> bool:
    return any(
        action.lower().startswith(("backup:", "rds:createdbsnapshot", "s3:getobjectversion"))
        for statement in statements(right.node, "policy")
        for action in statement.actions
    )


def _plan_keeps(case: Case) -> Iterator[Finding]:
    rules = case.node.nodes("rules")
    if not rules:
        yield Violation("the plan has no rule")
    for rule in rules:
        days = rule.node("lifecycle").number("deleteAfter")
        if days is not None and days < case.parameters["minimum_days"]:
            yield Violation(f"{rule.path} keeps backups for {days:g} days only")


def _locked(case: Case) -> Iterator[Finding]:
    locks = case.estate.referrers(case.resource, BACKUP_LOCK)
    if not locks:
        yield Violation("the vault is not locked: whoever takes over the account deletes the backups too")
    for lock in locks:
        if lock.node.number("minRetentionDays") is None:
            yield Violation("the lock gives no minRetentionDays", lock.urn)


def _health_check(case: Case) -> Iterator[Finding]:
    check = case.node.node("healthCheck")
    if not check.value:
        yield Violation("healthCheck is not set")
    elif check.flag("enabled") is False:
        yield Violation("healthCheck.enabled is false")
    elif (check.text("protocol") or "TCP") in {"HTTP", "HTTPS"} and not check.text("path"):
        yield Violation("healthCheck.path is not set: a server that cannot serve counts as healthy")


def _recovery_window(case: Case) -> Iterator[Finding]:
    days = case.node.number("recoveryWindowInDays")
    if days is not None and days < 7:
        yield Violation(f"recoveryWindowInDays is {days:g}: a deletion by mistake is final")


def _force(case: Case) -> Iterator[Finding]:
    path = "forceDestroy" if case.resource.type == BUCKET else "forceDelete"
    if case.node.flag(path):
        yield Violation(f"{path} is true: destroying the resource destroys what it holds")


_MEDIUM, _LOW = Severity.MEDIUM, Severity.LOW

RULES = (
    Rule(
        id="stateful-protected",
        title="Stateful resources are protected from deletion by an update",
        reason="A renamed or re-parented resource is replaced, with everything in it.",
        remedy="Set the resource option protect=True.",
        types=tuple(_STATEFUL),
        check=_protected,
        severity=Severity.HIGH,
        stacks=_PRODUCTION,
        parameters={
            "types": {
                "type": "array",
                "items": {"type": "string"},
                "default": _STATEFUL,
                "description": "types that hold state",
            }
        },
    ),
    Rule(
        id="lb-deletion-protection",
        title="Load balancers cannot be deleted by one call",
        reason="Its address is in every client and allow-list.",
        remedy="Set enableDeletionProtection to true.",
        types=(LOAD_BALANCER,),
        check=_balancer_deletion,
        severity=_MEDIUM,
        controls=("ELB.6", "CKV_AWS_150"),
        stacks=_PRODUCTION,
    ),
    Rule(
        id="eks-deletion-protection",
        title="Clusters cannot be deleted by one call",
        reason="Everything that runs goes with the cluster.",
        remedy="Set deletionProtection to true.",
        types=(CLUSTER,),
        check=is_true("deletionProtection"),
        severity=_MEDIUM,
        stacks=_PRODUCTION,
    ),
    Rule(
        id="lb-cross-zone",
        title="Load balancers spread requests over all zones",
        reason="Otherwise the zone with the fewest pods is overloaded first.",
        remedy="Set enableCrossZoneLoadBalancing to true.",
        types=(LOAD_BALANCER,),
        check=is_true("enableCrossZoneLoadBalancing"),
        severity=_MEDIUM,
        controls=("CKV_AWS_152",),
    ),
    Rule(
        id="lb-health-check",
        title="Target groups ask their targets whether they can serve",
        reason="Requests go to pods that cannot answer.",
        remedy="Set healthCheck with the path of the readiness probe.",
        types=(TARGET_GROUP,),
        check=_health_check,
        severity=_MEDIUM,
        controls=("CKV_AWS_261",),
    ),
    Rule(
        id="stateful-backed-up",
        title="Databases and buckets are in a backup plan",
        reason="Snapshots of the service itself go with the instance and the account.",
        remedy="Name the resource, or its backup tag, in a backup.Selection.",
        types=(DATABASE, BUCKET),
        check=_backed_up,
        severity=_MEDIUM,
        scope="stack",
        controls=("RDS.26",),
    ),
    Rule(
        id="backup-role-may",
        title="The role of a backup selection may back up what it selects",
        reason="The jobs fail at night, and nobody has a backup.",
        remedy="Attach AWS's backup policies for the selected types to the role.",
        types=(BACKUP_SELECTION,),
        check=_role_may,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="backup-plan-keeps",
        title="Backups are kept for a month",
        reason="An error is often noticed after the last good backup has expired.",
        remedy="Set lifecycle.deleteAfter to 28 or more.",
        types=(BACKUP_PLAN,),
        check=_plan_keeps,
        severity=_MEDIUM,
        stacks=_PRODUCTION,
        parameters={"minimum_days": {"type": "integer", "minimum": 1, "default": 28}},
    ),
    Rule(
        id="backup-vault-locked",
        title="The backup vault is locked",
        reason="Ransomware deletes backups first.",
        remedy="Declare a backup.VaultLockConfiguration with minRetentionDays.",
        types=(BACKUP_VAULT,),
        check=_locked,
        severity=_MEDIUM,
        scope="stack",
        stacks=_PRODUCTION,
    ),
    Rule(
        id="secret-recovery-window",
        title="A deleted secret can be restored for a week",
        reason="Services fail one by one as their caches of it expire.",
        remedy="Set recoveryWindowInDays to 7 or more.",
        types=(SECRET,),
        check=_recovery_window,
        severity=_LOW,
        stacks=_PRODUCTION,
    ),
    Rule(
        id="no-forced-deletion",
        title="Buckets and repositories with content cannot be destroyed",
        reason="One destroy of the wrong stack would take models, backups and images.",
        remedy="Drop forceDestroy and forceDelete.",
        types=(BUCKET, REPOSITORY),
        check=_force,
        severity=_MEDIUM,
        stacks=_PRODUCTION,
    ),
)
