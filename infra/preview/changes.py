"""What changed between two captures of the same stack: added, changed, replaced, removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from infra.preview.model import STACK_TYPE, UNKNOWN, Capture, Resource, Value, contains
from infra.preview.replacement import STATEFUL, forces_replacement, is_stateful, only_grows

Kind = Literal["added", "changed", "replaced", "removed"]
KINDS: tuple[Kind, ...] = ("removed", "replaced", "changed", "added")
_ABSENT: Any = None


@dataclass(frozen=True)
class PropertyChange:
    """One input that differs: None where it is absent, ``replaces`` where the change makes a new resource."""

    path: str
    before: Any
    after: Any
    replaces: bool = False


@dataclass(frozen=True)
class Change:
    """What happens to one resource. ``follows`` names the replaced resource that forces this one to be replaced too."""

    kind: Kind
    resource: Resource
    properties: tuple[PropertyChange, ...] = ()
    follows: str = ""

    @property
    def loses(self) -> str:
        """What is lost, where a stateful resource is replaced or removed; else empty."""
        if self.kind in ("replaced", "removed") and is_stateful(self.resource) and not self.resource.retain_on_delete:
            return STATEFUL[self.resource.type]
        return ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "kind": self.kind,
            "urn": self.resource.urn,
            "loses": self.loses,
            "follows": self.follows,
            "properties": [vars(item) for item in self.properties],
        }


@dataclass(frozen=True)
class Changes:
    """All changes between two captures, in URN order, and the stack outputs that changed."""

    changes: tuple[Change, ...]
    outputs: tuple[PropertyChange, ...] = field(default=())

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.kind == kind)

    @property
    def losses(self) -> tuple[Change, ...]:
        """The replaced or removed stateful resources."""
        return tuple(change for change in self.changes if change.loses)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "resources": [change.to_json() for change in self.changes],
            "outputs": [vars(item) for item in self.outputs],
        }


def compare(before: Capture, after: Capture) -> Changes:
    """The changes from ``before`` to ``after``; a resource that moved under an alias is the same resource."""
    old = {r.urn: r for r in before.resources if r.type != STACK_TYPE}
    found: dict[str, Change] = {}
    declared = [resource for resource in after.resources if resource.type != STACK_TYPE]
    former = {r.urn: next((urn for urn in _former_urns(r, after) if urn in old), "") for r in declared}
    moved = {urn_before: urn for urn, urn_before in former.items() if urn_before}
    for resource in declared:
        previous = old.pop(former[resource.urn], None)
        if previous is None:
            found[resource.urn] = Change("added", resource)
        elif properties := tuple(_changed_inputs(previous, resource, moved)):
            kind: Kind = "replaced" if resource.custom and any(item.replaces for item in properties) else "changed"
            found[resource.urn] = Change(kind, resource, properties)
    removed = {urn: Change("removed", resource) for urn, resource in old.items()}
    _follow_replacements(after, found)
    every = {**found, **removed}
    return Changes(
        tuple(every[urn] for urn in sorted(every)), tuple(_differences("", dict(before.outputs), dict(after.outputs)))
    )


def _former_urns(resource: Resource, capture: Capture) -> Iterator[str]:
    """The URNs that may have been ``resource``'s: its own, its aliases, and those its parent's aliases imply."""
    yield resource.urn
    yield from resource.aliases
    parent = capture.by_urn.get(resource.parent)
    if parent is None or parent.type == STACK_TYPE:
        return
    for former_parent in _former_urns(parent, capture):
        if former_parent == parent.urn:
            continue
        prefix = former_parent.rpartition("::")[0]
        yield f"{prefix}${resource.type}::{resource.name}"


def _changed_inputs(before: Resource, after: Resource, moved: Mapping[str, str]) -> Iterator[PropertyChange]:
    """The inputs that differ; ``moved`` gives the present URN of a resource that a former one refers to."""
    ignored = tuple(after.ignore_changes)
    for change in _differences("", dict(before.inputs), dict(after.inputs)):
        if not any(change.path == path or change.path.startswith((f"{path}.", f"{path}[")) for path in ignored):
            grows = only_grows(after, change.path, change.before, change.after)
            yield replace(change, replaces=after.custom and not grows and forces_replacement(after, change.path))
    # Two unknowns look alike; what they refer to may differ.
    for name in sorted(set(before.inputs) & set(after.inputs)):
        old, new = before.inputs[name], after.inputs[name]
        referred = sorted(moved.get(urn, urn) for urn in before.property_dependencies.get(name, ()))
        refers = sorted(after.property_dependencies.get(name, ()))
        if old == new and contains(new, UNKNOWN) and referred != refers and name not in ignored:
            yield PropertyChange(name, referred, refers, after.custom and forces_replacement(after, name))


def _differences(path: str, before: Value, after: Value) -> Iterator[PropertyChange]:
    if before == after:
        return
    objects = isinstance(before, Mapping) and isinstance(after, Mapping)
    if objects and not {"$unknown", "$secret"} & {*before, *after}:
        for key in sorted({*before, *after}):
            yield from _differences(f"{path}.{key}" if path else key, before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{index}]", old, new)
    else:
        yield PropertyChange(path, before, after)


def _follow_replacements(after: Capture, found: dict[str, Change]) -> None:
    """Replace what must follow: a resource whose replacing input refers to a resource that is replaced."""
    pending = [urn for urn, change in found.items() if change.kind == "replaced"]
    while pending:
        replaced = pending.pop()
        for resource in after.custom:
            known = found.get(resource.urn)
            if known is not None and known.kind in ("replaced", "added"):
                continue
            through = [
                name
                for name, urns in resource.property_dependencies.items()
                if replaced in urns and forces_replacement(resource, name)
            ]
            if through:
                found[resource.urn] = Change("replaced", resource, known.properties if known else (), follows=replaced)
                pending.append(resource.urn)
