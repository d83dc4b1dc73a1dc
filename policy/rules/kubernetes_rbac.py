"""Who may do what inside the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policy.model import Node
from policy.rule import Case, Check, Finding, Rule, Severity, Violation
from policy.rules.workloads import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, object_name

_ROLES = (ROLE, CLUSTER_ROLE)
_BINDINGS = (ROLE_BINDING, CLUSTER_ROLE_BINDING)
_READS = {"get", "list", "watch"}
_WRITES = {"create", "update", "patch"}


def _exempt(case: Case) -> bool:
    names = case.parameters.get("exempt", [])
    return case.resource.name in names or object_name(case.resource) in names


def _each_rule(check_rule: Callable[[Node], Iterator[str]]) -> Check:
    def check(case: Case) -> Iterator[Finding]:
        if _exempt(case):
            return
        for rule in case.node.nodes("rules"):
            for what in check_rule(rule):
                yield Violation(f"{rule.path} {what}")

    return check


def _verbs(rule: Node) -> set[str]:
    return set(rule.texts("verbs")) - {"*"}


def _wildcards(rule: Node) -> Iterator[str]:
    found = [path for path in ("verbs", "resources", "apiGroups") if "*" in rule.texts(path)]
    if found:
        yield f"allows every one of its {', '.join(found)}"


def _secrets(rule: Node) -> Iterator[str]:
    if "secrets" in rule.texts("resources") and _verbs(rule) & _READS and not rule.has("resourceNames"):
        yield "reads every secret"


def _pods(rule: Node) -> Iterator[str]:
    resources, verbs = set(rule.texts("resources")), _verbs(rule)
    reached = resources & {"pods/exec", "pods/attach", "pods/portforward", "nodes/proxy", "pods/ephemeralcontainers"}
    if reached and verbs & (_WRITES | {"get"}):
        yield f"enters pods by {', '.join(sorted(reached))}"
    if "pods" in resources and "create" in verbs:
        yield "creates pods, with any service account of the namespace"


def _escalates(rule: Node) -> Iterator[str]:
    resources, verbs = set(rule.texts("resources")), _verbs(rule)
    raised = verbs & {"impersonate", "bind", "escalate"}
    if raised:
        yield f"may {', '.join(sorted(raised))}"
    owned = resources & {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "certificatesigningrequests/approval",
        "serviceaccounts/token",
        "nodes/status",
    }
    if owned and verbs & _WRITES:
        yield f"changes {', '.join(sorted(owned))}"


def _admin(case: Case) -> Iterator[Finding]:
    if case.node.node("roleRef").text("name") in {"cluster-admin", "admin"} and not _exempt(case):
        yield Violation("it binds an administrator's role")


def _anyone(case: Case) -> Iterator[Finding]:
    for subject in case.node.nodes("subjects"):
        name = subject.text("name")
        if name in {"system:anonymous", "system:unauthenticated", "system:authenticated", "system:serviceaccounts"}:
            yield Violation(f"it binds {name}")


_HIGH, _CRITICAL = Severity.HIGH, Severity.CRITICAL
_EXEMPT = {
    "exempt": {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "objects of controllers whose work it is",
    }
}


def _rule(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    types: tuple[str, ...],
    check: Check,
    severity: Severity,
    *controls: str,
) -> Rule:
    return Rule(rule_id, title, reason, remedy, types, check, severity, controls=controls, parameters=_EXEMPT)


RULES = (
    _rule(
        "rbac-no-wildcard",
        "No role allows everything of a kind",
        "The next verb or resource is allowed on the day it appears.",
        "List the verbs, resources and groups.",
        _ROLES,
        _each_rule(_wildcards),
        _HIGH,
        "CKV_K8S_49",
        "C-0187",
        "kube-linter wildcard-in-rules",
    ),
    _rule(
        "rbac-no-cluster-admin",
        "No binding gives an administrator's role",
        "One leaked token is then the cluster.",
        "Bind a role with the rights that are needed.",
        _BINDINGS,
        _admin,
        _CRITICAL,
        "C-0185",
        "C-0035",
        "kube-linter cluster-admin-role-binding",
    ),
    _rule(
        "rbac-no-secret-reading",
        "No role reads every secret",
        "One leaked token opens them all.",
        "Name the secrets in resourceNames, or read them from Secrets Manager.",
        _ROLES,
        _each_rule(_secrets),
        _HIGH,
        "CKV2_K8S_5",
        "C-0186",
        "kube-linter access-to-secrets",
    ),
    _rule(
        "rbac-no-pod-entry",
        "No role creates or enters pods",
        "Whoever enters a pod has its rights, and whoever creates one has any account's.",
        "Drop the verb; deploy through the pipeline.",
        _ROLES,
        _each_rule(_pods),
        _HIGH,
        "CKV2_K8S_2",
        "C-0002",
        "C-0188",
        "C-0063",
        "C-0279",
        "kube-linter access-to-create-pods",
    ),
    _rule(
        "rbac-no-escalation",
        "No role may raise rights",
        "Impersonating, binding, webhooks and approvals are the cluster by a detour.",
        "Drop the verb or resource.",
        _ROLES,
        _each_rule(_escalates),
        _HIGH,
        "CKV2_K8S_1",
        "CKV2_K8S_3",
        "CKV2_K8S_4",
        "CKV_K8S_155",
        "CKV_K8S_156",
        "CKV_K8S_157",
        "CKV_K8S_158",
        "C-0065",
        "C-0191",
        "C-0281",
        "C-0282",
    ),
    _rule(
        "rbac-no-anonymous",
        "No binding gives rights to everyone",
        "The API server answers the network; everyone is anyone who reaches it.",
        "Name the subjects.",
        _BINDINGS,
        _anyone,
        _CRITICAL,
        "C-0262",
        "C-0265",
    ),
)
