"""Every rule holds on the real estate, fires on a change of it, and says when it cannot look."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policy.catalog import RULES
from policy.judge import judge
from policy.model import Estate
from policy.proofs import PROOFS
from policy.rule import Outcome
from policy.settings import own_settings
from policy.verdict import Judge, Report

RULE_IDS = [rule.id for rule in RULES]
BY_ID = {rule.id: rule for rule in RULES}


def violations(report: Report) -> set[tuple[str, str]]:
    return {(verdict.rule.id, verdict.urn) for verdict in report.of(Outcome.VIOLATED)}


def test_every_rule_is_proven() -> None:
    """A rule without a mutation that fires it, or without one that makes it undecided, is not accepted."""
    unproven = [rule for rule in RULE_IDS if not PROOFS.get(rule) or not PROOFS[rule].fires]
    blind = [rule for rule in RULE_IDS if rule in PROOFS and not (PROOFS[rule].unknown or PROOFS[rule].always_known)]
    assert unproven == []
    assert blind == []
    assert set(PROOFS) == set(RULE_IDS)


def test_rule_ids_are_unique_and_speak_of_one_thing() -> None:
    assert len(set(RULE_IDS)) == len(RULE_IDS)
    assert all(rule.title and rule.reason.endswith(".") and rule.remedy.endswith(".") for rule in RULES)


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_the_real_estate_violates_nothing(stack: str, estate_of_stack: Callable[..., Estate]) -> None:
    """With every output resolved, each rule passes, is waived with a reason, or does not apply: none is left open."""
    report = judge(estate_of_stack(stack, resolved=True))
    assert violations(report) == set()
    assert report.of(Outcome.UNDECIDED) == []


@pytest.mark.parametrize("stack", ["staging", "production"])
def test_a_first_preview_accuses_nobody(stack: str, estate_of_stack: Callable[..., Estate]) -> None:
    """What is unknown is told as undecided; nothing is violated only because it is not known yet."""
    report = judge(estate_of_stack(stack, resolved=False))
    assert violations(report) == set()
    assert all("the rule itself failed" not in verdict.what for verdict in report.of(Outcome.UNDECIDED))


@pytest.mark.parametrize("rule_id", RULE_IDS)
def test_a_change_of_the_real_estate_fires_exactly_this_rule(rule_id: str, production: Estate) -> None:
    proof = PROOFS[rule_id]
    for mutation in proof.fires:
        mutated, urn = mutation(production)
        found = violations(judge(mutated))
        assert (rule_id, urn) in found
        assert {rule for rule, _ in found} <= {rule_id} | proof.also


@pytest.mark.parametrize("rule_id", [rule for rule in RULE_IDS if PROOFS[rule].unknown])
def test_an_unknown_value_is_not_waved_through(rule_id: str, production: Estate) -> None:
    rule, own = BY_ID[rule_id], own_settings(RULES)
    for mutation in PROOFS[rule_id].unknown:
        mutated, urn = mutation(production)
        verdicts = Judge.of(RULES, own).verdicts_on(rule, mutated.by_urn[urn], mutated)
        assert {verdict.outcome for verdict in verdicts} == {Outcome.UNDECIDED}
        assert all(verdict.what for verdict in verdicts)
