"""The real analyzer protocol with a small pack: verdicts, unknowns, exit codes, secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from infra.preview.__main__ import main

if TYPE_CHECKING:
    from tests.infra.preview.conftest import Project

CANARY = "canary-d41d8cd98f"


def preview(project: Project, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(
        [
            "--config-dir",
            str(project.root),
            "--output-dir",
            str(project.root / "out"),
            "--policy-pack",
            str(project.pack),
            *arguments,
        ]
    )
    out = project.root / "out"
    written = out / "staging.json"
    return code, json.loads(written.read_text())["policies"] if written.exists() else {}


def verdicts(policies: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {rule["name"]: rule["verdicts"] for rule in policies["rules"]}


def test_an_estate_that_holds_all_rules_passes(project: Project) -> None:
    code, policies = preview(project)
    assert code == 0
    assert policies["counts"] == {"passed": 3, "violated": 0, "undecided": 0, "not applicable": 0}


def test_a_mandatory_rule_that_met_an_unknown_is_undecided_in_preview_and_decided_resolved(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _, policies = preview(project)
    assert verdicts(policies)["tagged"] == {"preview": "undecided", "resolved": "passed"}
    assert "1 met an unknown in the first preview" in capsys.readouterr().out


def test_a_violation_of_a_mandatory_rule_fails_the_preview(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("storage_encrypted=True", "storage_encrypted=False")
    code, policies = preview(project)
    assert code == 1
    assert verdicts(policies)["encrypted"] == {"preview": "violated", "resolved": "violated"}
    assert "violated (mandatory)  encrypted" in capsys.readouterr().out
    assert "encrypted" in (project.root / "out/staging.md").read_text()


def test_a_violation_that_only_resolved_values_show_fails_the_preview(project: Project) -> None:
    project.edit('{"vpc": network.vpc.arn}', '{"vpc": network.vpc.id}')
    code, policies = preview(project)
    assert code == 1
    assert verdicts(policies)["tagged"] == {"preview": "undecided", "resolved": "violated"}


def test_an_advisory_rule_does_not_fail_it(project: Project) -> None:
    project.edit("storage_encrypted=True", "storage_encrypted=False")
    pack = (project.pack / "__main__.py").read_text().replace("EnforcementLevel.MANDATORY", "EnforcementLevel.ADVISORY")
    project.write("pack/__main__.py", pack)
    code, policies = preview(project)
    assert code == 0
    assert policies["counts"]["violated"] == 1


def test_a_stack_rule_sees_the_whole_estate(project: Project) -> None:
    project.edit('self.vpc = aws.ec2.Vpc("vpc"', 'self.vpc = aws.ec2.DefaultVpc("vpc") if True else aws.ec2.Vpc("vpc"')
    code, policies = preview(project)
    assert code == 1
    assert verdicts(policies)["has-vpc"]["preview"] == "violated"


def test_a_rule_that_applies_to_nothing_says_so(project: Project) -> None:
    project.program("import pulumi_aws as aws\naws.ec2.Vpc('vpc', cidr_block='10.0.0.0/16')")
    _, policies = preview(project)
    assert policies["counts"]["not applicable"] == 1


def test_no_secret_is_in_any_file_nor_on_the_screen_even_if_a_rule_prints_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("storage_encrypted=True", "storage_encrypted=False")
    project.edit('pulumi.Config().require_secret("token")', f'pulumi.Output.secret("{CANARY}")')
    project.edit(
        'pulumi.export("vpc_id"', f'pulumi.export("token", pulumi.Output.secret("{CANARY}"))\npulumi.export("vpc_id"'
    )
    code, policies = preview(project)
    assert code == 1
    assert any("password [secret]" in finding["message"] for finding in policies["findings"])
    captured = capsys.readouterr()
    written = [file.read_text() for file in (project.root / "out").iterdir()]
    assert all(CANARY not in text for text in (*written, captured.out, captured.err))


def test_a_pack_that_does_not_start_is_one_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("pack/__main__.py", "raise SystemExit('broken pack')")
    assert preview(project)[0] == 2
    assert "did not start: broken pack" in capsys.readouterr().err


def test_a_pack_without_its_environment_names_what_to_install(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.pack / ".venv").unlink()
    assert preview(project)[0] == 2
    error = capsys.readouterr().err
    assert "requirements.txt" in error
    assert "--no-policy" in error


def test_a_rule_that_crashes_is_one_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    pack = (
        (project.pack / "__main__.py")
        .read_text()
        .replace("def tagged(args, report):", "def tagged(args, report):\n    1 / 0")
    )
    project.write("pack/__main__.py", pack)
    assert preview(project)[0] == 2
    assert "policy pack" in capsys.readouterr().err


def test_two_previews_write_the_same_bytes(project: Project) -> None:
    preview(project)
    first = {file.name: file.read_bytes() for file in (project.root / "out").iterdir()}
    preview(project)
    assert first == {file.name: file.read_bytes() for file in (project.root / "out").iterdir()}
