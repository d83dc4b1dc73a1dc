"""What the commands ask of Kubernetes, over HTTP, of a strict stand-in that holds the estate's own Deployments."""

from __future__ import annotations

import copy
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner, Result

from app.contract import NAMESPACE, Service
from infra.preview.capture import capture
from infra.preview.model import Capture
from ops.cli import app
from ops.cluster import Cluster, all_services
from ops.errors import OpsError
from tests.ops.kubernetes_api import STRATEGIC_MERGE, KubernetesApi

runner = CliRunner()


def image(digest: str) -> str:
    return f"registry/grandmodel/strategic@sha256:{digest * 64}"


@pytest.fixture(scope="module")
def estate() -> Capture:
    return capture("production", resolved=True)


@pytest.fixture(scope="module")
def deployments(estate: Capture) -> Mapping[str, dict[str, Any]]:
    """What the estate deploys, as a cluster keeps it."""
    found = {}
    for resource in estate.of_type("kubernetes:apps/v1:Deployment"):
        name = resource.inputs["metadata"].get("name")
        if name in all_services():
            found[name] = copy.deepcopy(dict(resource.inputs))
            found[name]["spec"]["replicas"] = 3 if name == "strategic" else 2
            found[name]["metadata"]["generation"] = 7
    return found


@pytest.fixture
def cluster(
    deployments: Mapping[str, dict[str, Any]], estate: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubernetesApi]:
    server = KubernetesApi(deployments, str(estate.config["grandmodel:kubernetesVersion"]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_kubeconfig(tmp_path, monkeypatch, server.server_port)
    monkeypatch.setattr("ops.cluster.time.sleep", lambda _: None)
    yield server
    server.shutdown()
    server.server_close()
    assert server.refusals == []


def use_kubeconfig(directory: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "production", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "production",
    }
    file = directory / "kubeconfig"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    # The client reads its default location when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))


def ops(*arguments: str) -> Result:
    return runner.invoke(app, arguments)


def refused_in_one_line(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


SHUTDOWN = ("emergency", "shutdown", "--reason", "drill", "--context", "production", "--yes")
RECOVER = ("emergency", "recover", "--reason", "over", "--context", "production", "--yes")
ROLLBACK = ("rollback", "strategic", "--context", "production", "--yes")


def test_an_emergency_scales_to_zero_and_back_to_what_was(cluster: KubernetesApi) -> None:
    assert ops(*SHUTDOWN, "--dry-run").exit_code == 0
    assert cluster.patches == []
    assert ops(*SHUTDOWN).exit_code == 0
    assert cluster.replicas() == {"strategic": 0, "tactical": 0}
    result = ops(*RECOVER, "--json")
    assert result.exit_code == 0, result.output
    assert cluster.replicas() == {"strategic": 3, "tactical": 2}


def test_a_second_shutdown_forgets_nothing(cluster: KubernetesApi) -> None:
    assert ops(*SHUTDOWN).exit_code == ops(*SHUTDOWN).exit_code == 0
    assert ops(*RECOVER).exit_code == 0
    assert cluster.replicas() == {"strategic": 3, "tactical": 2}


def test_recovering_what_runs_already_leaves_its_replicas_alone(cluster: KubernetesApi) -> None:
    assert ops(*RECOVER).exit_code == 0
    assert cluster.replicas() == {"strategic": 3, "tactical": 2}
    assert cluster.patches == []


def deployed(cluster: KubernetesApi, *digests: str) -> None:
    """Roll the strategic service through images, to their end."""
    for digest in digests:
        Cluster("production").set_image(Service.STRATEGIC, image(digest))
        Cluster("production").wait_rolled_out(Service.STRATEGIC, pause=0)
    cluster.patches.clear()


def test_a_workload_goes_back_to_the_image_before(cluster: KubernetesApi) -> None:
    deployed(cluster, "a", "b")
    planned = ops("rollback", "strategic", "--context", "production", "--dry-run")
    assert image("a") in planned.stdout.replace("\n", "")
    assert "production" in planned.stdout
    assert cluster.patches == []
    assert ops(*ROLLBACK).exit_code == 0
    assert cluster.image("strategic") == image("a")


def test_a_rollback_changes_the_image_and_nothing_else(
    cluster: KubernetesApi, deployments: Mapping[str, dict[str, Any]]
) -> None:
    deployed(cluster, "a", "b")
    assert ops(*ROLLBACK).exit_code == 0
    after = copy.deepcopy(cluster.rollouts["strategic"].deployment)
    after["spec"]["template"]["spec"]["containers"][0]["image"] = deployments["strategic"]["spec"]["template"]["spec"][
        "containers"
    ][0]["image"]
    after["metadata"]["generation"] = 7
    assert after == deployments["strategic"]


def test_old_pods_that_are_ready_do_not_count_as_rolled_back(cluster: KubernetesApi) -> None:
    deployed(cluster, "a", "b")
    before = len(cluster.requests)
    assert ops(*ROLLBACK).exit_code == 0
    after_patch = [method for method, _ in cluster.requests[before:]]
    assert after_patch[after_patch.index("PATCH") + 1 :].count("GET") >= 3


def test_a_rollback_whose_pods_crash_is_told_and_not_called_verified(cluster: KubernetesApi) -> None:
    deployed(cluster, "a", "b")
    cluster.never_ready = True
    result = ops(*ROLLBACK)
    line = refused_in_one_line(result)
    assert "Kubernetes gave up" in line
    assert "verified" not in result.stdout


def test_a_version_that_never_ran_is_refused(cluster: KubernetesApi) -> None:
    deployed(cluster, "a", "b")
    line = refused_in_one_line(ops(*ROLLBACK, "--to", "sha256:unknown"))
    assert "no earlier revision" in line
    assert image("a").rpartition("@")[2] in line
    assert cluster.patches == []


@pytest.mark.parametrize("command", [SHUTDOWN, ROLLBACK])
@pytest.mark.parametrize("denied", ["get", "patch"])
def test_without_permission_nothing_is_changed_and_one_line_says_so(
    cluster: KubernetesApi, command: tuple[str, ...], denied: str
) -> None:
    deployed(cluster, "a", "b")
    cluster.verbs.discard(denied)
    line = refused_in_one_line(ops(*command))
    assert "403" in line
    assert cluster.patches == []


@pytest.mark.parametrize("command", [SHUTDOWN, RECOVER, ROLLBACK])
def test_a_wrong_context_is_refused(cluster: KubernetesApi, command: tuple[str, ...]) -> None:
    line = refused_in_one_line(ops(*(word.replace("production", "elsewhere") for word in command)))
    assert "elsewhere" in line
    assert cluster.requests == []


def test_nobody_rolls_back_a_cluster_that_was_not_named(cluster: KubernetesApi) -> None:
    deployed(cluster, "a", "b")
    line = refused_in_one_line(ops("rollback", "strategic", "--yes"))
    assert "--context" in line
    assert "production" in line
    assert cluster.patches == []


@pytest.mark.parametrize("command", [SHUTDOWN, ROLLBACK])
def test_a_cluster_that_does_not_answer_is_refused(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        use_kubeconfig(tmp_path, monkeypatch, nobody.getsockname()[1])
        assert "cannot be reached" in refused_in_one_line(ops(*command))


def test_a_kubeconfig_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kubeconfig(tmp_path, monkeypatch, 1)
    (tmp_path / "kubeconfig").write_text("clusters: 7\n", encoding="utf-8")
    assert "kubeconfig" in refused_in_one_line(ops(*ROLLBACK))


def ask(cluster: KubernetesApi, method: str, path: str, body: object = None, kind: str = STRATEGIC_MERGE) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", cluster.server_port)
    connection.request(method, path, json.dumps(body), {"Content-Type": kind})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_stand_in_refuses_what_a_cluster_would(cluster: KubernetesApi) -> None:
    deployment = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/strategic"
    assert ask(cluster, "GET", "/apis/apps/v1/namespaces/strategic/deployments/strategic") == 404
    assert ask(cluster, "GET", deployment + "?pretty=1&watcher=1") == 400
    assert ask(cluster, "PATCH", deployment, {"spec": {"replicas": 0}}, "application/json-patch+json") == 415
    assert ask(cluster, "PATCH", deployment, {"spec": {"replicas": "none"}}) == 422
    assert ask(cluster, "PATCH", deployment, {"spec": {"replica": 0}}) == 422
    assert cluster.patches == []
    assert len(cluster.refusals) == 5
    cluster.refusals.clear()


def test_its_deployments_are_what_the_version_takes(deployments: Mapping[str, dict[str, Any]], estate: Capture) -> None:
    assert set(deployments) == set(all_services())
    for deployment in deployments.values():
        kubernetes_validate.validate(deployment, str(estate.config["grandmodel:kubernetesVersion"]), strict=True)


@pytest.mark.usefixtures("cluster")
def test_a_rollout_that_takes_too_long_is_told() -> None:
    Cluster("production").set_image(Service.STRATEGIC, image("c"))
    with pytest.raises(OpsError, match="not there after 0 s"):
        Cluster("production").wait_rolled_out(Service.STRATEGIC, timeout=0)


def test_the_commands_look_where_the_estate_deploys(estate: Capture) -> None:
    deployed_ = [resource.inputs for resource in estate.of_type("kubernetes:apps/v1:Deployment")]
    for service in all_services():
        (found,) = [inputs for inputs in deployed_ if inputs["metadata"].get("name") == service]
        assert found["metadata"]["namespace"] == NAMESPACE
        assert found["spec"]["template"]["spec"]["containers"][0]["name"] == service
        assert found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == service
