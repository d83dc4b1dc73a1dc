"""``make charts``: are the pinned charts there, and do they do with our values what the estate relies on?

Asks each chart's repository for its index, fetches the pinned version and renders it offline with the values of the
captured stack. Needs the network, and for rendering ``pip install helm-python-sdk`` (Helm itself as a library).
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.components import charts
from infra.components.charts import Chart
from infra.components.namespaces import POD_SECURITY
from infra.components.observability import (
    ADAPTER_PORT,
    ALERTMANAGER_PORT,
    CLOUDWATCH_EXPORTER_PORT,
    DCGM_PORT,
    GRAFANA_PORT,
    NODE_EXPORTER_PORT,
    POSTGRES_EXPORTER_PORT,
    PROMETHEUS_PORT,
)
from infra.preview.capture import capture
from infra.preview.model import Capture
from ops.chart_checks import Expectation, Values, findings, ineffective

_TIMEOUT_SECONDS: Final = 30
_PORTS: Final[Mapping[str, int]] = {
    "prometheus": PROMETHEUS_PORT,
    "alertmanager": ALERTMANAGER_PORT,
    "prometheus-adapter": ADAPTER_PORT,
    "grafana": GRAFANA_PORT,
    charts.pod_name(charts.POSTGRES_EXPORTER): POSTGRES_EXPORTER_PORT,
    charts.pod_name(charts.CLOUDWATCH_EXPORTER): CLOUDWATCH_EXPORTER_PORT,
    charts.pod_name(charts.NODE_EXPORTER): NODE_EXPORTER_PORT,
    charts.pod_name(charts.DCGM_EXPORTER): DCGM_PORT,
}
_NO_PULL_THROUGH: Final = ("nvcr.io/nvidia/", "docker.io/grafana/")
"""Registries that admit no pull-through cache without an account of theirs."""


class ChartsError(Exception):
    """A repository did not answer, or Helm cannot be used; one line for a person."""


@dataclass(frozen=True)
class Verdict:
    """What was found about one release."""

    release: str
    chart: str
    version: str
    newest: str
    findings: Sequence[str]


def listed(chart: Chart, index: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Newest release of ``chart`` in its repository's index, and what the pin has wrong."""
    entries = {str(entry["version"]): entry for entry in index.get("entries", {}).get(chart.name, ())}
    if not entries:
        return "", [f"{chart.repository} has no chart {chart.name}"]
    newest = next((version for version in entries if "-" not in version), next(iter(entries)))
    if chart.version not in entries:
        return newest, [f"version {chart.version} does not exist; the newest is {newest}"]
    runs = str(entries[chart.version].get("appVersion") or "")
    return newest, [] if runs == chart.app_version else [f"it runs {runs}, not {chart.app_version}"]


def index_of(chart: Chart) -> Mapping[str, Any]:
    """The index of a chart's repository.

    Raises:
        ChartsError: when it does not answer.
    """
    try:
        with urllib.request.urlopen(f"{chart.repository}/index.yaml", timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            index = yaml.load(answer.read(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, yaml.YAMLError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ChartsError(f"{chart.repository} does not answer: {reason}") from None
    return dict(index)


def releases(estate: Capture) -> list[tuple[str, Chart, str, Values]]:
    """Name, chart, namespace and values of every release in a captured stack."""
    by_name = {chart.name: chart for chart in charts.ALL}
    return [
        (r.name, by_name[r.inputs["chart"]], r.inputs["namespace"], r.inputs["values"])
        for r in estate.custom
        if r.type.endswith(":Release")
    ]


def expectation(chart: Chart, namespace: str, values: Values, estate: Capture) -> Expectation:
    """What the estate relies on in a release of ``chart``."""
    accounts = {
        r.inputs["serviceAccount"]
        for r in estate.custom
        if r.type.endswith(":PodIdentityAssociation") and r.inputs["namespace"] == namespace
    }
    restricted = {space.value for space, level in POD_SECURITY.items() if level == "restricted"}
    registry = f"{estate.config['grandmodel:accountId']}.dkr.ecr."
    return Expectation(
        pods=chart.pods,
        namespace=namespace,
        kubernetes_version=str(estate.config["grandmodel:kubernetesVersion"]),
        registries=[registry, *_NO_PULL_THROUGH],
        restricted=namespace in restricted,
        ports={pod: port for pod, port in _PORTS.items() if pod in chart.pods},
        service_accounts=[account for account in sorted(accounts) if account in json.dumps(values, default=str)],
    )


def rendered(source: Path, name: str, namespace: str, values: Values) -> list[dict[str, Any]]:
    """Objects of the chart at ``source``, hooks included.

    Raises:
        ChartsError: when Helm is not there, or refuses the chart or the values.
    """
    helm = _helm()
    try:
        with helm.Chart.load(str(source)) as chart:
            chart.validate_schema(dict(values))
            texts = chart.render(dict(values), name=name, namespace=namespace)
    except helm.HelmError as error:
        raise ChartsError(f"{name}: {error}") from None
    # Some templates put a comment on the line that parts two documents.
    manifests = [text.replace("\n---#", "\n---\n#") for file, text in texts.items() if not file.endswith("NOTES.txt")]
    return [document for text in manifests for document in yaml.safe_load_all(text) if document]


def _helm() -> Any:  # noqa: ANN401 -- not a dependency: 85 MB that only this command needs
    try:
        return importlib.import_module("helm_python")
    except ImportError:
        raise ChartsError("rendering needs Helm: .venv/bin/pip install helm-python-sdk") from None


def judge(source: Path, release: tuple[str, Chart, str, Values], estate: Capture) -> list[str]:
    """What does not hold of one release, rendered from the chart at ``source``."""
    name, chart, namespace, values = release
    expected = expectation(chart, namespace, values, estate)
    found = findings(rendered(source, name, namespace, values), expected)

    def outcome(some: Values) -> object:
        try:
            return rendered(source, name, namespace, some)
        except ChartsError as error:
            return str(error)  # a value that the chart insists on has an effect

    with _helm().Chart.load(str(source)) as loaded:
        dead = ineffective(values, loaded.merge_values({}), outcome)
    return [*found, *(f"value {path} has no effect" for path in dead)]


def _fetched(chart: Chart, directory: Path) -> Path:
    helm = _helm()
    try:
        helm.pull(chart.name, repo_url=chart.repository, version=chart.version, destination=str(directory))
    except helm.HelmError as error:
        raise ChartsError(f"{chart.name}: {error}") from None
    return next(directory.glob(f"{chart.name}-*.tgz"))


def main(arguments: list[str] | None = None) -> int:
    """Judge every chart; 0 when all holds, 1 on findings, 2 when something cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m ops.charts", description=__doc__)
    parser.add_argument("--stack", default="production", help="whose values; production has every chart")
    parser.add_argument("--pins-only", action="store_true", help="ask the indexes and render nothing")
    parser.add_argument(
        "--source", type=Path, help="directory with the charts unpacked, a folder each: no network is used"
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    options = parser.parse_args(arguments)
    try:
        verdicts = _judge_all(options)
    except ChartsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            newer = f" (newest {verdict.newest})" if verdict.newest not in ("", verdict.version) else ""
            print(f"{'ok  ' if not verdict.findings else 'FAIL'} {verdict.release} {verdict.version}{newer}")
            print("".join(f"       {line}\n" for line in verdict.findings), end="")
    return 1 if any(verdict.findings for verdict in verdicts) else 0


def _judge_all(options: argparse.Namespace) -> list[Verdict]:
    estate = capture(options.stack, resolved=True)
    verdicts = []
    with tempfile.TemporaryDirectory() as scratch:
        for release in releases(estate):
            name, chart = release[:2]
            newest, found = ("", []) if options.source else listed(chart, index_of(chart))
            if not options.pins_only and not found:
                source = options.source / chart.name if options.source else _fetched(chart, Path(scratch))
                found = judge(source, release, estate)
            verdicts.append(Verdict(name, chart.name, chart.version, newest, found))
    return verdicts


if __name__ == "__main__":
    sys.exit(main())
