"""Every series that a rule, a panel or an autoscaler names is one that somebody really exports."""

from __future__ import annotations

from collections.abc import Iterator

import promql_parser
import pytest
from prometheus_client import REGISTRY

import app.service.metrics
import app.strategic.metrics
import app.tactical.metrics  # noqa: F401 -- importing registers the series
from app.contract import SERVICES
from infra.monitoring.adapter import rules
from infra.monitoring.alerts import all_alerts
from infra.monitoring.dashboards import dashboards, queries
from infra.monitoring.series import EXPORTED
from infra.monitoring.slo import recording_rules


def series_of_services() -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""], "info": ["_info"]}
    return {f"{family.name}{suffix}" for family in REGISTRY.collect() for suffix in suffixes.get(family.type, [""])}


def exported() -> set[str]:
    recorded = {rule["record"] for rule in recording_rules()}
    return series_of_services() | set().union(*EXPORTED.values()) | recorded


def named(expression: object) -> Iterator[str]:
    """Names of the series in a parsed expression."""
    for selector in ("vector_selector", "vs"):
        inner = getattr(expression, selector, None)
        if inner is not None:
            yield from named(inner)
    if isinstance(expression, promql_parser.VectorSelector) and expression.name:
        yield expression.name
    for child in ("expr", "lhs", "rhs"):
        inner = getattr(expression, child, None)
        if inner is not None and not isinstance(inner, str):
            yield from named(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from named(argument)


EXPRESSIONS = [
    *(alert.expression for alert in all_alerts()),
    *(rule["expr"] for rule in recording_rules()),
    *queries(),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_series_exists(expression: str) -> None:
    names = set(named(promql_parser.parse(expression)))
    assert names or expression.startswith("vector(")
    assert names <= exported(), names - exported()


def test_a_series_that_nobody_exports_is_found() -> None:
    assert set(named(promql_parser.parse("sum(rate(strategic_thruput[5m]))"))) - exported() == {"strategic_thruput"}


def test_autoscalers_ask_for_series_that_the_services_export() -> None:
    for service, rule in zip(SERVICES, rules(), strict=True):
        assert service.autoscaling_metric in series_of_services()
        assert rule["name"]["as"] == service.autoscaling_metric
        assert rule["seriesQuery"].startswith(service.autoscaling_metric + "{")


def test_the_four_panels_of_the_document_are_on_the_first_page() -> None:
    page = dashboards()["system.json"]
    for title in (
        "Strategic throughput",
        "Tactical training time",
        "CPU and memory of nodes",
        "Database connections",
        "Database query time",
    ):
        assert f'"title": "{title}"' in page


def test_each_service_has_a_dashboard() -> None:
    assert set(dashboards()) == {"system.json", "strategic.json", "tactical.json"}
