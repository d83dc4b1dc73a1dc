"""Pods fit nodes, in figures and as declared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import Service
from infra.capacity import PLATFORM, Amount, most_replicas, node_capacity, nodes_needed
from infra.components import gateway
from infra.preview.model import Capture
from infra.sizing import SIZINGS, Profile
from infra.stacks import STACKS
from infra.workload_sizing import JOBS, Nodes, workload_sizes

GATEWAYS = [gateway.RESOURCES] * (gateway.MAX_REPLICAS + 1)
AMOUNTS = st.builds(Amount, st.integers(50, 8000), st.integers(64, 32_768), st.integers(0, 1))


@given(st.lists(AMOUNTS, max_size=40))
def test_every_pod_has_a_place_and_no_node_is_overfull(pods: list[Amount]) -> None:
    node = Amount(15_000, 60_000, 1)
    needed = nodes_needed(pods, node)
    total = sum(pods, Amount(0, 0))
    assert (node * needed).holds(total)
    assert needed <= len(pods)


def test_a_pod_larger_than_a_node_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        nodes_needed([Amount(9000, 100)], Amount(8000, 100))


@given(st.integers(1, 12), st.integers(1, 10))
def test_more_nodes_never_carry_fewer_pods(nodes: int, at_most: int) -> None:
    pod, node = Amount(4000, 16_384), node_capacity(SIZINGS[Profile.MINIMUM].cpu_node)
    few = most_replicas(pod, beside=PLATFORM[:6], node=node, nodes=nodes, at_most=at_most)
    assert most_replicas(pod, beside=PLATFORM[:6], node=node, nodes=nodes + 1, at_most=at_most) >= few


@pytest.mark.parametrize("stack", sorted(STACKS))
@pytest.mark.parametrize("profile", list(Profile))
def test_everything_at_its_most_fits_the_largest_node_groups(stack: str, profile: Profile) -> None:
    nature, sizing = STACKS[stack], SIZINGS[profile]
    cpu, gpu = Nodes(sizing.cpu_node, *nature.cpu_nodes), Nodes(sizing.gpu_node, *nature.gpu_nodes)
    sizes = workload_sizes(profile, cpu, gpu, GATEWAYS)
    strategic, tactical = sizes[Service.STRATEGIC], sizes[Service.TACTICAL]
    on_cpu = [strategic.pod] * (strategic.max_replicas + strategic.surge) + [*PLATFORM, *JOBS, *GATEWAYS]
    assert nodes_needed(on_cpu, node_capacity(cpu.size)) <= cpu.most
    assert nodes_needed([tactical.pod] * tactical.max_replicas, node_capacity(gpu.size, gpus=1)) <= gpu.most


def test_production_scales_as_far_as_the_document_says(production: Capture) -> None:
    scalers = {r.name: r.inputs["spec"] for r in production.custom if r.type.endswith(":HorizontalPodAutoscaler")}
    assert (scalers["strategic"]["minReplicas"], scalers["strategic"]["maxReplicas"]) == (3, 10)
    assert (scalers["tactical"]["minReplicas"], scalers["tactical"]["maxReplicas"]) == (2, 5)


def test_production_pods_have_the_larger_figure(production: Capture) -> None:
    pods = {
        r.name: r.inputs["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
        for r in production.custom
        if r.type.endswith(":Deployment")
    }
    assert pods["strategic"] == {"cpu": "8", "memory": "32Gi"}
    assert pods["tactical"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
