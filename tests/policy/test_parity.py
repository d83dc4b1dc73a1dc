"""Staging rehearses production: they differ in size, number, protection and addresses, and in nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from policy.model import Estate
from policy.mutation import change, remove
from policy.parity import differences, main


def test_the_real_stacks_differ_only_where_they_may(estate_of_stack: Callable[..., Estate]) -> None:
    staging, production = (estate_of_stack(stack, resolved=False) for stack in ("staging", "production"))
    assert [str(found) for found in differences(staging, production)] == []


def test_a_difference_that_no_rehearsal_would_see_is_told(estate_of_stack: Callable[..., Estate]) -> None:
    staging, production = (estate_of_stack(stack, resolved=False) for stack in ("staging", "production"))
    weaker, _ = change("aws:rds/instance:Instance", "iamDatabaseAuthenticationEnabled", new=False)(staging)
    assert [found.path for found in differences(weaker, production)] == ["iamDatabaseAuthenticationEnabled"]
    poorer, _ = remove("aws:ec2/flowLog:FlowLog")(staging)
    assert [found.path for found in differences(poorer, production)] == ["(whole resource)"]


def test_the_command_compares_two_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for stack, encrypted in (("staging", False), ("production", True)):
        urn = f"urn:pulumi:{stack}::p::aws:rds/instance:Instance::database"
        properties = {"storageEncrypted": encrypted, "identifier": f"p-{stack}", "allocatedStorage": len(stack)}
        resource = {"urn": urn, "type": "aws:rds/instance:Instance", "inputs": properties}
        file = tmp_path / f"{stack}.json"
        file.write_text(json.dumps({"version": 3, "deployment": {"resources": [resource]}}))
        files.append(str(file))
    assert main([*files, "--json"]) == 1
    assert [found["path"] for found in json.loads(capsys.readouterr().out)] == ["storageEncrypted"]
    assert main([files[0], files[0]]) == 0
    assert main([files[0], str(tmp_path / "gone.json")]) == 2
