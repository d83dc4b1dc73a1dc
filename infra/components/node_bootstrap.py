"""What a node does when it first boots: kernel settings and the kubelet's, as nodeadm's user data (pure rendering)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import yaml

SYSCTLS: Final[Mapping[str, str]] = {
    "net.core.rmem_max": "134217728",
    "net.core.wmem_max": "134217728",
    "net.ipv4.tcp_rmem": "4096 87380 134217728",
    "net.ipv4.tcp_wmem": "4096 65536 134217728",
    "net.core.default_qdisc": "fq",
    "net.ipv4.tcp_congestion_control": "bbr",
    "vm.swappiness": "10",
    "vm.dirty_ratio": "15",
    "vm.dirty_background_ratio": "5",
    "fs.file-max": "2097152",
}
_BOUNDARY: Final = "==GRANDMODEL=="
_SCRIPT: Final = """#!/bin/bash
set -euo pipefail
modprobe tcp_bbr
cat > /etc/sysctl.d/90-grandmodel.conf <<'SETTINGS'
{lines}
SETTINGS
sysctl --system"""


class TopologyPolicy(StrEnum):
    """How strictly CPUs, memory and GPUs of a pod must share a NUMA node."""

    BEST_EFFORT = "best-effort"
    SINGLE_NUMA_NODE = "single-numa-node"


def kubelet_config(topology: TopologyPolicy) -> dict[str, Any]:
    """Kubelet settings by which a Guaranteed pod with whole cores owns these cores (static CPU manager)."""
    return {
        "cpuManagerPolicy": "static",
        "cpuManagerReconcilePeriod": "5s",
        "topologyManagerPolicy": topology.value,
        "systemReserved": {"cpu": "500m", "memory": "512Mi"},
        "shutdownGracePeriod": "90s",
        "shutdownGracePeriodCriticalPods": "30s",
        "allowedUnsafeSysctls": [],
    }


def user_data(topology: TopologyPolicy) -> str:
    """Base64 MIME document of AL2023: a shell part for :data:`SYSCTLS`, a nodeadm part for the kubelet.

    A managed node group without a custom AMI merges it with its own (EKS user guide, "launch templates"). It is stored
    in clear text: nothing secret may be in it.
    """
    node_config = {
        "apiVersion": "node.eks.aws/v1alpha1",
        "kind": "NodeConfig",
        "spec": {"kubelet": {"config": kubelet_config(topology)}},
    }
    lines = "\n".join(f"{key} = {value}" for key, value in SYSCTLS.items())
    script = _SCRIPT.format(lines=lines)
    parts = {"text/x-shellscript": script, "application/node.eks.aws": yaml.safe_dump(node_config, sort_keys=True)}
    document = ["MIME-Version: 1.0", f'Content-Type: multipart/mixed; boundary="{_BOUNDARY}"', ""]
    for content_type, body in parts.items():
        document += [f"--{_BOUNDARY}", f"Content-Type: {content_type}", "", body, ""]
    document += [f"--{_BOUNDARY}--", ""]
    return base64.b64encode("\n".join(document).encode()).decode()
