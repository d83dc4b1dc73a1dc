"""The picture: well-formed, complete, and nothing in it lies over anything else. Drawn from the real estate."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from infra.preview.capture import capture
from infra.preview.model import Capture
from infra.preview.picture import draw
from infra.preview.picture.drawing import _COLOURS, tint
from infra.preview.picture.facts import read_facts
from infra.preview.picture.layout import lay_out
from infra.preview.picture.scene import Box, Scene, fit, text_width, wrap

if TYPE_CHECKING:
    from tests.infra.preview.conftest import Project

STACKS = ("staging", "production")
SVG = "{http://www.w3.org/2000/svg}"
DRAWN_TYPES = (
    "aws:ec2/vpc:Vpc",
    "aws:ec2/subnet:Subnet",
    "aws:ec2/natGateway:NatGateway",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/vpcEndpoint:VpcEndpoint",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:lb/listener:Listener",
    "aws:lb/targetGroup:TargetGroup",
    "aws:eks/cluster:Cluster",
    "aws:eks/nodeGroup:NodeGroup",
    "aws:eks/addon:Addon",
    "aws:rds/instance:Instance",
    "aws:elasticache/replicationGroup:ReplicationGroup",
    "aws:kms/key:Key",
    "aws:secretsmanager/secret:Secret",
    "aws:ecr/repository:Repository",
    "aws:s3/bucket:Bucket",
    "aws:backup/vault:Vault",
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:sns/topic:Topic",
    "aws:acm/certificate:Certificate",
    "aws:budgets/budget:Budget",
    "kubernetes:apps/v1:Deployment",
    "kubernetes:helm.sh/v3:Release",
)


@cache
def estate(stack: str) -> Capture:
    return capture(stack)


@cache
def scene(stack: str) -> Scene:
    return lay_out(read_facts(estate(stack)))


@pytest.mark.parametrize("stack", STACKS)
def test_it_is_well_formed_and_shows_every_resource_that_a_reader_looks_for(stack: str) -> None:
    root = ET.fromstring(draw(estate(stack)))  # noqa: S314 - we drew it
    shown = {urn for group in root.iter(f"{SVG}g") for urn in group.get("data-urn", "").split()}
    missing = [r.urn for r in estate(stack).of_type(*DRAWN_TYPES) if r.urn not in shown]
    assert missing == []


@pytest.mark.parametrize("stack", STACKS)
def test_no_box_lies_over_another_and_each_lies_within_the_one_around_it(stack: str) -> None:
    boxes = [box for box in scene(stack).boxes if box.style != "column"]
    by_key = {box.key: box for box in boxes}
    assert len(by_key) == len(boxes), "two boxes share a key"
    for box in boxes:
        if box.inside:
            assert by_key[box.inside].contains(box), f"{box.key} leaves {box.inside}"
    for one, other in itertools.combinations(boxes, 2):
        if one.inside == other.inside:
            assert not one.overlaps(other), f"{one.key} lies over {other.key}"


@pytest.mark.parametrize("stack", STACKS)
def test_every_text_fits_its_box_and_no_two_texts_of_a_box_touch(stack: str) -> None:
    for box in scene(stack).boxes:
        for text in box.texts:
            assert box.x <= text.left, f"{text.content!r} in {box.key}"
            assert text.left + text.width <= box.right + 1, f"{text.content!r} in {box.key}"
            assert box.y <= text.y - text.size * 0.7
            assert text.y <= box.bottom
        for one, other in itertools.combinations([text for text in box.texts if text.content], 2):
            apart = one.left + one.width <= other.left + 1 or other.left + other.width <= one.left + 1
            assert apart or abs(one.y - other.y) >= min(one.size, other.size), f"{one.content!r} and {other.content!r}"


@pytest.mark.parametrize("stack", STACKS)
def test_no_arrow_runs_through_a_chip(stack: str) -> None:
    chips = [
        box for box in scene(stack).boxes if box.key.startswith(("subnet-", "nat-", "endpoint-", "addon-", "internet-"))
    ]
    for arrow in scene(stack).arrows:
        for (x1, y1), (x2, y2) in itertools.pairwise(arrow.points):
            line = Box("line", min(x1, x2), min(y1, y2), max(abs(x1 - x2), 0.1), max(abs(y1 - y2), 0.1), "data")
            assert not [chip.key for chip in chips if chip.overlaps(line)], f"{arrow.role} arrow over a chip"


@pytest.mark.parametrize("stack", STACKS)
def test_everything_is_on_the_canvas_and_legible(stack: str) -> None:
    drawn = scene(stack)
    assert drawn.width == 1400
    for box in drawn.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= drawn.width
        assert box.bottom <= drawn.height
    assert min(text.size for box in drawn.boxes for text in box.texts) >= 11


def test_colours_keep_the_contrast_of_wcag_aa() -> None:
    def luminance(colour: str) -> float:
        channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    for role, colour in _COLOURS.items():
        if role in ("paper", "column"):
            continue
        assert contrast(colour, "#ffffff") >= 4.5, role
        assert contrast(colour, tint(role, 0.09)) >= 4.5, role
        assert contrast(_COLOURS["soft"], tint(role, 0.09)) >= 4.5, role


def test_production_shows_the_standby_and_staging_does_not() -> None:
    def copies(stack: str) -> int:
        return sum(box.key.startswith("database-") for box in scene(stack).boxes)

    assert (copies("staging"), copies("production")) == (1, 2)


def test_only_what_the_world_may_reach_is_drawn_from_the_internet() -> None:
    listeners = read_facts(estate("production")).listeners
    assert {listener.port: listener.trusted_only for listener in listeners} == {443: False, 8000: True, 8001: True}


def test_requests_lead_to_the_workloads_behind_their_listeners(project: Project) -> None:
    project.program("""
        import pulumi, pulumi_aws as aws, pulumi_kubernetes as k8s
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16")
        for tier in ("public", "private"):
            aws.ec2.Subnet(f"{tier}-a", vpc_id=vpc.id, cidr_block="10.0.0.0/24", availability_zone="eu-west-1a")
        lb = aws.lb.LoadBalancer("entry", load_balancer_type="network")
        for name, port in (("strategic", 8000), ("tactical", 8001)):
            group = aws.lb.TargetGroup(f"{name}", port=port, protocol="TCP", vpc_id=vpc.id)
            aws.lb.Listener(name, load_balancer_arn=lb.arn, port=port, protocol="TLS",
                            default_actions=[{"type": "forward", "target_group_arn": group.arn}])
        cluster = aws.eks.Cluster("cluster", role_arn="r", vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=["s"]))
        for name, instance in (("cpu", "m7i.2xlarge"), ("gpu", "g6.2xlarge")):
            aws.eks.NodeGroup(name, cluster_name="c", node_role_arn="r", subnet_ids=["s"], instance_types=[instance],
                              scaling_config=aws.eks.NodeGroupScalingConfigArgs(min_size=1, max_size=3, desired_size=1))
        opts = pulumi.ResourceOptions(provider=k8s.Provider("k", kubeconfig="{}"))
        container = k8s.core.v1.ContainerArgs(name="c", image="i")
        for name, gpu in (("strategic", False), ("tactical", True)):
            labels = {"app": name}
            tolerations = [k8s.core.v1.TolerationArgs(key="nvidia.com/gpu", operator="Exists")] if gpu else []
            k8s.apps.v1.Deployment(name, metadata=k8s.meta.v1.ObjectMetaArgs(name=name, namespace="trading"),
                spec=k8s.apps.v1.DeploymentSpecArgs(replicas=3, selector={"match_labels": labels},
                    template=k8s.core.v1.PodTemplateSpecArgs(metadata={"labels": labels},
                        spec=k8s.core.v1.PodSpecArgs(tolerations=tolerations, containers=[container]))),
                opts=opts)
    """)
    drawn = lay_out(read_facts(project.capture()))
    boxes = {box.key.split("::")[-1] if box.key.startswith("workload-") else box.key: box for box in drawn.boxes}
    nodes = {key: box for key, box in boxes.items() if key.startswith("nodes-")}
    for name, group in (("strategic", "cpu"), ("tactical", "gpu")):
        around = next(box for key, box in nodes.items() if key.endswith(f"::{group}"))
        assert around.contains(boxes[name])
        arrow = next(
            a for a in drawn.arrows if abs(a.points[-1][0] - boxes[name].centre) < 1 and a.points[-1][1] < boxes[name].y
        )
        assert arrow.points[-1][1] == pytest.approx(boxes[name].y - 3)


def test_an_estate_without_a_network_is_drawn_all_the_same(project: Project) -> None:
    project.program("import pulumi_aws as aws\naws.s3.Bucket('models')")
    assert "Object storage" in draw(project.capture())


def test_long_texts_are_shortened_to_their_room_and_lists_say_how_much_is_left_out() -> None:
    assert text_width(fit("a very long name that cannot fit anywhere", 12, 100), 12) <= 100
    (line,) = wrap(["one", "two", "three", "four", "five", "six", "seven"], 11, 90, 1)
    assert text_width(line, 11) <= 90
    assert line.endswith("+4") or "+" in line
