"""What the commands ask of Kubernetes: over HTTP, of a server that keeps Deployments (no cluster can be had here)."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.contract import NAMESPACE
from infra.preview.capture import capture
from ops.cli import app
from ops.cluster import all_services

runner = CliRunner()
DEPLOYMENT = re.compile(r"^/apis/apps/v1/namespaces/grandmodel/deployments/(\w+)$")
REPLICA_SETS = re.compile(r"^/apis/apps/v1/namespaces/grandmodel/replicasets$")


def image(digest: str) -> str:
    return f"registry/grandmodel/strategic@sha256:{digest * 64}"


def template(reference: str) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": [{"name": "strategic", "image": reference}]}}


class ApiServer(HTTPServer):
    """Deployments that become ready as soon as they are told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replicas = {"strategic": 3, "tactical": 2}
        self.annotations: dict[str, dict[str, str]] = {"strategic": {}, "tactical": {}}
        self.image = image("b")
        self.patches: list[Any] = []
        self.forbidden = False


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        if self.server.forbidden:
            self._answer(403, {"kind": "Status", "message": "forbidden"})
        elif match := DEPLOYMENT.match(self.path.split("?")[0]):
            self._answer(200, self._deployment(match[1]))
        elif REPLICA_SETS.match(self.path.split("?")[0]):
            self._answer(200, {"items": [self._replica_set(1, image("a")), self._replica_set(2, self.server.image)]})
        else:
            self._answer(404, {"kind": "Status"})

    def do_PATCH(self) -> None:
        match = DEPLOYMENT.match(self.path.split("?")[0])
        assert match
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.patches.append((match[1], patch))
        self.server.replicas[match[1]] = patch.get("spec", {}).get("replicas", self.server.replicas[match[1]])
        self.server.annotations[match[1]].update(patch.get("metadata", {}).get("annotations", {}))
        for container in patch.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            self.server.image = container["image"]
        self._answer(200, self._deployment(match[1]))

    def _deployment(self, name: str) -> dict[str, Any]:
        annotations = {key: value for key, value in self.server.annotations[name].items() if value is not None}
        replicas = self.server.replicas[name]
        return {
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {"replicas": replicas, "selector": {}, "template": template(self.server.image)},
            "status": {"readyReplicas": replicas},
        }

    def _replica_set(self, revision: int, reference: str) -> dict[str, Any]:
        annotations = {"deployment.kubernetes.io/revision": str(revision)}
        return {"metadata": {"annotations": annotations}, "spec": {"selector": {}, "template": template(reference)}}

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "production", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "production",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    # The client reads its default location when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    yield server
    server.shutdown()
    server.server_close()


def test_an_emergency_scales_to_zero_and_back_to_what_was(cluster: ApiServer) -> None:
    shutdown = ["emergency", "shutdown", "--reason", "drill", "--context", "production", "--yes"]
    assert runner.invoke(app, [*shutdown, "--dry-run"]).exit_code == 0
    assert cluster.patches == []
    assert runner.invoke(app, shutdown).exit_code == 0
    assert cluster.replicas == {"strategic": 0, "tactical": 0}
    recover = ["emergency", "recover", "--reason", "over", "--context", "production", "--yes", "--json"]
    result = runner.invoke(app, recover)
    assert result.exit_code == 0, result.output
    assert cluster.replicas == {"strategic": 3, "tactical": 2}


def test_recovering_what_runs_already_leaves_its_replicas_alone(cluster: ApiServer) -> None:
    recover = ["emergency", "recover", "--reason", "mistake", "--context", "production", "--yes"]
    assert runner.invoke(app, recover).exit_code == 0
    assert cluster.replicas == {"strategic": 3, "tactical": 2}
    assert cluster.patches == []


def test_a_workload_goes_back_to_the_image_before(cluster: ApiServer) -> None:
    arguments = ["rollback", "strategic", "--context", "production"]
    planned = runner.invoke(app, [*arguments, "--dry-run"])
    assert image("a") in planned.stdout.replace("\n", "")
    assert cluster.patches == []
    assert runner.invoke(app, [*arguments, "--yes"]).exit_code == 0
    assert cluster.image == image("a")
    refused = runner.invoke(app, [*arguments, "--to", "sha256:unknown", "--yes"])
    assert refused.exit_code == 2
    assert "no earlier revision" in refused.stderr


def test_without_permission_nothing_is_changed_and_one_line_says_so(cluster: ApiServer) -> None:
    cluster.forbidden = True
    result = runner.invoke(app, ["rollback", "strategic", "--context", "production", "--yes"])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "403" in line
    assert cluster.patches == []


def test_a_wrong_context_is_refused(cluster: ApiServer) -> None:
    result = runner.invoke(app, ["emergency", "shutdown", "--reason", "x", "--context", "elsewhere", "--yes"])
    assert result.exit_code == 2
    assert "elsewhere" in result.stderr
    assert cluster.patches == []


def test_the_commands_look_where_the_estate_deploys() -> None:
    estate = capture("production", resolved=True)
    deployed = [resource.inputs for resource in estate.of_type("kubernetes:apps/v1:Deployment")]
    for service in all_services():
        (found,) = [inputs for inputs in deployed if inputs["metadata"].get("name") == service]
        assert found["metadata"]["namespace"] == NAMESPACE
        assert found["spec"]["template"]["spec"]["containers"][0]["name"] == service
        assert found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == service
