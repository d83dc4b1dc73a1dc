"""Checks of one shape, told apart by a property's path: what most controls are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from policy.model import Node
from policy.rule import Case, Check, Finding, Violation

KMS_KEY = "aws:kms/key:Key"


def is_true(path: str, *, default: bool = False) -> Check:
    """The boolean at ``path`` is true; ``default`` is what the provider takes where it is absent."""

    def check(case: Case) -> Iterator[Finding]:
        value = case.node.flag(path)
        if not (default if value is None else value):
            yield Violation(f"{path} is {'not set' if value is None else 'false'}")

    return check


def is_false(path: str, *, default: bool = False) -> Check:
    """The boolean at ``path`` is false; ``default`` is what the provider takes where it is absent."""

    def check(case: Case) -> Iterator[Finding]:
        value = case.node.flag(path)
        if default if value is None else value:
            yield Violation(f"{path} is {'not set' if value is None else 'true'}")

    return check


def is_given(path: str) -> Check:
    """Something stands at ``path``. A list counts by its length, whatever its members."""

    def check(case: Case) -> Iterator[Finding]:
        if case.node.read(path) in (None, "", [], {}):
            yield Violation(f"{path} is not set")

    return check


def is_one_of(path: str, allowed: Collection[str], *, default: str | None = None) -> Check:
    """The string at ``path`` is one of ``allowed``."""

    def check(case: Case) -> Iterator[Finding]:
        value = case.node.text(path) or default
        if value not in allowed:
            found = "is not set" if value is None else f"is {value}"
            yield Violation(f"{path} {found}; allowed: {', '.join(sorted(allowed))}")

    return check


def at_least(path: str, minimum: float | str, *, unit: str = "") -> Check:
    """The number at ``path`` is ``minimum`` or more; a string names the parameter that holds the minimum."""

    def check(case: Case) -> Iterator[Finding]:
        floor = float(case.parameters[minimum] if isinstance(minimum, str) else minimum)
        value = case.node.number(path)
        if value is None or value < floor:
            found = "is not set" if value is None else f"is {value:g}"
            yield Violation(f"{path} {found}, below {floor:g}{unit}")

    return check


def includes(path: str, wanted: Collection[str]) -> Check:
    """The list at ``path`` holds every one of ``wanted``."""

    def check(case: Case) -> Iterator[Finding]:
        missing = set(wanted) - set(case.node.texts(path))
        if missing:
            yield Violation(f"{path} lacks {', '.join(sorted(missing))}")

    return check


def under_estate_key(path: str) -> Check:
    """The key at ``path`` is a customer-managed key that this estate declares."""

    def check(case: Case) -> Iterator[Finding]:
        if case.node.raw(path) in (None, ""):
            yield Violation(f"{path} is not set: AWS's own key would be used, which nobody here can restrict or revoke")
        elif not case.estate.links(case.resource, path, KMS_KEY):
            yield Violation(f"{path} is not one of the estate's own keys")

    return check


def each(path: str, check_item: Callable[[Node], Iterator[Finding]]) -> Check:
    """``check_item`` holds for every object of the list at ``path``."""

    def check(case: Case) -> Iterator[Finding]:
        for item in case.node.nodes(path):
            yield from check_item(item)

    return check


def all_of(*checks: Check) -> Check:
    """Every one of ``checks`` holds."""

    def check(case: Case) -> Iterator[Finding]:
        for single in checks:
            yield from single(case)

    return check
