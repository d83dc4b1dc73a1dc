"""The captured estate: plain, immutable values that every other part of the preview reads.

A property value is JSON. Two things JSON has no word for are objects with one key:

* ``{"$unknown": true}`` stands where only an update decides the value;
* ``{"$secret": true}`` stands where the program marked the value as secret. The value itself never enters this model,
  so nothing that
  is drawn, printed or written from it can leak one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from infra.preview.errors import WrongInput

SCHEMA_VERSION: Final = 1
UNKNOWN: Final[Mapping[str, bool]] = {"$unknown": True}
SECRET: Final[Mapping[str, bool]] = {"$secret": True}
STACK_TYPE: Final = "pulumi:pulumi:Stack"

Mode = Literal["preview", "resolved"]
Value: TypeAlias = Any
"""A property's value: JSON, with the two markers."""


def is_unknown(value: object) -> bool:
    """Whether ``value`` itself is only decided by an update."""
    return value == UNKNOWN


def is_secret(value: object) -> bool:
    """Whether ``value`` itself was marked as secret."""
    return value == SECRET


def contains(value: object, marker: Mapping[str, bool]) -> bool:
    """Whether ``marker`` (``UNKNOWN`` or ``SECRET``) stands anywhere inside ``value``."""
    if isinstance(value, Mapping):
        return value == marker or any(contains(item, marker) for item in value.values())
    return isinstance(value, list | tuple) and any(contains(item, marker) for item in value)


@dataclass(frozen=True)
class Resource:
    """One registered (or, where ``read``, looked-up) resource.

    ``inputs`` is what the program declares, after transforms and auto-naming. ``outputs`` is what is known of the
    result: the inputs, and for each computed property an unknown (preview) or a placeholder (resolved). Property names
    are the provider's (camelCase).
    """

    urn: str
    type: str
    name: str
    parent: str
    custom: bool
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: str = ""
    protect: bool = False
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    delete_before_replace: bool | None = None
    retain_on_delete: bool = False
    deleted_with: str = ""
    additional_secret_outputs: tuple[str, ...] = ()
    import_id: str = ""
    read: bool = False

    @property
    def is_provider(self) -> bool:
        """Whether this is an explicit provider, which lives in no cloud."""
        return self.type.startswith("pulumi:providers:")

    @property
    def package(self) -> str:
        """The provider's package, as in ``aws``."""
        return self.type.split(":", 1)[0]


@dataclass(frozen=True)
class Capture:
    """A whole estate as one run of the program declared it.

    ``config`` holds the stack's configuration as the program saw it; ``secret_config`` the keys whose values are
    secret.
    """

    project: str
    stack: str
    mode: Mode
    resources: tuple[Resource, ...]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    secret_config: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @cached_property
    def by_urn(self) -> dict[str, Resource]:
        """Every resource under its URN."""
        return {resource.urn: resource for resource in self.resources}

    @cached_property
    def _children(self) -> dict[str, list[Resource]]:
        children: dict[str, list[Resource]] = {}
        for resource in self.resources:
            children.setdefault(resource.parent, []).append(resource)
        return children

    @property
    def root(self) -> Resource:
        """The stack itself."""
        return next(resource for resource in self.resources if resource.type == STACK_TYPE)

    @property
    def custom(self) -> tuple[Resource, ...]:
        """What really exists somewhere: no component, no provider, no looked-up resource."""
        return tuple(r for r in self.resources if r.custom and not r.is_provider and not r.read)

    def of_type(self, *types: str) -> tuple[Resource, ...]:
        """The resources of the given type tokens, as in ``aws:kms/key:Key``, in URN order."""
        return tuple(resource for resource in self.resources if resource.type in types)

    def children(self, urn: str) -> tuple[Resource, ...]:
        """The direct children of ``urn``, in URN order."""
        return tuple(self._children.get(urn, ()))

    def ancestors(self, resource: Resource) -> Iterator[Resource]:
        """The parents of ``resource``, nearest first; the stack is the last."""
        while resource.parent and (parent := self.by_urn.get(resource.parent)):
            yield parent
            resource = parent

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form that ``from_json`` reads back."""
        return {
            "schema_version": SCHEMA_VERSION,
            "project": self.project,
            "stack": self.stack,
            "mode": self.mode,
            "config": dict(self.config),
            "secret_config": list(self.secret_config),
            "notices": list(self.notices),
            "outputs": dict(self.outputs),
            "resources": [_compact(asdict(resource)) for resource in self.resources],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], *, source: str = "baseline") -> Capture:
        """Read back what ``to_json`` gave.

        Raises:
            WrongInput: the document is not one that this version wrote.
        """
        if document.get("schema_version") != SCHEMA_VERSION:
            raise WrongInput(
                f"{source}: not a saved preview of schema version {SCHEMA_VERSION}: write a new one with `make preview`"
            )
        try:
            return cls(
                project=document["project"],
                stack=document["stack"],
                mode=document["mode"],
                resources=tuple(_resource(item) for item in document["resources"]),
                outputs=document["outputs"],
                config=document["config"],
                secret_config=tuple(document["secret_config"]),
                notices=tuple(document["notices"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise WrongInput(f"{source}: not a saved preview ({type(error).__name__}: {error})") from None


def _compact(fields: dict[str, Any]) -> dict[str, Any]:
    """``fields`` without the options that were not set, so that a reader of the file sees what was."""
    keep = ("urn", "type", "name", "parent", "custom", "inputs", "outputs")
    return {key: value for key, value in fields.items() if key in keep or value not in (None, "", (), [], {}, False)}


def _resource(fields: Mapping[str, Any]) -> Resource:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    values["property_dependencies"] = {k: tuple(v) for k, v in fields.get("property_dependencies", {}).items()}
    return Resource(**values)


def dump(document: object) -> str:
    """The one way this package writes JSON: sorted, indented, byte-identical for equal documents."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def short_type(token: str) -> str:
    """The readable part of a type token: ``aws:rds/instance:Instance`` -> ``rds.Instance``."""
    package, _, rest = token.partition(":")
    module, _, name = rest.rpartition(":")
    module = module.split("/", 1)[0] if package != "kubernetes" else module
    return f"{module}.{name}" if module and module != "index" else (name or token)


def count_types(resources: Iterable[Resource]) -> dict[str, int]:
    """How many resources of each type, most frequent first, then by name."""
    counts: dict[str, int] = {}
    for resource in resources:
        counts[resource.type] = counts.get(resource.type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
