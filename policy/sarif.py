"""Verdicts as SARIF 2.1.0 (OASIS), which code scanning and editors read."""

from __future__ import annotations

from typing import Any, Final

from policy.rule import Level, Outcome, Rule
from policy.verdict import Report, Verdict

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# GitHub sorts by this number: critical from 9.0, high from 7.0, medium from 4.0.
_SECURITY_SEVERITY: Final = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
_KINDS: Final = {Outcome.VIOLATED: "fail", Outcome.UNDECIDED: "review", Outcome.WAIVED: "fail"}


def to_sarif(report: Report, source: str) -> dict[str, Any]:
    """One run over the estate that was read from ``source``, a path or the name of a stack."""
    shown = [verdict for outcome in _KINDS for verdict in report.of(outcome)]
    rules = {verdict.rule.id: verdict.rule for verdict in shown}
    index = {rule_id: i for i, rule_id in enumerate(rules)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "grandmodel policy pack",
                        "semanticVersion": "1.0.0",
                        "rules": [_rule(rule) for rule in rules.values()],
                    }
                },
                "results": [_result(verdict, index[verdict.rule.id], source) for verdict in shown],
                "properties": {"counts": {str(outcome): count for outcome, count in report.totals.items()}},
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": f"{rule.remedy} See {rule.url}"},
        "properties": {
            "security-severity": _SECURITY_SEVERITY[rule.severity],
            "tags": ["security", *rule.controls],
        },
    }
    if rule.url.startswith("https://"):
        described["helpUri"] = rule.url
    return described


def _result(verdict: Verdict, rule_index: int, source: str) -> dict[str, Any]:
    kind = _KINDS[verdict.outcome]
    level = "error" if verdict.level is Level.MANDATORY else "warning"
    result: dict[str, Any] = {
        "ruleId": verdict.rule.id,
        "ruleIndex": rule_index,
        "kind": kind,
        "level": level if kind == "fail" else "none",
        "message": {"text": f"{verdict.rule.title}: {verdict.what}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": source}},
                "logicalLocations": [{"fullyQualifiedName": verdict.urn, "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"ruleAndResource/v1": f"{verdict.rule.id}:{verdict.urn}"},
    }
    if verdict.outcome is Outcome.WAIVED:
        result["suppressions"] = [{"kind": "external", "justification": verdict.what}]
    return result
