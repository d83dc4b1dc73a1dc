"""Grafana takes the dashboards as they are rendered, and a person can read them."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from infra.monitoring.dashboards import dashboards, queries
from infra.preview.model import Capture

PAGES = {name: json.loads(text) for name, text in dashboards().items()}
UNITS = {"short", "s", "percent", "percentunit", "reqps", "ops", "bytes"}
"""Of Grafana's own list (packages/grafana-data, valueFormats/categories.ts), those that the pages use."""
COLUMNS = 24


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, page in PAGES.items():
        for panel in page["panels"]:
            yield name, panel


PANELS = [pytest.param(panel, id=f"{name}: {panel['title']}") for name, panel in panels()]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_schema_reads_what_was_rendered(name: str) -> None:
    page = Dashboard.from_json(PAGES[name])
    assert page.title
    assert page.uid == f"grandmodel-{name.removesuffix('.json')}"
    assert page.panels is not None
    assert len(page.panels) == len(PAGES[name]["panels"])


def test_no_two_pages_or_panels_have_one_name() -> None:
    assert [uid for uid, times in Counter(page["uid"] for page in PAGES.values()).items() if times > 1] == []
    for page in PAGES.values():
        assert [t for t, times in Counter(panel["title"] for panel in page["panels"]).items() if times > 1] == []


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_the_source_that_is_provisioned(panel: dict[str, Any], production_sources: set[str]) -> None:
    assert panel["datasource"]["uid"] in production_sources
    assert {target["datasource"]["uid"] for target in panel["targets"]} <= production_sources
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) > 0


@pytest.fixture(scope="module")
def production_sources() -> set[str]:
    from tests.infra.conftest import captured  # noqa: PLC0415 -- the capture that other tests share

    estate: Capture = captured("production", resolved=True)
    [release] = [r.inputs for r in estate.custom if r.type.endswith(":Release") and r.name == "grafana"]
    return {source["uid"] for source in release["values"]["datasources"]["datasources.yaml"]["datasources"]}


def test_no_line_of_a_panel_is_lost() -> None:
    shown = [target["expr"] for _, panel in panels() for target in panel["targets"]]
    assert sorted(shown) == sorted(queries())


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_its_unit(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@pytest.mark.parametrize("panel", PANELS)
def test_a_legend_names_only_labels_that_the_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = {
            label.strip() for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(",")
        }
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        plain = "by (" not in target["expr"]
        assert wanted <= kept or plain, target["legendFormat"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_panel_lies_on_another(name: str) -> None:
    places = [panel["gridPos"] for panel in PAGES[name]["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
