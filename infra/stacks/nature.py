"""What may differ between stacks by nature: the shape of the data in staging.py and production.py."""

from __future__ import annotations

from dataclasses import dataclass

from infra.components.network import NatGateways


@dataclass(frozen=True)
class StackNature:
    """How much failure, loss and cost a stack is built for. Everything else is the same code and configuration."""

    name: str
    nat_gateways: NatGateways
    database_multi_az: bool
    cache_replicas: int
    deletion_protection: bool
    """Of the load balancer, the cluster and the database; and Pulumi's own ``protect`` on everything stateful."""
    database_backup_days: int
    performance_insights_days: int
    cache_snapshot_days: int
    backup_retention_days: int
    backup_compliance_lock: bool
    secret_recovery_days: int
    key_deletion_days: int
    log_retention_days: int
    cpu_nodes: tuple[int, int]
    """Fewest and most nodes of the strategic service."""
    gpu_nodes: tuple[int, int]
