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


def changed_by(vary: Vary, key: str) -> dict[str, set[str]]:
    """Names of what another digest changes, by what happens to it."""
    before, after = (vary("production", {f"grandmodel:{key}": digest(letter)}) for letter in "ab")
    changes = compare(before, after)
    assert changes.losses == ()
    found: dict[str, set[str]] = {}
    for change in changes.changes:
        found.setdefault(change.kind, set()).add(change.resource.name)
    return found


def test_another_gateway_rolls_its_deployment_alone(vary: Vary) -> None:
    assert changed_by(vary, "gatewayImageDigest") == {"changed": {"gateway"}}


def test_another_strategic_image_rolls_its_deployment_and_the_jobs_of_the_databases(vary: Vary) -> None:
    """One image knows the operations of both databases, so its scheduled jobs follow it; they run at night."""
    found = changed_by(vary, "strategicImageDigest")
    jobs = {name for name in found["changed"] if "-maintenance-" in name}
    assert len(jobs) == 8
    assert found == {"changed": {"strategic", *jobs}, "replaced": {"strategic-migration"}}


def test_a_rollback_builds_nothing(vary: Vary) -> None:
    pinned = vary("staging", {"grandmodel:tacticalImageDigest": digest("a")})
    assert "images-tactical" not in {r.name for r in pinned.custom}
    assert "images-strategic" in {r.name for r in pinned.custom}
