"""The real estate, captured from the program, as the pack's model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest

from infra.preview import model as captured
from infra.preview.capture import capture
from policy.model import UNKNOWN, Estate, Resource, Secret, declared


def value_of(value: Any) -> Any:
    """A captured value with the pack's markers in place of the capture's."""
    if captured.is_unknown(value):
        return UNKNOWN
    if captured.is_secret(value):
        return Secret(UNKNOWN)
    if isinstance(value, Mapping):
        return {key: value_of(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [value_of(item) for item in value]
    return value


@cache
def captured_estate(stack: str, *, resolved: bool) -> Estate:
    """The estate of ``stack``: before the first update, or with every output resolved."""
    found = capture(stack, resolved=resolved)
    return Estate(
        tuple(
            Resource(
                urn=resource.urn,
                type=resource.type,
                name=resource.name,
                properties=declared(value_of(resource.inputs), value_of(resource.outputs)),
                outputs=value_of(resource.outputs),
                parent=resource.parent or None,
                dependencies=resource.dependencies,
                property_dependencies=resource.property_dependencies,
                protect=resource.protect,
                id=resource.id or None,
            )
            for resource in found.resources
            if not resource.read
        )
    )


@pytest.fixture(scope="session")
def production() -> Estate:
    """Production as after an update."""
    return captured_estate("production", resolved=True)


@pytest.fixture(scope="session")
def estate_of_stack() -> Callable[..., Estate]:
    """The estate of a stack, in either mode; captured once."""
    return captured_estate
