"""A small project to preview: a program, its configuration, and a policy pack of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.preview.capture import Run, repository_root, run
from infra.preview.configuration import load_configuration
from infra.preview.model import Capture, Resource

PROJECT = """
name: toy
runtime: python
main: program
config:
  size: {type: integer, default: 3}
  domain: {type: string}
"""
STACK = """
config:
  aws:region: eu-west-1
  domain: trading.example.com
  token: {secure: AAABBBCCCDDDEEEFFF}
"""
PROGRAM = """
import pulumi
import pulumi_aws as aws

class Network(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("toy:network:Network", name)
        child = pulumi.ResourceOptions(parent=self)
        self.vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", opts=child)
        self.subnet = aws.ec2.Subnet("private-a", vpc_id=self.vpc.id, cidr_block="10.0.1.0/24",
                                     availability_zone="eu-west-1a", opts=child)
        self.register_outputs({"vpc_id": self.vpc.id})

network = Network("network")
aws.rds.Instance("database", engine="postgres", instance_class="db.t4g.small", storage_encrypted=True,
                 password=pulumi.Config().require_secret("token"))
aws.s3.Bucket("models", tags={"vpc": network.vpc.arn})
pulumi.export("vpc_id", network.vpc.id)
"""
PACK = """
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy, StackValidationPolicy

def encrypted(args, report):
    if args.resource_type != "aws:rds/instance:Instance":
        args.not_applicable()
    if not args.props.get("storageEncrypted"):
        report(f"not encrypted, password {args.props.get('password')}")

def tagged(args, report):
    if args.resource_type == "aws:s3/bucket:Bucket" and not args.props["tags"]["vpc"].startswith("arn:"):
        report("no VPC")

def has_vpc(args, report):
    if not any(resource.resource_type == "aws:ec2/vpc:Vpc" for resource in args.resources):
        report("no VPC")

PolicyPack("toy", enforcement_level=EnforcementLevel.MANDATORY, policies=[
    ResourceValidationPolicy("encrypted", "Databases are encrypted", encrypted),
    ResourceValidationPolicy("tagged", "Buckets name their VPC", tagged),
    StackValidationPolicy("has-vpc", "There is a VPC", has_vpc),
])
"""


class Project:
    """A project on disk whose files a test changes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pack = root / "pack"
        (root / "program").mkdir()
        self.pack.mkdir()
        (self.pack / ".venv").symlink_to(repository_root() / "policy" / ".venv")
        self.write("Pulumi.yaml", PROJECT)
        self.write("Pulumi.staging.yaml", STACK)
        self.program(PROGRAM)
        self.write("pack/__main__.py", PACK)
        self.write("pack/PulumiPolicy.yaml", "runtime: python\n")

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def program(self, text: str) -> None:
        self.write("program/__main__.py", text)

    def edit(self, old: str, new: str) -> None:
        file = self.root / "program/__main__.py"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *, resolved: bool = False) -> Run:
        return run(load_configuration("staging", self.root), resolved=resolved)

    def capture(self, *, resolved: bool = False) -> Capture:
        return self.run(resolved=resolved).capture


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def named() -> Callable[[Capture, str], Resource]:
    def find(capture: Capture, name: str) -> Resource:
        return next(resource for resource in capture.resources if resource.name == name)

    return find
