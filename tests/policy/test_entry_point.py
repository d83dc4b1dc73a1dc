"""The pack as the Pulumi engine starts and asks it: its own environment, its own process, the real protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from policy.catalog import RULES

PACK = Path(__file__).resolve().parents[2] / "policy"
UNKNOWN = rpc.UNKNOWN
DATABASE = "aws:rds/instance:Instance"
KEY = "aws:kms/key:Key"


def urn(token: str, name: str = "one") -> str:
    return f"urn:pulumi:production::grandmodel::{token}::{name}"


@pytest.fixture(scope="module")
def interpreter() -> Path:
    python = PACK / ".venv" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"{python} is missing: python3.11 -m venv policy/.venv and install policy/requirements.txt")
    return python


@pytest.fixture(scope="module")
def analyzer(interpreter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running pack, unpacked under another name as Pulumi does with a published one."""
    folder = tmp_path_factory.mktemp("packs") / "unpacked"
    shutil.copytree(PACK, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    process = subprocess.Popen(
        [str(interpreter), "-u", "-m", "pulumi.policy", "127.0.0.1:0", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield analyzer_pb2_grpc.AnalyzerStub(channel)
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture(autouse=True)
def configured(analyzer: Any) -> None:
    """Each test starts with the pack's own settings and nothing analysed."""
    configure(analyzer)
    analyzer.AnalyzeStack(analyzer_pb2.AnalyzeStackRequest())


def configure(analyzer: Any, **more: tuple[analyzer_pb2.EnforcementLevel.ValueType, dict[str, Any]]) -> None:
    request = analyzer_pb2.ConfigureAnalyzerRequest()
    request.policyConfig["estate-report"].properties.update({"format": "json"})
    for rule, (level, properties) in more.items():
        request.policyConfig[rule.replace("_", "-")].enforcementLevel = level
        request.policyConfig[rule.replace("_", "-")].properties.update(properties)
    analyzer.Configure(request)


def analyze(analyzer: Any, token: str, **properties: Any) -> dict[str, Any]:
    request = analyzer_pb2.AnalyzeRequest(type=token, urn=urn(token), name="one")
    request.properties.update(properties)
    return {diagnostic.policyName: diagnostic for diagnostic in analyzer.Analyze(request).diagnostics}


Told: TypeAlias = tuple[str, dict[str, Any], dict[str, list[str]]]
"""A resource's type, outputs and, by property, the URNs that it depends on."""


def analyze_stack(analyzer: Any, *resources: Told) -> dict[str, Any]:
    request = analyzer_pb2.AnalyzeStackRequest()
    for token, properties, dependencies in resources:
        added = request.resources.add(type=token, urn=urn(token), name="one")
        added.properties.update(properties)
        for key, urns in dependencies.items():
            added.propertyDependencies[key].urns.extend(urns)
    return {diagnostic.policyName: diagnostic for diagnostic in analyzer.AnalyzeStack(request).diagnostics}


def test_the_engine_learns_of_every_rule(analyzer: Any) -> None:
    told = {policy.name: policy for policy in analyzer.GetAnalyzerInfo(empty_pb2.Empty()).policies}
    assert set(told) == {rule.id for rule in RULES} | {"estate-report"}
    encrypted = told["rds-storage-encrypted"]
    assert encrypted.enforcementLevel == analyzer_pb2.MANDATORY
    assert encrypted.severity == analyzer_pb2.POLICY_SEVERITY_HIGH
    assert "waivers" in encrypted.configSchema.properties


def test_the_packs_own_configuration_keeps_each_rules_level(analyzer: Any) -> None:
    """A level left out would reach the engine as advisory."""
    info = analyzer.GetAnalyzerInfo(empty_pb2.Empty())
    levels = {policy.name: policy.enforcementLevel for policy in info.policies}
    assert info.initialConfig
    assert all(given.enforcementLevel == levels[rule] for rule, given in info.initialConfig.items())


def test_a_violation_blocks_before_the_resource_is_made(analyzer: Any) -> None:
    found = analyze(analyzer, DATABASE, storageEncrypted=False)["rds-storage-encrypted"]
    assert found.enforcementLevel == analyzer_pb2.MANDATORY
    assert found.urn == urn(DATABASE)
    assert "storageEncrypted is false" in found.message


def test_an_unknown_value_is_undecided_in_the_engines_own_words(analyzer: Any) -> None:
    found = analyze(analyzer, DATABASE, storageEncrypted=UNKNOWN)["rds-storage-encrypted"]
    assert found.enforcementLevel == analyzer_pb2.ADVISORY
    assert found.message.startswith("can't run policy 'rds-storage-encrypted'")


def test_a_known_value_passes_silently(analyzer: Any) -> None:
    assert "rds-storage-encrypted" not in analyze(analyzer, DATABASE, storageEncrypted=True)


def test_a_link_is_followed_before_its_value_is_known(analyzer: Any) -> None:
    """The key's ARN is unknown in a first preview; that it is the estate's key is not."""
    key: Told = (KEY, {"description": "x"}, {})
    linked: Told = (DATABASE, {"kmsKeyId": UNKNOWN}, {"kmsKeyId": [urn(KEY)]})
    loose: Told = (DATABASE, {"kmsKeyId": UNKNOWN}, {})
    assert "rds-customer-key" not in analyze_stack(analyzer, key, linked)
    assert "can't run" in analyze_stack(analyzer, key, loose)["rds-customer-key"].message


def test_the_counts_cover_both_rounds(analyzer: Any) -> None:
    analyze(analyzer, DATABASE, storageEncrypted=False)
    told = analyze_stack(analyzer, (DATABASE, {"storageEncrypted": False, "multiAz": True}, {}))
    counts = json.loads(told["estate-report"].message)
    assert counts["rules"]["rds-storage-encrypted"] == {"violated": 1}
    assert counts["rules"]["rds-customer-key"] == {"violated": 1}
    assert set(counts["rules"]) == {rule.id for rule in RULES}
    assert "rds-storage-encrypted" not in told, "it was told in the first round"


def test_what_the_provider_echoes_is_not_held_against_the_program(analyzer: Any) -> None:
    """The outputs of a security group list the rules that other resources declare."""
    token = "aws:ec2/securityGroup:SecurityGroup"
    analyze(analyzer, token, description="x")
    echoed = {
        "description": "x",
        "ingress": [{"protocol": "tcp", "fromPort": 1, "toPort": 2, "cidrBlocks": ["0.0.0.0/0"]}],
    }
    assert "sg-world-only-at-load-balancer" not in analyze_stack(analyzer, (token, echoed, {}))


def test_the_stacks_configuration_changes_levels_and_waives(analyzer: Any) -> None:
    configure(analyzer, rds_storage_encrypted=(analyzer_pb2.ADVISORY, {}))
    found = analyze(analyzer, DATABASE, storageEncrypted=False)["rds-storage-encrypted"]
    assert found.enforcementLevel == analyzer_pb2.ADVISORY
    waived = {"waivers": [{"urn": urn(DATABASE), "reason": "restored next week", "expires": "2999-01-01"}]}
    configure(analyzer, rds_storage_encrypted=(analyzer_pb2.MANDATORY, waived))
    assert "rds-storage-encrypted" not in analyze(analyzer, DATABASE, storageEncrypted=False)


def test_a_wrong_configuration_is_refused_in_one_line(analyzer: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        configure(analyzer, rds_storage_encrypted=(analyzer_pb2.MANDATORY, {"waivers": [{"urn": "x"}]}))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "rds-storage-encrypted.waivers" in refused.value.details()


def test_the_packs_environment_is_pinned_and_apart() -> None:
    pinned = [
        line for line in (PACK / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all("==" in line for line in pinned)
    assert "pulumi_policy==1.21.0" in pinned
