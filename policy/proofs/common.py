"""What several proofs add to the estate."""

from __future__ import annotations

from typing import Final

TAGS: Final = {
    "project": "grandmodel",
    "stack": "production",
    "owner": "nobody",
    "cost-centre": "none",
    "data-class": "public",
}
"""The tags that every resource has to carry."""
