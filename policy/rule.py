"""What a rule is, and what it can say of a resource."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from policy.model import Estate, Node, Resource


class Severity(StrEnum):
    """How much harm a violation does; the words of Security Hub."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Level(StrEnum):
    """What a violation does to a deployment; the words of CrossGuard."""

    MANDATORY = "mandatory"
    ADVISORY = "advisory"
    DISABLED = "disabled"


class Outcome(StrEnum):
    """What became of one rule on one resource."""

    PASSED = "passed"
    VIOLATED = "violated"
    UNDECIDED = "undecided"
    WAIVED = "waived"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Violation:
    """The rule is broken. ``what`` names properties and public names, never a value that could be secret.

    ``urn`` is the resource to mend where it is not the one that was looked at.
    """

    what: str
    urn: str | None = None


@dataclass(frozen=True, slots=True)
class Undecided:
    """The rule cannot look yet."""

    what: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The rule does not concern this resource."""

    why: str


Finding = Violation | Undecided | NotApplicable


@dataclass(frozen=True, slots=True)
class Case:
    """One resource under judgement: what a rule's check gets to read."""

    resource: Resource
    estate: Estate
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> Node:
        """The resource's properties."""
        return self.resource.node


Scope = Literal["resource", "stack"]

_SECURITY_HUB = re.compile(r"[A-Z][A-Za-z0-9]*\.\d+")

Check = Callable[[Case], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """One control.

    Attributes:
        id: stable name: service and property, as in ``rds-storage-encrypted``.
        title: the state that must hold.
        reason: what goes wrong otherwise.
        remedy: what to change.
        types: type tokens of the resources it looks at.
        check: yields what is wrong with one of them; nothing where it holds.
        scope: ``resource`` where one resource decides, ``stack`` where others are needed.
        severity: how much harm a violation does.
        level: what a violation does to a deployment, unless the configuration says otherwise.
        controls: the public controls it answers: checkov's (``CKV_AWS_16``), Security Hub's (``RDS.3``), ``CIS-AWS
        2.3.1``,
            kubescape's (``C-0016``), ``PSS restricted``, ``NSA/CISA pod security`` or a linter's by name.
        parameters: JSON schema of what can be configured, each with a default.
        stacks: patterns of the stacks it holds for, unless the configuration says otherwise.
    """

    id: str
    title: str
    reason: str
    remedy: str
    types: tuple[str, ...]
    check: Check
    severity: Severity
    scope: Scope = "resource"
    level: Level = Level.MANDATORY
    controls: tuple[str, ...] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    stacks: tuple[str, ...] = ("*",)

    @property
    def url(self) -> str:
        """Where to read on: the public control's page, or the pack's own table."""
        for control in self.controls:
            if _SECURITY_HUB.fullmatch(control):
                service = control.partition(".")[0].lower()
                anchor = control.lower().replace(".", "-")
                return f"https://docs.aws.amazon.com/securityhub/latest/userguide/{service}-controls.html#{anchor}"
            if control.startswith("PSS "):
                profile = control.partition(" ")[2]
                return f"https://kubernetes.io/docs/concepts/security/pod-security-standards/#{profile}"
        return f"docs/policies.md#{self.id}"

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters' default values."""
        return {name: schema["default"] for name, schema in self.parameters.items()}
