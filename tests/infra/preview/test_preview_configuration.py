"""Wrong input is one clear line and exit code 2; configuration reaches the program as the CLI would hand it over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from infra.preview.__main__ import main
from infra.preview.configuration import load_configuration

if TYPE_CHECKING:
    from tests.infra.preview.conftest import Project


def preview(project: Project, *arguments: str) -> int:
    return main(
        ["--config-dir", str(project.root), "--output-dir", str(project.root / "out"), "--no-policy", *arguments]
    )


def fails_with(
    capsys: pytest.CaptureFixture[str], project: Project, *words: str, arguments: tuple[str, ...] = ()
) -> list[str]:
    assert preview(project, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert lines, captured.err
    assert all(any(word in line for line in lines) for word in words), captured.err
    return lines


def test_a_good_project_is_shown_and_written(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(project) == 0
    shown = capsys.readouterr().out
    assert "toy · staging" in shown
    assert "network" in shown
    assert {file.name for file in (project.root / "out").iterdir()} == {"staging.json", "staging.md", "staging.svg"}


def test_an_unknown_stack_names_the_known_ones(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    fails_with(
        capsys, project, "unknown stack 'production'", "known stacks: staging", arguments=("--stack", "production")
    )


def test_a_missing_project_file(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "Pulumi.yaml").unlink()
    fails_with(capsys, project, "Pulumi.yaml: no such file")


@pytest.mark.parametrize("file", ["Pulumi.yaml", "Pulumi.staging.yaml"])
def test_broken_yaml_names_file_and_line(project: Project, capsys: pytest.CaptureFixture[str], file: str) -> None:
    project.write(file, "name: toy\nconfig:\n  a: [1, 2\n  b: 3\n")
    fails_with(capsys, project, f"{file}:4:", "broken YAML")


def test_a_list_where_a_mapping_belongs(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("Pulumi.staging.yaml", "- one\n")
    fails_with(capsys, project, "must be a mapping")


def test_every_mistake_is_told_at_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("Pulumi.staging.yaml", "config:\n  size: many\n")
    lines = fails_with(capsys, project, "'toy:domain'", "'toy:size': 'many' is no integer")
    assert len(lines) == 2


def test_what_the_program_says_of_its_settings_is_passed_on_line_by_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.program("import pulumi\nraise pulumi.RunError('vpcCidr: bad\\ndomain: missing')")
    assert fails_with(capsys, project) == ["error: vpcCidr: bad", "error: domain: missing"]


def test_a_duplicate_or_an_unanswerable_invoke_is_wrong_input_too(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.program("import pulumi_aws as aws\naws.s3.Bucket('a')\naws.s3.Bucket('a')")
    fails_with(capsys, project, "duplicate resource URN")
    project.program("import pulumi_aws as aws\naws.get_availability_zones()")
    fails_with(capsys, project, "aws:index/getAvailabilityZones")


def test_a_missing_program(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "program/__main__.py").unlink()
    fails_with(capsys, project, "no program there")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_a_baseline_that_is_none(project: Project, capsys: pytest.CaptureFixture[str], content: str) -> None:
    project.write("baseline.json", content)
    fails_with(capsys, project, arguments=("--baseline", str(project.root / "baseline.json")))


def test_a_baseline_of_another_stack(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert preview(project) == 0
    project.write("Pulumi.production.yaml", (project.root / "Pulumi.staging.yaml").read_text())
    capsys.readouterr()
    baseline = str(project.root / "out/staging.json")
    fails_with(capsys, project, "toy/staging", arguments=("--stack", "production", "--baseline", baseline))


def test_what_the_program_prints_does_not_spoil_the_json(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.edit("import pulumi\n", "import pulumi\nprint('hello')\n")
    assert preview(project, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stack"] == "staging"
    assert "hello" in captured.err


def test_defaults_are_filled_in_and_objects_become_json(project: Project) -> None:
    project.write("Pulumi.staging.yaml", "config:\n  domain: d\n  ranges: [10.0.0.0/8]\n  enabled: true\n")
    values = load_configuration("staging", project.root).values
    assert values["toy:size"] == "3"
    assert values["toy:ranges"] == '["10.0.0.0/8"]'
    assert values["toy:enabled"] == "true"


def test_a_secret_inside_an_object_makes_the_whole_value_secret(project: Project) -> None:
    project.write("Pulumi.staging.yaml", "config:\n  domain: d\n  mail: {user: u, password: {secure: XXXX}}\n")
    configuration = load_configuration("staging", project.root)
    assert configuration.secret_keys == ("toy:mail",)
    assert configuration.shown["toy:mail"] == "[secret]"
    assert "XXXX" not in str(configuration)
