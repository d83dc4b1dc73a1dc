"""What an alert is here: an expression, how long it must hold, how urgent it is, and the page that tells what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

RUNBOOK_PATH: Final = "docs/runbooks"


class Severity(StrEnum):
    """Whether somebody is woken, or finds it in the morning."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True)
class Alert:
    """One alerting rule. ``runbook`` is the slug of ``docs/runbooks/<runbook>.md``; ``hold`` a Prometheus duration."""

    name: str
    expression: str
    hold: str
    severity: Severity
    summary: str
    runbook: str

    def rule(self, repository_url: str) -> dict[str, Any]:
        """Prometheus' form; ``repository_url`` is where the runbooks are read."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.hold,
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "runbook_url": f"{repository_url}/blob/main/{RUNBOOK_PATH}/{self.runbook}.md",
            },
        }
