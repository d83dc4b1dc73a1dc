"""Nothing lies on a disk in the clear, and every key is the estate's own."""

from __future__ import annotations

from policy.checks import is_true
from policy.rule import Rule, Severity

DATABASE = "aws:rds/instance:Instance"

RULES = (
    Rule(
        id="rds-storage-encrypted",
        title="Database storage is encrypted",
        reason="Storage, replicas and snapshots of an unencrypted instance are readable by whoever gets at the disk.",
        remedy=(
            "Set storageEncrypted to true; an existing instance has to be restored from an encrypted copy of "
            "its snapshot."
        ),
        types=(DATABASE,),
        check=is_true("storageEncrypted"),
        severity=Severity.HIGH,
        controls=("checkov CKV_AWS_16", "FSBP RDS.3", "CIS-AWS 2.3.1"),
    ),
)
