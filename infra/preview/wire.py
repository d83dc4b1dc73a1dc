"""Between the protocol's values and the model's: what an SDK sends, as plain JSON with secrets masked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

from infra.preview.model import SECRET, UNKNOWN, Value

UNKNOWN_SENTINEL: Final = rpc.UNKNOWN
_SIGNATURE: Final = rpc._special_sig_key  # noqa: SLF001 - the protocol's constants have no public name
_SECRET: Final = rpc._special_secret_sig  # noqa: SLF001
_ASSET: Final = rpc._special_asset_sig  # noqa: SLF001
_ARCHIVE: Final = rpc._special_archive_sig  # noqa: SLF001
_RESOURCE: Final = rpc._special_resource_sig  # noqa: SLF001


def signature(struct: struct_pb2.Struct) -> str:
    """What a struct stands for (a secret, an asset, a resource), or empty where it is a plain object."""
    return struct.fields[_SIGNATURE].string_value if _SIGNATURE in struct.fields else ""


def is_secret(value: struct_pb2.Value) -> bool:
    """Whether ``value`` is wrapped as a secret."""
    return value.WhichOneof("kind") == "struct_value" and signature(value.struct_value) == _SECRET


def unwrap(value: struct_pb2.Value) -> struct_pb2.Value:
    """``value`` without its secret wrapping."""
    return value.struct_value.fields["value"] if is_secret(value) else value


def wrap_secret(value: struct_pb2.Value) -> struct_pb2.Value:
    """``value`` as a secret."""
    if is_secret(value):
        return value
    wrapped = struct_pb2.Value()
    wrapped.struct_value.fields[_SIGNATURE].string_value = _SECRET
    wrapped.struct_value.fields["value"].CopyFrom(value)
    return wrapped


def to_model(struct: struct_pb2.Struct) -> dict[str, Any]:
    """The properties of ``struct`` as model values, sorted by name."""
    return {key: _value(struct.fields[key]) for key in sorted(struct.fields)}


def _value(value: struct_pb2.Value) -> Value:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return dict(UNKNOWN) if value.string_value == UNKNOWN_SENTINEL else value.string_value
    if kind == "number_value":
        # The protocol knows only doubles: a port comes back as 443.0.
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return _struct(value.struct_value) if kind == "struct_value" else None


def _struct(struct: struct_pb2.Struct) -> Value:
    special = signature(struct)
    if not special:
        return to_model(struct)
    if special == _SECRET:
        return dict(SECRET)
    if special == _RESOURCE:
        return struct.fields["urn"].string_value
    if special in (_ASSET, _ARCHIVE):
        content = {key: _value(value) for key, value in struct.fields.items() if key != _SIGNATURE}
        if isinstance(text := content.get("text"), str):
            content["text"] = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        return {"$asset": content}
    return to_model(struct)


def to_wire(value: Value) -> struct_pb2.Value:
    """A model value (or any JSON) as a protocol value; a masked secret becomes an unknown secret."""
    result = struct_pb2.Value()
    if value == UNKNOWN:
        result.string_value = UNKNOWN_SENTINEL
    elif value == SECRET:
        result.string_value = UNKNOWN_SENTINEL
        result = wrap_secret(result)
    elif value is None:
        result.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        result.bool_value = value
    elif isinstance(value, int | float):
        result.number_value = value
    elif isinstance(value, Mapping):
        result.struct_value.SetInParent()
        for key, item in value.items():
            result.struct_value.fields[key].CopyFrom(to_wire(item))
    elif isinstance(value, list | tuple):
        result.list_value.SetInParent()
        result.list_value.values.extend(to_wire(item) for item in value)
    else:
        result.string_value = str(value)
    return result


def secret_texts(struct: struct_pb2.Struct) -> Iterator[str]:
    """Every text that stands inside a secret of ``struct``: what must never be printed."""
    for value in struct.fields.values():
        yield from _secret_texts(value, inside=False)


def _secret_texts(value: struct_pb2.Value, *, inside: bool) -> Iterator[str]:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        if inside and value.string_value != UNKNOWN_SENTINEL:
            yield value.string_value
    elif kind == "list_value":
        for item in value.list_value.values:
            yield from _secret_texts(item, inside=inside)
    elif kind == "struct_value":
        secret = inside or signature(value.struct_value) == _SECRET
        for key, item in value.struct_value.fields.items():
            if key != _SIGNATURE:
                yield from _secret_texts(item, inside=secret)
