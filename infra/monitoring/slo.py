"""The availability objective, and alerts on how fast its error budget burns.

Google SRE workbook, chapter 5 "Alerting on SLOs", section 6 (multiwindow, multi-burn-rate): an alert needs the budget
to burn over a long window, which makes it matter, and over a short one, which ends it soon after the trouble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.contract import METRIC_HTTP_REQUESTS, SERVICES
from infra.monitoring.alert import Alert, Severity

OBJECTIVE: Final = 0.999
"""Share of requests that are answered without a server error, over 30 days."""
ERROR_BUDGET: Final = round(1 - OBJECTIVE, 6)


@dataclass(frozen=True)
class BurnRate:
    """``rate`` times the pace that would use up the budget in exactly 30 days."""

    long_window: str
    short_window: str
    rate: float
    severity: Severity
    budget_percent: int
    """Share of the budget that is gone when the alert fires."""


BURN_RATES: Final[Sequence[BurnRate]] = (
    BurnRate("1h", "5m", 14.4, Severity.PAGE, 2),
    BurnRate("6h", "30m", 6, Severity.PAGE, 5),
    BurnRate("1d", "2h", 3, Severity.TICKET, 10),
    BurnRate("3d", "6h", 1, Severity.TICKET, 10),
)


def error_ratio(window: str) -> str:
    """Name of the recorded share of requests that failed over ``window``, by job."""
    return f"job:http_errors:ratio_rate{window}"


def recording_rules() -> list[dict[str, Any]]:
    """One rule a window. No traffic gives no ratio, hence no alert: silence is ``ServiceDown``'s to judge."""
    windows = sorted({w for burn in BURN_RATES for w in (burn.long_window, burn.short_window)})
    jobs = "|".join(contract.service for contract in SERVICES)
    total = f'{METRIC_HTTP_REQUESTS}{{job=~"{jobs}",route=~"/api/.*"'
    return [
        {
            "record": error_ratio(window),
            "expr": f'(sum by (job) (rate({total},status=~"5.."}}[{window}])) or 0 * sum by (job) '
            f"(rate({total}}}[{window}]))) / sum by (job) (rate({total}}}[{window}]))",
        }
        for window in windows
    ]


def burn_rate_alerts() -> list[Alert]:
    """An alert for each of :data:`BURN_RATES`."""
    return [
        Alert(
            name=f"ErrorBudgetBurn{burn.long_window}",
            expression=(
                f"{error_ratio(burn.long_window)} > {burn.rate * ERROR_BUDGET:.6g} "
                f"and {error_ratio(burn.short_window)} > {burn.rate * ERROR_BUDGET:.6g}"
            ),
            hold="2m" if burn.severity is Severity.PAGE else "15m",
            severity=burn.severity,
            summary=f"{{{{ $labels.job }}}} has burnt {burn.budget_percent} % of its monthly error budget "
            f"in {burn.long_window}",
            runbook="error-budget-burn",
        )
        for burn in BURN_RATES
    ]
