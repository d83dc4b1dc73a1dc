"""An estate from an exported state: the output of ``pulumi stack export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from policy.model import Estate, Resource, Value, declared
from policy.wire import value_of

_VERSIONS: Final = (2, 3, 4)


class StateError(ValueError):
    """The file is not an exported state."""


def read_state(path: Path) -> Estate:
    """The estate in the state file at ``path``.

    Raises:
        StateError: it cannot be read, is cut off, or is not an exported state.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StateError(f"{path}: is not text: expected the output of `pulumi stack export`") from None
    except json.JSONDecodeError as error:
        raise StateError(f"{path}: is not JSON (line {error.lineno}, column {error.colno}): is it cut off?") from None
    except RecursionError:
        raise StateError(f"{path}: is nested too deeply to be an exported state") from None
    try:
        return estate_of(content)
    except StateError as error:
        raise StateError(f"{path}: {error}") from None


def estate_of(content: object) -> Estate:
    """The estate in the parsed state ``content``. Resources that are about to be deleted are left out.

    Raises:
        StateError: it is not an exported state.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("deployment"), Mapping):
        raise StateError('no "deployment" in it: expected the output of `pulumi stack export`')
    version = content.get("version")
    if version not in _VERSIONS:
        raise StateError(f"version {version!r} of the format is not one of {', '.join(map(str, _VERSIONS))}")
    resources = content["deployment"].get("resources")
    if resources is None:
        resources = []  # a stack that was never updated
    if not isinstance(resources, list):
        raise StateError('"deployment.resources" is not a list')
    return Estate(tuple(_resource(item, i) for i, item in enumerate(resources) if not _is_leaving(item)))


def _is_leaving(item: object) -> bool:
    return isinstance(item, Mapping) and item.get("delete") is True


def _resource(item: object, index: int) -> Resource:
    where = f"resource {index}"
    if not isinstance(item, Mapping):
        raise StateError(f"{where} is not an object")
    urn, token = item.get("urn"), item.get("type")
    if not isinstance(urn, str) or not isinstance(token, str) or urn.count("::") < 3:
        raise StateError(f"{where} has no URN or type")
    inputs, outputs = _properties(item, "inputs", urn), _properties(item, "outputs", urn)
    identity, parent = item.get("id"), item.get("parent")
    return Resource(
        urn=urn,
        type=token,
        name=urn.rpartition("::")[2],
        properties=declared(inputs, outputs),
        outputs=outputs,
        parent=parent if isinstance(parent, str) else None,
        dependencies=_urns(item.get("dependencies")),
        property_dependencies=_property_dependencies(item.get("propertyDependencies")),
        protect=item.get("protect") is True,
        id=identity if isinstance(identity, str) else None,
    )


def _properties(item: Mapping[str, object], key: str, urn: str) -> dict[str, Value]:
    value = item.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StateError(f"{key} of {urn} is not an object")
    converted = value_of(value)
    return converted if isinstance(converted, dict) else {}


def _urns(value: object) -> tuple[str, ...]:
    return tuple(urn for urn in value if isinstance(urn, str)) if isinstance(value, list) else ()


def _property_dependencies(value: object) -> dict[str, tuple[str, ...]]:
    return {str(key): _urns(urns) for key, urns in value.items()} if isinstance(value, Mapping) else {}
