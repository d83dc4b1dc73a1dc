"""Reading IAM policy documents: who may do what to which resource under which conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from policy.model import Node, Secret


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a policy document."""

    node: Node

    @property
    def allows(self) -> bool:
        """Whether its effect is Allow."""
        return self.node.text("Effect") == "Allow"

    @property
    def denies(self) -> bool:
        """Whether its effect is Deny."""
        return self.node.text("Effect") == "Deny"

    @property
    def actions(self) -> list[str]:
        """Its actions as written; ``*`` where it names exceptions only (NotAction)."""
        return ["*"] if self.node.has("NotAction") else self.node.texts("Action")

    @property
    def resources(self) -> list[str]:
        """Its resources as written; ``*`` where it names exceptions only (NotResource)."""
        return ["*"] if self.node.has("NotResource") else self.node.texts("Resource")

    @property
    def conditions(self) -> Mapping[str, object]:
        """Its conditions by operator."""
        return self.node.mapping("Condition")

    @property
    def principals(self) -> list[str]:
        """Everyone it speaks of, whatever the kind."""
        raw = self.node.read("Principal")
        if raw is None:
            return ["*"] if self.node.has("NotPrincipal") else []
        if isinstance(raw, Mapping):
            return [text for kind in raw for text in self.node.node("Principal").texts(kind)]
        return self.node.texts("Principal")

    @property
    def covers_everything(self) -> bool:
        """Whether it speaks of all resources, without any condition that narrows them."""
        return "*" in self.resources and not self.conditions

    def requires_tls(self) -> bool:
        """Whether it denies everyone everything that does not come over TLS."""
        if not self.denies or "*" not in self.principals:
            return False
        for operator, keys in self.conditions.items():
            if operator.lower().startswith("bool") and isinstance(keys, Mapping):
                for key, value in keys.items():
                    if key.lower() == "aws:securetransport" and str(_plain(value)).lower() == "false":
                        # Topic policies may not say sns:*: publishing is what carries data.
                        return any(a == "*" or a.endswith(":*") or a.lower() == "sns:publish" for a in self.actions)
        return False


def _plain(value: object) -> object:
    value = value.value if isinstance(value, Secret) else value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def statements(node: Node, path: str) -> Iterator[Statement]:
    """The statements of the policy document at ``path``.

    Raises:
        NotKnown: the document, or one of its statements, is unknown or malformed.
    """
    if node.has(path):
        yield from (Statement(item) for item in node.document(path).nodes("Statement"))


def all_statements(node: Node, *paths: str) -> Iterator[Statement]:
    """The statements of several documents; inline policies of a role stand in a list."""
    for path in paths:
        if path == "inlinePolicies":
            for inline in node.nodes("inlinePolicies"):
                yield from statements(inline, "policy")
        else:
            yield from statements(node, path)


def matches(action: str, pattern: str) -> bool:
    """Whether the IAM action or action pattern ``action`` can mean ``pattern``; case does not count."""
    action, pattern = action.lower(), pattern.lower()
    return fnmatchcase(pattern, action) or fnmatchcase(action, pattern)


def is_everyone(principal: str) -> bool:
    """Whether a principal is anyone at all."""
    return principal in {"*", "arn:aws:iam::*:root"}
