"""Nothing lies on a disk in the clear, and every key is one of the estate's own."""

from __future__ import annotations

from collections.abc import Iterator

from policy.checks import is_false, is_true, under_estate_key
from policy.rule import Case, Check, Finding, NotApplicable, Rule, Severity, Violation
from policy.rules.types import (
    BACKUP_VAULT,
    BUCKET,
    BUCKET_ENCRYPTION,
    BUCKET_LOGGING,
    CACHE,
    CLUSTER,
    DATABASE,
    EBS_DEFAULT,
    EBS_VOLUME,
    FLOW_LOG,
    KMS_KEY,
    LAUNCH_TEMPLATE,
    LOG_GROUP,
    QUEUE,
    REPOSITORY,
    SECRET,
    TOPIC,
)


def _volumes_encrypted(case: Case) -> Iterator[Finding]:
    devices = case.node.nodes("blockDeviceMappings")
    if not devices:
        yield Violation("blockDeviceMappings is not set: the image's own volumes are taken as they are")
    for device in devices:
        if not device.node("ebs").flag("encrypted"):
            yield Violation(f"{device.path}.ebs.encrypted is not true")


def _volumes_key(case: Case) -> Iterator[Finding]:
    for device in case.node.nodes("blockDeviceMappings"):
        if device.raw("ebs.kmsKeyId") in (None, ""):
            yield Violation(f"{device.path}.ebs.kmsKeyId is not set")
    if not case.estate.links(case.resource, "blockDeviceMappings", KMS_KEY):
        yield Violation("its volumes are not under one of the estate's own keys")


def _nested_key(path: str, key: str) -> Check:
    """The objects at ``path`` name one of the estate's keys in ``key``."""

    def check(case: Case) -> Iterator[Finding]:
        items = case.node.nodes(path)
        if not items or any(item.raw(key) in (None, "") for item in items):
            yield Violation(f"{path}.{key} is not set: AWS's own key would be used, which nobody here can restrict")
        elif not case.estate.links(case.resource, path, KMS_KEY):
            yield Violation(f"{path}.{key} is not one of the estate's own keys")

    return check


def _secrets_encrypted(case: Case) -> Iterator[Finding]:
    if "secrets" not in case.node.node("encryptionConfig").texts("resources"):
        yield Violation(
            "encryptionConfig.resources does not name secrets: they lie in etcd without envelope encryption"
        )
    elif case.node.raw("encryptionConfig.provider.keyArn") in (None, ""):
        yield Violation("encryptionConfig.provider.keyArn is not set")
    elif not case.estate.links(case.resource, "encryptionConfig", KMS_KEY):
        yield Violation("encryptionConfig.provider.keyArn is not one of the estate's own keys")


def _insights_key(case: Case) -> Iterator[Finding]:
    if not case.node.flag("performanceInsightsEnabled"):
        yield NotApplicable("Performance Insights is off")
        return
    yield from under_estate_key("performanceInsightsKmsKeyId")(case)


def _bucket_encrypted(case: Case) -> Iterator[Finding]:
    estate, bucket = case.estate, case.resource
    if any(estate.refers(log, "targetBucket", bucket) for log in estate.referrers(bucket, BUCKET_LOGGING)):
        yield NotApplicable("S3 writes server access logs to buckets with its own key only")
        return
    settings = [e for e in estate.referrers(bucket, BUCKET_ENCRYPTION) if estate.refers(e, "bucket", bucket)]
    if not settings:
        yield Violation("no server-side encryption is configured: S3's own key would be used")
    for setting in settings:
        for rule in setting.node.nodes("rules"):
            default = rule.node("applyServerSideEncryptionByDefault")
            if (default.text("sseAlgorithm") or "") not in {"aws:kms", "aws:kms:dsse"}:
                yield Violation("sseAlgorithm is not aws:kms", setting.urn)
            elif not estate.links(setting, "rules", KMS_KEY):
                yield Violation("kmsMasterKeyId is not one of the estate's own keys", setting.urn)
            elif not rule.flag("bucketKeyEnabled"):
                yield Violation("bucketKeyEnabled is not true: each object costs a call to KMS", setting.urn)


def _flow_log_destination(case: Case) -> Iterator[Finding]:
    if not case.node.has("logDestination"):
        yield Violation("logDestination is not set")
    elif not case.estate.links(case.resource, "logDestination", LOG_GROUP, BUCKET):
        yield Violation("it writes to a destination that the estate does not declare, so does not encrypt")


def _window(case: Case) -> Iterator[Finding]:
    days = case.node.number("deletionWindowInDays")
    if days is not None and days < case.parameters["minimum_days"]:
        yield Violation(
            f"deletionWindowInDays is {days:g}: too short to notice that a key in use was scheduled for deletion"
        )


def _described(case: Case) -> Iterator[Finding]:
    if not case.node.text("description"):
        yield Violation("description is not set")


def _key_used(case: Case) -> Iterator[Finding]:
    users = [
        u for u in case.estate.referrers(case.resource) if u.type not in {"aws:kms/alias:Alias", "pulumi:pulumi:Stack"}
    ]
    if not any(u.type.startswith(("aws:", "kubernetes:")) for u in users):
        yield Violation("nothing is encrypted with it")


def _key(rule_id: str, what: str, token: str, check: Check, severity: Severity, *controls: str) -> Rule:
    return Rule(
        id=rule_id,
        title=f"{what} under one of the estate's own keys",
        reason="Only a customer-managed key has a policy, a rotation and an off switch of its own.",
        remedy="Give the ARN of the estate's CMK for this purpose.",
        types=(token,),
        check=check,
        severity=severity,
        scope="stack",
        controls=controls,
    )


_MEDIUM, _LOW = Severity.MEDIUM, Severity.LOW

RULES = (
    Rule(
        id="rds-storage-encrypted",
        title="Database storage is encrypted",
        reason="Storage, replicas and snapshots of an unencrypted instance are readable by whoever gets at the disk.",
        remedy="Set storageEncrypted to true; an existing instance is restored from an encrypted copy of its snapshot.",
        types=(DATABASE,),
        check=is_true("storageEncrypted"),
        severity=Severity.HIGH,
        controls=("RDS.3", "CKV_AWS_16", "CIS-AWS 2.3.1"),
    ),
    Rule(
        id="elasticache-at-rest",
        title="Caches are encrypted at rest",
        reason="Snapshots and swapped pages hold what the cache holds.",
        remedy="Set atRestEncryptionEnabled to true.",
        types=(CACHE,),
        check=is_true("atRestEncryptionEnabled"),
        severity=Severity.HIGH,
        controls=("ElastiCache.4", "CKV_AWS_29"),
    ),
    Rule(
        id="lt-volumes-encrypted",
        title="Node volumes are encrypted",
        reason="Images, logs and swapped secrets lie on them.",
        remedy="Set ebs.encrypted on every block device of the launch template.",
        types=(LAUNCH_TEMPLATE,),
        check=_volumes_encrypted,
        severity=_MEDIUM,
        controls=("EC2.181", "EC2.3", "CKV_AWS_8"),
    ),
    Rule(
        id="ebs-volume-encrypted",
        title="Volumes are encrypted",
        reason="A volume's snapshots are as open as the volume.",
        remedy="Set encrypted to true and name the estate's key.",
        types=(EBS_VOLUME,),
        check=is_true("encrypted"),
        severity=_MEDIUM,
        controls=("EC2.3", "CKV_AWS_3"),
    ),
    Rule(
        id="ebs-default-encryption",
        title="Encryption of new volumes by default is not switched off",
        reason="Whatever is created by hand would be in the clear.",
        remedy="Set enabled to true, or leave the setting to the account's owner.",
        types=(EBS_DEFAULT,),
        check=is_true("enabled", default=True),
        severity=_MEDIUM,
        controls=("EC2.7", "CIS-AWS 2.2.1"),
    ),
    _key("rds-customer-key", "Databases are", DATABASE, under_estate_key("kmsKeyId"), _MEDIUM),
    _key("rds-insights-key", "Performance Insights are", DATABASE, _insights_key, _LOW, "CKV_AWS_354"),
    _key("elasticache-customer-key", "Caches are", CACHE, under_estate_key("kmsKeyId"), _MEDIUM, "CKV_AWS_191"),
    _key("lt-volumes-customer-key", "Node volumes are", LAUNCH_TEMPLATE, _volumes_key, _LOW, "CKV_AWS_189"),
    _key(
        "eks-secrets-encrypted",
        "Kubernetes secrets have envelope encryption",
        CLUSTER,
        _secrets_encrypted,
        Severity.HIGH,
        "EKS.3",
        "CKV_AWS_58",
        "C-0066",
        "CIS-EKS 5.3.1",
        "NSA/CISA encryption",
    ),
    _key(
        "ecr-customer-key",
        "Images are",
        REPOSITORY,
        _nested_key("encryptionConfigurations", "kmsKey"),
        _MEDIUM,
        "ECR.5",
        "CKV_AWS_136",
    ),
    _key("s3-customer-key", "Buckets are", BUCKET, _bucket_encrypted, _MEDIUM, "S3.17", "CKV_AWS_19", "CKV_AWS_145"),
    _key("log-group-customer-key", "Log groups are", LOG_GROUP, under_estate_key("kmsKeyId"), _MEDIUM, "CKV_AWS_158"),
    _key("sns-customer-key", "Topics are", TOPIC, under_estate_key("kmsMasterKeyId"), _MEDIUM, "SNS.1", "CKV_AWS_26"),
    _key("sqs-customer-key", "Queues are", QUEUE, under_estate_key("kmsMasterKeyId"), _MEDIUM, "SQS.1", "CKV_AWS_27"),
    _key("secret-customer-key", "Secrets are", SECRET, under_estate_key("kmsKeyId"), _MEDIUM, "CKV_AWS_149"),
    _key(
        "backup-customer-key",
        "Backups are",
        BACKUP_VAULT,
        under_estate_key("kmsKeyArn"),
        _MEDIUM,
        "Backup.1",
        "CKV_AWS_166",
    ),
    Rule(
        id="flow-log-destination",
        title="Flow logs go to an encrypted destination of the estate",
        reason="Flow logs map the network for whoever reads them.",
        remedy="Name a log group or bucket that the estate declares under its key.",
        types=(FLOW_LOG,),
        check=_flow_log_destination,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="kms-rotation",
        title="Keys rotate",
        reason="The older a key, the more ciphertext one leak opens.",
        remedy="Set enableKeyRotation to true.",
        types=(KMS_KEY,),
        check=is_true("enableKeyRotation"),
        severity=_MEDIUM,
        controls=("KMS.4", "CKV_AWS_7", "CIS-AWS 3.6"),
    ),
    Rule(
        id="kms-enabled",
        title="Keys are enabled",
        reason="What a disabled key encrypts cannot be read by anyone.",
        remedy="Set isEnabled to true.",
        types=(KMS_KEY,),
        check=is_true("isEnabled", default=True),
        severity=_MEDIUM,
        controls=("CKV_AWS_227",),
    ),
    Rule(
        id="kms-lockout-check",
        title="The check against locking oneself out of a key is kept",
        reason="A key whose policy admits nobody is lost, with all that it encrypts.",
        remedy="Drop bypassPolicyLockoutSafetyCheck.",
        types=(KMS_KEY,),
        check=is_false("bypassPolicyLockoutSafetyCheck"),
        severity=_MEDIUM,
    ),
    Rule(
        id="kms-deletion-window",
        title="A key can be saved for some days after its deletion is ordered",
        reason="Deleting a key in use is noticed only when something cannot be read.",
        remedy="Set deletionWindowInDays to 7 or more; 30 is the default.",
        types=(KMS_KEY,),
        check=_window,
        severity=_MEDIUM,
        controls=("KMS.3",),
        parameters={"minimum_days": {"type": "integer", "minimum": 7, "maximum": 30, "default": 7}},
    ),
    Rule(
        id="kms-described",
        title="Keys say what they are for",
        reason="An unexplained key is neither used nor deleted with confidence.",
        remedy="Set description.",
        types=(KMS_KEY,),
        check=_described,
        severity=_LOW,
    ),
    Rule(
        id="kms-used",
        title="Every key encrypts something",
        reason="An unused key costs money and suggests an encryption that is not there.",
        remedy="Name the key where it is meant, or remove it.",
        types=(KMS_KEY,),
        check=_key_used,
        severity=_LOW,
        scope="stack",
    ),
)
