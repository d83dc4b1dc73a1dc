"""CrossGuard's analyzer over the pack's rules.

``pulumi_policy`` brings the metadata, the configuration and the protocol. Its servicer decodes every message once per
policy: 14 s for the whole estate, with policies that do nothing (``benchmarks/policy.py``). This
one decodes a message once for all rules.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass

import grpc
from pulumi.runtime import proto
from pulumi.runtime.proto import analyzer_pb2_grpc
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyComplianceFramework,
    PolicyConfigSchema,
    ResourceValidationPolicy,
    StackValidationPolicy,
)
from pulumi_policy import Severity as PackSeverity
from pulumi_policy.policy import _PolicyAnalyzerServicer

from policy.model import Estate, Resource, Value
from policy.report import REPORT_POLICY, counts_json, counts_text
from policy.rule import Level, Outcome, Rule
from policy.settings import RuleSettings, SettingsError, own_configuration, own_settings, rule_schema, settings_of
from policy.verdict import ANY_TYPE, Judge, Report, Tally, Verdict, subjects
from policy.wire import Message, resource_of, struct_value

PACK = "grandmodel"
VERSION = "1.0.0"
_MAX_MESSAGE_BYTES = 400 * 1024 * 1024  # the engine's own limit
_REPORT_SCHEMA = {
    "format": {
        "type": "string",
        "enum": ["text", "json"],
        "default": "text",
        "description": "json: the counts as one JSON line, for programs",
    }
}


def _unused(*_: object) -> None:
    """Stands for a policy's own validation: ``EstateAnalyzer`` judges."""


def policy_of(rule: Rule) -> Policy:
    """What the engine and Pulumi Cloud are told of ``rule``."""
    kind = ResourceValidationPolicy if rule.scope == "resource" else StackValidationPolicy
    return kind(
        name=rule.id,
        description=f"{rule.title}. {rule.reason}",
        validate=_unused,
        enforcement_level=EnforcementLevel(rule.level),
        config_schema=PolicyConfigSchema(properties=rule_schema(rule)),
        display_name=rule.title,
        severity=PackSeverity(rule.severity),
        framework=PolicyComplianceFramework(name="; ".join(rule.controls)) if rule.controls else None,
        remediation_steps=rule.remedy,
        url=rule.url,
    )


def report_policy() -> Policy:
    """The policy under whose name the counts are reported."""
    return StackValidationPolicy(
        name=REPORT_POLICY,
        description="How many checks passed, were violated, undecided, waived or not applicable",
        validate=_unused,
        enforcement_level=EnforcementLevel.ADVISORY,
        config_schema=PolicyConfigSchema(properties=_REPORT_SCHEMA),
    )


def initial_config(rules: tuple[Rule, ...]) -> dict[str, dict[str, object]]:
    """The pack's own configuration as the engine merges it with a stack's. A level left out would read as advisory."""
    settings = own_settings(rules)
    return {
        name: {
            **(given if isinstance(given, dict) else {}),
            "enforcementLevel": EnforcementLevel(str(settings[name].level)),
        }
        for name, given in own_configuration().items()
        if name in settings
    }


@dataclass(frozen=True)
class _Seen:
    """What one ``Analyze`` told of a resource, and what was said of it."""

    inputs: Mapping[str, Value]
    verdicts: dict[str, list[Verdict]]


@dataclass(frozen=True)
class _Matching:
    """The rules that look at a type of resource, and what the engine is told of all others."""

    rules: tuple[Rule, ...]
    others: tuple[Message, ...]


class EstateAnalyzer(_PolicyAnalyzerServicer):  # type: ignore[misc] # its package is in the pack's environment only
    """Answers the engine's questions for one preview or update."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        policies = [*map(policy_of, rules), report_policy()]
        super().__init__(
            PACK, VERSION, policies, EnforcementLevel.MANDATORY, initial_config(rules), "The estate's controls"
        )
        self._rules = {rule.id: rule for rule in rules}
        self._judge = Judge.of(rules, own_settings(rules))
        self._format = "text"
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._by_type: dict[str, _Matching] = {}

    def Configure(self, request: Message, context: Message) -> Message:  # noqa: N802 - the protocol's name
        """Take the levels, waivers and parameters of the stack."""
        answer = super().Configure(request, context)
        own = own_configuration()
        settings: dict[str, RuleSettings] = dict(own_settings(self._rules.values()))
        try:
            for name, given in request.policyConfig.items():
                properties = struct_value(given.properties)
                if name == REPORT_POLICY:
                    self._format = str(properties.get("format", "text"))
                elif name in self._rules:
                    level = self._convert_enforcement_level(given.enforcementLevel)
                    mine = own.get(name)
                    merged = {
                        **(mine if isinstance(mine, dict) else {}),
                        **properties,
                        "enforcementLevel": _level(level),
                    }
                    settings[name] = settings_of(self._rules[name], merged)
        except SettingsError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._judge, self._by_type = Judge.of(self._rules.values(), settings), {}
        return answer

    def Analyze(self, request: Message, _context: Message) -> Message:  # noqa: N802 - the protocol's name
        """Judge one resource by its inputs, before it is created or changed."""
        resource = resource_of(request)
        response = proto.AnalyzeResponse()
        verdicts = self._judge_alone(resource)
        with self._lock:
            self._seen[resource.urn] = _Seen(resource.properties, verdicts)
        response.not_applicable.extend(self._matching(resource.type).others)
        for rule_id, found in verdicts.items():
            if all(verdict.outcome is Outcome.NOT_APPLICABLE for verdict in found):
                response.not_applicable.append(proto.PolicyNotApplicable(policy_name=rule_id, reason=found[0].what))
            response.diagnostics.extend(_diagnostic(verdict) for verdict in found if _is_told(verdict))
        return response

    def AnalyzeStack(self, request: Message, _context: Message) -> Message:  # noqa: N802 - the protocol's name
        """Judge all resources together by their outputs; report these counts and those of every ``Analyze`` before."""
        with self._lock:
            seen, self._seen = self._seen, {}
        estate = Estate(
            tuple(
                resource_of(
                    message,
                    parent=message.parent or None,
                    dependencies=message.dependencies,
                    property_dependencies=message.propertyDependencies,
                    inputs=seen[message.urn].inputs if message.urn in seen else None,
                )
                for message in request.resources
            )
        )
        # A resource that the engine did not ask about on its own (nothing changed, or an older engine) is judged here.
        unasked = {r.urn: self._judge_alone(r) for r in estate.resources if r.urn not in seen}
        response = proto.AnalyzeResponse()
        tally = Tally()
        told: list[Verdict] = [
            verdict for verdicts in unasked.values() for found in verdicts.values() for verdict in found
        ]
        by_rule: dict[str, list[list[Verdict]]] = defaultdict(list)
        for verdicts in (*(one.verdicts for one in seen.values()), *unasked.values()):
            for rule_id, found in verdicts.items():
                by_rule[rule_id].append(found)
        for rule in self._enabled():
            tally.start(rule)
            if rule.scope == "stack":
                answers = [self._judge.verdicts_on(rule, resource, estate) for resource in subjects(rule, estate)]
                told.extend(verdict for found in answers for verdict in found)
                by_rule[rule.id] = answers
                if all(v.outcome is Outcome.NOT_APPLICABLE for found in answers for v in found):
                    response.not_applicable.append(proto.PolicyNotApplicable(policy_name=rule.id, reason=""))
            for found in by_rule[rule.id]:
                tally.add(rule, found)
        for verdict in self._judge.expired_waivers():
            tally.add(verdict.rule, [verdict])
            told.append(verdict)
        response.diagnostics.extend(_diagnostic(verdict) for verdict in told if _is_told(verdict))
        self._tell_counts(tally.report(len(estate.resources)), response)
        return response

    def _enabled(self) -> list[Rule]:
        return [rule for rule in self._judge.rules if self._judge.settings[rule.id].level is not Level.DISABLED]

    def _judge_alone(self, resource: Resource) -> dict[str, list[Verdict]]:
        estate = Estate((resource,))
        rules = self._matching(resource.type).rules
        return {rule.id: self._judge.verdicts_on(rule, resource, estate) for rule in rules}

    def _matching(self, token: str) -> _Matching:
        """The enabled rules of one resource that look at a type; worked out once for each type."""
        if token not in self._by_type:
            enabled = [rule for rule in self._enabled() if rule.scope == "resource"]
            rules = tuple(rule for rule in enabled if token in rule.types or ANY_TYPE in rule.types)
            others = tuple(proto.PolicyNotApplicable(policy_name=rule.id) for rule in enabled if rule not in rules)
            self._by_type[token] = _Matching(rules, others)
        return self._by_type[token]

    def _tell_counts(self, report: Report, response: Message) -> None:
        """As text to standard output, which the engine shows as information; as JSON in a diagnostic, for programs."""
        if self._format == "text":
            sys.stdout.write(f"{PACK}: {counts_text(report)}\n")
            sys.stdout.flush()
            return
        response.diagnostics.append(
            proto.AnalyzeDiagnostic(
                policyName=REPORT_POLICY,
                policyPackName=PACK,
                policyPackVersion=VERSION,
                description="The pack's counts",
                message=json.dumps(counts_json(report), separators=(",", ":")),
                enforcementLevel=proto.ADVISORY,
            )
        )


def _level(level: EnforcementLevel) -> str:
    return "mandatory" if level is EnforcementLevel.REMEDIATE else str(level.value)


def _is_told(verdict: Verdict) -> bool:
    return verdict.outcome in (Outcome.VIOLATED, Outcome.UNDECIDED)


def _diagnostic(verdict: Verdict) -> Message:
    """An undecided verdict never blocks, but says in pulumi-policy's own words that the rule could not look."""
    violated = verdict.outcome is Outcome.VIOLATED
    mandatory = violated and verdict.level is Level.MANDATORY
    rule = verdict.rule
    message = (
        f"{rule.title}: {verdict.what}. Why: {rule.reason} Mend: {rule.remedy} See {rule.url}"
        if violated
        else f"can't run policy '{rule.id}' from policy pack '{PACK}@v{VERSION}' during preview: {verdict.what}"
    )
    return proto.AnalyzeDiagnostic(
        policyName=rule.id,
        policyPackName=PACK,
        policyPackVersion=VERSION,
        description=rule.title,
        message=message,
        urn=verdict.urn,
        enforcementLevel=proto.MANDATORY if mandatory else proto.ADVISORY,
        severity=proto.PolicySeverity.Value(f"POLICY_SEVERITY_{rule.severity.upper()}"),
    )


def serve(rules: tuple[Rule, ...]) -> None:
    """Serve the analyzer on a free loopback port and print the port, as the engine expects, until stopped."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
    )
    analyzer_pb2_grpc.add_AnalyzerServicer_to_server(EstateAnalyzer(rules), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=None)
