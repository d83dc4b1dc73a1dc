"""How pods fit nodes: what a node leaves for pods, how many replicas a group of nodes carries (pure arithmetic).

CPU in millicores, memory in MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from infra.sizing import NodeSize

_MIB_PER_GIB: Final = 1024
# What a kernel and a hypervisor keep of an instance's memory; Karpenter's default for the same unknown
# (settings.vmMemoryOverheadPercent).
_VISIBLE_MEMORY: Final = 0.925
# nodeadm's kubeReserved: 255 MiB and 11 MiB a pod; with prefix delegation 110 pods below 30 vCPUs, 250 above
# (amazon-eks-ami, "nodeadm", kubelet defaults).
_KUBE_RESERVED_MIB: Final = 255
_KUBE_RESERVED_MIB_PER_POD: Final = 11
_EVICTION_MIB: Final = 100
_SYSTEM_RESERVED_MILLICORES: Final = 500
_SYSTEM_RESERVED_MIB: Final = 512


@dataclass(frozen=True)
class Amount:
    """CPU in millicores, memory in MiB and whole GPUs."""

    millicores: int
    mebibytes: int
    gpus: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.millicores + other.millicores, self.mebibytes + other.mebibytes, self.gpus + other.gpus)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.millicores - other.millicores, self.mebibytes - other.mebibytes, self.gpus - other.gpus)

    def __mul__(self, count: int) -> Amount:
        return Amount(self.millicores * count, self.mebibytes * count, self.gpus * count)

    def holds(self, other: Amount) -> bool:
        """Whether ``other`` fits into this."""
        rest = self - other
        return min(rest.millicores, rest.mebibytes, rest.gpus) >= 0


DAEMONS: Final = Amount(millicores=800, mebibytes=1024)
"""Requests of what runs on every node: vpc-cni, kube-proxy, EBS CSI, Secrets Store CSI and its AWS provider, Pod
Identity agent, CloudWatch agent with Fluent Bit, node exporter, GPU plugin and DCGM exporter."""

PLATFORM: Final[Sequence[Amount]] = (
    *[Amount(200, 256)] * 2,  # CoreDNS
    *[Amount(100, 200)] * 2,  # metrics-server
    *[Amount(100, 256)] * 2,  # EBS CSI controller
    *[Amount(100, 128)] * 2,  # AWS Load Balancer Controller
    Amount(100, 512),  # Cluster Autoscaler
    *[Amount(50, 128)] * 3,  # cert-manager, its webhook, its CA injector
    Amount(1000, 4096),  # Prometheus
    *[Amount(50, 128)] * 2,  # Alertmanager
    Amount(250, 512),  # Grafana
    *[Amount(100, 256)] * 2,  # prometheus-adapter
    *[Amount(50, 128)] * 2,  # exporters of PostgreSQL and the cache
    Amount(100, 256),  # CloudWatch operator
    Amount(500, 2048),  # one maintenance job at a time
)
"""Requests of the pods that the platform itself needs, all on CPU nodes."""


def node_capacity(size: NodeSize, *, gpus: int = 0) -> Amount:
    """What one node leaves for pods after the kubelet's, the system's and the daemons' shares."""
    pods = 110 if size.vcpus < 30 else 250
    kube_millicores = 60 + 10 + 5 * min(2, max(0, size.vcpus - 2)) + round(2.5 * max(0, size.vcpus - 4))
    memory = int(size.memory_gib * _MIB_PER_GIB * _VISIBLE_MEMORY)
    reserved = Amount(
        _SYSTEM_RESERVED_MILLICORES + kube_millicores,
        _SYSTEM_RESERVED_MIB + _KUBE_RESERVED_MIB + _KUBE_RESERVED_MIB_PER_POD * pods + _EVICTION_MIB,
    )
    return Amount(size.vcpus * 1000, memory, gpus) - reserved - DAEMONS


def nodes_needed(pods: Iterable[Amount], node: Amount) -> int:
    """Nodes that carry ``pods`` when each goes to the first node with room, the largest pods first.

    Raises:
        ValueError: when a pod is larger than a node.
    """
    free: list[Amount] = []
    for pod in sorted(pods, key=lambda pod: (pod.gpus, pod.millicores, pod.mebibytes), reverse=True):
        if not node.holds(pod):
            raise ValueError(f"a pod of {pod} does not fit a node of {node}")
        for index, room in enumerate(free):
            if room.holds(pod):
                free[index] = room - pod
                break
        else:
            free.append(node - pod)
    return len(free)


def most_replicas(pod: Amount, *, beside: Sequence[Amount], node: Amount, nodes: int, at_most: int) -> int:
    """Largest number of ``pod``, up to ``at_most``, that ``nodes`` nodes carry ``beside`` other pods; 0 if none."""
    if not node.holds(pod):
        return 0
    return next((n for n in range(at_most, 0, -1) if nodes_needed([pod] * n + list(beside), node) <= nodes), 0)
