"""Another team's Pulumi program: research notebooks that may call the strategic service."""

import pulumi
import pulumi_aws as aws

from infra.outputs import read_outputs

stack = pulumi.get_stack()
estate = read_outputs(pulumi.StackReference("estate", stack_name=f"organization/grandmodel/{stack}"))

notebooks = aws.ec2.SecurityGroup(
    "notebooks",
    description="Research notebooks",
    vpc_id=estate.apply(lambda outputs: outputs.vpc_id),
)
aws.vpc.SecurityGroupIngressRule(
    "notebooks-to-strategic",
    security_group_id=estate.apply(lambda outputs: outputs.node_security_group_id),
    referenced_security_group_id=notebooks.id,
    description="Notebooks call the strategic service",
    ip_protocol="tcp",
    from_port=8000,
    to_port=8000,
)
pulumi.export("strategic_url", estate.apply(lambda outputs: outputs.strategic_url))
