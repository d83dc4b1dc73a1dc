"""Judging: every rule on every resource it looks at, every answer counted."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policy.model import Estate, NotKnown, Resource
from policy.rule import Case, Level, NotApplicable, Outcome, Rule, Severity, Undecided, Violation
from policy.settings import RuleSettings, settings_of

ANY_TYPE = "*"
_WORST_FIRST = (Outcome.VIOLATED, Outcome.UNDECIDED, Outcome.WAIVED, Outcome.NOT_APPLICABLE, Outcome.PASSED)
SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of one resource."""

    rule: Rule
    urn: str
    outcome: Outcome
    what: str = ""
    level: Level = Level.MANDATORY


@dataclass(frozen=True)
class Report:
    """All verdicts but the passed ones, and the count of every outcome per rule."""

    verdicts: tuple[Verdict, ...]
    counts: Mapping[str, Mapping[Outcome, int]]
    resources: int

    def of(self, outcome: Outcome) -> list[Verdict]:
        """The verdicts of one outcome, the gravest first."""
        found = [verdict for verdict in self.verdicts if verdict.outcome is outcome]
        return sorted(found, key=lambda v: (SEVERITIES.index(v.rule.severity), v.rule.id, v.urn))

    @property
    def totals(self) -> dict[Outcome, int]:
        """How often each outcome occurred over all rules."""
        return {outcome: sum(count.get(outcome, 0) for count in self.counts.values()) for outcome in Outcome}

    @property
    def blocks(self) -> bool:
        """Whether a mandatory rule is violated."""
        return any(v.outcome is Outcome.VIOLATED and v.level is Level.MANDATORY for v in self.verdicts)


@dataclass(frozen=True)
class Judge:
    """The rules with their settings, on a given day."""

    rules: tuple[Rule, ...]
    settings: Mapping[str, RuleSettings]
    today: dt.date

    @classmethod
    def of(
        cls, rules: Iterable[Rule], settings: Mapping[str, RuleSettings] | None = None, today: dt.date | None = None
    ) -> Judge:
        """A judge of ``rules``; what ``settings`` leaves out has its defaults."""
        chosen = tuple(rules)
        given = settings or {}
        return cls(
            chosen,
            {rule.id: given.get(rule.id) or settings_of(rule) for rule in chosen},
            today or dt.datetime.now(tz=dt.UTC).date(),
        )

    def verdicts_on(self, rule: Rule, resource: Resource, estate: Estate) -> list[Verdict]:
        """What ``rule`` says of ``resource``: at least one verdict."""
        settings = self.settings[rule.id]
        if not settings.holds_for(resource.stack):
            return [
                Verdict(
                    rule, resource.urn, Outcome.NOT_APPLICABLE, f"not meant for stack {resource.stack}", settings.level
                )
            ]
        found = list(self._findings(rule, Case(resource, estate, settings.parameters), settings))
        decisive = [v for v in found if v.outcome is not Outcome.NOT_APPLICABLE] or found
        return decisive or [Verdict(rule, resource.urn, Outcome.PASSED, level=settings.level)]

    def _findings(self, rule: Rule, case: Case, settings: RuleSettings) -> Iterator[Verdict]:
        urn = case.resource.urn
        try:
            for finding in rule.check(case):
                match finding:
                    case Violation(what, blamed):
                        yield self._violated(rule, blamed or urn, what, settings)
                    case Undecided(what):
                        yield Verdict(rule, urn, Outcome.UNDECIDED, what, settings.level)
                    case NotApplicable(why):
                        yield Verdict(rule, urn, Outcome.NOT_APPLICABLE, why, settings.level)
        except NotKnown as unknown:
            yield Verdict(rule, urn, Outcome.UNDECIDED, str(unknown), settings.level)
        # A defect of one rule must neither hide the others nor count as passed.
        except Exception as error:  # noqa: BLE001
            yield Verdict(
                rule, urn, Outcome.UNDECIDED, f"the rule itself failed: {type(error).__name__}", settings.level
            )

    def _violated(self, rule: Rule, urn: str, what: str, settings: RuleSettings) -> Verdict:
        for waiver in settings.waivers:
            if waiver.covers(urn) and waiver.expires >= self.today:
                return Verdict(
                    rule, urn, Outcome.WAIVED, f"{what}; waived until {waiver.expires}: {waiver.reason}", settings.level
                )
        return Verdict(rule, urn, Outcome.VIOLATED, what, settings.level)

    def expired_waivers(self) -> Iterator[Verdict]:
        """A violation for every waiver whose last day is over, whether or not it still covers anything."""
        for rule in self.rules:
            settings = self.settings[rule.id]
            for waiver in settings.waivers:
                if waiver.expires < self.today and settings.level is not Level.DISABLED:
                    what = f"its waiver expired on {waiver.expires} ({waiver.reason}): mend it, or renew the waiver"
                    yield Verdict(rule, waiver.urn, Outcome.VIOLATED, what, settings.level)

    def judge(self, estate: Estate, progress: Callable[[int, int], None] | None = None) -> Report:
        """Every enabled rule on every resource of ``estate``; ``progress`` hears rules done and rules to do."""
        tally = Tally()
        enabled = [rule for rule in self.rules if self.settings[rule.id].level is not Level.DISABLED]
        for done, rule in enumerate(enabled):
            if progress is not None:
                progress(done, len(enabled))
            tally.start(rule)
            for resource in subjects(rule, estate):
                tally.add(rule, self.verdicts_on(rule, resource, estate))
        for verdict in self.expired_waivers():
            tally.add(verdict.rule, [verdict])
        return tally.report(len(estate.resources))


def subjects(rule: Rule, estate: Estate) -> Sequence[Resource]:
    """The resources of ``estate`` that ``rule`` looks at."""
    return estate.resources if ANY_TYPE in rule.types else estate.of(*rule.types)


class Tally:
    """Counts verdicts as they come: one outcome, the worst, for each rule on each resource."""

    def __init__(self) -> None:
        self._verdicts: list[Verdict] = []
        self._counts: dict[str, Counter[Outcome]] = {}

    def start(self, rule: Rule) -> None:
        """Name ``rule`` in the report even where it finds nothing to look at."""
        self._counts.setdefault(rule.id, Counter())

    def add(self, rule: Rule, verdicts: Sequence[Verdict]) -> None:
        """Take what ``rule`` said of one resource."""
        outcomes = {verdict.outcome for verdict in verdicts}
        worst = next(outcome for outcome in _WORST_FIRST if outcome in outcomes)
        self._counts.setdefault(rule.id, Counter())[worst] += 1
        self._verdicts.extend(verdict for verdict in verdicts if verdict.outcome is not Outcome.PASSED)

    def report(self, resources: int) -> Report:
        """The report so far. A rule that found nothing to look at counts as not applicable once."""
        counts = {rule: dict(count) or {Outcome.NOT_APPLICABLE: 1} for rule, count in self._counts.items()}
        return Report(tuple(self._verdicts), counts, resources)
