"""The workflows as an enemy reads them: what a fork gets to run, who may write, what an action could turn into."""

from __future__ import annotations

import itertools
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONLINT = Path(sysconfig.get_path("scripts")) / "actionlint"
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def read(file: Path) -> dict[Any, Any]:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(workflow, dict)
    return workflow


def triggers(workflow: dict[Any, Any]) -> set[str]:
    on = workflow[True]  # YAML 1.1 reads the key `on` as true
    return {on} if isinstance(on, str) else set(on)


def jobs() -> Iterator[tuple[str, dict[Any, Any], dict[str, Any]]]:
    for file in FILES:
        workflow = read(file)
        for name, job in workflow["jobs"].items():
            yield f"{file.name}:{name}", workflow, job


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job.get("steps", ()))


def has_credentials(job: dict[str, Any]) -> bool:
    return "secrets." in str(job) or "environment" in job or job["permissions"].get("id-token") == "write"


def test_actionlint_finds_nothing() -> None:
    found = subprocess.run([ACTIONLINT, "-color=false", *FILES], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_actionlint_would_find_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    text = (ROOT / ".github/workflows/preview.yml").read_text(encoding="utf-8")
    broken.write_text(text.replace("${{ matrix.stack }}", "${{ matrix.stak }}"), encoding="utf-8")
    found = subprocess.run([ACTIONLINT, "-color=false", broken], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "stak" in found.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_action_is_pinned_by_commit_and_says_its_version(file: Path) -> None:
    used = [
        line.strip().removeprefix("- ") for line in file.read_text(encoding="utf-8").splitlines() if "uses:" in line
    ]
    remote = [line for line in used if not line.startswith("uses: ./")]
    assert [line for line in remote if not PINNED.fullmatch(line)] == []


def test_one_action_has_one_version_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for file in FILES:
        for action, commit in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", file.read_text(encoding="utf-8")):
            pins.setdefault(action, set()).add(commit)
    assert {action: commits for action, commits in pins.items() if len(commits) > 1} == {}


def test_nothing_is_permitted_but_what_a_job_asks_for() -> None:
    for file in FILES:
        assert read(file)["permissions"] == {}, file.name
    allowed = {"contents": "read", "id-token": "write", "pull-requests": "write", "issues": "write"}
    allowed["attestations"] = "write"
    for name, _, job in jobs():
        assert job["permissions"], name
        for scope, level in job["permissions"].items():
            assert allowed.get(scope) == level, f"{name}: {scope}: {level}"


def test_no_workflow_runs_a_forks_code_with_the_repositorys_rights() -> None:
    for file in FILES:
        assert not triggers(read(file)) & {"pull_request_target", "workflow_run", "issue_comment"}, file.name


def test_a_job_with_credentials_refuses_forks() -> None:
    checked = 0
    for name, workflow, job in jobs():
        writes = any(level == "write" for level in job["permissions"].values())
        if "pull_request" in triggers(workflow) and (has_credentials(job) or writes):
            assert SAME_REPOSITORY in job["if"], name
            checked += 1
    assert checked == 2, "the preview against the cloud and the comment"


def test_credentials_are_short_lived_and_bound_to_an_environment() -> None:
    for name, _, job in jobs():
        assert "secrets." not in str(job), f"{name}: OpenID Connect needs no stored secret"
        if job["permissions"].get("id-token") == "write" and "uses" not in job:
            assert "environment" in job, name


def test_a_job_that_may_write_runs_none_of_the_pull_requests_code() -> None:
    for name, _, job in jobs():
        if {"pull-requests", "issues"} & set(job["permissions"]):
            assert not any("run" in step or "checkout" in step.get("uses", "") for step in steps(job)), name
            assert set(job["permissions"].values()) == {"write"}, name
            assert len(job["permissions"]) == 1, name


def test_no_checkout_leaves_its_token_behind() -> None:
    for name, _, job in jobs():
        for step in steps(job):
            if "actions/checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, name


def test_no_script_is_built_from_what_an_author_chooses() -> None:
    for name, _, job in jobs():
        for step in steps(job):
            script = step.get("run", "") + step.get("with", {}).get("script", "")
            assert "${{" not in script, f"{name}: hand values over in env"


def test_only_main_is_deployed_staging_first_and_each_behind_its_own_environment() -> None:
    deploy = read(ROOT / ".github/workflows/deploy.yml")
    stack = read(ROOT / ".github/workflows/deploy-stack.yml")["jobs"]["up"]
    assert triggers(deploy) == {"push", "workflow_dispatch"}
    assert deploy[True]["push"]["branches"] == ["main"]
    assert deploy["jobs"]["production"]["needs"] == "staging"
    assert stack["if"] == "github.ref == 'refs/heads/main'"
    assert stack["environment"] == "${{ inputs.stack }}"
    assert stack["concurrency"]["cancel-in-progress"] is False


def test_losing_data_needs_the_label() -> None:
    offline = read(ROOT / ".github/workflows/preview.yml")["jobs"]["offline"]
    text = str(offline)
    assert "allow-stateful-replacement" in text
    assert "--forbid-losses" in text
    assert {"labeled", "unlabeled"} <= set(read(ROOT / ".github/workflows/preview.yml")[True]["pull_request"]["types"])


def test_every_stack_of_the_project_is_previewed_and_checked_for_drift() -> None:
    stacks = {file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in ROOT.glob("Pulumi.*.yaml")}
    matrices = [job["strategy"]["matrix"]["stack"] for _, _, job in jobs() if "strategy" in job]
    assert len(matrices) == 3
    assert all(set(matrix) == stacks for matrix in matrices)


def test_every_job_ends_by_itself() -> None:
    for name, _, job in jobs():
        assert "uses" in job or job["timeout-minutes"] <= 120, name


def test_the_workflows_call_only_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    calls = [
        re.findall(r"make ((?:[a-z.][\w./-]* ?)+)", step.get("run", "")) for _, _, job in jobs() for step in steps(job)
    ]
    targets = {target for call in itertools.chain.from_iterable(calls) for target in call.split()}
    assert targets
    assert {target for target in targets if f"{target}:" not in makefile} == set()
