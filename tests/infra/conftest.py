"""The real estate, captured once for all tests, and variations of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.preview.capture import capture
from infra.preview.model import Capture

ROOT = Path(__file__).resolve().parents[2]

Vary = Callable[[str, Mapping[str, Any]], Capture]


@cache
def captured(stack: str, *, resolved: bool) -> Capture:
    return capture(stack, resolved=resolved)


@pytest.fixture(scope="session", params=["staging", "production"])
def estate(request: pytest.FixtureRequest) -> Capture:
    """Each stack as after an update."""
    return captured(request.param, resolved=True)


@pytest.fixture(scope="session")
def staging() -> Capture:
    return captured("staging", resolved=True)


@pytest.fixture(scope="session")
def production() -> Capture:
    return captured("production", resolved=True)


@pytest.fixture(scope="session", params=["staging", "production"])
def first_preview(request: pytest.FixtureRequest) -> Capture:
    """Each stack as in the first preview of an empty stack: whatever AWS decides is unknown."""
    return captured(request.param, resolved=False)


@pytest.fixture
def vary(tmp_path: Path) -> Vary:
    """A stack with some configuration keys set (or removed, by None)."""

    def capture_with(stack: str, changes: Mapping[str, Any]) -> Capture:
        shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
        file = ROOT / f"Pulumi.{stack}.yaml"
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key, value in changes.items():
            document["config"].pop(key, None)
            if value is not None:
                document["config"][key] = value
        (tmp_path / file.name).write_text(yaml.safe_dump(document), encoding="utf-8")
        return capture(stack, resolved=True, config_dir=tmp_path, program=ROOT / "infra")

    return capture_with
