"""What a new image changes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infra.preview.changes import compare
from infra.preview.model import Capture

Vary = Callable[[str, Mapping[str, Any]], Capture]


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def test_another_image_rolls_its_deployment_and_nothing_that_serves_or_stores(vary: Vary) -> None:
    before = vary("staging", {"grandmodel:tacticalImageDigest": digest("a")})
    after = vary("staging", {"grandmodel:tacticalImageDigest": digest("b")})
    changes = compare(before, after)
    assert changes.losses == changes.of("removed") == changes.of("added") == ()
    # The Deployment is updated in place. Its migration is a Job, which cannot change: a new one runs first.
    assert {c.resource.type.rpartition(":")[2] for c in changes.of("changed")} == {"Deployment"}
    assert {c.resource.type.rpartition(":")[2] for c in changes.of("replaced")} <= {"Job"}
    assert {c.resource.name for c in changes.changes} == {"tactical", "tactical-migration"}
    paths = {p.path for c in changes.of("changed") for p in c.properties}
    assert paths == {"spec.template.spec.containers[0].image"}


def test_a_rollback_builds_nothing(vary: Vary) -> None:
    pinned = vary("staging", {"grandmodel:tacticalImageDigest": digest("a")})
    assert "images-tactical" not in {r.name for r in pinned.custom}
    assert "images-strategic" in {r.name for r in pinned.custom}
