"""Buckets, images, secrets, topics and log groups: how they are kept."""

from __future__ import annotations

from collections.abc import Iterator

from policy.checks import is_one_of, is_true
from policy.model import Resource
from policy.rule import Case, Check, Finding, NotApplicable, Rule, Severity, Violation
from policy.rules.types import (
    BUCKET,
    BUCKET_ACL,
    BUCKET_LIFECYCLE,
    BUCKET_LOGGING,
    BUCKET_OWNERSHIP,
    BUCKET_PUBLIC_ACCESS,
    BUCKET_VERSIONING,
    LOAD_BALANCER,
    REPOSITORY,
    REPOSITORY_LIFECYCLE,
    SECRET,
    SECRET_ROTATION,
    SECRET_VERSION,
)

_PUBLIC_ACLS = {"public-read", "public-read-write", "authenticated-read", "website"}


def _settings(case: Case, token: str, path: str = "bucket") -> list[Resource]:
    """The resources of type ``token`` that configure the case's resource."""
    estate = case.estate
    return [r for r in estate.referrers(case.resource, token) if estate.refers(r, path, case.resource)]


def _blocked(case: Case) -> Iterator[Finding]:
    blocks = _settings(case, BUCKET_PUBLIC_ACCESS)
    if not blocks:
        yield Violation("no public access block stands on the bucket")
    for block in blocks:
        for path in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"):
            if not block.node.flag(path):
                yield Violation(f"{path} is not true", block.urn)


def _no_public_acl(case: Case) -> Iterator[Finding]:
    acl = case.node.text("acl")
    if acl in _PUBLIC_ACLS:
        yield Violation(f"acl is {acl}")


def _versioned(case: Case) -> Iterator[Finding]:
    settings = _settings(case, BUCKET_VERSIONING)
    if not settings:
        yield Violation("versioning is not configured")
    for setting in settings:
        if setting.node.node("versioningConfiguration").text("status") != "Enabled":
            yield Violation("versioning is not enabled", setting.urn)


def _lifecycle(case: Case) -> Iterator[Finding]:
    settings = _settings(case, BUCKET_LIFECYCLE)
    if not settings:
        yield Violation("no lifecycle is configured: old versions are kept, and paid for, for ever")
    for setting in settings:
        rules = [rule for rule in setting.node.nodes("rules") if rule.text("status") == "Enabled"]
        if not any(rule.has("abortIncompleteMultipartUpload") for rule in rules):
            yield Violation("no rule ends aborted uploads, which are paid for unseen", setting.urn)


def _access_logged(case: Case) -> Iterator[Finding]:
    estate, bucket = case.estate, case.resource
    if any(estate.refers(log, "targetBucket", bucket) for log in estate.referrers(bucket, BUCKET_LOGGING)):
        yield NotApplicable("it receives the access logs of others: its own would never end")
    elif not _settings(case, BUCKET_LOGGING):
        yield Violation("nobody logs who reads and writes it")


def _ownership(case: Case) -> Iterator[Finding]:
    settings = _settings(case, BUCKET_OWNERSHIP)
    if not settings:
        yield Violation("object ownership is not configured")
    for setting in settings:
        if setting.node.node("rule").text("objectOwnership") != "BucketOwnerEnforced":
            yield Violation("objectOwnership is not BucketOwnerEnforced: ACLs still count", setting.urn)


def _image_lifecycle(case: Case) -> Iterator[Finding]:
    if not _settings(case, REPOSITORY_LIFECYCLE, "repository"):
        yield Violation("no lifecycle policy: images with known holes stay, and are paid for")


def _rotated(case: Case) -> Iterator[Finding]:
    rotations = _settings(case, SECRET_ROTATION, "secretId")
    if not rotations:
        yield Violation("nothing rotates it")
    for rotation in rotations:
        rules = rotation.node.node("rotationRules")
        days = rules.number("automaticallyAfterDays")
        if days is None and not rules.has("scheduleExpression"):
            yield Violation("rotationRules gives no interval", rotation.urn)
        elif days is not None and days > case.parameters["maximum_days"]:
            yield Violation(f"it is rotated every {days:g} days only", rotation.urn)


def _described(case: Case) -> Iterator[Finding]:
    if not case.node.text("description"):
        yield Violation("description is not set")


def _access_logs(case: Case) -> Iterator[Finding]:
    logs = case.node.node("accessLogs")
    if not logs.flag("enabled"):
        yield Violation("accessLogs.enabled is not true")
    elif not logs.has("bucket"):
        yield Violation("accessLogs.bucket is not set")


def _no_plain_version(case: Case) -> Iterator[Finding]:
    if case.node.has("secretString") or case.node.has("secretBinary"):
        yield Violation("the value is an input, so it lies in the state: let a rotation make it, or use secretStringWo")


def _s3(rule_id: str, title: str, reason: str, remedy: str, check: Check, severity: Severity, *controls: str) -> Rule:
    return Rule(rule_id, title, reason, remedy, (BUCKET,), check, severity, scope="stack", controls=controls)


_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH

RULES = (
    _s3(
        "s3-public-access-blocked",
        "Buckets block public access in all four ways",
        "One wrong policy or ACL would publish every object.",
        "Declare an s3.BucketPublicAccessBlock with all four set.",
        _blocked,
        _HIGH,
        "S3.8",
        "S3.1",
        "CKV2_AWS_6",
        "CKV_AWS_53",
        "CKV_AWS_54",
        "CKV_AWS_55",
        "CKV_AWS_56",
        "CIS-AWS 2.1.4",
    ),
    _s3(
        "s3-versioning",
        "Buckets keep former versions",
        "An overwritten model or backup is gone otherwise.",
        "Declare an s3.BucketVersioning with status Enabled.",
        _versioned,
        _LOW,
        "S3.14",
        "CKV_AWS_21",
    ),
    _s3(
        "s3-lifecycle",
        "Buckets have a lifecycle, also for aborted uploads",
        "What nobody ends is paid for, and found by whoever looks for old data.",
        "Declare an s3.BucketLifecycleConfiguration with abortIncompleteMultipartUpload.",
        _lifecycle,
        _LOW,
        "S3.13",
        "S3.10",
        "CKV2_AWS_61",
        "CKV_AWS_300",
    ),
    _s3(
        "s3-access-logging",
        "Access to buckets is logged",
        "Without it, nobody can tell what was taken.",
        "Declare an s3.BucketLogging to the estate's log bucket.",
        _access_logged,
        _MEDIUM,
        "S3.9",
        "CKV_AWS_18",
    ),
    _s3(
        "s3-acls-disabled",
        "Access to buckets is decided by policies alone",
        "ACLs are a second, forgotten way to publish an object.",
        "Declare s3.BucketOwnershipControls with BucketOwnerEnforced.",
        _ownership,
        _MEDIUM,
        "S3.12",
        "CKV2_AWS_65",
    ),
    Rule(
        id="s3-no-public-acl",
        title="No ACL publishes a bucket",
        reason="A public bucket is found and copied within hours.",
        remedy="Drop the acl; grant by policy.",
        types=(BUCKET, BUCKET_ACL),
        check=_no_public_acl,
        severity=Severity.CRITICAL,
        controls=("S3.2", "S3.3", "CKV_AWS_20", "CKV_AWS_57", "CKV_AWS_375", "CKV2_AWS_43"),
    ),
    Rule(
        id="ecr-scan-on-push",
        title="Images are scanned when they are pushed",
        reason="Known holes are otherwise found by others.",
        remedy="Set imageScanningConfiguration.scanOnPush to true.",
        types=(REPOSITORY,),
        check=is_true("imageScanningConfiguration.scanOnPush"),
        severity=_HIGH,
        controls=("ECR.1", "CKV_AWS_163", "C-0221", "CIS-EKS 5.1.1"),
    ),
    Rule(
        id="ecr-immutable-tags",
        title="A pushed tag never changes",
        reason="Whoever may push could replace what runs.",
        remedy="Set imageTagMutability to IMMUTABLE.",
        types=(REPOSITORY,),
        check=is_one_of("imageTagMutability", ("IMMUTABLE", "IMMUTABLE_WITH_EXCLUSION")),
        severity=_MEDIUM,
        controls=("ECR.2", "CKV_AWS_51"),
    ),
    Rule(
        id="ecr-lifecycle",
        title="Old images expire",
        reason="Images with known holes stay deployable.",
        remedy="Declare an ecr.LifecyclePolicy for the repository.",
        types=(REPOSITORY,),
        check=_image_lifecycle,
        severity=_MEDIUM,
        scope="stack",
        controls=("ECR.3",),
    ),
    Rule(
        id="secret-rotation",
        title="Secrets are rotated within 90 days",
        reason="A leaked secret is otherwise good for ever.",
        remedy="Declare a secretsmanager.SecretRotation with automaticallyAfterDays.",
        types=(SECRET,),
        check=_rotated,
        severity=_MEDIUM,
        scope="stack",
        controls=("SecretsManager.1", "SecretsManager.4", "CKV2_AWS_57", "CKV_AWS_304"),
        parameters={"maximum_days": {"type": "integer", "minimum": 1, "maximum": 365, "default": 90}},
    ),
    Rule(
        id="secret-described",
        title="Secrets say what they are for",
        reason="An unexplained secret is neither rotated nor removed with confidence.",
        remedy="Set description.",
        types=(SECRET,),
        check=_described,
        severity=_LOW,
    ),
    Rule(
        id="secret-value-not-in-state",
        title="Values of secrets are not inputs of the program",
        reason="Inputs lie in the state, where whoever may preview the stack reads them.",
        remedy="Let the rotation function make the value, or use secretStringWo.",
        types=(SECRET_VERSION,),
        check=_no_plain_version,
        severity=_HIGH,
    ),
    Rule(
        id="lb-access-logs",
        title="Load balancers keep access logs",
        reason="Without them, nobody can tell who called.",
        remedy="Set accessLogs.enabled and accessLogs.bucket.",
        types=(LOAD_BALANCER,),
        check=_access_logs,
        severity=_MEDIUM,
        controls=("ELB.5", "CKV_AWS_91"),
    ),
)
