"""Staging: the same parts, one NAT gateway, one database, nothing that stands in the way of tearing it down."""

from infra.components.network import NatGateways
from infra.stacks.nature import StackNature

STAGING = StackNature(
    name="staging",
    nat_gateways=NatGateways.SINGLE,
    database_multi_az=False,
    cache_replicas=1,
    deletion_protection=False,
    database_backup_days=7,
    performance_insights_days=7,
    cache_snapshot_days=1,
    backup_retention_days=14,
    backup_compliance_lock=False,
    secret_recovery_days=7,
    key_deletion_days=7,
    log_retention_days=365,
    cpu_nodes=(2, 4),
    gpu_nodes=(1, 2),
)
