"""A chart that is not there, or does not do what the estate relies on, is told, each by a line."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from infra.components import charts
from infra.preview.model import Capture
from ops.chart_checks import Expectation, findings, ineffective
from ops.charts import expectation, listed, main, releases

CHART = charts.POSTGRES_EXPORTER
EXPECTED = Expectation(
    pods=["exporter"],
    namespace="monitoring",
    kubernetes_version="1.34",
    registries=["111111111111.dkr.ecr."],
    restricted=True,
    ports={"exporter": 9187},
    service_accounts=["exporter"],
)
SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def deployment(**changes: Any) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "exporter",
        "image": "111111111111.dkr.ecr.eu-west-1.amazonaws.com/quay/exporter:v1",
        "ports": [{"containerPort": 9187}],
        "securityContext": SECURITY,
    }
    spec: dict[str, Any] = {"serviceAccountName": "exporter", "containers": [container]}
    labels = {"app.kubernetes.io/name": changes.pop("label", "exporter")}
    container.update({key: value for key, value in changes.items() if key in container})
    spec.update({key: value for key, value in changes.items() if key not in container})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "exporter"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def index(version: str, app_version: str) -> Mapping[str, Any]:
    entries = [{"version": "99.0.0", "appVersion": "v9"}, {"version": version, "appVersion": app_version}]
    return {"entries": {CHART.name: entries}}


def test_a_chart_that_holds_is_left_in_peace() -> None:
    assert findings([deployment()], EXPECTED) == []
    assert listed(CHART, index(CHART.version, CHART.app_version)) == ("99.0.0", [])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": "app"}, "no pod carries app.kubernetes.io/name=exporter"),
        ({"ports": [{"containerPort": 80}]}, "does not listen on 9187"),
        ({"serviceAccountName": "default"}, "no pod runs as exporter"),
        ({"image": "quay.io/exporter:v1"}, "comes from elsewhere: quay.io/exporter:v1"),
        ({"image": "quay.io/111111111111.dkr.ecr.eu-west-1.amazonaws.com/exporter"}, "comes from elsewhere"),
        ({"securityContext": {**SECURITY, "capabilities": {}}}, "capabilities is not restricted"),
        ({"securityContext": {**SECURITY, "runAsNonRoot": False}}, "running as root is not restricted"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "mounts a path of its node"),
        ({"nodeSelectors": {}}, "nodeSelectors"),
    ],
)
def test_what_would_fail_in_the_cluster_is_told_before(changes: dict[str, Any], told: str) -> None:
    lines = findings([deployment(**copy.deepcopy(changes))], EXPECTED)
    assert any(told in line for line in lines), lines


def test_a_version_that_was_never_released_is_told() -> None:
    newest, lines = listed(CHART, index("1.0.0", "v1"))
    assert newest == "99.0.0"
    assert lines == [f"version {CHART.version} does not exist; the newest is 99.0.0"]


def test_a_chart_that_runs_another_version_than_the_table_says_is_told() -> None:
    assert listed(CHART, index(CHART.version, "v0.0.1"))[1] == [f"it runs v0.0.1, not {CHART.app_version}"]


def test_a_misspelt_value_is_told_and_a_default_is_not() -> None:
    defaults = {"replicas": 1, "image": {"tag": "v1"}}

    def render(values: Mapping[str, Any]) -> object:
        return values.get("replicas", 1), values.get("image", {}).get("tag", "v1"), values.get("extra")

    values = {"replicas": 1, "image": {"tag": "v2", "tagg": "v3"}, "extra": {"any": True}, "replica": 3}
    assert ineffective(values, defaults, render) == ["image.tagg", "replica"]


def test_every_release_of_the_estate_is_in_the_table_at_its_version(production: Capture) -> None:
    found = {(r.inputs["chart"], r.inputs["version"]) for r in production.custom if r.type.endswith(":Release")}
    assert found == {(chart.name, chart.version) for chart in charts.ALL}


def test_roles_of_charts_are_looked_for_in_their_pods(production: Capture) -> None:
    wanted = {
        name: expectation(chart, namespace, values, production).service_accounts
        for name, chart, namespace, values in releases(production)
    }
    assert wanted["aws-load-balancer-controller"] == ["aws-load-balancer-controller"]
    assert wanted["cluster-autoscaler"] == ["cluster-autoscaler"]
    assert wanted["prometheus"] == ["alertmanager"]
    assert wanted["prometheus-postgres-exporter"] == ["postgres-exporter"]
    assert wanted["cloudwatch-exporter"] == ["cloudwatch-exporter"]


def test_policies_and_scrape_jobs_name_only_pods_that_charts_have(production: Capture) -> None:
    names = {name for chart in charts.ALL for name in chart.pods}
    policies = [r for r in production.custom if r.type.endswith(":NetworkPolicy")]
    selected = {
        policy.inputs["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        for policy in policies
        if policy.inputs["metadata"]["namespace"] in ("monitoring", "node-agents", "cert-manager")
    } - {None}
    assert {"prometheus", "prometheus-adapter", "prometheus-postgres-exporter"} <= selected
    assert selected <= names


def test_without_a_network_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = charts.Chart(CHART.name, "http://127.0.0.1:1", CHART.version, CHART.app_version, "")
    monkeypatch.setattr("ops.charts.releases", lambda _: [("exporter", nowhere, "monitoring", {})])
    assert main(["--stack", "staging", "--pins-only"]) == 2
    assert capsys.readouterr().err.startswith("error: http://127.0.0.1:1 does not answer:")
