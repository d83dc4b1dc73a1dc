"""Reading Kubernetes objects: pods wherever they are declared, labels, selectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from policy.model import UNKNOWN, Estate, Node, Resource, Secret

POD = "kubernetes:core/v1:Pod"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
DAEMON_SET = "kubernetes:apps/v1:DaemonSet"
REPLICA_SET = "kubernetes:apps/v1:ReplicaSet"
JOB = "kubernetes:batch/v1:Job"
CRON_JOB = "kubernetes:batch/v1:CronJob"
SERVICE = "kubernetes:core/v1:Service"
SERVICE_ACCOUNT = "kubernetes:core/v1:ServiceAccount"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105 - a type token
NAMESPACE = "kubernetes:core/v1:Namespace"
NETWORK_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
DISRUPTION_BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"
AUTOSCALER = "kubernetes:autoscaling/v2:HorizontalPodAutoscaler"
ROLE = "kubernetes:rbac.authorization.k8s.io/v1:Role"
CLUSTER_ROLE = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole"
ROLE_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
CLUSTER_ROLE_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding"
TARGET_GROUP_BINDING = "kubernetes:elbv2.k8s.aws/v1beta1:TargetGroupBinding"

HELM_RELEASE = "kubernetes:helm.sh/v3:Release"

SERVING: Final = (DEPLOYMENT, STATEFUL_SET)
CONTROLLERS: Final = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET)
WORKLOADS: Final = (*CONTROLLERS, JOB, CRON_JOB, POD)

_TEMPLATE: Final = {POD: "", CRON_JOB: "spec.jobTemplate.spec.template"}
_SUFFIX: Final = re.compile(r"-[0-9a-f]{7,8}$")


def pod(resource: Resource) -> Node:
    """The pod that a workload declares: its ``metadata`` and ``spec``."""
    path = _TEMPLATE.get(resource.type, "spec.template")
    return resource.node.node(path) if path else resource.node


def containers(resource: Resource, *, initial: bool = True) -> Iterator[Node]:
    """The containers of a workload's pods, with the initial and ephemeral ones unless told otherwise."""
    spec = pod(resource).node("spec")
    yield from spec.nodes("containers")
    if initial:
        yield from spec.nodes("initContainers")
        yield from spec.nodes("ephemeralContainers")


def name_of(container: Node) -> str:
    """How to call a container."""
    name = container.raw("name")
    return f"container {name}" if isinstance(name, str) else container.path


def object_name(resource: Resource) -> str | None:
    """The object's name; None where Pulumi makes one.

    Raises:
        NotKnown: it is unknown.
    """
    return resource.node.node("metadata").text("name")


def namespace(resource: Resource) -> str:
    """The object's namespace; ``default`` where none is given.

    Raises:
        NotKnown: it is unknown.
    """
    return resource.node.node("metadata").text("namespace") or "default"


def labels(node: Node) -> dict[str, str]:
    """The labels in ``node``'s metadata, as far as they are known."""
    raw = node.node("metadata").raw("labels")
    return {key: str(plain(value)) for key, value in raw.items()} if isinstance(raw, Mapping) else {}


def plain(value: object) -> object:
    """``value`` without its mark as a secret."""
    return value.value if isinstance(value, Secret) else value


def selects(selector: Node, found: Mapping[str, str]) -> bool:
    """Whether a label selector (``matchLabels`` and ``matchExpressions``) selects ``found``."""
    for key, value in selector.mapping("matchLabels").items():
        if plain(value) is UNKNOWN or found.get(key) != str(plain(value)):
            return False
    return all(_expression_holds(expression, found) for expression in selector.nodes("matchExpressions"))


def _expression_holds(expression: Node, found: Mapping[str, str]) -> bool:
    key, values = expression.text("key") or "", expression.texts("values")
    match expression.text("operator"):
        case "In":
            return found.get(key) in values
        case "NotIn":
            return found.get(key) not in values
        case "Exists":
            return key in found
        case "DoesNotExist":
            return key not in found
        case _:
            return False


def is_empty(selector: Node) -> bool:
    """Whether a selector selects everything."""
    return not selector.has("matchLabels") and not selector.has("matchExpressions")


def same_namespace(estate: Estate, resource: Resource, *types: str) -> list[Resource]:
    """The objects of ``types`` in the namespace of ``resource``."""
    wanted = namespace_key(resource)
    return [other for other in estate.once(_by_namespace).get(wanted, ()) if other.type in types]


def namespace_key(resource: Resource) -> str:
    """The namespace, or where its name is unknown, the resource that declares it."""
    raw = plain(resource.node.raw("metadata.namespace"))
    if raw is UNKNOWN or (isinstance(resource.node.raw("metadata"), Secret)):
        declared = [urn for urn in resource.property_dependencies.get("metadata", ()) if f"{NAMESPACE}::" in urn]
        return declared[0] if declared else "(unknown)"
    return str(raw) if raw else "default"


def _by_namespace(estate: Estate) -> Mapping[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for resource in estate.resources:
        if resource.type.startswith("kubernetes:") and isinstance(resource.properties.get("metadata"), Mapping):
            found.setdefault(namespace_key(resource), []).append(resource)
    return found


def selected(estate: Estate, resource: Resource, selector: Node, *types: str) -> list[Resource]:
    """The workloads of ``types`` in ``resource``'s namespace whose pods ``selector`` selects."""
    return [w for w in same_namespace(estate, resource, *types) if selects(selector, labels(pod(w)))]


def named(estate: Estate, resource: Resource, token: str, name: str) -> Resource | None:
    """The object of type ``token`` called ``name`` in ``resource``'s namespace."""
    for other in same_namespace(estate, resource, token):
        own = plain(other.node.raw("metadata.name"))
        if own == name or (own is None and _SUFFIX.sub("", name) == other.name):
            return other
    return None


def charts_in(estate: Estate, name: str) -> bool:
    """Whether a chart brings objects of its own, unseen here, into the namespace ``name``."""
    return any(plain(release.node.raw("namespace")) == name for release in estate.of(HELM_RELEASE))
