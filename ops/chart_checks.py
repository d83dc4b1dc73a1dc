"""What must hold of a chart as rendered with the estate's values (pure functions over Kubernetes objects).

A misspelt value is no error to Helm: it is passed over, and the default stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import kubernetes_validate

Objects: TypeAlias = Sequence[Mapping[str, Any]]
Values: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str, ...]

_POD_KINDS: Final = frozenset({"Deployment", "DaemonSet", "StatefulSet", "Job"})
_NAME_LABEL: Final = "app.kubernetes.io/name"
_FOREIGN_GROUPS: Final = ("cert-manager.io/", "apiextensions.k8s.io/")
"""Kinds whose schemas are not Kubernetes' own, and definitions, which a chart's own tests judge."""


@dataclass(frozen=True)
class Expectation:
    """What the estate relies on in one release."""

    pods: Sequence[str]
    """Values of ``app.kubernetes.io/name``."""
    namespace: str
    kubernetes_version: str
    registries: Sequence[str]
    """Prefixes that an image may have."""
    restricted: bool
    """Whether the namespace admits only pods that hold Pod Security "restricted"."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Port that the pods of a name listen on."""
    service_accounts: Sequence[str] = ()
    """Accounts that have rights on AWS, and must therefore be the pods' own."""


def findings(objects: Objects, expected: Expectation) -> list[str]:
    """What does not hold, a line each."""
    return [
        *_invalid(objects, expected.kubernetes_version),
        *_missing(objects, expected),
        *(line for _, pod in pods(objects) for line in _foreign_images(pod, expected.registries)),
        *(line for name, pod in pods(objects) if expected.restricted for line in _unrestricted(name, pod)),
    ]


def pods(objects: Objects) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and pod template of everything that runs for long or once."""
    for found in objects:
        if found["kind"] in _POD_KINDS:
            yield f"{found['kind']} {found['metadata']['name']}", found["spec"]["template"]


def containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every container of a pod template."""
    yield from pod["spec"].get("initContainers") or ()
    yield from pod["spec"]["containers"]


def _invalid(objects: Objects, version: str) -> Iterator[str]:
    for found in objects:
        if found["apiVersion"].startswith(_FOREIGN_GROUPS):
            continue
        try:
            kubernetes_validate.validate(_without_nothing(found), version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            continue
        except kubernetes_validate.ValidationError as error:
            yield f"{found['kind']} {found['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}"


def _without_nothing(value: Any) -> Any:  # noqa: ANN401 -- YAML
    """Templates leave keys without a value; the API server drops them."""
    if isinstance(value, Mapping):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nothing(inner) for inner in value]
    return value


def _missing(objects: Objects, expected: Expectation) -> Iterator[str]:
    named: dict[str, list[Mapping[str, Any]]] = {}
    accounts = set()
    for _, pod in pods(objects):
        label = ((pod.get("metadata") or {}).get("labels") or {}).get(_NAME_LABEL, "")
        named.setdefault(label, []).append(pod)
        accounts.add(pod["spec"].get("serviceAccountName", "default"))
    for name in expected.pods:
        if name not in named:
            yield f"no pod carries {_NAME_LABEL}={name}, which policies and scrape jobs select; found {sorted(named)}"
    for name, port in expected.ports.items():
        listening = {
            p["containerPort"] for pod in named.get(name, ()) for c in containers(pod) for p in c.get("ports", ())
        }
        if port not in listening:
            yield f"{name} does not listen on {port}; it does on {sorted(listening)}"
    yield from (f"no pod runs as {account}" for account in expected.service_accounts if account not in accounts)


def _foreign_images(pod: Mapping[str, Any], registries: Sequence[str]) -> Iterator[str]:
    for container in containers(pod):
        if not container["image"].startswith(tuple(registries)):
            yield f"{container['name']} comes from elsewhere: {container['image']}"


def _unrestricted(name: str, pod: Mapping[str, Any]) -> Iterator[str]:
    """Kubernetes, "Pod Security Standards", restricted."""
    outer = pod["spec"].get("securityContext") or {}
    if any("hostPath" in volume for volume in pod["spec"].get("volumes") or ()):
        yield f"{name} mounts a path of its node"
    for container in containers(pod):
        context = {**outer, **(container.get("securityContext") or {})}
        held = {
            "privilege escalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in (context.get("capabilities") or {}).get("drop", ()),
            "running as root": context.get("runAsNonRoot") is True,
            "seccomp": (context.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"),
        }
        yield from (
            f"{name}, {container['name']}: {what} is not restricted" for what, holds in held.items() if not holds
        )


def ineffective(values: Values, defaults: Values, render: Callable[[Values], object]) -> list[str]:
    """Our values that change nothing and are no default of the chart either: misspelt, or gone from it."""
    whole = render(values)
    return [
        ".".join(path)
        for path in leaves(values)
        if not _known(defaults, path) and render(_without(values, path)) == whole
    ]


def leaves(values: Values, before: Path = ()) -> Iterator[Path]:
    """Paths of all that is not a mapping with something in it."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*before, key))
        else:
            yield (*before, key)


def _known(defaults: Values, path: Path) -> bool:
    found: Any = defaults
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True


def _without(values: Values, path: Path) -> Values:
    changed = copy.deepcopy(dict(values))
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed
