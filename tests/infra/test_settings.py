"""Wrong configuration, as a tired engineer writes it: one clear line a mistake, all at once, nothing registered."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import Settings, SettingsError, parse_settings
from infra.stacks import stack_nature

ROOT = Path(__file__).resolve().parents[2]


def configuration(stack: str = "production") -> dict[str, str]:
    """The stack's file, as Pulumi hands it to the program."""
    document = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}


def errors(**changes: Any) -> list[str]:
    """Error lines after changing keys of production; None removes one."""
    values = configuration()
    for key, value in changes.items():
        name = f"grandmodel:{key}"
        values.pop(name, None)
        if value is not None:
            values[name] = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(SettingsError) as caught:
        parse_settings(values)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_both_stacks_are_valid(stack: str) -> None:
    assert parse_settings(configuration(stack)).region == "eu-west-1"


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("vpcCidr", "10.0.0.0/33", "must be an IPv4 network"),
        ("vpcCidr", "10.0.0.1/16", "has host bits set"),
        ("vpcCidr", "10.0.0.0/24", "must be a /16 to /20"),
        ("vpcCidr", "fd00::/16", "not IPv6"),
        ("reservedCidrs", ["10.50.128.0/17"], "must not overlap vpcCidr 10.50.0.0/16"),
        ("serviceCidr", "10.50.0.0/20", "must not overlap vpcCidr"),
        ("trustedSourceRanges", ["0.0.0.0/0"], "must not be open to the world"),
        ("trustedSourceRanges", ["0.0.0.0/1"], "must not be open to the world"),
        ("trustedSourceRanges", ["10.0.0.0/8", "10.1.0.0/16"], "must not overlap 10.0.0.0/8"),
        ("clusterPublicAccessCidrs", ["0.0.0.0/0"], "must not be open to the world"),
        ("profile", "gigantic", "'minimum', 'recommended' or 'optimal'"),
        ("gpuNodes", "false", "must be true: profile recommended trains on a GPU"),
        ("gpuInstanceType", "m7i.large", "must be an instance type with NVIDIA GPUs"),
        ("domain", None, "is required"),
        ("domain", "not a domain", "should match pattern"),
        ("availabilityZones", ["eu-west-1a", "eu-west-1b"], "at least 3"),
        ("availabilityZones", ["eu-west-1a", "eu-west-1b", "us-east-1c"], "must be a zone of eu-west-1"),
        ("availabilityZones", ["eu-west-1a", "eu-west-1b", "eu-west-1b"], "must not name a zone twice"),
        ("cpuAmiRelease", "1.33.5-20251023", "must be a release for kubernetesVersion 1.34"),
        ("addonVpcCni", "latest", "should match pattern"),
        ("monthlyBudgetUsd", "0", "greater than or equal to 100"),
        ("alarmEmails", [], "at least 1"),
        ("alarmEmails", "[broken", "valid tuple"),
        ("acountId", "222222222222", "is not a known key"),
        ("region", "eu-west-1", "is set by aws:region"),
    ],
)
def test_a_mistake_gives_one_line_with_key_value_and_rule(key: str, value: Any, rule: str) -> None:
    (line,) = errors(**{key: value})
    assert line.startswith(f"grandmodel:{key}")
    assert rule in line
    if value is not None:
        first = value[0] if isinstance(value, list) and value else value
        assert str(first if isinstance(first, str) else value) in line or "[]" in line or json.dumps(value) in line


def test_all_mistakes_come_at_once_even_across_kinds_of_rules() -> None:
    lines = errors(domain=None, profile="huge", trustedSourceRanges=["0.0.0.0/0"], vpcCidr="10.60.0.0/30", typo="x")
    assert [line.split(" ")[0].rstrip(":") for line in lines] == [
        "grandmodel:domain",
        "grandmodel:profile",
        "grandmodel:trustedSourceRanges",
        "grandmodel:typo",
        "grandmodel:vpcCidr",
    ]


def test_a_missing_region_is_named_by_its_own_key() -> None:
    values = configuration()
    del values["aws:region"]
    with pytest.raises(SettingsError, match=r"^aws:region: is required$"):
        parse_settings(values)


def test_an_unknown_stack_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="stack 'qa': is unknown; the stacks are production, staging"):
        stack_nature("qa")


def test_every_required_setting_is_declared_in_the_project_file() -> None:
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    fields = {field.alias for name, field in Settings.model_fields.items() if name != "region"}
    images = {f"{image}ImageDigest" for image in ("strategic", "tactical", "gateway")}
    assert fields - set(declared) == {"cpuInstanceType", "gpuInstanceType", *images}
    assert set(declared) <= fields


@given(st.dictionaries(st.sampled_from([f"grandmodel:{k}" for k in ("vpcCidr", "profile", "domain", "x")]), st.text()))
def test_no_text_whatever_gives_anything_but_settings_or_clear_lines(garbage: dict[str, str]) -> None:
    lines: list[str] = []
    try:
        parse_settings(configuration() | garbage)
    except SettingsError as error:
        lines = str(error).splitlines()
    assert all(line.startswith("grandmodel:") for line in lines)


@pytest.mark.parametrize(
    ("stack", "text", "expected"),
    [
        ("staging", "grandmodel:domain: [", "Pulumi.staging.yaml"),
        ("qa", None, "qa"),
        ("staging", None, "grandmodel:accountId"),
    ],
)
def test_the_preview_refuses_wrong_input_with_one_line_and_exit_code_2(
    tmp_path: Path, stack: str, text: str | None, expected: str
) -> None:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    if stack == "staging":
        (tmp_path / "Pulumi.staging.yaml").write_text(text or "config:\n  aws:region: eu-west-1\n", encoding="utf-8")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "infra.preview", "--stack", stack, "--no-policy"),
            *("--config-dir", str(tmp_path), "--program", str(ROOT / "infra"), "--output-dir", str(tmp_path / "out")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
