"""What a captured estate promises to everybody who reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pulumi
import pytest
from pulumi.runtime import resource, settings, stack

from infra.preview.errors import WrongInput
from infra.preview.model import SECRET, UNKNOWN, Capture, Resource, dump

if TYPE_CHECKING:
    from tests.infra.preview.conftest import Project

Named = Callable[[Capture, str], Resource]


def test_an_urn_keeps_the_types_of_all_parents(project: Project, named: Named) -> None:
    project.program("""
        import pulumi, pulumi_aws as aws
        outer = pulumi.ComponentResource("toy:outer:Outer", "outer")
        inner = pulumi.ComponentResource("toy:inner:Inner", "inner", opts=pulumi.ResourceOptions(parent=outer))
        aws.s3.Bucket("models", opts=pulumi.ResourceOptions(parent=inner))
    """)
    urn = named(project.capture(), "models").urn
    assert urn == "urn:pulumi:staging::toy::toy:outer:Outer$toy:inner:Inner$aws:s3/bucket:Bucket::models"


def test_two_resources_of_one_urn_are_refused(project: Project) -> None:
    project.program("""
        import pulumi_aws as aws
        aws.s3.Bucket("models")
        aws.s3.Bucket("models")
    """)
    with pytest.raises(WrongInput, match=r"duplicate resource URN .*::models"):
        project.capture()


def test_equal_names_under_different_parents_are_two_resources(project: Project) -> None:
    project.program("""
        import pulumi, pulumi_aws as aws
        for name in ("a", "b"):
            parent = pulumi.ComponentResource(f"toy:{name}:{name}", name)
            aws.s3.Bucket("models", opts=pulumi.ResourceOptions(parent=parent))
    """)
    assert len(project.capture().custom) == 2


NESTED = """
    import pulumi, pulumi_aws as aws, pulumi_kubernetes as k8s
    provider = k8s.Provider("cluster", kubeconfig="{}")
    options = pulumi.ResourceOptions(provider=provider)
    meta = k8s.meta.v1.ObjectMetaArgs(namespace="trading")
    labels = {"app": "a"}
    deployment = k8s.apps.v1.Deployment("api", metadata=meta, spec=k8s.apps.v1.DeploymentSpecArgs(
        selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels),
        template=k8s.core.v1.PodTemplateSpecArgs(metadata=k8s.meta.v1.ObjectMetaArgs(labels=labels),
            spec=k8s.core.v1.PodSpecArgs(containers=[k8s.core.v1.ContainerArgs(name="c", image="i")]))), opts=options)
    cluster = aws.eks.Cluster("cluster", role_arn="r", vpc_config=aws.eks.ClusterVpcConfigArgs(subnet_ids=["s"]))
    k8s.core.v1.ConfigMap("reader", opts=options, data={
        "name": deployment.metadata.name,
        "namespace": deployment.metadata.namespace,
        "uid": deployment.metadata.uid,
        "node": deployment.spec.template.spec.node_name,
        "image": deployment.spec.template.spec.containers[0].image,
        "pull": deployment.spec.template.spec.containers[0].image_pull_policy,
        "group": cluster.vpc_config.cluster_security_group_id,
        "issuer": cluster.identities[0].oidcs[0].issuer,
        "ca": cluster.certificate_authority.data,
    })
"""


def test_a_nested_field_that_nobody_set_is_unknown_and_never_none(project: Project, named: Named) -> None:
    project.program(NESTED)
    data = named(project.capture(), "reader").inputs["data"]
    assert {key for key, value in data.items() if value == UNKNOWN} == {"uid", "node", "pull", "group", "issuer", "ca"}
    assert None not in data.values()


def test_what_was_set_stays_known_beside_unknown_neighbours(project: Project, named: Named) -> None:
    project.program(NESTED)
    data = named(project.capture(), "reader").inputs["data"]
    assert data["namespace"] == "trading"
    assert data["image"] == "i"
    assert data["name"].startswith("api-"), "the Kubernetes provider names objects in preview already"


def test_resolved_every_computed_value_is_a_text_of_the_right_kind(project: Project, named: Named) -> None:
    project.program(NESTED)
    data = named(project.capture(resolved=True), "reader").inputs["data"]
    assert all(isinstance(value, str) and value for value in data.values())
    assert data["issuer"].startswith("https://")


def test_what_depends_on_an_unknown_runs_only_when_resolved(project: Project, named: Named) -> None:
    project.edit("network.vpc.arn", "network.vpc.arn.apply(lambda arn: arn.upper())")
    assert named(project.capture(), "models").inputs["tags"]["vpc"] == UNKNOWN
    assert named(project.capture(resolved=True), "models").inputs["tags"]["vpc"].startswith("ARN:AWS:EC2:")


def test_an_optional_field_left_out_gets_no_placeholder_that_a_judge_could_take_for_a_value(
    project: Project, named: Named
) -> None:
    database = named(project.capture(resolved=True), "database")
    assert "kmsKeyId" not in database.outputs
    assert database.outputs["arn"].startswith("arn:aws:rds:eu-west-1:")


def test_an_invoke_that_only_the_cloud_can_answer_fails_with_its_token_and_arguments(project: Project) -> None:
    project.program("""
        import pulumi_aws as aws
        aws.ec2.get_ami(owners=["amazon"], most_recent=True)
    """)
    with pytest.raises(WrongInput, match=r'aws:ec2/getAmi:getAmi\(\{"mostRecent": true, "owners": \["amazon"\]'):
        project.capture()


def test_a_policy_document_is_computed_here(project: Project, named: Named) -> None:
    project.program("""
        import pulumi_aws as aws
        document = aws.iam.get_policy_document_output(statements=[{
            "sid": "Read", "actions": ["s3:GetObject"], "resources": ["*"],
            "principals": [{"type": "AWS", "identifiers": ["arn:aws:iam::1:root"]}],
            "conditions": [{"test": "Bool", "variable": "aws:SecureTransport", "values": ["true"]}]}])
        aws.iam.Policy("read", policy=document.json)
    """)
    (statement,) = json.loads(named(project.capture(), "read").inputs["policy"])["Statement"]
    assert statement == {
        "Sid": "Read",
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": "*",
        "Principal": {"AWS": "arn:aws:iam::1:root"},
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    }


def test_transforms_run_as_in_the_engine_own_first_then_the_parents_then_the_stacks(
    project: Project, named: Named
) -> None:
    project.program("""
        import pulumi, pulumi_aws as aws
        def mark(word):
            def transform(args):
                if args.type_ != "aws:s3/bucket:Bucket":
                    return None
                seen = (args.props.get("tags") or {}).get("order", "")
                opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True))
                return pulumi.ResourceTransformResult({**args.props, "tags": {"order": seen + word}}, opts)
            return transform
        pulumi.runtime.register_resource_transform(mark("stack"))
        options = pulumi.ResourceOptions(transforms=[mark("parent ")])
        parent = pulumi.ComponentResource("toy:parent:Parent", "parent", opts=options)
        aws.s3.Bucket("models", opts=pulumi.ResourceOptions(parent=parent, transforms=[mark("own ")]))
    """)
    bucket = named(project.capture(), "models")
    assert bucket.inputs["tags"] == {"order": "own parent stack"}
    assert bucket.protect


def test_default_tags_of_a_provider_are_among_all_tags(project: Project, named: Named) -> None:
    project.program("""
        import pulumi, pulumi_aws as aws
        defaults = aws.ProviderDefaultTagsArgs(tags={"owner": "platform"})
        provider = aws.Provider("tagged", region="eu-west-1", default_tags=defaults)
        aws.s3.Bucket("models", tags={"name": "models"}, opts=pulumi.ResourceOptions(provider=provider))
    """)
    assert named(project.capture(), "models").outputs["tagsAll"] == {"name": "models", "owner": "platform"}


def test_options_and_references_are_kept(project: Project, named: Named) -> None:
    project.edit(
        "password=pulumi.Config()",
        'opts=pulumi.ResourceOptions(protect=True, ignore_changes=["password"]), password=pulumi.Config()',
    )
    capture = project.capture()
    database, subnet = named(capture, "database"), named(capture, "private-a")
    assert database.protect
    assert database.ignore_changes == ("password",)
    assert subnet.property_dependencies["vpcId"] == (named(capture, "vpc").urn,)
    assert [parent.name for parent in capture.ancestors(subnet)] == ["network", "toy-staging"]


def test_a_secret_is_masked_wherever_it_goes(project: Project, named: Named) -> None:
    project.edit(
        'tags={"vpc": network.vpc.arn}', 'tags={"a": pulumi.Output.secret("canary-one").apply(lambda s: s + "!")}'
    )
    project.edit(
        'pulumi.export("vpc_id"', 'pulumi.export("secret", pulumi.Output.secret("canary-two"))\npulumi.export("vpc_id"'
    )
    capture = project.capture()
    assert named(capture, "models").inputs["tags"]["a"] == SECRET
    assert named(capture, "database").inputs["password"] == SECRET
    assert capture.outputs["secret"] == SECRET
    assert "canary" not in dump(capture.to_json())
    assert capture.secret_config == ("toy:token",)
    assert capture.config["toy:token"] == "[secret]"


def test_two_runs_give_the_same_bytes(project: Project) -> None:
    assert dump(project.capture().to_json()) == dump(project.capture().to_json())


def test_a_saved_capture_reads_back_equal(project: Project) -> None:
    capture = project.capture()
    assert dump(Capture.from_json(json.loads(dump(capture.to_json()))).to_json()) == dump(capture.to_json())


def test_a_program_that_fails_names_its_own_error(project: Project) -> None:
    project.program("import pulumi\nraise pulumi.RunError('one\\ntwo')")
    with pytest.raises(pulumi.RunError, match="one\ntwo"):
        project.capture()


def test_formatting_an_output_as_text_is_an_error(project: Project) -> None:
    project.edit('tags={"vpc": network.vpc.arn}', 'tags={"vpc": f"{network.vpc.arn}"}')
    with pytest.raises(Exception, match="__str__"):
        project.capture()


def test_a_run_leaves_no_trace_in_the_sdk(project: Project) -> None:
    before = (settings.get_stack(), resource._get_stack_trace, stack.wait_for_rpcs, settings.get_root_resource())
    project.capture()
    assert (
        settings.get_stack(),
        resource._get_stack_trace,
        stack.wait_for_rpcs,
        settings.get_root_resource(),
    ) == before
