"""What runs in the cluster, object by object, as both stacks declare it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest

from app.contract import NAMESPACE, SERVICES
from infra.preview.model import Capture, Resource

CUSTOM_GROUPS = ("cert-manager.io/", "secrets-store.csi.x-k8s.io/", "elbv2.k8s.aws/")
DIGEST = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/.+@sha256:[0-9a-f]{64}$")


def objects(estate: Capture) -> Iterator[Resource]:
    """Everything in the cluster that we declare ourselves."""
    for resource in estate.custom:
        if resource.type.startswith("kubernetes:") and "helm.sh" not in resource.type:
            yield resource


def of_kind(estate: Capture, kind: str) -> dict[str, Mapping[str, Any]]:
    return {
        resource.inputs["metadata"]["name"]: resource.inputs
        for resource in objects(estate)
        if resource.type.endswith(f":{kind}")
    }


def pod_templates(estate: Capture) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for resource in objects(estate):
        spec = resource.inputs.get("spec", {})
        kind = resource.type.rpartition(":")[2]
        if kind in ("Deployment", "Job"):
            yield resource.name, spec["template"]
        elif kind == "CronJob":
            yield resource.name, spec["jobTemplate"]["spec"]["template"]


def test_the_api_server_would_take_every_object(estate: Capture) -> None:
    version = str(estate.config["grandmodel:kubernetesVersion"])
    judged = 0
    for resource in objects(estate):
        if resource.inputs["apiVersion"].startswith(CUSTOM_GROUPS):
            continue
        kubernetes_validate.validate(dict(resource.inputs), version, strict=True)
        judged += 1
    assert judged >= 60


def test_a_misspelt_field_would_not_pass(estate: Capture) -> None:
    deployment = dict(of_kind(estate, "Deployment")["strategic"])
    deployment["spec"] = {**deployment["spec"], "minReadySecond": 5}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, str(estate.config["grandmodel:kubernetesVersion"]), strict=True)


def test_nothing_lands_on_an_ambient_cluster(estate: Capture) -> None:
    for resource in objects(estate):
        assert "pulumi:providers:kubernetes::cluster" in resource.provider, resource.urn


def test_the_kubeconfig_holds_no_credential(estate: Capture) -> None:
    [provider] = [r for r in estate.resources if r.type == "pulumi:providers:kubernetes"]
    config = provider.inputs["kubeconfig"]
    assert "get-token" in config
    assert not re.search(r"token:|client-key|password", config)
    assert provider.inputs["clusterIdentifier"].startswith("arn:aws:eks:")


def test_pods_are_nobody_and_write_nowhere(estate: Capture) -> None:
    names = []
    for name, template in pod_templates(estate):
        names.append(name)
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10_000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
    assert {"strategic", "tactical", "gateway", "strategic-migration", "tactical-migration"} <= set(names)


def test_pods_own_what_they_ask_for(estate: Capture) -> None:
    for name, template in pod_templates(estate):
        for container in template["spec"]["containers"]:
            resources = container["resources"]
            assert resources["requests"] == resources["limits"], name


def test_services_get_whole_cores_and_as_many_threads(estate: Capture) -> None:
    for service in SERVICES:
        [container] = of_kind(estate, "Deployment")[service.service]["spec"]["template"]["spec"]["containers"]
        cores = int(container["resources"]["requests"]["cpu"])
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert int(environment["WORKERS"]) * int(environment["OMP_NUM_THREADS"]) == cores


def test_images_come_by_digest_from_our_own_registry(estate: Capture) -> None:
    for name, template in pod_templates(estate):
        for container in template["spec"]["containers"]:
            assert DIGEST.fullmatch(container["image"]), name


def test_no_environment_holds_a_password(estate: Capture) -> None:
    for name, template in pod_templates(estate):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                assert "valueFrom" not in variable, name
                assert not re.search(r"://[^/@:]*:[^/@]+@", variable["value"]), f"{name}: {variable['name']}"


def test_probes_ask_the_contract_over_tls(estate: Capture) -> None:
    for service in SERVICES:
        [container] = of_kind(estate, "Deployment")[service.service]["spec"]["template"]["spec"]["containers"]
        live, ready = container["livenessProbe"], container["readinessProbe"]
        assert live["httpGet"] == {"path": "/health", "port": service.port, "scheme": "HTTPS"}
        assert (live["initialDelaySeconds"], live["periodSeconds"]) == (30, 10)
        assert ready["httpGet"] == {"path": "/ready", "port": service.port, "scheme": "HTTPS"}
        assert (ready["initialDelaySeconds"], ready["periodSeconds"]) == (5, 5)


def test_a_leaving_pod_has_time_to_answer_what_it_took(estate: Capture) -> None:
    for service in SERVICES:
        spec = of_kind(estate, "Deployment")[service.service]["spec"]["template"]["spec"]
        [container] = spec["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        longest_request = 30
        assert spec["terminationGracePeriodSeconds"] > pause + int(environment["DRAIN_SECONDS"]) + longest_request


def test_a_rollout_waits_for_its_migration(estate: Capture) -> None:
    for resource in estate.custom:
        if resource.type.endswith(":Deployment") and resource.name in {s.service for s in SERVICES}:
            migrations = [urn for urn in resource.dependencies if urn.endswith(f"::{resource.name}-migration")]
            assert migrations, resource.name


def test_a_certificate_is_there_before_the_pod_that_mounts_it(estate: Capture) -> None:
    certificates = of_kind(estate, "Certificate")
    for name in ("strategic", "tactical", "gateway"):
        spec = of_kind(estate, "Deployment")[name]["spec"]["template"]["spec"]
        secrets = [v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v]
        assert secrets == [certificates[name]["spec"]["secretName"]]
        assert f"{name}.{NAMESPACE}.svc" in certificates[name]["spec"]["dnsNames"]


def test_autoscalers_ask_for_the_metric_of_the_contract(estate: Capture) -> None:
    scalers = of_kind(estate, "HorizontalPodAutoscaler")
    for service in SERVICES:
        spec = scalers[service.service]["spec"]
        assert spec["minReplicas"] >= 2
        kinds = {m["type"]: m for m in spec["metrics"] if m["type"] == "Pods"}
        assert kinds["Pods"]["pods"]["metric"]["name"] == service.autoscaling_metric
        assert kinds["Pods"]["pods"]["target"]["averageValue"] == service.autoscaling_target
        assert "replicas" not in of_kind(estate, "Deployment")[service.service]["spec"]


def test_nothing_but_the_autoscaler_sets_the_number_of_pods(estate: Capture) -> None:
    for resource in estate.custom:
        if resource.type.endswith(":Deployment"):
            assert "spec.replicas" in resource.ignore_changes


def test_a_drain_may_always_go_on(estate: Capture) -> None:
    scalers = of_kind(estate, "HorizontalPodAutoscaler")
    for name, budget in of_kind(estate, "PodDisruptionBudget").items():
        assert budget["spec"]["maxUnavailable"] < scalers[name]["spec"]["minReplicas"]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_three_doors_of_the_load_balancer_lead_to_pods(estate: Capture) -> None:
    bindings, services = of_kind(estate, "TargetGroupBinding"), of_kind(estate, "Service")
    deployments = of_kind(estate, "Deployment")
    assert {(name, b["spec"]["serviceRef"]["port"]) for name, b in bindings.items()} == {
        ("gateway", 8443),
        ("strategic", 8000),
        ("tactical", 8001),
    }
    for name, binding in bindings.items():
        [port] = [p for p in services[name]["spec"]["ports"] if p["port"] == binding["spec"]["serviceRef"]["port"]]
        template = deployments[name]["spec"]["template"]
        [container] = template["spec"]["containers"]
        assert {"name": port["targetPort"], "containerPort": port["port"]} in container["ports"]
        assert services[name]["spec"]["selector"].items() <= template["metadata"]["labels"].items()


def test_gpu_pods_go_where_gpus_are_and_nobody_else_does(production: Capture) -> None:
    [group] = [r for r in production.custom if r.type == "aws:eks/nodeGroup:NodeGroup" and r.inputs["taints"]]
    [taint] = group.inputs["taints"]
    for name, template in pod_templates(production):
        spec = template["spec"]
        on_gpu = spec["nodeSelector"].items() <= group.inputs["labels"].items()
        tolerations = [(t["key"], t["value"]) for t in spec.get("tolerations", [])]
        assert on_gpu == (name == "tactical"), name
        assert tolerations == ([(taint["key"], taint["value"])] if on_gpu else []), name
        gpus = spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == ("1" if on_gpu else None), name


def test_rights_in_the_cluster_name_what_they_are_for(estate: Capture) -> None:
    roles = [r for r in objects(estate) if r.type.endswith((":Role", ":ClusterRole"))]
    assert roles
    for role in roles:
        for rule in role.inputs["rules"]:
            values = [value for field in ("apiGroups", "resources", "verbs") for value in rule[field]]
            assert "*" not in values
            assert rule["resources"] == ["pods"]
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_charts_are_pinned_and_wholly_installed_or_not_at_all(estate: Capture) -> None:
    releases = [r for r in estate.custom if r.type.endswith(":Release")]
    assert len(releases) >= 11
    for release in releases:
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", release.inputs["version"]), release.name
        assert release.inputs["repositoryOpts"]["repo"].startswith("https://"), release.name
        assert release.inputs["atomic"] is True, release.name


def test_without_gpu_nodes_the_tactical_pods_run_on_cpus(staging: Capture, vary: Any) -> None:
    changed = vary("staging", {"grandmodel:gpuNodes": False})
    spec = of_kind(changed, "Deployment")["tactical"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"grandmodel/role": "strategic"}
    assert "tolerations" not in spec
    assert "nvidia.com/gpu" not in spec["containers"][0]["resources"]["limits"]
    names = {r.name for r in changed.custom}
    assert {"nvidia-device-plugin", "dcgm-exporter"} & names == set()
    assert {"nvidia-device-plugin", "dcgm-exporter"} <= {r.name for r in staging.custom}


def test_jobs_by_the_calendar_never_overlap_and_clean_up(estate: Capture) -> None:
    jobs = of_kind(estate, "CronJob")
    for database in ("strategic", "tactical"):
        assert {f"{database}-maintenance-{task}" for task in ("vacuum", "retention", "backup")} <= set(jobs)
    for name, job in jobs.items():
        spec = job["spec"]
        assert spec["concurrencyPolicy"] == "Forbid", name
        assert spec["jobTemplate"]["spec"]["ttlSecondsAfterFinished"] > 0, name
        assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 0, name
    weekly = jobs["strategic-maintenance-backup"]["spec"]
    assert weekly["schedule"].split()[-1] == "0"
    [container] = weekly["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert "python -m ops backup strategic --to" in container["args"][0]


def test_a_pod_serves_until_the_load_balancer_has_forgotten_it(estate: Capture) -> None:
    """Targets by address get new connections for two minutes after they were deregistered."""
    bound = {target["spec"]["serviceRef"]["name"] for target in of_kind(estate, "TargetGroupBinding").values()}
    assert bound == {"strategic", "tactical", "gateway"}
    delays = [int(r.inputs["deregistrationDelay"]) for r in estate.custom if r.type == "aws:lb/targetGroup:TargetGroup"]
    for name in bound:
        spec = of_kind(estate, "Deployment")[name]["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] > 120, name
        assert all(delay > spec["terminationGracePeriodSeconds"] for delay in delays), name


def test_a_new_pod_counts_only_when_the_load_balancer_sends_it_traffic(estate: Capture) -> None:
    assert (
        of_kind(estate, "Namespace")[NAMESPACE]["metadata"]["labels"]["elbv2.k8s.aws/pod-readiness-gate-inject"]
        == "enabled"
    )
