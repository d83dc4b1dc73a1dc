"""Production: survives the loss of a zone, keeps what it has, and cannot be deleted by accident."""

from infra.components.network import NatGateways
from infra.stacks.nature import StackNature

PRODUCTION = StackNature(
    name="production",
    nat_gateways=NatGateways.PER_ZONE,
    database_multi_az=True,
    cache_replicas=2,
    deletion_protection=True,
    database_backup_days=35,
    performance_insights_days=731,
    cache_snapshot_days=7,
    backup_retention_days=365,
    backup_compliance_lock=True,
    secret_recovery_days=30,
    key_deletion_days=30,
    log_retention_days=365,
    cpu_nodes=(3, 12),
    gpu_nodes=(2, 6),
)
