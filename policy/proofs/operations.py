"""Proofs of the rules on resilience, monitoring, names, tags and cost."""

from __future__ import annotations

import json

from policy.model import UNKNOWN, Secret
from policy.mutation import Mutation, Proof, add, called, change, copy_of, drop, having, remove, unknown, unprotect
from policy.proofs.common import TAGS
from policy.rules.types import (
    ALARM,
    BACKUP_LOCK,
    BACKUP_PLAN,
    BACKUP_SELECTION,
    BACKUP_VAULT,
    BUCKET,
    CLUSTER,
    DATABASE,
    KMS_KEY,
    LOAD_BALANCER,
    LOG_GROUP,
    NODE_GROUP,
    ROLE,
    ROLE_ATTACHMENT,
    SECRET,
    SUBNET,
    TARGET_GROUP,
    TOPIC,
    TOPIC_SUBSCRIPTION,
    VPC,
)

_ON_DATABASE = called("database-")


def _without_service(service: str) -> object:
    def narrowed(old: str) -> str:
        document = json.loads(old)
        kept = [s for s in document["Statement"] if service not in json.dumps(s.get("Principal", ""))]
        return json.dumps({**document, "Statement": kept})

    return narrowed


def _log_group(name: object) -> Mutation:
    """A log group that nothing refers to."""
    return add(
        LOG_GROUP,
        {"name": name, "retentionInDays": 400, "tags": TAGS},
        refers={"kmsKeyId": (KMS_KEY, called("logs"))},
    )


PROOFS: dict[str, Proof] = {
    # Resilience
    "stateful-protected": Proof(
        (unprotect(DATABASE), unprotect(BUCKET), unprotect(KMS_KEY)),
        always_known="protect is an option, not a property",
    ),
    "lb-deletion-protection": Proof(
        (change(LOAD_BALANCER, "enableDeletionProtection", new=False),),
        (unknown(LOAD_BALANCER, "enableDeletionProtection"),),
    ),
    "eks-deletion-protection": Proof(
        (change(CLUSTER, "deletionProtection", new=False),), (unknown(CLUSTER, "deletionProtection"),)
    ),
    "lb-cross-zone": Proof(
        (change(LOAD_BALANCER, "enableCrossZoneLoadBalancing", new=False),),
        (unknown(LOAD_BALANCER, "enableCrossZoneLoadBalancing"),),
    ),
    "lb-health-check": Proof(
        (drop(TARGET_GROUP, "healthCheck"), change(TARGET_GROUP, "healthCheck.enabled", new=False)),
        (unknown(TARGET_GROUP, "healthCheck"),),
    ),
    "stateful-backed-up": Proof(
        (remove(BACKUP_SELECTION, blame=DATABASE),),
        (unknown(BACKUP_SELECTION, "resources", blame=DATABASE),),
    ),
    "backup-role-may": Proof(
        (remove(ROLE_ATTACHMENT, called("ForBackup"), blame=ROLE),), (unknown(BACKUP_SELECTION, "iamRoleArn"),)
    ),
    "backup-plan-keeps": Proof(
        (change(BACKUP_PLAN, "rules.0.lifecycle.deleteAfter", 3),), (unknown(BACKUP_PLAN, "rules"),)
    ),
    "backup-vault-locked": Proof(
        (remove(BACKUP_LOCK, blame=BACKUP_VAULT), drop(BACKUP_LOCK, "minRetentionDays")),
        (unknown(BACKUP_LOCK, "minRetentionDays", blame=BACKUP_VAULT),),
    ),
    "secret-recovery-window": Proof(
        (change(SECRET, "recoveryWindowInDays", 0),), (unknown(SECRET, "recoveryWindowInDays"),)
    ),
    "no-forced-deletion": Proof((change(BUCKET, "forceDestroy", new=True),), (unknown(BUCKET, "forceDestroy"),)),
    # Monitoring
    "log-group-retention": Proof(
        (change(LOG_GROUP, "retentionInDays", 7), drop(LOG_GROUP, "retentionInDays")),
        (unknown(LOG_GROUP, "retentionInDays"),),
    ),
    "log-group-belongs": Proof(
        (_log_group("/nobody/writes"),),
        (_log_group(UNKNOWN),),
    ),
    "log-group-key-admits": Proof(
        (change(KMS_KEY, "policy", _without_service("logs."), called("logs")),),
        (unknown(KMS_KEY, "policy", called("logs"), blame=LOG_GROUP),),
    ),
    "alarm-acts": Proof(
        (change(ALARM, "alarmActions", []), change(ALARM, "actionsEnabled", new=False)),
        (unknown(ALARM, "alarmActions"),),
    ),
    "alarm-has-runbook": Proof(
        (change(ALARM, "alarmDescription", "CPU is high"),), (unknown(ALARM, "alarmDescription"),)
    ),
    "alarm-is-heard": Proof(
        (
            remove(TOPIC_SUBSCRIPTION, blame=TOPIC),
            change(ALARM, "alarmActions", ["arn:aws:sns:eu-west-1:000000000000:elsewhere"]),
        ),
        (unknown(ALARM, "alarmActions"),),
    ),
    "alarm-watches-estate": Proof(
        (change(ALARM, "dimensions.DBInstanceIdentifier", "long-gone", having("dimensions.DBInstanceIdentifier")),),
        (unknown(ALARM, "dimensions.DBInstanceIdentifier", having("dimensions.DBInstanceIdentifier")),),
    ),
    "stateful-has-alarm": Proof(
        (remove(ALARM, _ON_DATABASE, blame=DATABASE, every=True),),
        always_known="what an alarm watches is recorded as a dependency",
    ),
    "sns-key-admits-alarms": Proof(
        (change(KMS_KEY, "policy", _without_service("cloudwatch."), called("notifications")),),
        (unknown(KMS_KEY, "policy", called("notifications"), blame=TOPIC),),
    ),
    # Supply and cost
    "tags-required": Proof(
        (drop(VPC, "tags.owner"), drop(DATABASE, "tags"), change(VPC, "tags.stack", "staging")), (unknown(VPC, "tags"),)
    ),
    "region-allowed": Proof(
        (add("aws:ebs/volume:Volume", {"availabilityZone": "ap-east-1a", "encrypted": True}),),
        (unknown(SUBNET, "availabilityZone"),),
    ),
    "instance-family-allowed": Proof(
        (
            change(DATABASE, "instanceClass", "db.x2iedn.32xlarge"),
            change(NODE_GROUP, "instanceTypes", ["u-24tb1.metal"], called("strategic")),
        ),
        (unknown(NODE_GROUP, "instanceTypes"),),
    ),
    "name-length": Proof((change(BUCKET, "bucket", "b" * 64),), (unknown(LOG_GROUP, "name"),)),
    "name-unique": Proof((copy_of(LOG_GROUP),), (unknown(LOG_GROUP, "name"),)),
    "no-credentials-in-plain-inputs": Proof(
        (change(VPC, "tags.Name", "AKIA" + "A" * 16),),
        always_known="an unknown value is the provider's; it is read again on the update",
    ),
    "tags-without-secrets": Proof(
        (change(VPC, "tags.note", Secret(UNKNOWN)),), always_known="the mark of a secret shows without its value"
    ),
}
