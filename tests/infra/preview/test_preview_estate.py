"""The preview of the real estate, through the command line, for both stacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.preview.capture import capture, repository_root
from infra.preview.model import UNKNOWN, contains


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_two_fresh_processes_write_the_same_bytes(stack: str, tmp_path: Path) -> None:
    for hash_seed, name in (("1", "first"), ("2", "second")):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "infra.preview",
                "--stack",
                stack,
                "--no-policy",
                "--output-dir",
                str(tmp_path / name),
            ],
            cwd=repository_root(),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        )
    for kind in ("json", "md", "svg"):
        first, second = ((tmp_path / name / f"{stack}.{kind}").read_bytes() for name in ("first", "second"))
        assert first == second, kind


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_no_known_input_is_none(stack: str) -> None:
    def nones(value: object, path: str) -> list[str]:
        if isinstance(value, dict):
            return [found for key, item in value.items() for found in nones(item, f"{path}.{key}")]
        if isinstance(value, list):
            return [found for index, item in enumerate(value) for found in nones(item, f"{path}[{index}]")]
        return [path] if value is None else []

    for mode in (False, True):
        estate = capture(stack, resolved=mode)
        assert [found for r in estate.resources for found in nones(dict(r.inputs), r.name)] == []


def test_the_resolved_estate_has_no_unknown_left() -> None:
    estate = capture("production", resolved=True)
    assert [r.urn for r in estate.custom if contains(r.inputs, UNKNOWN)] == []


def test_no_path_of_this_machine_is_in_the_saved_preview() -> None:
    text = json.dumps(capture("staging").to_json())
    assert str(repository_root()) not in text
