"""What a stack is: the composition of the components, and each stack's nature as data."""

from collections.abc import Mapping
from typing import Final

from infra.settings import SettingsError
from infra.stacks.nature import StackNature
from infra.stacks.production import PRODUCTION
from infra.stacks.staging import STAGING

STACKS: Final[Mapping[str, StackNature]] = {nature.name: nature for nature in (STAGING, PRODUCTION)}


def stack_nature(name: str) -> StackNature:
    """The nature of the stack called ``name``.

    Raises:
        SettingsError: when there is no such stack.
    """
    try:
        return STACKS[name]
    except KeyError:
        raise SettingsError(f"stack {name!r}: is unknown; the stacks are {', '.join(sorted(STACKS))}") from None
