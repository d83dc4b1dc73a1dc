"""All rules of the pack."""

from __future__ import annotations

from policy.rule import Rule
from policy.rules import at_rest, transport

RULES: tuple[Rule, ...] = (*transport.RULES, *at_rest.RULES)
