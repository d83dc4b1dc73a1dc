"""Proofs of the rules on keys, databases, caches, buckets, images and secrets."""

from __future__ import annotations

from policy.model import UNKNOWN
from policy.mutation import Proof, add, called, change, drop, remove, unknown
from policy.proofs.common import TAGS
from policy.rules.types import (
    BACKUP_VAULT,
    BUCKET,
    BUCKET_ENCRYPTION,
    BUCKET_LIFECYCLE,
    BUCKET_LOGGING,
    BUCKET_OWNERSHIP,
    BUCKET_PUBLIC_ACCESS,
    BUCKET_VERSIONING,
    CACHE,
    CACHE_USER,
    CLUSTER,
    DATABASE,
    DATABASE_EVENTS,
    DATABASE_PARAMETERS,
    DATABASE_SNAPSHOT,
    EBS_DEFAULT,
    EBS_VOLUME,
    FLOW_LOG,
    INGRESS_RULE,
    KMS_KEY,
    LAUNCH_TEMPLATE,
    LOAD_BALANCER,
    LOG_GROUP,
    QUEUE,
    REPOSITORY,
    REPOSITORY_LIFECYCLE,
    SECRET,
    SECRET_ROTATION,
    SECRET_VERSION,
    TOPIC,
)

_FOREIGN = "arn:aws:kms:eu-west-1:000000000000:key/elsewhere"
_MODELS = called("storage-models")
_DENY = (
    '{"Statement":[{"Effect":"Deny","Action":"sqs:*","Principal":"*","Resource":"*",'
    '"Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}'
)


def _key(token: str, path: str) -> Proof:
    """Of a rule that wants one of the estate's keys at ``path``."""
    return Proof((change(token, path, _FOREIGN), drop(token, path)), (unknown(token, path),))


def _flag(token: str, path: str, *, bad: bool = False) -> Proof:
    """Of a rule that wants a boolean."""
    return Proof((change(token, path, new=bad),), (unknown(token, path),))


PROOFS: dict[str, Proof] = {
    # At rest
    "rds-storage-encrypted": _flag(DATABASE, "storageEncrypted"),
    "elasticache-at-rest": _flag(CACHE, "atRestEncryptionEnabled"),
    "lt-volumes-encrypted": Proof(
        (change(LAUNCH_TEMPLATE, "blockDeviceMappings.0.ebs.encrypted", "false"),),
        (unknown(LAUNCH_TEMPLATE, "blockDeviceMappings.0.ebs.encrypted"),),
    ),
    "ebs-volume-encrypted": Proof((add(EBS_VOLUME, {"encrypted": False}),), (add(EBS_VOLUME, {"encrypted": UNKNOWN}),)),
    "ebs-default-encryption": Proof((add(EBS_DEFAULT, {"enabled": False}),), (add(EBS_DEFAULT, {"enabled": UNKNOWN}),)),
    "rds-customer-key": _key(DATABASE, "kmsKeyId"),
    "rds-insights-key": _key(DATABASE, "performanceInsightsKmsKeyId"),
    "elasticache-customer-key": _key(CACHE, "kmsKeyId"),
    "lt-volumes-customer-key": _key(LAUNCH_TEMPLATE, "blockDeviceMappings.0.ebs.kmsKeyId"),
    "eks-secrets-encrypted": Proof(
        (
            drop(CLUSTER, "encryptionConfig"),
            change(CLUSTER, "encryptionConfig.provider.keyArn", _FOREIGN),
            change(CLUSTER, "encryptionConfig.resources", []),
        ),
        (unknown(CLUSTER, "encryptionConfig"), unknown(CLUSTER, "encryptionConfig.provider.keyArn")),
    ),
    "ecr-customer-key": Proof(
        (
            drop(REPOSITORY, "encryptionConfigurations"),
            change(REPOSITORY, "encryptionConfigurations.0.kmsKey", _FOREIGN),
        ),
        (unknown(REPOSITORY, "encryptionConfigurations"),),
    ),
    "s3-customer-key": Proof(
        (
            change(BUCKET_ENCRYPTION, "rules.0.applyServerSideEncryptionByDefault.sseAlgorithm", "AES256", _MODELS),
            change(BUCKET_ENCRYPTION, "rules.0.bucketKeyEnabled", new=False, where=_MODELS),
            remove(BUCKET_ENCRYPTION, _MODELS, blame=BUCKET),
        ),
        (unknown(BUCKET_ENCRYPTION, "rules", _MODELS, blame=BUCKET),),
    ),
    "log-group-customer-key": _key(LOG_GROUP, "kmsKeyId"),
    "sns-customer-key": _key(TOPIC, "kmsMasterKeyId"),
    "sqs-customer-key": Proof(
        (add(QUEUE, {"policy": _DENY}),), (add(QUEUE, {"policy": _DENY, "kmsMasterKeyId": UNKNOWN}),)
    ),
    "secret-customer-key": _key(SECRET, "kmsKeyId"),
    "backup-customer-key": _key(BACKUP_VAULT, "kmsKeyArn"),
    "flow-log-destination": _key(FLOW_LOG, "logDestination"),
    "kms-rotation": _flag(KMS_KEY, "enableKeyRotation"),
    "kms-enabled": _flag(KMS_KEY, "isEnabled"),
    "kms-lockout-check": _flag(KMS_KEY, "bypassPolicyLockoutSafetyCheck", bad=True),
    "kms-deletion-window": Proof(
        (change(KMS_KEY, "deletionWindowInDays", 3),), (unknown(KMS_KEY, "deletionWindowInDays"),)
    ),
    "kms-described": Proof((drop(KMS_KEY, "description"),), (unknown(KMS_KEY, "description"),)),
    "kms-used": Proof(
        (
            add(
                KMS_KEY,
                {
                    "description": "nobody's",
                    "enableKeyRotation": True,
                    "policy": '{"Statement":[]}',
                    "tags": TAGS,
                },
            ),
        ),
        always_known="what a key encrypts is recorded as a dependency",
    ),
    # Databases
    "rds-not-public": _flag(DATABASE, "publiclyAccessible", bad=True),
    "rds-subnet-group": Proof((drop(DATABASE, "dbSubnetGroupName"),), (unknown(DATABASE, "dbSubnetGroupName"),)),
    "rds-multi-az": _flag(DATABASE, "multiAz"),
    "rds-backup-retention": Proof(
        (change(DATABASE, "backupRetentionPeriod", 1), drop(DATABASE, "backupRetentionPeriod")),
        (unknown(DATABASE, "backupRetentionPeriod"),),
    ),
    "rds-deletion-protection": _flag(DATABASE, "deletionProtection"),
    "rds-log-exports": Proof(
        (change(DATABASE, "enabledCloudwatchLogsExports", ["upgrade"]),),
        (unknown(DATABASE, "enabledCloudwatchLogsExports"),),
    ),
    "rds-enhanced-monitoring": Proof(
        (change(DATABASE, "monitoringInterval", 0), drop(DATABASE, "monitoringRoleArn")),
        (unknown(DATABASE, "monitoringInterval"),),
    ),
    "rds-performance-insights": _flag(DATABASE, "performanceInsightsEnabled"),
    "rds-iam-authentication": _flag(DATABASE, "iamDatabaseAuthenticationEnabled"),
    "rds-minor-upgrades": _flag(DATABASE, "autoMinorVersionUpgrade"),
    "rds-copy-tags": _flag(DATABASE, "copyTagsToSnapshot"),
    "rds-modern-authority": Proof(
        (change(DATABASE, "caCertIdentifier", "rds-ca-2019"),), (unknown(DATABASE, "caCertIdentifier"),)
    ),
    "rds-administrator-name": Proof((change(DATABASE, "username", "postgres"),), (unknown(DATABASE, "username"),)),
    "rds-managed-password": Proof(
        (change(DATABASE, "password", "kept-by-nobody"), drop(DATABASE, "manageMasterUserPassword")),
        (unknown(DATABASE, "manageMasterUserPassword"),),
    ),
    "rds-final-snapshot": Proof(
        (change(DATABASE, "skipFinalSnapshot", new=True), drop(DATABASE, "finalSnapshotIdentifier")),
        (unknown(DATABASE, "skipFinalSnapshot"),),
    ),
    "rds-engine-version": Proof(
        (change(DATABASE, "engineVersion", "13.2"),),
        (unknown(DATABASE, "engineVersion"),),
        also=frozenset({"rds-parameter-family"}),
    ),
    "rds-query-logging": Proof(
        (
            change(
                DATABASE_PARAMETERS,
                "parameters",
                lambda old: [p for p in old if not str(p["name"]).startswith("log_")],
                blame=DATABASE,
            ),
        ),
        (unknown(DATABASE_PARAMETERS, "parameters", blame=DATABASE),),
    ),
    "rds-events": Proof(
        (remove(DATABASE_EVENTS, blame=DATABASE),),
        always_known="what a subscription is for is recorded as a dependency",
    ),
    "rds-snapshot-private": Proof(
        (add(DATABASE_SNAPSHOT, {"sharedAccounts": ["all"]}),), (add(DATABASE_SNAPSHOT, {"sharedAccounts": UNKNOWN}),)
    ),
    "rds-parameter-family": Proof(
        (change(DATABASE_PARAMETERS, "family", "postgres15"),),
        (unknown(DATABASE_PARAMETERS, "family", blame=DATABASE),),
    ),
    "rds-reached-by-groups": Proof(
        (
            change(INGRESS_RULE, "cidrIpv4", "10.9.0.0/16", called("to-database")),
            change(DATABASE, "vpcSecurityGroupIds", []),
        ),
        (
            unknown(INGRESS_RULE, "cidrIpv4", called("to-database"), blame=DATABASE),
            unknown(DATABASE, "vpcSecurityGroupIds"),
        ),
        also=frozenset({"sg-used"}),
    ),
    "elasticache-reached-by-groups": Proof(
        (
            change(INGRESS_RULE, "cidrIpv4", "10.9.0.0/16", called("to-cache")),
            change(CACHE, "securityGroupIds", []),
        ),
        (unknown(INGRESS_RULE, "cidrIpv4", called("to-cache"), blame=CACHE), unknown(CACHE, "securityGroupIds")),
        also=frozenset({"sg-used"}),
    ),
    "elasticache-authenticated": Proof(
        (drop(CACHE, "userGroupIds"),), always_known="that users are named shows without their ids"
    ),
    "elasticache-user-locked": Proof(
        (change(CACHE_USER, "accessString", "on ~* +@all", called("default")),),
        (unknown(CACHE_USER, "accessString", called("default")),),
    ),
    "elasticache-failover": Proof(
        (
            change(CACHE, "automaticFailoverEnabled", new=False),
            change(CACHE, "multiAzEnabled", new=False),
        ),
        (unknown(CACHE, "multiAzEnabled"),),
    ),
    "elasticache-snapshots": Proof(
        (change(CACHE, "snapshotRetentionLimit", 0),), (unknown(CACHE, "snapshotRetentionLimit"),)
    ),
    "elasticache-minor-upgrades": Proof(
        (change(CACHE, "autoMinorVersionUpgrade", "false"),), (unknown(CACHE, "autoMinorVersionUpgrade"),)
    ),
    "elasticache-subnet-group": Proof((drop(CACHE, "subnetGroupName"),), (unknown(CACHE, "subnetGroupName"),)),
    # Storage, images and secrets
    "s3-public-access-blocked": Proof(
        (
            change(BUCKET_PUBLIC_ACCESS, "blockPublicPolicy", new=False),
            remove(BUCKET_PUBLIC_ACCESS, blame=BUCKET),
        ),
        (unknown(BUCKET_PUBLIC_ACCESS, "restrictPublicBuckets", blame=BUCKET),),
    ),
    "s3-versioning": Proof(
        (
            change(BUCKET_VERSIONING, "versioningConfiguration.status", "Suspended"),
            remove(BUCKET_VERSIONING, blame=BUCKET),
        ),
        (unknown(BUCKET_VERSIONING, "versioningConfiguration", blame=BUCKET),),
    ),
    "s3-lifecycle": Proof(
        (
            drop(BUCKET_LIFECYCLE, "rules.0.abortIncompleteMultipartUpload"),
            remove(BUCKET_LIFECYCLE, blame=BUCKET),
        ),
        (unknown(BUCKET_LIFECYCLE, "rules", blame=BUCKET),),
    ),
    "s3-access-logging": Proof(
        (remove(BUCKET_LOGGING, _MODELS, blame=BUCKET),),
        always_known="which bucket is logged is recorded as a dependency",
    ),
    "s3-acls-disabled": Proof(
        (
            change(BUCKET_OWNERSHIP, "rule.objectOwnership", "ObjectWriter"),
            remove(BUCKET_OWNERSHIP, blame=BUCKET),
        ),
        (unknown(BUCKET_OWNERSHIP, "rule", blame=BUCKET),),
    ),
    "s3-no-public-acl": Proof((change(BUCKET, "acl", "public-read"),), (unknown(BUCKET, "acl"),)),
    "ecr-scan-on-push": Proof(
        (change(REPOSITORY, "imageScanningConfiguration.scanOnPush", new=False),),
        (unknown(REPOSITORY, "imageScanningConfiguration"),),
    ),
    "ecr-immutable-tags": Proof(
        (change(REPOSITORY, "imageTagMutability", "MUTABLE"), drop(REPOSITORY, "imageTagMutability")),
        (unknown(REPOSITORY, "imageTagMutability"),),
    ),
    "ecr-lifecycle": Proof(
        (remove(REPOSITORY_LIFECYCLE, blame=REPOSITORY),),
        always_known="which repository a lifecycle is for is recorded as a dependency",
    ),
    "secret-rotation": Proof(
        (
            remove(SECRET_ROTATION, blame=SECRET),
            change(SECRET_ROTATION, "rotationRules.automaticallyAfterDays", 365),
        ),
        (unknown(SECRET_ROTATION, "rotationRules", blame=SECRET),),
    ),
    "secret-described": Proof((drop(SECRET, "description"),), (unknown(SECRET, "description"),)),
    "secret-value-not-in-state": Proof(
        (add(SECRET_VERSION, {"secretString": "x"}),), always_known="that a value is given shows without the value"
    ),
    "lb-access-logs": Proof(
        (change(LOAD_BALANCER, "accessLogs.enabled", new=False),), (unknown(LOAD_BALANCER, "accessLogs.enabled"),)
    ),
}
