"""The contract with other teams: what breaks them breaks this first."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pulumi
import pytest

from infra.outputs import SCHEMA_VERSION, ContractError, EstateOutputs, parse_outputs
from infra.outputs_schema import render_schema
from infra.preview.model import Capture

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = Path(__file__).parent / "contracts"


def recorded() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONTRACTS / f"v{SCHEMA_VERSION}.json").read_text(encoding="utf-8"))
    return document


def test_no_field_of_the_recorded_contract_disappears_or_changes_its_meaning() -> None:
    """If this fails: raise SCHEMA_VERSION and record a new contract; do not edit the recorded one."""
    now = render_schema()["properties"]
    changed = {name: now.get(name) for name, field in recorded()["properties"].items() if now.get(name) != field}
    assert changed == {}
    assert set(recorded()["required"]) <= set(render_schema()["required"])


def test_a_new_field_is_recorded_as_well() -> None:
    assert set(render_schema()["properties"]) == set(recorded()["properties"])


def test_the_published_schema_is_fresh() -> None:
    published = json.loads((ROOT / "docs" / "outputs.schema.json").read_text(encoding="utf-8"))
    assert published == render_schema(), "run: make schema"


def test_both_stacks_keep_the_contract(estate: Capture) -> None:
    jsonschema.validate(dict(estate.outputs), render_schema())
    assert parse_outputs(estate.outputs).stack == estate.stack


def test_a_missing_output_is_an_error_and_not_none(estate: Capture) -> None:
    outputs = {name: value for name, value in estate.outputs.items() if name != "vpc_id"}
    with pytest.raises(ContractError, match="lack vpc_id"):
        parse_outputs(outputs)


@pytest.mark.parametrize("version", [None, SCHEMA_VERSION + 1, 0])
def test_another_schema_version_is_refused(estate: Capture, version: int | None) -> None:
    with pytest.raises(ContractError, match="schema version"):
        parse_outputs({**estate.outputs, "schema_version": version})


def test_a_field_that_this_reader_does_not_know_yet_does_not_break_it(estate: Capture) -> None:
    assert parse_outputs({**estate.outputs, "new_field": "x"}).schema_version == SCHEMA_VERSION


class Engine(pulumi.runtime.Mocks):
    """Pulumi's own mocks, with the producer's outputs behind the stack reference."""

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self.outputs = outputs
        self.registered: dict[str, Mapping[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {"name": args.name, "outputs": dict(self.outputs), "secretOutputNames": []}
        self.registered[args.name] = args.inputs
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        raise AssertionError(f"the consumer calls {args.token}")


def test_the_example_of_the_documentation_runs_against_the_real_outputs(production: Capture) -> None:
    engine = Engine(production.outputs)
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(engine, project="research", stack="production")

    def consume() -> None:
        runpy.run_path(str(ROOT / "docs/examples/consumer"), run_name="__main__")

    pulumi.runtime.test(consume)()  # type: ignore[no-untyped-call]
    rule = engine.registered["notebooks-to-strategic"]
    assert rule["securityGroupId"] == production.outputs["node_security_group_id"]


def test_every_field_says_what_it_is() -> None:
    assert all(field.description for field in EstateOutputs.model_fields.values())
