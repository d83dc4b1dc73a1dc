"""Proofs of the rules on pods, objects and rights in the cluster."""

from __future__ import annotations

from typing import Final

from policy.model import UNKNOWN, Resource, Secret, Value
from policy.mutation import Mutation, Proof, add, both, called, change, copy_of, drop, remove, unknown
from policy.rules.types import POD_IDENTITY
from policy.rules.types import ROLE as IAM_ROLE
from policy.rules.workloads import (
    AUTOSCALER,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INGRESS,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    SERVICE,
    TARGET_GROUP_BINDING,
)

_SPEC: Final = "spec.template.spec"
_CONTAINER: Final = f"{_SPEC}.containers.0"
_CONTEXT: Final = f"{_CONTAINER}.securityContext"
_SERVICE_POD: Final = called("strategic")


def _pod(path: str, new: Value) -> Mutation:
    return change(DEPLOYMENT, f"{_SPEC}.{path}", new, _SERVICE_POD)


def _container(path: str, new: Value) -> Mutation:
    return change(DEPLOYMENT, f"{_CONTAINER}.{path}", new, _SERVICE_POD)


def _without(path: str) -> Mutation:
    return drop(DEPLOYMENT, path, _SERVICE_POD)


def _cannot_see(path: str, *, token: str = DEPLOYMENT) -> tuple[Mutation, ...]:
    return (unknown(token, path, _SERVICE_POD),)


def _volume(kind: str) -> Mutation:
    return _pod("volumes", lambda old: [*(old or []), {"name": "added", kind: {"path": "/var/run"}}])


def _variable(name: str, value: Value) -> Mutation:
    return _container("env", lambda old: [*(old or []), {"name": name, "value": value}])


def _isolating(resource: Resource) -> bool:
    return "strategic" in resource.name and bool(resource.node.raw("spec.egress"))


def _denying(resource: Resource) -> bool:
    return "deny" in resource.name


def _granting(**rule: Value) -> Mutation:
    return add(CLUSTER_ROLE, {"metadata": {"name": "added"}, "rules": [{"apiGroups": [""], **rule}]})


_UNKNOWN_RULES: Final = (add(CLUSTER_ROLE, {"metadata": {"name": "added"}, "rules": UNKNOWN}),)
_NOBODY: Final = {"matchLabels": {"app.kubernetes.io/name": "nobody"}}


def _binding(role: Value, subject: Value) -> Mutation:
    return add(
        CLUSTER_ROLE_BINDING,
        {
            "metadata": {"name": "added"},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "Group", "name": subject}],
        },
    )


PROOFS: dict[str, Proof] = {
    "pod-not-privileged": Proof(
        (_container("securityContext.privileged", new=True),), _cannot_see(f"{_CONTEXT}.privileged")
    ),
    "pod-no-host-pid": Proof((_pod("hostPID", new=True),), _cannot_see(f"{_SPEC}.hostPID")),
    "pod-no-host-ipc": Proof((_pod("hostIPC", new=True),), _cannot_see(f"{_SPEC}.hostIPC")),
    "pod-no-host-network": Proof((_pod("hostNetwork", new=True),), _cannot_see(f"{_SPEC}.hostNetwork")),
    "pod-no-host-port": Proof((_container("ports.0.hostPort", 8000),), _cannot_see(f"{_CONTAINER}.ports")),
    "pod-no-host-path": Proof((_volume("hostPath"),), _cannot_see(f"{_SPEC}.volumes")),
    "pod-kernel-defaults": Proof(
        (
            _pod("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
            _container("securityContext.procMount", "Unmasked"),
            _container("securityContext.appArmorProfile", {"type": "Unconfined"}),
            _container("securityContext.seLinuxOptions", {"user": "root"}),
            _pod("securityContext.windowsOptions", {"hostProcess": True}),
        ),
        _cannot_see(f"{_SPEC}.securityContext.sysctls"),
    ),
    "pod-no-added-capabilities": Proof(
        (_container("securityContext.capabilities.add", ["SYS_ADMIN"]),), _cannot_see(f"{_CONTEXT}.capabilities")
    ),
    "pod-capabilities-dropped": Proof(
        (
            _container("securityContext.capabilities.drop", ["NET_RAW"]),
            _container("securityContext.capabilities.add", ["CHOWN"]),
        ),
        _cannot_see(f"{_CONTEXT}.capabilities.drop"),
    ),
    "pod-no-privilege-escalation": Proof(
        (
            _container("securityContext.allowPrivilegeEscalation", new=True),
            _without(f"{_CONTEXT}.allowPrivilegeEscalation"),
        ),
        _cannot_see(f"{_CONTEXT}.allowPrivilegeEscalation"),
    ),
    "pod-non-root": Proof(
        (_container("securityContext.runAsNonRoot", new=False),), _cannot_see(f"{_CONTEXT}.runAsNonRoot")
    ),
    "pod-high-uid": Proof((_container("securityContext.runAsUser", 1000),), _cannot_see(f"{_CONTEXT}.runAsUser")),
    "pod-seccomp": Proof(
        (_container("securityContext.seccompProfile.type", "Unconfined"),), _cannot_see(f"{_CONTEXT}.seccompProfile")
    ),
    "pod-security-context": Proof((_without(f"{_SPEC}.securityContext"),), _cannot_see(f"{_SPEC}.containers")),
    "pod-volume-types": Proof((_volume("nfs"),), _cannot_see(f"{_SPEC}.volumes")),
    "pod-read-only-root": Proof(
        (_container("securityContext.readOnlyRootFilesystem", new=False),),
        _cannot_see(f"{_CONTEXT}.readOnlyRootFilesystem"),
    ),
    "pod-cpu-requests": Proof(
        (_without(f"{_CONTAINER}.resources.requests.cpu"),), _cannot_see(f"{_CONTAINER}.resources")
    ),
    "pod-memory-bounded": Proof(
        (
            _without(f"{_CONTAINER}.resources.limits.memory"),
            _without(f"{_CONTAINER}.resources.requests.memory"),
        ),
        _cannot_see(f"{_CONTAINER}.resources"),
    ),
    "pod-readiness-probe": Proof(
        (_without(f"{_CONTAINER}.readinessProbe"), _container("readinessProbe.httpGet.port", 9999)),
        _cannot_see(f"{_CONTAINER}.readinessProbe"),
    ),
    "pod-liveness-probe": Proof(
        (_without(f"{_CONTAINER}.livenessProbe"), _container("livenessProbe.httpGet.port", 9999)),
        _cannot_see(f"{_CONTAINER}.livenessProbe"),
    ),
    "pod-image-tag": Proof(
        (_container("image", f"{'1' * 12}.dkr.ecr.eu-west-1.amazonaws.com/one:latest@sha256:{'0' * 64}"),),
        _cannot_see(f"{_CONTAINER}.image"),
    ),
    "pod-image-digest": Proof(
        (_container("image", f"{'1' * 12}.dkr.ecr.eu-west-1.amazonaws.com/one:1.2.3"),),
        _cannot_see(f"{_CONTAINER}.image"),
    ),
    "pod-pull-policy": Proof(
        (
            change(
                DEPLOYMENT,
                _CONTAINER,
                lambda old: {
                    **old,
                    "image": f"{'1' * 12}.dkr.ecr.eu-west-1.amazonaws.com/one:1.2.3",
                    "imagePullPolicy": "IfNotPresent",
                },
                _SERVICE_POD,
            ),
        ),
        _cannot_see(f"{_CONTAINER}.image"),
        also=frozenset({"pod-image-digest"}),
    ),
    "pod-image-registry": Proof(
        (_container("image", f"docker.io/library/nginx@sha256:{'0' * 64}"),), _cannot_see(f"{_CONTAINER}.image")
    ),
    "pod-no-token": Proof(
        (_pod("automountServiceAccountToken", new=True),), _cannot_see(f"{_SPEC}.automountServiceAccountToken")
    ),
    "pod-own-service-account": Proof(
        (_pod("serviceAccountName", "default"), _pod("serviceAccountName", "nobody-declared")),
        _cannot_see(f"{_SPEC}.serviceAccountName"),
        also=frozenset({"pod-identity-used"}),
    ),
    "pod-no-secret-in-environment": Proof(
        (_variable("DATABASE_PASSWORD", "hunter2"), _variable("NOTE", Secret(UNKNOWN))),
        (_variable("NOTE", UNKNOWN),),
    ),
    "configmap-no-secret": Proof(
        (
            change(CONFIG_MAP, "data.api_key", "plain"),
            change(CONFIG_MAP, "data.note", Secret(UNKNOWN)),
        ),
        (unknown(CONFIG_MAP, "data.note"),),
    ),
    "pod-secrets-as-files": Proof(
        (
            _container(
                "env",
                lambda old: [
                    *old,
                    {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                ],
            ),
        ),
        _cannot_see(f"{_CONTAINER}.env"),
    ),
    "pod-environment-sound": Proof(
        (
            _container("env", lambda old: [*old, dict(old[0])]),
            _container("env", lambda old: [*old, {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "gone"}}}]),
        ),
        _cannot_see(f"{_CONTAINER}.env"),
    ),
    "pod-database-verify-full": Proof((_variable("PGSSLMODE", "require"),), (_variable("PGSSLMODE", UNKNOWN),)),
    "object-not-in-default-namespace": Proof(
        (add(CONFIG_MAP, {"metadata": {"name": "added"}, "data": {}}),),
        (add(CONFIG_MAP, {"metadata": {"name": "added", "namespace": UNKNOWN}, "data": {}}),),
    ),
    "object-current-version": Proof(
        (
            add(
                "kubernetes:policy/v1beta1:PodDisruptionBudget",
                {"metadata": {"name": "added", "namespace": "grandmodel"}},
            ),
        ),
        always_known="the version is part of the type",
    ),
    "pod-spread": Proof(
        (_without(f"{_SPEC}.topologySpreadConstraints"),), always_known="that it is given shows without its values"
    ),
    "object-labelled": Proof(
        (change(DEPLOYMENT, "metadata.labels", {}, _SERVICE_POD),), _cannot_see("metadata.labels")
    ),
    "pod-priority": Proof((_without(f"{_SPEC}.priorityClassName"),), _cannot_see(f"{_SPEC}.priorityClassName")),
    "job-ends": Proof(
        (
            drop(JOB, "spec.ttlSecondsAfterFinished"),
            change(CRON_JOB, "spec.jobTemplate.spec.template.spec.restartPolicy", "Always"),
        ),
        (unknown(JOB, "spec.ttlSecondsAfterFinished"),),
    ),
    "pod-gpu-placed": Proof(
        (
            drop(DEPLOYMENT, f"{_SPEC}.tolerations", called("tactical")),
            drop(DEPLOYMENT, f"{_SPEC}.nodeSelector", called("tactical")),
        ),
        (unknown(DEPLOYMENT, f"{_SPEC}.tolerations", called("tactical")),),
    ),
    # Objects
    "pod-isolated": Proof(
        (remove(NETWORK_POLICY, blame=(DEPLOYMENT, _SERVICE_POD), every=True),),
        (unknown(NETWORK_POLICY, "spec.podSelector", _isolating, blame=(DEPLOYMENT, _SERVICE_POD)),),
        also=frozenset({"namespace-default-deny"}),
    ),
    "namespace-default-deny": Proof(
        (
            add(
                NAMESPACE,
                {"metadata": {"name": "added", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
            ),
        ),
        (
            both(
                unknown(NETWORK_POLICY, "spec.podSelector", _denying),
                change(NAMESPACE, "metadata.annotations", {}),
            ),
        ),
    ),
    "network-policy-selects": Proof(
        (change(NETWORK_POLICY, "spec.podSelector", _NOBODY, _isolating),),
        (unknown(NETWORK_POLICY, "spec.podSelector", _isolating),),
    ),
    "network-policy-peers-select": Proof(
        (
            change(
                NETWORK_POLICY,
                "spec.ingress",
                [{"from": [{"podSelector": _NOBODY}], "ports": [{"port": 1}]}],
                _isolating,
            ),
        ),
        (unknown(NETWORK_POLICY, "spec.ingress", _isolating),),
    ),
    "network-policy-egress-narrow": Proof(
        (change(NETWORK_POLICY, "spec.egress", [{}], _isolating),),
        (unknown(NETWORK_POLICY, "spec.egress", _isolating),),
    ),
    "service-reaches-pods": Proof(
        (
            change(SERVICE, "spec.selector", {"app.kubernetes.io/name": "nobody"}, _SERVICE_POD),
            change(SERVICE, "spec.ports.0.targetPort", 9999, _SERVICE_POD),
        ),
        _cannot_see("spec.selector", token=SERVICE),
    ),
    "service-one-workload": Proof(
        (copy_of(DEPLOYMENT, _SERVICE_POD, blame=(SERVICE, _SERVICE_POD)),),
        _cannot_see("spec.selector", token=SERVICE),
        also=frozenset({"pdb-one-workload"}),
    ),
    "pdb-one-workload": Proof(
        (copy_of(DEPLOYMENT, _SERVICE_POD, blame=(DISRUPTION_BUDGET, _SERVICE_POD)),),
        _cannot_see("spec.selector", token=DISRUPTION_BUDGET),
        also=frozenset({"service-one-workload"}),
    ),
    "hpa-sound": Proof(
        (
            change(AUTOSCALER, "spec.minReplicas", 1),
            change(AUTOSCALER, "spec.maxReplicas", 1),
            change(AUTOSCALER, "spec.scaleTargetRef.name", "gone"),
        ),
        (unknown(AUTOSCALER, "spec.minReplicas"),),
        also=frozenset({"workload-replicas"}),
    ),
    "hpa-metric-exists": Proof(
        (change(AUTOSCALER, "spec.metrics", [{"type": "Pods", "pods": {"metric": {"name": "no_such_series"}}}]),),
        (unknown(AUTOSCALER, "spec.metrics"),),
    ),
    "workload-replicas": Proof(
        (remove(AUTOSCALER, _SERVICE_POD, blame=(DEPLOYMENT, _SERVICE_POD)),), _cannot_see("spec.replicas")
    ),
    "workload-has-pdb": Proof(
        (remove(DISRUPTION_BUDGET, _SERVICE_POD, blame=(DEPLOYMENT, _SERVICE_POD)),),
        (unknown(DISRUPTION_BUDGET, "spec.selector", _SERVICE_POD, blame=(DEPLOYMENT, _SERVICE_POD)),),
    ),
    "pdb-permits-disruption": Proof(
        (
            change(DISRUPTION_BUDGET, "spec.maxUnavailable", 0),
            drop(DISRUPTION_BUDGET, "spec.unhealthyPodEvictionPolicy"),
        ),
        (unknown(DISRUPTION_BUDGET, "spec.maxUnavailable"),),
    ),
    "pdb-below-hpa": Proof(
        (
            change(
                DISRUPTION_BUDGET,
                "spec",
                lambda old: {k: v for k, v in old.items() if k != "maxUnavailable"} | {"minAvailable": 100},
                _SERVICE_POD,
            ),
        ),
        (unknown(DISRUPTION_BUDGET, "spec.minAvailable"),),
    ),
    "workload-rolls": Proof(
        (
            change(DEPLOYMENT, "spec.strategy.type", "Recreate", _SERVICE_POD),
            change(DEPLOYMENT, "spec.selector", _NOBODY, _SERVICE_POD),
        ),
        _cannot_see("spec.strategy"),
    ),
    "service-not-exposed": Proof(
        (
            change(SERVICE, "spec.type", "NodePort", _SERVICE_POD),
            change(SERVICE, "spec.type", "LoadBalancer", _SERVICE_POD),
        ),
        _cannot_see("spec.type", token=SERVICE),
    ),
    "ingress-sound": Proof(
        (add(INGRESS, {"metadata": {"name": "added", "namespace": "x"}, "spec": {"rules": []}}),),
        (add(INGRESS, {"metadata": {"name": "added", "namespace": "x"}, "spec": UNKNOWN}),),
    ),
    "namespace-restricted": Proof(
        (change(NAMESPACE, "metadata.labels", {}),), (unknown(NAMESPACE, "metadata.labels"),)
    ),
    "target-group-binding-sound": Proof(
        (
            change(TARGET_GROUP_BINDING, "spec.serviceRef.name", "gone"),
            change(TARGET_GROUP_BINDING, "spec.serviceRef.port", 1),
        ),
        (unknown(TARGET_GROUP_BINDING, "spec.serviceRef"),),
    ),
    "pod-identity-used": Proof(
        (
            add(
                POD_IDENTITY,
                {"namespace": "elsewhere", "serviceAccount": "nobody"},
                refers={"roleArn": (IAM_ROLE, called("ebs-csi"))},
            ),
        ),
        (
            add(
                POD_IDENTITY,
                {"namespace": UNKNOWN, "serviceAccount": "nobody"},
                refers={"roleArn": (IAM_ROLE, called("ebs-csi"))},
            ),
        ),
        also=frozenset({"pod-identity-narrow"}),
    ),
    "hpa-fits-nodes": Proof(
        (
            both(
                _pod(
                    "topologySpreadConstraints",
                    [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
                ),
                change(AUTOSCALER, "spec.maxReplicas", 500, _SERVICE_POD),
            ),
        ),
        (unknown(AUTOSCALER, "spec.maxReplicas"),),
    ),
    # Rights
    "rbac-no-wildcard": Proof((_granting(resources=["pods"], verbs=["*"]),), _UNKNOWN_RULES),
    "rbac-no-cluster-admin": Proof((_binding("cluster-admin", "ops"),), (_binding(UNKNOWN, "ops"),)),
    "rbac-no-secret-reading": Proof((_granting(resources=["secrets"], verbs=["list"]),), _UNKNOWN_RULES),
    "rbac-no-pod-entry": Proof(
        (
            _granting(resources=["pods/exec"], verbs=["create"]),
            _granting(resources=["pods"], verbs=["create"]),
        ),
        _UNKNOWN_RULES,
    ),
    "rbac-no-escalation": Proof(
        (
            _granting(resources=["users"], verbs=["impersonate"]),
            _granting(resources=["mutatingwebhookconfigurations"], verbs=["update"]),
        ),
        _UNKNOWN_RULES,
    ),
    "rbac-no-anonymous": Proof((_binding("view", "system:anonymous"),), (_binding("view", UNKNOWN),)),
}
