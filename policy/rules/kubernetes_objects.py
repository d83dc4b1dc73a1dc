"""How Kubernetes objects hold together: networks, services, scaling, disruption, namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from policy.model import Node, Resource
from policy.rule import Case, Check, Finding, NotApplicable, Rule, Severity, Violation
from policy.rules.traffic import is_world
from policy.rules.types import NODE_GROUP, POD_IDENTITY, TARGET_GROUP
from policy.rules.workloads import (
    AUTOSCALER,
    CONTROLLERS,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    INGRESS,
    NAMESPACE,
    NETWORK_POLICY,
    SERVICE,
    SERVICE_ACCOUNT,
    SERVING,
    TARGET_GROUP_BINDING,
    WORKLOADS,
    charts_in,
    containers,
    is_empty,
    labels,
    named,
    namespace_key,
    plain,
    pod,
    same_namespace,
    selected,
    selects,
)

_NSA: Final = "NSA/CISA network separation"


def _directions(policy: Node) -> set[str]:
    spec = policy.node("spec")
    declared = set(spec.texts("policyTypes"))
    return declared or ({"Ingress", "Egress"} if spec.has("egress") else {"Ingress"})


def _isolated(case: Case) -> Iterator[Finding]:
    found: set[str] = set()
    wanted = labels(pod(case.resource))
    for policy in same_namespace(case.estate, case.resource, NETWORK_POLICY):
        if selects(policy.node.node("spec").node("podSelector"), wanted):
            found |= _directions(policy.node)
    for direction in sorted({"Ingress", "Egress"} - found):
        yield Violation(f"no NetworkPolicy restricts its {direction.lower()}")


def _default_deny(case: Case) -> Iterator[Finding]:
    name = plain(case.node.raw("metadata.name"))
    key = {case.resource.urn, name if isinstance(name, str) else case.resource.urn}
    policies = [p for p in case.estate.of(NETWORK_POLICY) if namespace_key(p) in key]
    denied: set[str] = set()
    for policy in policies:
        spec = policy.node.node("spec")
        if is_empty(spec.node("podSelector")):
            denied |= {d for d in _directions(policy.node) if not spec.has(d.lower())}
    for direction in sorted({"Ingress", "Egress"} - denied):
        yield Violation(f"no NetworkPolicy denies all {direction.lower()} by default")


def _policy_selects(case: Case) -> Iterator[Finding]:
    selector = case.node.node("spec").node("podSelector")
    if charts_in(case.estate, namespace_key(case.resource)):
        yield NotApplicable("a chart brings pods into the namespace")
    elif not is_empty(selector) and not selected(case.estate, case.resource, selector, *WORKLOADS):
        yield Violation("its podSelector selects no pod of the namespace")


def _peers_select(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for entry in spec.nodes(direction):
            for peer in entry.nodes(side):
                local = not peer.has("namespaceSelector") and peer.has("podSelector")
                selector = peer.node("podSelector")
                if local and not is_empty(selector) and not selected(case.estate, case.resource, selector, *WORKLOADS):
                    yield Violation(f"{peer.path} selects no pod of the namespace")


def _egress_narrow(case: Case) -> Iterator[Finding]:
    """Pods with AWS rights do not talk to the whole internet on every port."""
    for entry in case.node.node("spec").nodes("egress"):
        peers = entry.nodes("to")
        open_peer = not peers or any(is_world(p.node("ipBlock").text("cidr") or "10.0.0.0/8") for p in peers)
        if open_peer and not entry.has("ports"):
            yield Violation(f"{entry.path} lets pods talk to anyone on every port")


def _service_sound(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    if spec.text("type") == "ExternalName" or not spec.has("selector"):
        yield NotApplicable("selects no pods")
        return
    selector = Node({"matchLabels": spec.mapping("selector")}, "spec.selector")
    targets = selected(case.estate, case.resource, selector, *CONTROLLERS)
    if not targets:
        yield Violation("its selector selects no pod of the namespace")
        return
    for port in spec.nodes("ports"):
        wanted = port.read("targetPort") if port.has("targetPort") else port.read("port")
        if not any(_exposes(target, wanted) for target in targets):
            yield Violation(f"{port.path}.targetPort is exposed by no container")


def _exposes(workload: Resource, wanted: object) -> bool:
    for container in containers(workload, initial=False):
        for port in container.nodes("ports"):
            if wanted == port.text("name") or _same_number(wanted, port.number("containerPort")):
                return True
    return False


def _same_number(wanted: object, number: float | None) -> bool:
    try:
        return number is not None and float(str(wanted)) == number
    except ValueError:
        return False


def _one_workload(path: str) -> Check:
    """The selector at ``path`` selects the pods of exactly one workload."""

    def check(case: Case) -> Iterator[Finding]:
        spec = case.node.node("spec")
        if path == "selector" and case.resource.type == SERVICE:
            if not spec.has("selector"):
                yield NotApplicable("selects no pods")
                return
            selector = Node({"matchLabels": spec.mapping("selector")}, "spec.selector")
        else:
            selector = spec.node(path)
        found = selected(case.estate, case.resource, selector, *CONTROLLERS)
        if len(found) > 1:
            yield Violation(f"it selects the pods of {', '.join(sorted(w.name for w in found))} alike")

    return check


def _autoscaler(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    least, most = spec.number("minReplicas"), spec.number("maxReplicas")
    if _target(case) is None:
        yield Violation("scaleTargetRef names no workload of the namespace")
    if least is None or least < case.parameters["minimum"]:
        yield Violation(f"minReplicas is {'not set' if least is None else f'{least:g}'}: one pod's end is an outage")
    elif most is None or most <= least:
        yield Violation("maxReplicas leaves no room to scale")


def _target(case: Case) -> Resource | None:
    reference = case.node.node("spec").node("scaleTargetRef")
    name = plain(reference.raw("name"))
    kinds = {"Deployment": DEPLOYMENT, "StatefulSet": "kubernetes:apps/v1:StatefulSet"}
    token = kinds.get(reference.text("kind") or "", DEPLOYMENT)
    if isinstance(name, str):
        return named(case.estate, case.resource, token, name)
    linked = [case.estate.by_urn.get(urn) for urn in case.resource.property_dependencies.get("spec", ())]
    found = [resource for resource in linked if resource is not None and resource.type == token]
    if not found:
        reference.text("name")
    return found[0] if found else None


def _metric_exists(case: Case) -> Iterator[Finding]:
    known = set(case.parameters["metrics"])
    for metric in case.node.node("spec").nodes("metrics"):
        kind = {"Pods": "pods", "Object": "object", "External": "external"}.get(metric.text("type") or "")
        if kind is None:
            continue
        name = metric.node(kind).node("metric").text("name") or ""
        if not any(name == series or name.startswith(f"{series}_") for series in known):
            yield Violation(f"metric {name} is none of the services'")


def _replicas(case: Case) -> Iterator[Finding]:
    replicas = case.node.node("spec").number("replicas")
    scaled = [a for a in same_namespace(case.estate, case.resource, AUTOSCALER) if _scales(a, case.resource)]
    if replicas is None and scaled:
        return
    if (replicas if replicas is not None else 1) < case.parameters["minimum"]:
        yield Violation(f"it has {1 if replicas is None else int(replicas)} replica: its node's end is an outage")


def _scales(autoscaler: Resource, workload: Resource) -> bool:
    name = plain(autoscaler.node.raw("spec.scaleTargetRef.name"))
    own = plain(workload.node.raw("metadata.name"))
    if isinstance(name, str):
        return name == own or (own is None and name.startswith(workload.name))
    return workload.urn in autoscaler.property_dependencies.get("spec", ())


def _budgets(case: Case) -> list[Resource]:
    wanted = labels(pod(case.resource))
    return [
        budget
        for budget in same_namespace(case.estate, case.resource, DISRUPTION_BUDGET)
        if selects(budget.node.node("spec").node("selector"), wanted)
    ]


def _has_budget(case: Case) -> Iterator[Finding]:
    if not _budgets(case):
        yield Violation("no PodDisruptionBudget covers its pods: draining nodes may end all at once")


def _budget_permits(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    most, least = spec.read("maxUnavailable"), spec.read("minAvailable")
    if most is None and least is None:
        yield Violation("neither maxUnavailable nor minAvailable is set")
    elif str(most) in {"0", "0.0", "0%"} or str(least) == "100%":
        yield Violation("it permits no disruption: nodes cannot be drained")
    if spec.text("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield Violation("unhealthyPodEvictionPolicy is not AlwaysAllow: a broken pod blocks the node's drain")


def _budget_below_scale(case: Case) -> Iterator[Finding]:
    least = case.node.node("spec").read("minAvailable")
    if least is None or "%" in str(least):
        yield NotApplicable("minAvailable is no number")
        return
    workloads = selected(case.estate, case.resource, case.node.node("spec").node("selector"), *SERVING)
    for workload in workloads:
        for scaler in same_namespace(case.estate, case.resource, AUTOSCALER):
            floor = scaler.node.node("spec").number("minReplicas") or 1
            if _scales(scaler, workload) and float(least) >= floor:
                yield Violation(f"minAvailable {float(least):g} is not below the autoscaler's minReplicas {floor:g}")


def _rolling(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    if case.resource.type == DEPLOYMENT and (spec.node("strategy").text("type") or "RollingUpdate") != "RollingUpdate":
        yield Violation("strategy.type is not RollingUpdate: every release is an outage")
    if not selects(spec.node("selector"), labels(pod(case.resource))):
        yield Violation("its selector does not select its own pods")


def _no_exposure(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    kind = spec.text("type") or "ClusterIP"
    if kind == "NodePort":
        yield Violation("it opens a port on every node")
    elif kind == "LoadBalancer":
        ranges = spec.texts("loadBalancerSourceRanges")
        if not ranges or any(is_world(cidr) for cidr in ranges):
            yield Violation("its load balancer answers the whole internet")
        else:
            yield Violation("a load balancer made by Kubernetes is out of the estate's hands")


def _ingress_tls(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    if not spec.has("tls"):
        yield Violation("spec.tls is not set")
    annotations = case.node.node("metadata").mapping("annotations")
    if any("snippet" in key for key in annotations):
        yield Violation("an annotation puts raw nginx configuration in")
    for rule in spec.nodes("rules"):
        for path in rule.node("http").nodes("paths"):
            service = path.node("backend").node("service").text("name")
            if service and named(case.estate, case.resource, SERVICE, service) is None:
                yield Violation(f"backend {service} is not declared")


def _restricted(case: Case) -> Iterator[Finding]:
    found = case.node.node("metadata").mapping("labels")
    level = plain(found.get("pod-security.kubernetes.io/enforce"))
    name = plain(case.node.raw("metadata.name"))
    allowed = {"restricted"}
    if name in case.parameters["baseline"] or case.resource.name in case.parameters["baseline"]:
        allowed.add("baseline")
    if name in case.parameters["privileged"] or case.resource.name in case.parameters["privileged"]:
        allowed |= {"baseline", "privileged"}
    if level not in allowed:
        yield Violation(
            f"pod-security.kubernetes.io/enforce is {level or 'not set'}, not {' or '.join(sorted(allowed))}"
        )


def _binding(case: Case) -> Iterator[Finding]:
    spec = case.node.node("spec")
    reference = spec.node("serviceRef")
    name = reference.text("name")
    service = named(case.estate, case.resource, SERVICE, name) if name else None
    if service is None:
        yield Violation(f"serviceRef {name or '(none)'} is no Service of the namespace")
        return
    wanted = reference.read("port")
    ports = service.node.node("spec").nodes("ports")
    if not any(_same_number(wanted, p.number("port")) or wanted == p.text("name") for p in ports):
        yield Violation(f"serviceRef.port is no port of Service {name}")
    if not case.estate.links(case.resource, "spec", TARGET_GROUP):
        yield Violation("targetGroupARN is no target group of the estate")


def _identity_used(case: Case) -> Iterator[Finding]:
    """A Pod Identity association names a service account that a workload of the stack runs under."""
    accounts = case.estate.of(SERVICE_ACCOUNT)
    if not accounts:
        yield NotApplicable("the stack declares no service accounts")
        return
    wanted, account = case.node.text("namespace"), case.node.text("serviceAccount")
    if wanted in case.parameters["foreign_namespaces"] or charts_in(case.estate, wanted or ""):
        yield NotApplicable("an add-on or a chart brings pods into the namespace")
        return
    key = {str(plain(n.node.raw("metadata.name"))): n.urn for n in case.estate.of(NAMESPACE)}
    spaces = {wanted, key.get(str(wanted))}
    workloads = [w for w in case.estate.of(*WORKLOADS) if namespace_key(w) in spaces]
    if not any(plain(pod(w).node("spec").raw("serviceAccountName")) == account for w in workloads):
        yield Violation(f"no workload runs as {wanted}/{account}")


def _fits(case: Case) -> Iterator[Finding]:
    """What the autoscaler may ask for, in CPU, is what the node groups may grow to."""
    most = case.node.node("spec").number("maxReplicas")
    target = _target(case)
    if most is None or target is None:
        yield NotApplicable("no bound or no target")
        return
    nodes = sum(int(g.node.node("scalingConfig").number("maxSize") or 0) for g in case.estate.of(NODE_GROUP))
    if not nodes:
        yield NotApplicable("the estate declares no node groups")
        return
    spread = pod(target).node("spec").nodes("topologySpreadConstraints")
    hostwise = any(
        c.text("topologyKey") == "kubernetes.io/hostname" and c.text("whenUnsatisfiable") == "DoNotSchedule"
        for c in spread
    )
    if hostwise and most > nodes:
        yield Violation(f"maxReplicas {most:g} needs as many nodes, and the node groups end at {nodes}")


_HIGH, _MEDIUM, _LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
_MINIMUM: Final = {"minimum": {"type": "integer", "minimum": 1, "default": 2, "description": "least replicas"}}


def _stack(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    types: tuple[str, ...],
    check: Check,
    severity: Severity,
    *controls: str,
) -> Rule:
    """A rule about how objects hold together."""
    return Rule(rule_id, title, reason, remedy, types, check, severity, scope="stack", controls=controls)


RULES = (
    _stack(
        "pod-isolated",
        "Every pod is under a NetworkPolicy in both directions",
        "A pod without one talks to everyone, and everyone to it.",
        "Declare a NetworkPolicy that selects the pod, with Ingress and Egress.",
        WORKLOADS,
        _isolated,
        _HIGH,
        "CKV2_K8S_6",
        "C-0030",
        "C-0260",
        "C-0206",
        _NSA,
    ),
    _stack(
        "namespace-default-deny",
        "Every namespace denies all traffic by default",
        "A pod that nobody thought of would be open.",
        "Declare a NetworkPolicy with an empty podSelector, both policyTypes and no rule.",
        (NAMESPACE,),
        _default_deny,
        _HIGH,
        "C-0030",
        "C-0260",
        _NSA,
    ),
    _stack(
        "network-policy-selects",
        "NetworkPolicies select pods",
        "One that selects nothing protects nothing.",
        "Mend the podSelector, or remove the policy.",
        (NETWORK_POLICY,),
        _policy_selects,
        _MEDIUM,
        "kube-linter dangling-networkpolicy",
    ),
    _stack(
        "network-policy-peers-select",
        "The peers of NetworkPolicies exist",
        "Traffic to a peer that is misspelt is dropped, and the policy looks right.",
        "Mend the peer's podSelector.",
        (NETWORK_POLICY,),
        _peers_select,
        _MEDIUM,
        "kube-linter dangling-networkpolicypeer-podselector",
    ),
    Rule(
        id="network-policy-egress-narrow",
        title="NetworkPolicies let out to named peers or ports",
        reason="A pod with rights on AWS that may talk to anyone carries data out.",
        remedy="Name peers and ports in each egress rule.",
        types=(NETWORK_POLICY,),
        check=_egress_narrow,
        severity=_MEDIUM,
        controls=(_NSA,),
    ),
    _stack(
        "service-reaches-pods",
        "Services reach pods on a port that these expose",
        "Requests to it fail.",
        "Mend the selector or the targetPort.",
        (SERVICE,),
        _service_sound,
        _HIGH,
        "kube-linter dangling-service",
        "kube-linter invalid-target-ports",
    ),
    _stack(
        "service-one-workload",
        "Services select the pods of one workload",
        "Requests reach the wrong service now and then.",
        "Select by a label that only this workload's pods have.",
        (SERVICE,),
        _one_workload("selector"),
        _MEDIUM,
    ),
    _stack(
        "pdb-one-workload",
        "Disruption budgets cover one workload",
        "The API refuses to evict a pod under two budgets, and a shared one protects neither.",
        "Select by a label that only this workload's pods have.",
        (DISRUPTION_BUDGET,),
        _one_workload("selector"),
        _MEDIUM,
    ),
    replace(
        _stack(
            "hpa-sound",
            "Autoscalers scale an existing workload between two bounds",
            "Load is otherwise met by one pod.",
            "Mend scaleTargetRef, minReplicas and maxReplicas.",
            (AUTOSCALER,),
            _autoscaler,
            _MEDIUM,
            "kube-linter dangling-horizontalpodautoscaler",
            "kube-linter hpa-minimum-three-replicas",
            "Polaris hpaMinAvailability",
            "Polaris hpaMaxAvailability",
        ),
        parameters=_MINIMUM,
        stacks=("production",),
    ),
    Rule(
        id="hpa-metric-exists",
        title="Autoscalers look at metrics that the services have",
        reason="An autoscaler on a series that does not exist never scales.",
        remedy="Name one of the services' series, or list it in the parameter.",
        types=(AUTOSCALER,),
        check=_metric_exists,
        severity=_HIGH,
        parameters={
            "metrics": {
                **_STRINGS,
                "default": ["strategic_throughput", "tactical_training_time"],
                "description": "series of the services, or their beginnings",
            }
        },
    ),
    replace(
        _stack(
            "workload-replicas",
            "Workloads that serve have two pods or more",
            "One node's end is otherwise an outage.",
            "Set spec.replicas, or scale the workload by an autoscaler.",
            SERVING,
            _replicas,
            _MEDIUM,
            "kube-linter minimum-three-replicas",
            "Polaris deploymentMissingReplicas",
        ),
        parameters=_MINIMUM,
        stacks=("production",),
    ),
    _stack(
        "workload-has-pdb",
        "Workloads that serve have a disruption budget",
        "An upgrade of the nodes may end all pods at once.",
        "Declare a PodDisruptionBudget that selects its pods.",
        SERVING,
        _has_budget,
        _MEDIUM,
        "Polaris missingPodDisruptionBudget",
    ),
    Rule(
        id="pdb-permits-disruption",
        title="Disruption budgets permit a disruption, also of broken pods",
        reason="Nodes that cannot be drained are never upgraded.",
        remedy="Set maxUnavailable to 1 and unhealthyPodEvictionPolicy to AlwaysAllow.",
        types=(DISRUPTION_BUDGET,),
        check=_budget_permits,
        severity=_MEDIUM,
        controls=(
            "kube-linter pdb-max-unavailable",
            "kube-linter pdb-min-available",
            "kube-linter pdb-unhealthy-pod-eviction-policy",
            "Polaris pdbDisruptionsIsZero",
        ),
    ),
    _stack(
        "pdb-below-hpa",
        "Disruption budgets ask for fewer pods than the autoscaler keeps",
        "At the least scale no pod may end, so no node can be drained.",
        "Set maxUnavailable instead, or raise minReplicas.",
        (DISRUPTION_BUDGET,),
        _budget_below_scale,
        _HIGH,
        "Polaris pdbMinAvailableGreaterThanHPAMinReplicas",
    ),
    Rule(
        id="workload-rolls",
        title="Deployments roll, and select their own pods",
        reason="Recreation is an outage at each release; a wrong selector is refused by the API.",
        remedy="Leave strategy RollingUpdate; give the template the selector's labels.",
        types=(*SERVING, "kubernetes:apps/v1:DaemonSet"),
        check=_rolling,
        severity=_HIGH,
        controls=("kube-linter no-rolling-update-strategy", "kube-linter mismatching-selector"),
    ),
    Rule(
        id="service-not-exposed",
        title="Services are reached inside the cluster only",
        reason="The one way in is the estate's load balancer, with its certificate, logs and ranges.",
        remedy="Use ClusterIP, and bind pods to a target group.",
        types=(SERVICE,),
        check=_no_exposure,
        severity=_HIGH,
        controls=("C-0256", "kube-linter exposed-services"),
    ),
    _stack(
        "ingress-sound",
        "Ingresses speak TLS to services that exist, without raw configuration",
        "Tokens cross in the clear, or a snippet reads the controller's secrets.",
        "Set spec.tls, drop snippets, mend the backend.",
        (INGRESS,),
        _ingress_tls,
        _MEDIUM,
        "CKV_K8S_152",
        "CKV_K8S_153",
        "CKV_K8S_154",
        "C-0059",
    ),
    Rule(
        id="namespace-restricted",
        title="Namespaces enforce the restricted Pod Security Standard",
        reason="The API server then refuses what these rules would only find.",
        remedy="Label the namespace pod-security.kubernetes.io/enforce: restricted.",
        types=(NAMESPACE,),
        check=_restricted,
        severity=_HIGH,
        controls=("PSS restricted", "CIS-EKS 4.2", "NSA/CISA pod security"),
        parameters={
            "baseline": {**_STRINGS, "default": [], "description": "namespaces for which baseline is enough"},
            "privileged": {**_STRINGS, "default": [], "description": "namespaces of node agents"},
        },
    ),
    _stack(
        "target-group-binding-sound",
        "Target groups are bound to a port of an existing Service",
        "The load balancer has no targets otherwise.",
        "Mend serviceRef and targetGroupARN.",
        (TARGET_GROUP_BINDING,),
        _binding,
        _HIGH,
    ),
    replace(
        _stack(
            "pod-identity-used",
            "Every Pod Identity belongs to a service account that a workload runs under",
            "A role for nobody waits for somebody to take it.",
            "Mend namespace and serviceAccount, or remove the association.",
            (POD_IDENTITY,),
            _identity_used,
            _MEDIUM,
        ),
        parameters={
            "foreign_namespaces": {
                **_STRINGS,
                "default": ["kube-system", "amazon-cloudwatch"],
                "description": "namespaces whose workloads EKS add-ons and charts bring",
            }
        },
    ),
    _stack(
        "hpa-fits-nodes",
        "Autoscalers at their bound fit the nodes at theirs",
        "Pods wait for nodes that never come.",
        "Raise the node groups' maxSize, or lower maxReplicas.",
        (AUTOSCALER,),
        _fits,
        _LOW,
    ),
)
