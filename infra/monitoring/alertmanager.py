"""``alertmanager.yml``: every alert to the topic that people are subscribed to, pages sooner and more often."""

from __future__ import annotations

from typing import Any, Final

from infra.monitoring.alert import Severity

_RECEIVER: Final = "topic"
_SUBJECT: Final = "[{{ .Status }}] {{ .CommonLabels.severity }}: {{ .GroupLabels.alertname }}"
_MESSAGE: Final = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n"
    "Since {{ .StartsAt }}. Runbook: {{ .Annotations.runbook_url }}\n\n{{ end }}"
)


def configuration(topic_arn: Any, region: str) -> dict[str, Any]:  # noqa: ANN401 -- text, or an output of it
    """Routes and receivers; ``topic_arn`` may be an output, which the caller resolves."""
    return {
        "route": {
            "receiver": _RECEIVER,
            "group_by": ["alertname", "job"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [
                {
                    "receiver": _RECEIVER,
                    "matchers": [f'severity="{Severity.PAGE}"'],
                    "group_wait": "10s",
                    "repeat_interval": "1h",
                }
            ],
        },
        "inhibit_rules": [
            # A service that is not there answers nothing else either.
            {
                "source_matchers": ['alertname=~".+Absent|ServiceDown"'],
                "target_matchers": [f'severity="{Severity.TICKET}"'],
                "equal": ["job"],
            },
        ],
        "receivers": [
            {
                "name": _RECEIVER,
                "sns_configs": [
                    {
                        "topic_arn": topic_arn,
                        "sigv4": {"region": region},
                        "subject": _SUBJECT,
                        "message": _MESSAGE,
                        "send_resolved": True,
                    }
                ],
            }
        ],
    }
