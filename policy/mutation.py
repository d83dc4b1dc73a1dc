"""Changing one thing in an estate: how each rule is shown to fire, and to say when it cannot look.

A ``Mutation`` returns the changed estate and the URN that the rule has to name. ``policy.proofs`` holds those of
every rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policy.model import UNKNOWN, Estate, Resource, Secret, Value

Where = Callable[[Resource], bool]
Mutated = tuple[Estate, str]
Mutation = Callable[[Estate], Mutated]
Blame = str | tuple[str, Where] | None
"""Who is at fault where it is not the changed resource: a type, and which of that type."""
_ABSENT = object()


class NoSubjectError(LookupError):
    """The estate has no resource that the mutation could change."""


@dataclass(frozen=True)
class Proof:
    """What shows that a rule works.

    Attributes:
        fires: mutations, each of which makes this rule fire and no other, but for ``also``.
        unknown: mutations to an unknown value, after each of which the rule is undecided; none where the rule needs no
            property's value, for the reason in ``always_known``.
        also: rules that rightly fire at the same time.
        always_known: why no value that the rule needs can be unknown.
    """

    fires: tuple[Mutation, ...]
    unknown: tuple[Mutation, ...] = ()
    also: frozenset[str] = field(default_factory=frozenset)
    always_known: str = ""


def anyone(_: Resource) -> bool:
    """Every resource will do."""
    return True


def called(*parts: str) -> Where:
    """Resources whose name contains one of ``parts``."""
    return lambda resource: any(part in resource.name for part in parts)


def having(path: str, value: Value = _ABSENT) -> Where:
    """Resources with something (or with ``value``) at ``path``."""

    def holds(resource: Resource) -> bool:
        found = resource.node.raw(path)
        return found is not None if value is _ABSENT else bool(found == value)

    return holds


def first(estate: Estate, token: str, where: Where = anyone) -> Resource:
    """The first resource of a type.

    Raises:
        NoSubjectError: there is none.
    """
    for resource in estate.of(token):
        if where(resource):
            return resource
    raise NoSubjectError(f"no {token} in the estate fits")


def with_resource(estate: Estate, changed: Resource) -> Estate:
    """``estate`` with ``changed`` in the place of the resource of the same URN, or added."""
    if changed.urn in estate.by_urn:
        return Estate(tuple(changed if r.urn == changed.urn else r for r in estate.resources))
    return Estate((*estate.resources, changed))


def set_at(value: Value, path: Sequence[str | int], new: Value) -> Value:
    """``value`` with ``new`` (or what it makes of the old value) at ``path``; missing objects are made."""
    if isinstance(value, Secret):
        value = value.value
    if not path:
        return new(value) if callable(new) else new
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        items = list(value or [])
        items[head] = set_at(items[head], rest, new)
        return items
    inner = dict(value) if isinstance(value, Mapping) else {}
    if not rest and new is _ABSENT:
        inner.pop(head, None)
        return inner
    inner[head] = set_at(inner.get(head), rest, new)
    return inner


def keys(path: str) -> list[str | int]:
    """``a.0.b`` as its keys."""
    return [int(key) if key.isdigit() else key for key in path.split(".")]


def change(token: str, path: str, new: Value, where: Where = anyone, blame: Blame = None) -> Mutation:
    """Set the property at ``path`` (``a.0.b``) of a resource; ``new`` may be a function of the old value.

    The type ``blame``, where given, is blamed in the resource's place: its only or first member that refers to it.
    """

    def mutate(estate: Estate) -> Mutated:
        subject = first(estate, token, where)
        changed = replace(subject, properties=set_at(subject.properties, keys(path), new))
        mutated = with_resource(estate, changed)
        return mutated, _blamed(estate, subject, blame)

    return mutate


def _blamed(estate: Estate, subject: Resource, blame: Blame) -> str:
    if blame is None:
        return subject.urn
    token, where = (blame, anyone) if isinstance(blame, str) else blame
    near = [r for r in (*_targets(estate, subject), *estate.referrers(subject)) if r.type == token and where(r)]
    return (near or [first(estate, token, where)])[0].urn


def _targets(estate: Estate, subject: Resource) -> list[Resource]:
    urns = [urn for found in subject.property_dependencies.values() for urn in found]
    return [estate.by_urn[urn] for urn in urns if urn in estate.by_urn]


def drop(token: str, path: str, where: Where = anyone, blame: Blame = None) -> Mutation:
    """Take the property at ``path`` away."""
    return change(token, path, _ABSENT, where, blame)


def edit(
    token: str, path: str, editor: Callable[[Value], Value], where: Where = anyone, blame: Blame = None
) -> Mutation:
    """Change the JSON document in the string at ``path``."""

    def edited(old: Value) -> str:
        document = json.loads(old) if isinstance(old, str) else old
        return json.dumps(editor(document))

    return change(token, path, edited, where, blame)


def remove(token: str, where: Where = anyone, blame: Blame = None, *, every: bool = False) -> Mutation:
    """Take away the first (or every) resource of a type; ``blame`` is the type of what then lacks it."""

    def mutate(estate: Estate) -> Mutated:
        subject = first(estate, token, where)
        gone = {r.urn for r in estate.of(token) if where(r)} if every else {subject.urn}
        urn = _blamed(estate, subject, blame)
        return Estate(tuple(r for r in estate.resources if r.urn not in gone)), urn

    return mutate


def add(
    token: str,
    properties: Mapping[str, Value],
    *,
    refers: Mapping[str, tuple[str, Where]] | None = None,
    records: Mapping[str, tuple[str, Where]] | None = None,
    name: str = "added",
    blame: Blame = None,
) -> Mutation:
    """Add a resource, which is blamed unless the type of one that it refers to is named.

    ``refers`` gives, by property, the resource whose id it takes; ``records`` the one that a given value depends on.
    """

    def mutate(estate: Estate) -> Mutated:
        given, dependencies = dict(properties), {}
        for path, (target_type, where) in (refers or {}).items():
            given[path] = [UNKNOWN] if path.endswith("s") else UNKNOWN
            dependencies[path] = (first(estate, target_type, where).urn,)
        for path, (target_type, where) in (records or {}).items():
            dependencies[path] = (first(estate, target_type, where).urn,)
        stack, project = estate.resources[0].urn.split("::")[:2]
        urn = f"{stack}::{project}::{token}::{name}"
        added = Resource(
            urn, token, name, given, outputs=given, property_dependencies=dependencies, protect=True, id=name
        )
        mutated = with_resource(estate, added)
        return mutated, urn if blame is None else _blamed(mutated, added, blame)

    return mutate


def copy_of(token: str, where: Where = anyone, blame: Blame = None) -> Mutation:
    """Add a second resource like the first of a type; the first is blamed."""

    def mutate(estate: Estate) -> Mutated:
        subject = first(estate, token, where)
        twin = replace(subject, urn=f"{subject.urn}-twin", name=f"{subject.name}-twin")
        return with_resource(estate, twin), _blamed(estate, subject, blame)

    return mutate


def unprotect(token: str) -> Mutation:
    """Take the protection of a resource away."""

    def mutate(estate: Estate) -> Mutated:
        subject = first(estate, token)
        return with_resource(estate, replace(subject, protect=False)), subject.urn

    return mutate


def unknown(token: str, path: str, where: Where = anyone, blame: Blame = None) -> Mutation:
    """Make the property at ``path`` unknown, with nothing recorded of where it comes from.

    ``blame`` is the type of the resource on which the rule is then undecided.
    """

    def mutate(estate: Estate) -> Mutated:
        subject = first(estate, token, where)
        top = path.partition(".")[0]
        recorded = {key: urns for key, urns in subject.property_dependencies.items() if key != top}
        changed = replace(
            subject,
            properties=set_at(subject.properties, keys(path), UNKNOWN),
            outputs={key: value for key, value in subject.outputs.items() if key != top},
            property_dependencies=recorded,
        )
        return with_resource(estate, changed), _blamed(estate, subject, blame)

    return mutate


def both(one: Mutation, two: Mutation) -> Mutation:
    """Two changes; the second one's resource is blamed."""

    def mutate(estate: Estate) -> Mutated:
        return two(one(estate)[0])

    return mutate
