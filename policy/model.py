"""What a rule reads: resources, their properties, and the links between them.

A property is known, unknown (only decided by the update) or absent, and a secret is known to be one. Every read goes
through ``Node``: reading what is unknown raises ``NotKnown``, which the judge turns into an undecided verdict. So no
rule can take an unknown for a pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias, TypeVar, cast

Value: TypeAlias = Any
"""A property's value: null, a boolean, number or string, a list or object of values, ``UNKNOWN`` or a ``Secret``."""


Answer = TypeVar("Answer")


class _Unknown:
    """The type of ``UNKNOWN``, which stands wherever a value is only known after the update."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __reduce__(self) -> str:
        return "UNKNOWN"  # copies and pickles are the one object again


UNKNOWN: Final = _Unknown()


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that the program marked as secret. ``value`` is ``UNKNOWN`` where only its ciphertext is at hand."""

    value: Value = field(repr=False)


class NotKnown(Exception):  # noqa: N818 - not an error: the reader asked too early
    """A property that a rule needs cannot be read.

    Attributes:
        path: the property, as in ``metadataOptions.httpTokens``.
        cause: why, for a person.
    """

    def __init__(self, path: str, cause: str = "is known only after the update") -> None:
        super().__init__(f"{path or 'the resource'} {cause}")
        self.path = path
        self.cause = cause


def is_opaque(value: object) -> bool:
    """Whether ``value`` is unknown, or a secret of which only the ciphertext is at hand."""
    return value is UNKNOWN or (isinstance(value, Secret) and value.value is UNKNOWN)


@dataclass(frozen=True, slots=True)
class Node:
    """One object inside a resource's properties, and where it stands."""

    value: Value
    path: str = ""

    def _join(self, path: str) -> str:
        return f"{self.path}.{path}" if self.path else path

    def raw(self, path: str) -> Value:
        """The value at the dotted ``path``: a plain one, ``UNKNOWN`` or, where absent or null, None. Never raises."""
        value = self.value
        for key in path.split(".") if path else ():
            if isinstance(value, Secret):
                value = value.value
            if value is UNKNOWN:
                return UNKNOWN
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value

    def read(self, path: str) -> Value:
        """The value at ``path``, or None where it is absent.

        Raises:
            NotKnown: it, or an object on the way to it, is unknown.
        """
        value = self.raw(path)
        if isinstance(value, Secret):
            value = value.value
        if value is UNKNOWN:
            raise NotKnown(self._join(path))
        return value

    def _wrong(self, path: str, expected: str) -> NotKnown:
        return NotKnown(self._join(path), f"is not {expected}")

    def has(self, path: str) -> bool:
        """Whether something stands at ``path``, be it unknown or secret: enough where only its presence counts."""
        return self.raw(path) not in (None, "", [], {})

    def text(self, path: str) -> str | None:
        """The string at ``path``.

        Raises:
            NotKnown: it is unknown or not a string.
        """
        value = self.read(path)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(path, "a string")

    def flag(self, path: str) -> bool | None:
        """The boolean at ``path``; the strings ``true`` and ``false`` count, as some providers store them.

        Raises:
            NotKnown: it is unknown or not a boolean.
        """
        value = self.read(path)
        if value is None or isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise self._wrong(path, "a boolean")

    def number(self, path: str) -> float | None:
        """The number at ``path``; a numeric string counts, as ports and parameter values come as either.

        Raises:
            NotKnown: it is unknown or not a number.
        """
        value = self.read(path)
        if value is None:
            return None
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
            if math.isfinite(number):
                return number
        raise self._wrong(path, "a number")

    def node(self, path: str) -> Node:
        """The object at ``path``; an empty one where it is absent. A list of one object counts as that object.

        Raises:
            NotKnown: it is unknown or not an object.
        """
        value = self.read(path)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
            value = _plain(value[0], self._join(path))
        if value is None:
            return Node({}, self._join(path))
        if isinstance(value, Mapping):
            return Node(value, self._join(path))
        raise self._wrong(path, "an object")

    def nodes(self, path: str) -> list[Node]:
        """The objects of the list at ``path``; none where it is absent. A single object counts as a list of one.

        Raises:
            NotKnown: the list or one of its members is unknown, or it is not a list of objects.
        """
        value = self.read(path)
        if value is None:
            return []
        if isinstance(value, Mapping):
            return [Node(value, self._join(path))]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(path, "a list")
        found = [
            Node(_plain(item, f"{self._join(path)}[{i}]"), f"{self._join(path)}[{i}]") for i, item in enumerate(value)
        ]
        for node in found:
            if not isinstance(node.value, Mapping):
                raise NotKnown(node.path, "is not an object")
        return found

    def texts(self, path: str) -> list[str]:
        """The strings of the list at ``path``; a single string counts as a list of one.

        Raises:
            NotKnown: the list or one of its members is unknown, or it is not a list of strings.
        """
        value = self.read(path)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if not isinstance(value, Sequence):
            raise self._wrong(path, "a list")
        found = [_plain(item, f"{self._join(path)}[{i}]") for i, item in enumerate(value)]
        if not all(isinstance(item, str) for item in found):
            raise self._wrong(path, "a list of strings")
        return found

    def mapping(self, path: str) -> dict[str, Value]:
        """The object at ``path`` as a dictionary whose values may be ``UNKNOWN``; empty where it is absent.

        Raises:
            NotKnown: it is unknown as a whole or not an object.
        """
        return dict(self.node(path).value)

    def document(self, path: str) -> Node:
        """The JSON document in the string at ``path`` (or the object itself); an empty one where it is absent.

        Raises:
            NotKnown: it is unknown or not a JSON object.
        """
        value = self.read(path)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self._wrong(path, "valid JSON") from None
        if value is None:
            return Node({}, self._join(path))
        if isinstance(value, Mapping):
            return Node(value, self._join(path))
        raise self._wrong(path, "a JSON object")


def _plain(value: object, path: str) -> Value:
    if isinstance(value, Secret):
        value = value.value
    if value is UNKNOWN:
        raise NotKnown(path)
    return value


@dataclass(frozen=True, eq=False)
class Resource:
    """One resource of the estate as the pack was told of it.

    ``properties`` are what the program declared, with the values they have in the end. ``outputs`` are also what the
    provider computed; only identities are read there, for providers echo in outputs what other resources declare (the
    rules of a security group, the policies of a role).
    """

    urn: str
    type: str
    name: str
    properties: Mapping[str, Value]
    outputs: Mapping[str, Value] = field(default_factory=dict)
    parent: str | None = None
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protect: bool | None = None
    id: str | None = None

    @cached_property
    def node(self) -> Node:
        """The properties, to be read safely."""
        return Node(self.properties)

    def output(self, path: str) -> Value:
        """What is told of the resource itself at ``path``, declared or computed; None where nothing is."""
        value = self.node.raw(path)
        return Node(self.outputs).raw(path) if value is None else value

    @property
    def stack(self) -> str:
        """The stack in the URN, as in ``urn:pulumi:<stack>::<project>::<type>::<name>``."""
        return self.urn.split("::", 1)[0].rpartition(":")[2]


_IDENTITIES = ("id", "arn", "url", "name", "bucket", "keyId", "identifier", "replicationGroupId", "ref")


@dataclass(frozen=True, eq=False)
class Estate:
    """All resources that are judged together, indexed so that a rule's cost does not grow with the estate."""

    resources: tuple[Resource, ...]

    @cached_property
    def _answers(self) -> dict[object, object]:
        return {}

    def once(self, question: Callable[[Estate], Answer]) -> Answer:
        """The answer to a question about the whole estate, asked once however many rules want it."""
        if question not in self._answers:
            self._answers[question] = question(self)
        return cast("Answer", self._answers[question])

    @cached_property
    def by_urn(self) -> Mapping[str, Resource]:
        """Resources by URN."""
        return {resource.urn: resource for resource in self.resources}

    @cached_property
    def by_type(self) -> Mapping[str, tuple[Resource, ...]]:
        """Resources by type token."""
        found: dict[str, list[Resource]] = {}
        for resource in self.resources:
            found.setdefault(resource.type, []).append(resource)
        return {token: tuple(resources) for token, resources in found.items()}

    @cached_property
    def _by_identity(self) -> Mapping[str, tuple[Resource, ...]]:
        found: dict[str, list[Resource]] = {}
        for resource in self.resources:
            given = [resource.id, *(resource.output(key) for key in _IDENTITIES)]
            for identity in dict.fromkeys(text for text in given if isinstance(text, str)):
                if identity:
                    found.setdefault(identity, []).append(resource)
        return {identity: tuple(resources) for identity, resources in found.items()}

    def named(self, path: str, name: str) -> tuple[Resource, ...]:
        """The resources whose property at ``path`` is ``name``."""
        return tuple(r for r in self._by_identity.get(name, ()) if r.node.raw(path) == name)

    def of(self, *types: str) -> list[Resource]:
        """The resources of these types."""
        return [resource for token in types for resource in self.by_type.get(token, ())]

    def links(self, resource: Resource, path: str, *types: str) -> list[Resource]:
        """The resources of ``types`` that the property at ``path`` refers to.

        A known id, ARN or name decides; where the value is unknown, the dependencies that the program recorded for
        its top-level property do.

        Raises:
            NotKnown: the value is unknown and no recorded dependency is of these types.
        """
        known, opaque = _strings(resource.node.raw(path))
        found = [r for text in known for r in self._by_identity.get(text, ()) if r.type in types]
        if opaque:
            recorded = [self.by_urn[urn] for urn in self._dependencies(resource, path) if urn in self.by_urn]
            through = [r for r in recorded if r.type in types]
            if not through and not found:
                raise NotKnown(path)
            found += through
        return list(dict.fromkeys(found)) if len(found) > 1 else found

    @staticmethod
    def _dependencies(resource: Resource, path: str) -> tuple[str, ...]:
        return resource.property_dependencies.get(path.partition(".")[0], ())

    def refers(self, resource: Resource, path: str, target: Resource) -> bool:
        """Whether the property at ``path`` refers to ``target``; False where it is unknown and nothing was recorded."""
        try:
            return target in self.links(resource, path, target.type)
        except NotKnown:
            return False

    @cached_property
    def _referrers(self) -> Mapping[str, tuple[Resource, ...]]:
        found: dict[str, dict[str, Resource]] = {}
        for resource in self.resources:
            targets = {urn for urns in resource.property_dependencies.values() for urn in urns} | set(
                resource.dependencies
            )
            for text in _strings(resource.properties)[0]:
                targets.update(r.urn for r in self._by_identity.get(text, ()))
            for target in targets - {resource.urn}:
                found.setdefault(target, {})[resource.urn] = resource
        return {urn: tuple(resources.values()) for urn, resources in found.items()}

    def referrers(self, target: Resource, *types: str) -> list[Resource]:
        """The resources (of ``types``, or of any type) that depend on ``target`` or hold its id, ARN or name."""
        return [r for r in self._referrers.get(target.urn, ()) if not types or r.type in types]


def _strings(value: object) -> tuple[list[str], bool]:
    """Every string within ``value``, and whether something within it is unknown."""
    known: list[str] = []
    opaque = False
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Secret):
            item = item.value
        if item is UNKNOWN:
            opaque = True
        elif isinstance(item, str):
            known.append(item)
        elif isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, Sequence):
            pending.extend(item)
    return known, opaque


def walk(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of ``value`` with its path; secrets and unknowns are leaves."""
    pending: list[tuple[str, object]] = [(path, value)]
    while pending:
        where, item = pending.pop()
        if isinstance(item, Mapping):
            pending.extend((f"{where}.{key}" if where else str(key), inner) for key, inner in item.items())
        elif isinstance(item, Sequence) and not isinstance(item, (str, bytes)):
            pending.extend((f"{where}[{i}]", inner) for i, inner in enumerate(item))
        else:
            yield where, item


def declared(inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> dict[str, Value]:
    """What the program declared, with the value that each property has in the end."""
    return {key: outputs.get(key, value) for key, value in inputs.items()}
