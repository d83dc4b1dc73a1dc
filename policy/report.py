"""Verdicts for people and programs: text and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from policy.rule import Level, Outcome
from policy.verdict import SEVERITIES, Report, Verdict

REPORT_POLICY = "estate-report"
SCHEMA_VERSION = 1


def counts_json(report: Report) -> dict[str, Any]:
    """The counts of every rule: what the policy ``estate-report`` says in its JSON format."""
    return {
        "schema_version": SCHEMA_VERSION,
        "resources": report.resources,
        "totals": {str(outcome): count for outcome, count in report.totals.items()},
        "rules": {rule: {str(o): count[o] for o in Outcome if o in count} for rule, count in report.counts.items()},
    }


def counts_text(report: Report) -> str:
    """The counts in a few lines, and the rules that could not look yet."""
    totals = report.totals
    lines = [
        f"{len(report.counts)} rules over {report.resources} resources: "
        + ", ".join(f"{totals[outcome]} {outcome.replace('_', ' ')}" for outcome in Outcome)
    ]
    undecided = {
        rule: count[Outcome.UNDECIDED] for rule, count in report.counts.items() if count.get(Outcome.UNDECIDED)
    }
    if undecided:
        listed = ", ".join(f"{rule} ({count})" for rule, count in sorted(undecided.items()))
        lines.append(f"decided only by the update, when the values are known: {listed}")
    return "\n".join(lines)


def to_text(report: Report) -> str:
    """Violations by severity with what, why and how to mend; then the undecided and the waived; then the counts."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    violated = report.of(Outcome.VIOLATED)
    for severity in SEVERITIES:
        group = [verdict for verdict in violated if verdict.rule.severity is severity]
        if group:
            yield f"{severity.upper()} ({len(group)})"
            for verdict in group:
                yield from _told(verdict)
            yield ""
    for outcome, heading in ((Outcome.UNDECIDED, "UNDECIDED"), (Outcome.WAIVED, "WAIVED")):
        group = report.of(outcome)
        if group:
            yield f"{heading} ({len(group)})"
            for verdict in group:
                yield f"  {verdict.rule.id}  {verdict.urn}"
                yield f"    {verdict.what}"
            yield ""
    yield counts_text(report)


def _told(verdict: Verdict) -> Iterator[str]:
    mark = "" if verdict.level is Level.MANDATORY else f" [{verdict.level}]"
    yield f"  {verdict.rule.id}{mark}  {verdict.urn}"
    yield f"    what  {verdict.rule.title}: {verdict.what}"
    yield f"    why   {verdict.rule.reason}"
    yield f"    mend  {verdict.rule.remedy}"
    yield f"    see   {verdict.rule.url}"


def to_json(report: Report) -> dict[str, Any]:
    """The whole report: the counts, and every verdict that is not passed or not applicable."""
    return {
        **counts_json(report),
        "verdicts": [
            {
                "rule": verdict.rule.id,
                "outcome": str(verdict.outcome),
                "urn": verdict.urn,
                "severity": str(verdict.rule.severity),
                "level": str(verdict.level),
                "what": verdict.what,
                "title": verdict.rule.title,
                "reason": verdict.rule.reason,
                "remedy": verdict.rule.remedy,
                "url": verdict.rule.url,
                "controls": list(verdict.rule.controls),
            }
            for outcome in (Outcome.VIOLATED, Outcome.UNDECIDED, Outcome.WAIVED)
            for verdict in report.of(outcome)
        ],
    }
