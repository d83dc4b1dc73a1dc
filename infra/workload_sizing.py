"""What each workload gets on the nodes of its stack, and how far it may scale there (pure arithmetic).

The document gives requests below limits (4 CPU / 16 Gi below 8 / 32 Gi, 2 / 8 below 4 / 16). A pod owns its cores only
when both are equal, so the larger figure is taken for both; profile ``minimum`` has nodes for the smaller one only
(docs/decisions/2026-11-23-guaranteed-pods.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.contract import Service
from infra.capacity import PLATFORM, Amount, most_replicas, node_capacity
from infra.sizing import NodeSize, Profile

_GIB: Final = 1024
STRATEGIC_PODS: Final[Mapping[Profile, Amount]] = {
    Profile.MINIMUM: Amount(4000, 16 * _GIB),
    Profile.RECOMMENDED: Amount(8000, 32 * _GIB),
    Profile.OPTIMAL: Amount(8000, 32 * _GIB),
}
TACTICAL_PODS: Final[Mapping[Profile, Amount]] = {
    Profile.MINIMUM: Amount(2000, 8 * _GIB),
    Profile.RECOMMENDED: Amount(4000, 16 * _GIB),
    Profile.OPTIMAL: Amount(4000, 16 * _GIB),
}
STRATEGIC_REPLICAS: Final = (3, 10)
"""The document's replicas, and the most that its autoscaler may make of them."""
TACTICAL_REPLICAS: Final = (2, 5)
JOBS: Final[Sequence[Amount]] = (Amount(500, 512), Amount(500, 512))
"""Both migrations, which a rollout runs beside everything else."""


@dataclass(frozen=True)
class Nodes:
    """The most and the fewest nodes of a group, and their size."""

    size: NodeSize
    fewest: int
    most: int


@dataclass(frozen=True)
class WorkloadSize:
    """One workload: what a pod asks for, and the autoscaler's bounds."""

    pod: Amount
    min_replicas: int
    max_replicas: int
    surge: bool
    """Whether the nodes carry one more pod during a rollout at the upper bound."""


def workload_sizes(
    profile: Profile, cpu: Nodes, gpu: Nodes | None, gateway: Sequence[Amount]
) -> Mapping[Service, WorkloadSize]:
    """Sizes of both services; everything at its upper bound, rollouts included, fits the node groups' largest size.

    Args:
        profile: of the stack.
        cpu: nodes of the strategic service and of the platform.
        gpu: nodes of the tactical service; None puts it onto the CPU nodes.
        gateway: the gateway's pods at their upper bound.

    Raises:
        ValueError: when not even the lower bounds fit.
    """
    strategic_pod, tactical_pod = STRATEGIC_PODS[profile], TACTICAL_PODS[profile]
    beside = [*PLATFORM, *JOBS, *gateway]
    if gpu is None:
        tactical = WorkloadSize(tactical_pod, TACTICAL_REPLICAS[0], TACTICAL_REPLICAS[0], surge=False)
        beside += [tactical_pod] * tactical.max_replicas
    else:
        tactical = _on_gpu_nodes(tactical_pod + Amount(0, 0, 1), gpu)
    strategic = most_replicas(
        strategic_pod,
        beside=[*beside, strategic_pod],
        node=node_capacity(cpu.size),
        nodes=cpu.most,
        at_most=STRATEGIC_REPLICAS[1],
    )
    sizes = {
        Service.STRATEGIC: WorkloadSize(
            strategic_pod, min(STRATEGIC_REPLICAS[0], max(2, cpu.fewest)), strategic, surge=True
        ),
        Service.TACTICAL: tactical,
    }
    for service, size in sizes.items():
        if size.max_replicas < size.min_replicas:
            raise ValueError(f"{service}: {size.min_replicas} replicas of {size.pod} do not fit the node groups")
    return sizes


def _on_gpu_nodes(pod: Amount, gpu: Nodes) -> WorkloadSize:
    """A GPU is not to be had twice: a rollout takes a pod down before it starts the next."""
    most = most_replicas(
        pod, beside=(), node=node_capacity(gpu.size, gpus=1), nodes=gpu.most, at_most=TACTICAL_REPLICAS[1]
    )
    return WorkloadSize(pod, TACTICAL_REPLICAS[0], most, surge=False)
