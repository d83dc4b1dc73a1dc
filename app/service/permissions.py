"""Who may do what: roles that tokens carry, and the permissions that routes ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.service.problems import ProblemError


class Permission(StrEnum):
    """What a route asks for."""

    READ = "read"
    PROCESS = "process"
    ACT = "act"
    TRAIN = "train"
    ACTIVATE = "activate"

    @property
    def changes_something(self) -> bool:
        """Whether a request under this permission stores something."""
        return self is not Permission.READ


class Role(StrEnum):
    """What a token's ``roles`` claim may contain; other values are ignored."""

    VIEWER = "viewer"
    TRADER = "trader"
    QUANT = "quant"
    ADMIN = "admin"


PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.TRADER: frozenset({Permission.READ, Permission.PROCESS, Permission.ACT}),
    Role.QUANT: frozenset({Permission.READ, Permission.PROCESS, Permission.ACT, Permission.TRAIN}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a verified token speaks for."""

    subject: str
    token_id: str
    permissions: frozenset[Permission]
    multi_factor: bool
    expires_at: float
    """Seconds since the epoch."""

    def demand(self, permission: Permission, *, multi_factor_required: bool) -> None:
        """Let the principal pass, or say why not.

        Raises:
            ProblemError: 403, no role grants ``permission``, or it changes something and the token tells of no second
            factor.
        """
        if permission not in self.permissions:
            raise ProblemError(403, "forbidden", f"No role of this token grants the permission '{permission}'.")
        if multi_factor_required and permission.changes_something and not self.multi_factor:
            raise ProblemError(403, "multi-factor-required", "Sign in with a second factor: 'amr' must contain 'mfa'.")


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """Everything that ``roles`` grant together; unknown roles grant nothing."""
    known = {role.value for role in Role}
    return frozenset().union(*(PERMISSIONS[Role(role)] for role in roles if role in known))
