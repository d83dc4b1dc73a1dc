"""Pins are refreshed by one command and by nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from infra.settings import parse_settings
from ops import pins

ROOT = Path(__file__).resolve().parents[2]
STACK = (ROOT / "Pulumi.staging.yaml").read_text(encoding="utf-8")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """botocore's own stubber: it checks requests and answers against AWS's service models."""
    ssm = boto3.client("ssm", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    eks = boto3.client("eks", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(ssm) as ssm_stub, Stubber(eks) as eks_stub:
        for variant in ("standard", "nvidia"):
            name = f"/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/x86_64/{variant}/recommended/release_version"
            ssm_stub.add_response("get_parameter", {"Parameter": {"Value": "1.34.9-20260101"}}, {"Name": name})
        for addon in pins._ADDONS.values():
            versions = [
                {"addonVersion": "v9.9.9-eksbuild.9", "compatibilities": [{"defaultVersion": False}]},
                {"addonVersion": "v2.0.0-eksbuild.1", "compatibilities": [{"defaultVersion": True}]},
            ]
            eks_stub.add_response(
                "describe_addon_versions",
                {"addons": [{"addonName": addon, "addonVersions": versions}]},
                {"addonName": addon, "kubernetesVersion": "1.34"},
            )
        clients = {"ssm": ssm, "eks": eks}
        monkeypatch.setattr(boto3.Session, "client", lambda _self, name: clients[name])
        yield


def config(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
    return values


@pytest.mark.usefixtures("aws")
def test_refreshing_writes_the_default_versions_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.staging.yaml"
    file.write_text(STACK, encoding="utf-8")
    before = config(file)
    assert pins.main(["--stack", "staging", "--directory", str(tmp_path)]) == 0
    after = config(file)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {f"grandmodel:{key}" for key in (*pins._ADDONS, *pins._AMI_VARIANTS)}
    assert after["grandmodel:addonVpcCni"] == "v2.0.0-eksbuild.1"
    assert "# Whatever is created" in file.read_text(encoding="utf-8")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in after.items()}
    assert parse_settings(texts).cpu_ami_release == "1.34.9-20260101"


@pytest.mark.usefixtures("aws")
def test_checking_writes_nothing_and_says_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Pulumi.staging.yaml"
    file.write_text(STACK, encoding="utf-8")
    assert pins.main(["--stack", "staging", "--directory", str(tmp_path), "--check"]) == 1
    assert file.read_text(encoding="utf-8") == STACK
    assert "addonCoredns: v1.12.4-eksbuild.1 -> v2.0.0-eksbuild.1" in capsys.readouterr().out


def test_an_unknown_stack_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main(["--stack", "qa", "--directory", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Pulumi.qa.yaml" in line


def test_a_pin_that_has_no_line_is_not_silently_dropped() -> None:
    with pytest.raises(pins.PinsError, match="grandmodel:addonCoredns"):
        pins.replace_pins("config:\n  aws:region: eu-west-1\n", {"addonCoredns": "v1.0.0-eksbuild.1"})
