"""What the documentation tells people to type and to follow is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from infra.components import charts
from infra.components.namespaces import Namespace
from infra.preview.capture import capture
from infra.preview.model import Capture
from ops.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
OPS = re.compile(r"(?:^|[\s$(])(?:\.venv/bin/)?python -m ops ([^|;&\n]*)")
USAGE_ERROR = typer.BadParameter.__mro__[1]
"""What typer's own copy of click raises for any wrong use."""
MAKE = re.compile(r"(?:^|[\s$&])make ([a-z-]+)")


def commands() -> list[tuple[str, str]]:
    """Page and text of everything that is written as code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))
        found += [(name, line) for block in BLOCK.findall(text) for line in block.splitlines()]
        found += [(name, inline) for inline in CODE.findall(BLOCK.sub("", text))]
    return found


def ops_commands() -> list[tuple[str, str]]:
    return [(page, match) for page, text in commands() for match in OPS.findall(text)]


def parse(line: str) -> None:
    """As the command line would, up to running it."""
    command: Any = typer.main.get_command(app)
    words = [word for word in shlex.split(line, comments=True) if word != "--help"]
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context(command.name, words, resilient_parsing="--help" in line)


@pytest.mark.parametrize("line", sorted({line for _, line in ops_commands()}))
def test_a_command_of_the_on_call_can_be_typed_as_it_stands(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["rollback workload", "health --contexts x", "heal"])
def test_a_command_that_is_none_is_found(line: str) -> None:
    with pytest.raises((LookupError, USAGE_ERROR)):
        parse(line)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {(page, target) for page, text in commands() for target in MAKE.findall(text)}
    assert len(named) > 10
    assert {(page, target) for page, target in named if target not in targets} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if not link.startswith(("http://", "https://", "#", "mailto:")):
            assert (page.parent / link.partition("#")[0]).exists(), link


@pytest.fixture(scope="module")
def production() -> Capture:
    return capture("production", resolved=True)


def test_the_picture_shows_the_estate_as_it_is(tmp_path: Path) -> None:
    command = ["--stack", "production", "--no-policy", "--output-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "infra.preview", *command], cwd=ROOT, check=True, capture_output=True)
    assert (ROOT / "docs/estate.svg").read_bytes() == (tmp_path / "production.svg").read_bytes(), "run: make picture"


def test_runbooks_name_objects_that_the_estate_has(production: Capture) -> None:
    kinds = {"deploy": "Deployment", "deployment": "Deployment", "cronjob": "CronJob"}
    names = {
        (resource.type.rpartition(":")[2], resource.inputs["metadata"].get("name"))
        for resource in production.custom
        if resource.type.startswith("kubernetes:") and "metadata" in resource.inputs
    }
    names |= {("Deployment", chart.name) for chart in charts.ALL} | {("Deployment", "prometheus-server")}
    namespaces = {*(namespace.value for namespace in Namespace), "kube-system", "amazon-cloudwatch"}
    seen = 0
    for page, text in commands():
        if "kubectl" not in text:
            continue
        for namespace in re.findall(r"(?:-n|--namespace)[ =](\S+)", text):
            assert namespace in namespaces, f"{page}: {text}"
        for kind, name in re.findall(r"\b(deploy|deployment|cronjob)/([a-z0-9-]+)", text):
            assert (kinds[kind], name) in names, f"{page}: {text}"
            seen += 1
    assert seen
