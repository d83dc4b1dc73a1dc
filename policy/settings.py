"""The pack's configuration: per rule its level, its stacks, its parameters and its waivers.

The format is the one that ``pulumi preview --policy-pack-config`` takes: rule id -> level, or rule id -> object with
``enforcementLevel`` and the properties of ``rule_schema``. The key ``all`` sets the level of every rule not named.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from policy.model import Value
from policy.rule import Level, Rule


class SettingsError(ValueError):
    """The configuration names an unknown rule or key, or a value of the wrong form."""


WAIVERS_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "description": (
        "Resources for which the rule is set aside, each with a reason and a last day. An expired waiver is a "
        "violation."
    ),
    "items": {
        "type": "object",
        "properties": {
            "urn": {"type": "string", "minLength": 1, "description": "URN, * and ? as wildcards"},
            "reason": {"type": "string", "minLength": 10},
            "expires": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "last day, ISO 8601"},
        },
        "required": ["urn", "reason", "expires"],
        "additionalProperties": False,
    },
}

STACKS_SCHEMA: Mapping[str, Any] = {
    "type": "array",
    "description": "Stacks for which the rule holds, * and ? as wildcards.",
    "items": {"type": "string", "minLength": 1},
}


def rule_schema(rule: Rule) -> dict[str, dict[str, Any]]:
    """JSON schema of the properties that can be configured for ``rule``, beside ``enforcementLevel``."""
    return {
        "waivers": dict(WAIVERS_SCHEMA),
        "stacks": {**STACKS_SCHEMA, "default": list(rule.stacks)},
        **{name: dict(schema) for name, schema in rule.parameters.items()},
    }


def pack_schema(rules: Iterable[Rule]) -> dict[str, Any]:
    """JSON schema of a whole configuration file."""
    level = {"enum": [str(item) for item in Level]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the estate's policy pack",
        "type": "object",
        "properties": {
            "all": level,
            **{
                rule.id: {
                    "anyOf": [
                        level,
                        {
                            "type": "object",
                            "properties": {"enforcementLevel": level, **rule_schema(rule)},
                            "additionalProperties": False,
                        },
                    ]
                }
                for rule in rules
            },
        },
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class Waiver:
    """A rule set aside for some resources until a day."""

    urn: str
    reason: str
    expires: dt.date

    def covers(self, urn: str) -> bool:
        """Whether the waiver's pattern matches ``urn``."""
        return fnmatchcase(urn, self.urn)


@dataclass(frozen=True)
class RuleSettings:
    """How one rule is applied."""

    level: Level
    stacks: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()

    def holds_for(self, stack: str) -> bool:
        """Whether the rule is meant for ``stack``."""
        return any(fnmatchcase(stack, pattern) for pattern in self.stacks)


def settings_of(rule: Rule, given: object = None, *, default_level: Level | None = None) -> RuleSettings:
    """The settings of ``rule`` from its part of the configuration: a level, an object, or None for the defaults.

    Raises:
        SettingsError: a key or value is not what ``rule_schema`` says.
    """
    level = default_level or rule.level
    if given is None:
        given = {}
    if isinstance(given, str):
        given = {"enforcementLevel": given}
    if not isinstance(given, Mapping):
        raise SettingsError(f"{rule.id}: expected a level or an object")
    unknown = set(given) - {"enforcementLevel", "waivers", "stacks", *rule.parameters}
    if unknown:
        raise SettingsError(f"{rule.id}: unknown key {min(unknown)!r}")
    if "enforcementLevel" in given:
        level = _level(rule.id, given["enforcementLevel"])
    parameters = rule.defaults
    for name, schema in rule.parameters.items():
        if name in given:
            parameters[name] = _parameter(f"{rule.id}.{name}", schema, given[name])
    stacks = _parameter(f"{rule.id}.stacks", STACKS_SCHEMA, given.get("stacks", list(rule.stacks)))
    waivers = _parameter(f"{rule.id}.waivers", WAIVERS_SCHEMA, given.get("waivers", []))
    return RuleSettings(level, tuple(stacks), parameters, tuple(_waiver(rule.id, waiver) for waiver in waivers))


def settings_of_all(rules: Iterable[Rule], given: Mapping[str, object]) -> dict[str, RuleSettings]:
    """The settings of every rule by id, from a whole configuration.

    Raises:
        SettingsError: as ``settings_of``, or a key is no rule.
    """
    known = {rule.id: rule for rule in rules}
    unknown = set(given) - set(known) - {"all"}
    if unknown:
        raise SettingsError(f"{min(unknown)!r} is no rule of this pack")
    default_level = _level("all", given["all"]) if "all" in given else None
    return {rule.id: settings_of(rule, given.get(rule.id), default_level=default_level) for rule in known.values()}


def read_settings(path: Path, rules: Iterable[Rule]) -> dict[str, RuleSettings]:
    """The settings of every rule from a JSON file.

    Raises:
        SettingsError: the file cannot be read, is not JSON, or is not what ``pack_schema`` says.
    """
    return settings_of_all(rules, _read_object(path))


def _read_object(path: Path) -> dict[str, object]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: {error}") from None
    if not isinstance(given, dict):
        raise SettingsError(f"{path}: expected an object of rule ids")
    return given


def own_configuration() -> dict[str, object]:
    """What the pack's own ``config.json`` says; the configuration of a stack goes before it, key by key.

    Raises:
        SettingsError: the file cannot be read, or is no JSON object.
    """
    return _read_object(Path(__file__).with_name("config.json"))


def own_settings(rules: Iterable[Rule]) -> dict[str, RuleSettings]:
    """The settings of every rule by the pack's own configuration.

    Raises:
        SettingsError: as ``settings_of_all``.
    """
    return settings_of_all(rules, own_configuration())


def _level(where: str, value: object) -> Level:
    try:
        return Level(str(value))
    except ValueError:
        raise SettingsError(f"{where}: level {value!r} is none of {', '.join(Level)}") from None


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "array": list,
    "object": dict,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": (int, float),
}


def _parameter(where: str, schema: Mapping[str, Any], value: Value) -> Value:
    """``value`` where its type, and its items' type, are those of ``schema``."""
    kind = schema["type"]
    wrong = not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")
    if wrong:
        raise SettingsError(f"{where}: expected {kind}")
    if isinstance(value, list):
        for i, item in enumerate(value):
            _parameter(f"{where}[{i}]", schema["items"], item)
    return value


def _waiver(rule_id: str, given: Mapping[str, object]) -> Waiver:
    wrong = set(given) ^ {"urn", "reason", "expires"}
    if wrong:
        raise SettingsError(
            f"{rule_id}.waivers: each has exactly urn, reason and expires; see {min(map(str, wrong))!r}"
        )
    if len(str(given["reason"])) < 10:
        raise SettingsError(f"{rule_id}.waivers: the reason is too short to be one")
    try:
        expires = dt.date.fromisoformat(str(given["expires"]))
    except ValueError:
        raise SettingsError(f"{rule_id}.waivers: expires {given['expires']!r} is no ISO date") from None
    return Waiver(str(given["urn"]), str(given["reason"]), expires)
