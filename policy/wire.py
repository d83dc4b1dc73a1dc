"""From the engine's messages and the exported state to the model.

Both carry Pulumi's property values as JSON-like trees in which special objects and strings stand for secrets, assets,
references and unknowns (pulumi/pulumi, ``sdk/go/common/resource/properties.go`` and
``sdk/go/common/resource/plugin/rpc.go``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from policy.model import UNKNOWN, Resource, Secret, Value, declared

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the signature of secrets, not one of them
_OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
_REFERENCE: Final = "5cf8f73096256a8f31e491e813e4eb8e"
_UNKNOWNS: Final = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",  # string
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)
MAX_DEPTH: Final = 200


Message: TypeAlias = Any
"""A protobuf message: the estate's environment and the pack's bring different versions of its classes."""


class _Dependencies(Protocol):
    urns: Sequence[str]


class AnalyzerMessage(Protocol):
    """What ``AnalyzeRequest`` and ``AnalyzerResource`` of ``pulumirpc`` have in common."""

    type: str
    urn: str
    name: str
    properties: Any
    options: Any


def value_of(value: object, depth: int = 0) -> Value:
    """A property value of the model from a JSON-like one.

    Nesting deeper than ``MAX_DEPTH`` becomes ``UNKNOWN``: no provider has it, and nothing may recurse without end.
    """
    if isinstance(value, str):
        return UNKNOWN if value in _UNKNOWNS else value
    if depth > MAX_DEPTH:
        return UNKNOWN
    if isinstance(value, Mapping):
        if _SIGNATURE in value:
            return _special(value, depth)
        return {str(key): value_of(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [value_of(item, depth + 1) for item in value]
    return value


def _special(value: Mapping[str, object], depth: int) -> Value:
    signature = value[_SIGNATURE]
    if signature == _SECRET:
        # The engine sends the value, a state file only the ciphertext, or the plaintext where it was exported with
        # --show-secrets.
        return Secret(value_of(value["value"], depth + 1) if "value" in value else UNKNOWN)
    if signature == _OUTPUT:
        inner = value_of(value["value"], depth + 1) if "value" in value else UNKNOWN
        return Secret(inner) if value.get("secret") is True else inner
    if signature == _REFERENCE:
        return value_of(value.get("id") or value.get("urn"), depth + 1)
    return {key: value_of(inner, depth + 1) for key, inner in value.items() if key in {"path", "text", "uri", "hash"}}


def struct_value(struct: Message) -> dict[str, Value]:
    """The plain tree in a ``google.protobuf.Struct``: three times as fast as ``json_format.MessageToDict``."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Message) -> Value:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return {key: _plain(inner) for key, inner in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None


def resource_of(
    message: AnalyzerMessage,
    *,
    parent: str | None = None,
    dependencies: Sequence[str] = (),
    property_dependencies: Mapping[str, _Dependencies] | None = None,
    inputs: Mapping[str, Value] | None = None,
) -> Resource:
    """A resource from the engine's message: its inputs in ``Analyze``, its outputs in ``AnalyzeStack``.

    ``inputs`` are those of an earlier ``Analyze`` of the same resource.
    """
    told = value_of(struct_value(message.properties))
    identity = told.get("id")
    return Resource(
        urn=message.urn,
        type=message.type,
        name=message.name,
        properties=told if inputs is None else declared(inputs, told),
        outputs=told,
        parent=parent or message.options.parent or None,
        dependencies=tuple(dependencies),
        property_dependencies={key: tuple(found.urns) for key, found in (property_dependencies or {}).items()},
        protect=message.options.protect,
        id=identity if isinstance(identity, str) else None,
    )
