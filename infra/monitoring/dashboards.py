"""The Grafana dashboards, as the files that it is provisioned with."""

from __future__ import annotations

from collections.abc import Mapping


def dashboards() -> Mapping[str, str]:
    """Dashboard JSON by file name."""
    return {}
