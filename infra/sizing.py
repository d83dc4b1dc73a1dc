"""The sizing profiles: what the two services need of their nodes and of their data stores.

Cores, memory and disk are those of the sizing table in docs/sizing.md; instance types are the smallest of a current
family that carry them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

GPU_FAMILIES: Final = frozenset({"g4dn", "g5", "g6", "g6e", "gr6", "p4d", "p4de", "p5", "p5e", "p5en"})
"""EC2 families whose instances carry NVIDIA GPUs that AL2023_x86_64_NVIDIA drives."""


class Profile(StrEnum):
    """How much a stack is given."""

    MINIMUM = "minimum"
    RECOMMENDED = "recommended"
    OPTIMAL = "optimal"


@dataclass(frozen=True)
class NodeSize:
    """One node of a group."""

    instance_type: str
    vcpus: int
    memory_gib: int
    disk_gib: int


@dataclass(frozen=True)
class Sizing:
    """What one profile gives to the strategic (CPU) nodes, the tactical (GPU) nodes, the database and the cache."""

    cpu_node: NodeSize
    gpu_node: NodeSize
    database_instance_class: str
    database_storage_gib: int
    cache_node_type: str


SIZINGS: Final[dict[Profile, Sizing]] = {
    # db.m7g.large has the 8 GiB that the parameter set assumes; gp3 of RDS PostgreSQL stripes from 400 GiB.
    Profile.MINIMUM: Sizing(
        cpu_node=NodeSize("m7i.2xlarge", vcpus=8, memory_gib=32, disk_gib=500),
        gpu_node=NodeSize("g6.xlarge", vcpus=4, memory_gib=16, disk_gib=100),
        database_instance_class="db.m7g.large",
        database_storage_gib=100,
        cache_node_type="cache.t4g.medium",
    ),
    Profile.RECOMMENDED: Sizing(
        cpu_node=NodeSize("m7i.4xlarge", vcpus=16, memory_gib=64, disk_gib=1000),
        gpu_node=NodeSize("g6.2xlarge", vcpus=8, memory_gib=32, disk_gib=500),
        database_instance_class="db.m7g.xlarge",
        database_storage_gib=400,
        cache_node_type="cache.m7g.large",
    ),
    # p5.4xlarge is the smallest instance of the A100 class or better: one H100, 16 vCPUs.
    Profile.OPTIMAL: Sizing(
        cpu_node=NodeSize("m7i.8xlarge", vcpus=32, memory_gib=128, disk_gib=2000),
        gpu_node=NodeSize("p5.4xlarge", vcpus=16, memory_gib=256, disk_gib=1000),
        database_instance_class="db.m7g.2xlarge",
        database_storage_gib=1000,
        cache_node_type="cache.m7g.xlarge",
    ),
}


def instance_family(instance_type: str) -> str:
    """Family of an EC2 instance type: ``g6`` of ``g6.xlarge``."""
    return instance_type.partition(".")[0]
