"""What a pod may do to its node, and what its node may expect of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from policy.model import UNKNOWN, Node, Resource, Secret, walk
from policy.rule import Case, Check, Finding, Level, NotApplicable, Rule, Severity, Undecided, Violation
from policy.rules.compute import SECRET_SHAPES
from policy.rules.types import IMAGE
from policy.rules.workloads import (
    CONFIG_MAP,
    CRON_JOB,
    JOB,
    SERVICE_ACCOUNT,
    SERVING,
    WORKLOADS,
    containers,
    name_of,
    named,
    namespace,
    object_name,
    pod,
)
from policy.rules.workloads import SECRET as KUBERNETES_SECRET

_BASELINE_CAPABILITIES: Final = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SECRET_NAMES: Final = re.compile(r"(?i)(secret|password|passwd|token|api_?key|private_?key|credential|webhook)")
_SECRET_NAMES_ALLOWED: Final = re.compile(r"(?i)(_file|_path|_dir|_arn|_name|_id|_url_file|_expiration|_ttl)$")


def _spec(case: Case) -> Node:
    return pod(case.resource).node("spec")


def _host(path: str) -> Check:
    def check(case: Case) -> Iterator[Finding]:
        if _spec(case).flag(path):
            yield Violation(f"{path} is true")

    return check


def _every(check_container: Callable[[Node, Node], Iterator[Finding]]) -> Check:
    """``check_container`` holds for every container; it gets the container and the pod's ``spec``."""

    def check(case: Case) -> Iterator[Finding]:
        spec = _spec(case)
        for container in containers(case.resource):
            yield from check_container(container, spec)

    return check


def _privileged(container: Node, _spec: Node) -> Iterator[Finding]:
    if container.node("securityContext").flag("privileged"):
        yield Violation(f"{name_of(container)} is privileged")


def _host_ports(container: Node, _spec: Node) -> Iterator[Finding]:
    for port in container.nodes("ports"):
        if port.number("hostPort"):
            yield Violation(f"{name_of(container)} takes a port of the node")


def _added_capabilities(container: Node, _spec: Node) -> Iterator[Finding]:
    added = container.node("securityContext").node("capabilities").texts("add")
    beyond = {name.removeprefix("CAP_").upper() for name in added} - _BASELINE_CAPABILITIES
    if beyond:
        yield Violation(f"{name_of(container)} adds {', '.join(sorted(beyond))}")


def _dropped_capabilities(container: Node, _spec: Node) -> Iterator[Finding]:
    capabilities = container.node("securityContext").node("capabilities")
    if "ALL" not in {name.upper() for name in capabilities.texts("drop")}:
        yield Violation(f"{name_of(container)} does not drop ALL capabilities")
    kept = {name.removeprefix("CAP_").upper() for name in capabilities.texts("add")}
    if (kept & _BASELINE_CAPABILITIES) - {"NET_BIND_SERVICE"}:
        yield Violation(f"{name_of(container)} adds capabilities back")


def _escalation(container: Node, _spec: Node) -> Iterator[Finding]:
    if container.node("securityContext").flag("allowPrivilegeEscalation") is not False:
        yield Violation(f"{name_of(container)} does not forbid privilege escalation")


def _non_root(container: Node, spec: Node) -> Iterator[Finding]:
    own, shared = container.node("securityContext"), spec.node("securityContext")
    value = own.flag("runAsNonRoot")
    if not (shared.flag("runAsNonRoot") if value is None else value):
        yield Violation(f"{name_of(container)} may run as root")
    elif 0 in (own.number("runAsUser"), shared.number("runAsUser")):
        yield Violation(f"{name_of(container)} runs as user 0")


def _high_uid(container: Node, spec: Node) -> Iterator[Finding]:
    user = container.node("securityContext").number("runAsUser")
    user = spec.node("securityContext").number("runAsUser") if user is None else user
    if user is None or user < 10000:
        yield Violation(f"{name_of(container)} runs as user {'of the image' if user is None else f'{user:g}'}")


def _seccomp(container: Node, spec: Node) -> Iterator[Finding]:
    own = container.node("securityContext").node("seccompProfile").text("type")
    kind = own or spec.node("securityContext").node("seccompProfile").text("type")
    if kind not in {"RuntimeDefault", "Localhost"}:
        yield Violation(f"{name_of(container)} has no seccomp profile")


def _read_only(container: Node, _spec: Node) -> Iterator[Finding]:
    if not container.node("securityContext").flag("readOnlyRootFilesystem"):
        yield Violation(f"{name_of(container)} may write to its root filesystem")


def _security_contexts(case: Case) -> Iterator[Finding]:
    spec = _spec(case)
    if not spec.has("securityContext"):
        yield Violation("the pod has no securityContext")
    for container in containers(case.resource):
        if not container.has("securityContext"):
            yield Violation(f"{name_of(container)} has no securityContext")


def _hardening(case: Case) -> Iterator[Finding]:
    spec = _spec(case)
    shared = spec.node("securityContext")
    for sysctl in shared.nodes("sysctls"):
        if sysctl.text("name") not in _SYSCTLS:
            yield Violation(f"sysctl {sysctl.text('name')} is not a safe one")
    for context in (shared, *(container.node("securityContext") for container in containers(case.resource))):
        if context.node("windowsOptions").flag("hostProcess"):
            yield Violation(f"{context.path}.windowsOptions.hostProcess is true")
        if (context.text("procMount") or "Default") != "Default":
            yield Violation(f"{context.path}.procMount unmasks /proc")
        if context.node("appArmorProfile").text("type") == "Unconfined":
            yield Violation(f"{context.path}.appArmorProfile is Unconfined")
        options = context.node("seLinuxOptions")
        if options.has("user") or options.has("role"):
            yield Violation(f"{context.path}.seLinuxOptions sets a user or role")


def _host_paths(case: Case) -> Iterator[Finding]:
    for volume in _spec(case).nodes("volumes"):
        if volume.has("hostPath"):
            yield Violation(f"volume {volume.raw('name')} is a path of the node")


def _volume_types(case: Case) -> Iterator[Finding]:
    for volume in _spec(case).nodes("volumes"):
        kinds = set(volume.value) - {"name", "hostPath"}
        if kinds - _VOLUMES:
            yield Violation(f"volume {volume.raw('name')} is of type {', '.join(sorted(kinds - _VOLUMES))}")


def _requests(*wanted: tuple[str, str]) -> Callable[[Node, Node], Iterator[Finding]]:
    def check(container: Node, _spec: Node) -> Iterator[Finding]:
        for kind, resource in wanted:
            if container.node("resources").node(kind).read(resource) in (None, ""):
                yield Violation(f"{name_of(container)} has no {resource} {kind.removesuffix('s')}")

    return check


def _probe(kind: str) -> Check:
    def check(case: Case) -> Iterator[Finding]:
        for container in containers(case.resource, initial=False):
            probe = container.node(kind)
            if not probe.value:
                yield Violation(f"{name_of(container)} has no {kind}")
                continue
            http = probe.node("httpGet" if probe.has("httpGet") else "tcpSocket")
            port = http.read("port")
            exposed = container.nodes("ports")
            numbers = {p.number("containerPort") for p in exposed} | {p.text("name") for p in exposed}
            if port is not None and (float(port) if _numeric(port) else port) not in numbers:
                yield Violation(f"{kind} of {name_of(container)} asks port {port}, which it does not expose")

    return check


def _numeric(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.isdigit())


_REGISTRY: Final = re.compile(r"^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/")


def _foreign_images(case: Case) -> Iterator[tuple[str, Node, str]]:
    """The containers (with how to call them) whose image is not built by the estate itself, and that image.

    What an ``Image`` of the estate gives as its reference is by digest, in the estate's registry, whether known or not.

    Raises:
        NotKnown: an image is unknown and the workload depends on no image that the estate builds.
    """
    for container in containers(case.resource):
        raw = container.raw("image")
        if raw is UNKNOWN:
            if case.estate.links(case.resource, "spec", IMAGE):
                continue
        elif isinstance(raw, str) and any(built.output("ref") == raw for built in case.estate.of(IMAGE)):
            continue
        yield name_of(container), container, container.text("image") or ""


def _tag(case: Case) -> Iterator[Finding]:
    for name, _, image in _foreign_images(case):
        if not image:
            yield Violation(f"{name} has no image")
            continue
        reference, _, digest = image.partition("@")
        tag = reference.rpartition("/")[2].partition(":")[2]
        if tag == "latest" or (not tag and not digest):
            yield Violation(f"{name} takes whatever is the latest image")


def _digest(case: Case) -> Iterator[Finding]:
    for name, _, image in _foreign_images(case):
        if not re.search(r"@sha256:[0-9a-f]{64}$", image):
            yield Violation(f"{name} names no digest")


def _pull_policy(case: Case) -> Iterator[Finding]:
    for name, container, image in _foreign_images(case):
        if "@sha256:" not in image and container.text("imagePullPolicy") != "Always":
            yield Violation(f"{name} runs whatever image of that tag the node has")


def _own_registry(case: Case) -> Iterator[Finding]:
    registries = tuple(case.parameters["registries"])
    for name, _, image in _foreign_images(case):
        if not _REGISTRY.match(image) and not (registries and image.startswith(registries)):
            yield Violation(f"{name} does not come from the estate's registry")


def _token(case: Case) -> Iterator[Finding]:
    spec = _spec(case)
    mounted = spec.flag("automountServiceAccountToken")
    if mounted is None:
        account = _account(case)
        mounted = True if account is None else account.node.flag("automountServiceAccountToken") is not False
    if mounted and not _allowed(case, "needs_token"):
        yield Violation("the service account's token is mounted")


def _allowed(case: Case, parameter: str) -> bool:
    return object_name(case.resource) in case.parameters[parameter] or case.resource.name in case.parameters[parameter]


def _account(case: Case) -> Resource | None:
    name = _spec(case).text("serviceAccountName")
    return named(case.estate, case.resource, SERVICE_ACCOUNT, name) if name else None


def _own_account(case: Case) -> Iterator[Finding]:
    spec = _spec(case)
    name = spec.text("serviceAccountName")
    if spec.has("serviceAccount"):
        yield Violation("serviceAccount is deprecated: use serviceAccountName")
    if name in (None, "", "default"):
        yield Violation("it runs under the namespace's default service account")
    elif named(case.estate, case.resource, SERVICE_ACCOUNT, str(name)) is None:
        yield Violation(f"service account {name} is not declared in its namespace")


def _no_secret_env(container: Node, _spec: Node) -> Iterator[Finding]:
    for variable in container.nodes("env"):
        name, raw = variable.text("name") or "", variable.raw("value")
        if raw in (None, ""):
            continue
        sensitive = _SECRET_NAMES.search(name) and not _SECRET_NAMES_ALLOWED.search(name)
        if isinstance(raw, Secret) or sensitive or (isinstance(raw, str) and SECRET_SHAPES.search(raw)):
            yield Violation(f"variable {name} of {name_of(container)} holds a secret as a plain value")
        elif raw is UNKNOWN:
            yield Undecided(f"the value of variable {name} is known only after the update")


def _config_map(case: Case) -> Iterator[Finding]:
    for path in ("data", "binaryData"):
        for key, value in walk(case.node.raw(path)):
            if value is UNKNOWN:
                yield Undecided(f"{path}.{key} is known only after the update")
            elif isinstance(value, Secret) or (isinstance(value, str) and SECRET_SHAPES.search(value)):
                yield Violation(f"{path}.{key} holds what looks like a secret")
            elif value and _SECRET_NAMES.search(key.rpartition(".")[2]) and not _SECRET_NAMES_ALLOWED.search(key):
                yield Violation(f"{path}.{key} is named like a secret")


def _secret_from_env(container: Node, _spec: Node) -> Iterator[Finding]:
    for variable in container.nodes("env"):
        if variable.node("valueFrom").has("secretKeyRef"):
            yield Violation(
                f"variable {variable.text('name')} of {name_of(container)} reads a Secret: mount it as a file"
            )
    if any(source.has("secretRef") for source in container.nodes("envFrom")):
        yield Violation(f"envFrom of {name_of(container)} reads a whole Secret: mount it as a file")


def _env_sound(case: Case) -> Iterator[Finding]:
    for container in containers(case.resource):
        seen: set[str] = set()
        for variable in container.nodes("env"):
            name = variable.text("name") or ""
            if name in seen:
                yield Violation(f"{name_of(container)} sets variable {name} twice")
            seen.add(name)
            for kind, token in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", KUBERNETES_SECRET)):
                source = variable.node("valueFrom").node(kind)
                wanted = source.text("name")
                if wanted and not source.flag("optional") and named(case.estate, case.resource, token, wanted) is None:
                    yield Violation(f"variable {name} of {name_of(container)} reads {wanted}, which is not declared")


def _verify_full(case: Case) -> Iterator[Finding]:
    found = False
    for container in containers(case.resource):
        for variable in container.nodes("env"):
            name, value = variable.text("name") or "", variable.raw("value")
            if name not in {"DATABASE_URL", "PGSSLMODE"} and not name.endswith("_DATABASE_URL"):
                continue
            if value is UNKNOWN:
                yield Undecided(f"variable {name} is known only after the update")
            elif isinstance(value, str):
                found = True
                if "verify-full" not in value:
                    yield Violation(f"variable {name} of {name_of(container)} does not ask for sslmode=verify-full")
    if not found:
        yield NotApplicable("no database address among its variables")


def _default_namespace(case: Case) -> Iterator[Finding]:
    if namespace(case.resource) == "default":
        yield Violation("it stands in the default namespace")


def _stale(case: Case) -> Iterator[Finding]:
    if not case.resource.type.startswith("kubernetes:"):
        yield NotApplicable("no Kubernetes object")
        return
    version = case.resource.type.partition(":")[2].partition(":")[0].rpartition("/")[2]
    group = case.resource.type.partition(":")[2].partition("/")[0]
    if re.search(r"(alpha|beta)", version) and group in _BUILT_IN:
        yield Violation(f"{case.resource.type.partition(':')[2]} is of a version that clusters drop")


_BUILT_IN: Final = {
    "apps",
    "autoscaling",
    "batch",
    "core",
    "extensions",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "scheduling.k8s.io",
}


def _spread(case: Case) -> Iterator[Finding]:
    spec = _spec(case)
    affinity = spec.node("affinity")
    if not spec.has("topologySpreadConstraints") and not affinity.has("podAntiAffinity"):
        yield Violation("nothing keeps its pods apart: one node's end takes all")


def _labelled(case: Case) -> Iterator[Finding]:
    labels = case.node.node("metadata").mapping("labels")
    missing = [key for key in case.parameters["labels"] if labels.get(key) in (None, "")]
    if missing:
        yield Violation(f"metadata.labels lacks {', '.join(missing)}")


def _priority(case: Case) -> Iterator[Finding]:
    if not _spec(case).text("priorityClassName"):
        yield Violation("priorityClassName is not set: it is evicted as readily as anything else")


def _job_ends(case: Case) -> Iterator[Finding]:
    job = case.node.node("spec.jobTemplate.spec" if case.resource.type == CRON_JOB else "spec")
    if job.number("ttlSecondsAfterFinished") is None and case.resource.type == JOB:
        yield Violation("ttlSecondsAfterFinished is not set: finished pods stay")
    if _spec(case).text("restartPolicy") not in {"Never", "OnFailure"}:
        yield Violation("restartPolicy is neither Never nor OnFailure")


def _gpu(case: Case) -> Iterator[Finding]:
    """Pods that ask for a GPU tolerate the GPU nodes' taint and select their labels."""
    wants = [
        container
        for container in containers(case.resource)
        for kind in ("limits", "requests")
        if container.node("resources").node(kind).value.get("nvidia.com/gpu") not in (None, "", "0", 0)
    ]
    if not wants:
        yield NotApplicable("asks for no GPU")
        return
    spec = _spec(case)
    if not any(
        (t.text("key") or "") in case.parameters["taints"] or (t.text("operator") == "Exists" and not t.has("key"))
        for t in spec.nodes("tolerations")
    ):
        yield Violation("it tolerates no taint of the GPU nodes, so it waits for ever")
    if not spec.has("nodeSelector") and not spec.node("affinity").has("nodeAffinity"):
        yield Violation("it selects no GPU nodes")


_NSA: Final = "NSA/CISA pod security"


def _pod(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    check: Check,
    severity: Severity,
    *controls: str,
    level: Level = Level.MANDATORY,
    types: tuple[str, ...] = WORKLOADS,
) -> Rule:
    """A rule that one workload decides."""
    return Rule(rule_id, title, reason, remedy, types, check, severity, level=level, controls=controls)


def _image(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    check: Check,
    severity: Severity,
    *controls: str,
    level: Level = Level.MANDATORY,
) -> Rule:
    """A rule on where a workload's images come from."""
    return Rule(
        rule_id, title, reason, remedy, WORKLOADS, check, severity, scope="stack", level=level, controls=controls
    )


_CRITICAL, _HIGH, _MEDIUM, _LOW = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}

RULES = (
    _pod(
        "pod-not-privileged",
        "No container is privileged",
        "A privileged container is root on the node.",
        "Drop securityContext.privileged.",
        _every(_privileged),
        _CRITICAL,
        "PSS baseline",
        "CKV_K8S_16",
        "CKV_K8S_2",
        "C-0057",
        "kube-linter privileged-container",
        _NSA,
    ),
    _pod(
        "pod-no-host-pid",
        "Pods do not see the node's processes",
        "They could read the memory and environment of every pod on the node.",
        "Drop hostPID.",
        _host("hostPID"),
        _HIGH,
        "PSS baseline",
        "CKV_K8S_17",
        "CKV_K8S_1",
        "C-0038",
        _NSA,
    ),
    _pod(
        "pod-no-host-ipc",
        "Pods do not share the node's memory",
        "They could read and change the shared memory of others.",
        "Drop hostIPC.",
        _host("hostIPC"),
        _HIGH,
        "PSS baseline",
        "CKV_K8S_18",
        "CKV_K8S_3",
        "C-0038",
        _NSA,
    ),
    _pod(
        "pod-no-host-network",
        "Pods do not use the node's network",
        "NetworkPolicies do not hold for them, and they reach the node's metadata.",
        "Drop hostNetwork.",
        _host("hostNetwork"),
        _HIGH,
        "PSS baseline",
        "CKV_K8S_19",
        "CKV_K8S_4",
        "C-0041",
        _NSA,
    ),
    _pod(
        "pod-no-host-port",
        "No container takes a port of its node",
        "The port bypasses Services and NetworkPolicies, and binds the pod to the node.",
        "Drop hostPort; use a Service.",
        _every(_host_ports),
        _MEDIUM,
        "PSS baseline",
        "CKV_K8S_26",
        "C-0044",
    ),
    _pod(
        "pod-no-host-path",
        "No pod mounts a path of its node",
        "The container runtime's socket or the kubelet's files give the node away.",
        "Use a persistentVolumeClaim, a configMap or an emptyDir.",
        _host_paths,
        _HIGH,
        "PSS baseline",
        "CKV_K8S_27",
        "C-0045",
        "C-0048",
        "C-0074",
        _NSA,
    ),
    _pod(
        "pod-kernel-defaults",
        "Pods keep the defaults of sysctls, /proc, AppArmor and SELinux",
        "Each of them is a wall between the pod and its node.",
        "Drop the setting.",
        _hardening,
        _MEDIUM,
        "PSS baseline",
        "C-0055",
    ),
    _pod(
        "pod-no-added-capabilities",
        "No container adds a dangerous capability",
        "SYS_ADMIN and its like are root by another name.",
        "Drop the capability from securityContext.capabilities.add.",
        _every(_added_capabilities),
        _HIGH,
        "PSS baseline",
        "CKV_K8S_24",
        "CKV_K8S_25",
        "CKV_K8S_39",
        "C-0046",
    ),
    _pod(
        "pod-capabilities-dropped",
        "Containers drop all capabilities",
        "NET_RAW alone lets a pod pose as its neighbours.",
        'Set securityContext.capabilities.drop to ["ALL"].',
        _every(_dropped_capabilities),
        _MEDIUM,
        "PSS restricted",
        "CKV_K8S_7",
        "CKV_K8S_28",
        "CKV_K8S_36",
        "CKV_K8S_37",
        _NSA,
    ),
    _pod(
        "pod-no-privilege-escalation",
        "Containers cannot gain privileges",
        "A setuid binary in the image is enough otherwise.",
        "Set securityContext.allowPrivilegeEscalation to false.",
        _every(_escalation),
        _HIGH,
        "PSS restricted",
        "CKV_K8S_20",
        "CKV_K8S_5",
        "C-0016",
        _NSA,
    ),
    _pod(
        "pod-non-root",
        "Containers do not run as root",
        "Root in the container is root on the node when the runtime has a hole.",
        "Set runAsNonRoot to true and runAsUser to the image's user.",
        _every(_non_root),
        _HIGH,
        "PSS restricted",
        "CKV_K8S_6",
        "CKV_K8S_23",
        "C-0013",
        _NSA,
    ),
    _pod(
        "pod-high-uid",
        "Containers run as a user that the node does not have",
        "A low uid may be somebody on the node.",
        "Set runAsUser to 10000 or more.",
        _every(_high_uid),
        _LOW,
        "CKV_K8S_40",
        level=Level.ADVISORY,
    ),
    _pod(
        "pod-seccomp",
        "Containers have a seccomp profile",
        "Most holes of the kernel are in calls that a service never makes.",
        "Set seccompProfile.type to RuntimeDefault.",
        _every(_seccomp),
        _MEDIUM,
        "PSS restricted",
        "CKV_K8S_31",
        "CKV_K8S_32",
        "C-0055",
        _NSA,
    ),
    _pod(
        "pod-security-context",
        "Pods and containers state their security context",
        "What is not stated is the image's choice.",
        "Add a securityContext to the pod and to each container.",
        _security_contexts,
        _MEDIUM,
        "CKV_K8S_29",
        "CKV_K8S_30",
        "C-0211",
    ),
    _pod(
        "pod-volume-types",
        "Pods mount only kinds of volumes that carry no right on the node",
        "Other kinds mount the node's or the network's disks past the cluster's control.",
        "Use configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected or secret.",
        _volume_types,
        _MEDIUM,
        "PSS restricted",
    ),
    _pod(
        "pod-read-only-root",
        "Containers cannot change their root filesystem",
        "An intruder has nowhere to put tools.",
        "Set readOnlyRootFilesystem to true; mount an emptyDir where the process writes.",
        _every(_read_only),
        _MEDIUM,
        "CKV_K8S_22",
        "C-0017",
        _NSA,
    ),
    _pod(
        "pod-cpu-requests",
        "Containers request CPU",
        "The scheduler puts pods without a request where there is none left.",
        "Set resources.requests.cpu.",
        _every(_requests(("requests", "cpu"))),
        _MEDIUM,
        "CKV_K8S_10",
        "C-0270",
    ),
    _pod(
        "pod-memory-bounded",
        "Containers request and limit memory",
        "A leak takes the node, and the pods of others with it.",
        "Set resources.requests.memory and resources.limits.memory.",
        _every(_requests(("requests", "memory"), ("limits", "memory"))),
        _MEDIUM,
        "CKV_K8S_12",
        "CKV_K8S_13",
        "C-0271",
    ),
    _pod(
        "pod-readiness-probe",
        "Containers that serve tell when they can",
        "Requests go to pods that are not ready.",
        "Add a readinessProbe on a port of the container.",
        _probe("readinessProbe"),
        _MEDIUM,
        "CKV_K8S_9",
        "C-0018",
        types=SERVING,
    ),
    _pod(
        "pod-liveness-probe",
        "Containers that serve are restarted when they hang",
        "A deadlocked pod counts as running for ever.",
        "Add a livenessProbe on a port of the container.",
        _probe("livenessProbe"),
        _MEDIUM,
        "CKV_K8S_8",
        "C-0056",
        types=SERVING,
    ),
    _image(
        "pod-image-tag",
        "No image is the latest",
        "Nobody knows what runs, and a restart may change it.",
        "Name a tag or, better, a digest.",
        _tag,
        _HIGH,
        "CKV_K8S_14",
        "C-0075",
    ),
    _image(
        "pod-image-digest",
        "Images are named by digest",
        "A tag can be moved to another image; a digest cannot.",
        "Deploy the reference that the build gave (name@sha256:...).",
        _digest,
        _MEDIUM,
        "CKV_K8S_43",
        "C-0306",
    ),
    _image(
        "pod-pull-policy",
        "Images without a digest are pulled every time",
        "A node may have another image under the same tag.",
        "Name a digest, or set imagePullPolicy to Always.",
        _pull_policy,
        _LOW,
        "CKV_K8S_15",
        "C-0075",
        level=Level.ADVISORY,
    ),
    Rule(
        id="pod-image-registry",
        title="Images come from the estate's own registry",
        reason="Other registries can vanish, change or serve something else; none of them is scanned here.",
        remedy="Push the image to the estate's ECR, or pull it through its cache.",
        types=WORKLOADS,
        check=_own_registry,
        severity=_MEDIUM,
        scope="stack",
        controls=("C-0078", "NSA/CISA supply chain"),
        parameters={
            "registries": {**_STRINGS, "default": [], "description": "further allowed beginnings of image names"}
        },
    ),
    Rule(
        id="pod-no-token",
        title="Pods have no service-account token unless they call the Kubernetes API",
        reason="The token is the first thing an intruder reads.",
        remedy="Set automountServiceAccountToken to false, or list the workload in needs_token.",
        types=WORKLOADS,
        check=_token,
        severity=_MEDIUM,
        scope="stack",
        controls=("CKV_K8S_38", "C-0034", "C-0190", "C-0261", _NSA),
        parameters={"needs_token": {**_STRINGS, "default": [], "description": "workloads that call the API"}},
    ),
    Rule(
        id="pod-own-service-account",
        title="Every workload has a service account of its own, declared here",
        reason="Rights given to the default account are everyone's.",
        remedy="Declare a ServiceAccount and name it in serviceAccountName.",
        types=WORKLOADS,
        check=_own_account,
        severity=_MEDIUM,
        scope="stack",
        controls=("CKV_K8S_41", "CKV_K8S_42", "C-0189"),
    ),
    _pod(
        "pod-no-secret-in-environment",
        "No plain value of a variable is a secret",
        "It stands in the state, in the Deployment and in every dump of the process.",
        "Mount the secret as a file, or read it at run time.",
        _every(_no_secret_env),
        _CRITICAL,
        "C-0012",
        "C-0207",
        "kube-linter env-var-secret",
    ),
    _pod(
        "configmap-no-secret",
        "No ConfigMap holds a secret",
        "ConfigMaps are neither encrypted nor guarded.",
        "Move the value to Secrets Manager.",
        _config_map,
        _CRITICAL,
        "C-0012",
        "Polaris sensitiveConfigmapContent",
        types=(CONFIG_MAP,),
    ),
    _pod(
        "pod-secrets-as-files",
        "Pods read secrets from files",
        "Variables are inherited by children and printed by crash dumps.",
        "Mount the secret through the CSI driver.",
        _every(_secret_from_env),
        _LOW,
        "CKV_K8S_35",
        "C-0207",
        level=Level.ADVISORY,
    ),
    Rule(
        id="pod-environment-sound",
        title="Variables are set once, from objects that exist",
        reason="The second value wins silently; a missing object keeps the pod from starting.",
        remedy="Remove the duplicate, or declare the object.",
        types=WORKLOADS,
        check=_env_sound,
        severity=_LOW,
        scope="stack",
        controls=("kube-linter duplicate-env-var", "kube-linter env-value-from"),
    ),
    _pod(
        "pod-database-verify-full",
        "Pods verify the database's certificate and name",
        "Without it, whoever answers on the address gets the password and the data.",
        "Add sslmode=verify-full and sslrootcert to the address, or set PGSSLMODE.",
        _verify_full,
        _HIGH,
        "NSA/CISA encryption",
    ),
    _pod(
        "object-not-in-default-namespace",
        "Nothing stands in the default namespace",
        "Policies and quotas are by namespace; default has none.",
        "Set metadata.namespace.",
        _default_namespace,
        _LOW,
        "CKV_K8S_21",
        "C-0061",
        "C-0212",
        "C-0209",
        types=(*WORKLOADS, SERVICE_ACCOUNT, CONFIG_MAP, "kubernetes:core/v1:Service"),
    ),
    _pod(
        "object-current-version",
        "No object is of an alpha or beta version",
        "Clusters drop those versions, and the next upgrade fails.",
        "Declare the object by its stable version.",
        _stale,
        _MEDIUM,
        "kube-linter no-extensions-v1beta",
        types=("*",),
    ),
    _pod(
        "pod-spread",
        "Pods are spread over nodes and zones",
        "One node's end would take the whole service.",
        "Add topologySpreadConstraints.",
        _spread,
        _MEDIUM,
        "kube-linter no-anti-affinity",
        "Polaris topologySpreadConstraint",
        types=SERVING,
    ),
    Rule(
        id="object-labelled",
        title="Workloads carry the recommended labels",
        reason="Dashboards, costs and selectors are built on them.",
        remedy="Add app.kubernetes.io/name and the others to metadata.labels.",
        types=SERVING,
        check=_labelled,
        severity=_LOW,
        level=Level.ADVISORY,
        controls=("Polaris metadataAndInstanceMismatched",),
        parameters={
            "labels": {**_STRINGS, "default": ["app.kubernetes.io/name"], "description": "labels that must be there"}
        },
    ),
    _pod(
        "pod-priority",
        "Workloads have a priority class",
        "Under pressure, the service is evicted before a batch job.",
        "Set priorityClassName.",
        _priority,
        _LOW,
        "Polaris priorityClassNotSet",
        level=Level.ADVISORY,
        types=SERVING,
    ),
    _pod(
        "job-ends",
        "Jobs end and go away",
        "Finished pods pile up, and a job that restarts for ever never fails.",
        "Set ttlSecondsAfterFinished and restartPolicy.",
        _job_ends,
        _LOW,
        "kube-linter job-ttl-seconds-after-finished",
        "kube-linter restart-policy",
        types=(JOB, CRON_JOB),
    ),
    Rule(
        id="pod-gpu-placed",
        title="Pods that ask for a GPU get to the GPU nodes",
        reason="Without toleration and selection they wait for ever.",
        remedy="Add the GPU nodes' toleration and nodeSelector.",
        types=WORKLOADS,
        check=_gpu,
        severity=_MEDIUM,
        parameters={
            "taints": {**_STRINGS, "default": ["nvidia.com/gpu"], "description": "keys of the GPU nodes' taints"}
        },
    ),
)
