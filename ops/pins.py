"""Pinned answers of AWS: AMI releases and add-on versions, refreshed by one command, never asked during a preview.

``python -m ops.pins --stack staging`` asks AWS and writes ``Pulumi.staging.yaml``; ``--check`` only says what is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

Client: TypeAlias = Any
"""boto3 makes its client classes at run time."""

_AMI_PARAMETER: Final = (
    "/aws/service/eks/optimized-ami/{version}/amazon-linux-2023/x86_64/{variant}/recommended/release_version"
)
_AMI_VARIANTS: Final = {"cpuAmiRelease": "standard", "gpuAmiRelease": "nvidia"}
_ADDONS: Final = {
    "addonVpcCni": "vpc-cni",
    "addonCoredns": "coredns",
    "addonKubeProxy": "kube-proxy",
    "addonEbsCsi": "aws-ebs-csi-driver",
    "addonPodIdentityAgent": "eks-pod-identity-agent",
    "addonMetricsServer": "metrics-server",
    "addonCloudwatchObservability": "amazon-cloudwatch-observability",
}
_PREFIX: Final = "grandmodel:"


class PinsError(Exception):
    """AWS did not give an answer, or the stack's file cannot be read; the message is one line for a person."""


def current_pins(kubernetes_version: str, *, ssm: Client, eks: Client) -> dict[str, str]:
    """What AWS recommends for ``kubernetes_version`` now, by configuration key.

    Raises:
        PinsError: when AWS has no answer for one of them.
    """
    pins: dict[str, str] = {}
    for key, variant in _AMI_VARIANTS.items():
        pins[key] = _ask(key, partial(_recommended_release, ssm, variant, kubernetes_version))
    for key, addon in _ADDONS.items():
        pins[key] = _ask(key, partial(_default_version, eks, addon, kubernetes_version))
    return pins


def _ask(key: str, question: Callable[[], str]) -> str:
    try:
        return question()
    except (BotoCoreError, ClientError, LookupError) as error:
        raise PinsError(f"{key}: AWS gave no answer: {error}") from None


def _recommended_release(ssm: Client, variant: str, kubernetes_version: str) -> str:
    name = _AMI_PARAMETER.format(version=kubernetes_version, variant=variant)
    return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])


def _default_version(eks: Client, addon: str, kubernetes_version: str) -> str:
    answer = eks.describe_addon_versions(addonName=addon, kubernetesVersion=kubernetes_version)
    for version in answer["addons"][0]["addonVersions"]:
        if any(compatibility.get("defaultVersion") for compatibility in version["compatibilities"]):
            return str(version["addonVersion"])
    raise LookupError(f"no default version of {addon} for Kubernetes {kubernetes_version}")


def replace_pins(text: str, pins: Mapping[str, str]) -> str:
    """The stack file's text with these pins; comments, order and everything else stay.

    Raises:
        PinsError: when a pin has no line in the file.
    """
    for key, value in pins.items():
        text, count = re.subn(rf"^(\s*{_PREFIX}{key}:\s*)\S+", rf"\g<1>{value}", text, flags=re.MULTILINE)
        if count != 1:
            raise PinsError(f"{_PREFIX}{key}: expected one line in the stack's file, found {count}")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Refresh or check a stack's pins; 0 when fresh, 1 when ``--check`` finds stale ones, 2 on wrong input."""
    parser = argparse.ArgumentParser(prog="python -m ops.pins", description=__doc__)
    parser.add_argument("--stack", required=True, help="name of the stack, as in Pulumi.<stack>.yaml")
    parser.add_argument("--directory", type=Path, default=Path(), help="where the stack's file lies")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a pin is stale")
    parser.add_argument("--json", action="store_true", help="print old and new values as JSON")
    options = parser.parse_args(arguments)
    try:
        stale = _refresh(options.directory / f"Pulumi.{options.stack}.yaml", write=not options.check)
    except PinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(stale, indent=2, sort_keys=True))
    else:
        lines = [f"{key}: {change['from']} -> {change['to']}" for key, change in sorted(stale.items())]
        print("\n".join(lines) or "all pins are fresh")
    return 1 if stale and options.check else 0


def _refresh(file: Path, *, write: bool) -> dict[str, dict[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
        configuration = yaml.safe_load(text)["config"]
        region, version = configuration["aws:region"], str(configuration[f"{_PREFIX}kubernetesVersion"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise PinsError(f"{file}: cannot read region and Kubernetes version from it: {error}") from None
    session = boto3.Session(region_name=region)
    pins = current_pins(version, ssm=session.client("ssm"), eks=session.client("eks"))
    stale = {
        key: {"from": str(configuration.get(f"{_PREFIX}{key}", "")), "to": value}
        for key, value in pins.items()
        if configuration.get(f"{_PREFIX}{key}") != value
    }
    updated = replace_pins(text, {key: change["to"] for key, change in stale.items()})
    if write and stale:
        file.write_text(updated, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
