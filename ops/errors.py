"""What stops a command."""

from __future__ import annotations


class OpsError(Exception):
    """Wrong use, or a system that cannot be reached; one line for a person, exit code 2, nothing was changed."""
