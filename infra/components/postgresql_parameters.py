"""The server settings of the database, in the units that RDS wants (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_KIB_PER_BLOCK: Final = 8
_KIB_PER_MIB: Final = 1024


@dataclass(frozen=True)
class Parameter:
    """One setting. ``pending-reboot`` for static ones: without the right method RDS shows a difference for ever."""

    name: str
    value: str
    apply_method: str


def mebibytes_in_blocks(mebibytes: int) -> str:
    """Size in PostgreSQL blocks of 8 KiB, the unit of ``shared_buffers`` and its kin."""
    return str(mebibytes * _KIB_PER_MIB // _KIB_PER_BLOCK)


def mebibytes_in_kibibytes(mebibytes: int) -> str:
    """Size in KiB, the unit of ``work_mem`` and its kin."""
    return str(mebibytes * _KIB_PER_MIB)


_STATIC: Final = {
    "rds.force_ssl": "1",
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": mebibytes_in_blocks(2048),
    "wal_buffers": mebibytes_in_blocks(16),
    "max_worker_processes": "8",
}
_DYNAMIC: Final = {
    "effective_cache_size": mebibytes_in_blocks(6144),
    "maintenance_work_mem": mebibytes_in_kibibytes(512),
    "work_mem": mebibytes_in_kibibytes(32),
    "checkpoint_completion_target": "0.9",
    "default_statistics_target": "100",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "min_wal_size": "1024",
    "max_wal_size": "4096",
    "max_parallel_workers_per_gather": "4",
    "max_parallel_workers": "8",
    "max_parallel_maintenance_workers": "4",
    # What a DBA reads first in an incident; statements carry no parameters, hence no data.
    "log_min_duration_statement": "1000",
    "log_statement": "ddl",
    "log_connections": "1",
    "log_parameter_max_length": "0",
    "pg_stat_statements.track": "all",
}

POSTGRESQL_PARAMETERS: Final = tuple(
    [Parameter(name, value, "pending-reboot") for name, value in sorted(_STATIC.items())]
    + [Parameter(name, value, "immediate") for name, value in sorted(_DYNAMIC.items())]
)
