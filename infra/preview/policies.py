"""Judge a captured estate with the real policy pack, through the service that the Pulumi engine calls.

The pack runs in its own process and environment, started before the program so that both warm up together. The engine's
order is kept: what the pack is (GetAnalyzerInfo), its settings (Configure, ConfigureStack), then for each resource its
remediations and its analysis on the declared inputs, and at the end the stack as a whole on its outputs.

A mandatory rule that touches an unknown comes back as an advisory "can't run policy ... during preview". That is
neither a pass nor a
violation: it is counted as undecided, and the resolved mode decides it where it can.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from infra.preview.capture import Run
from infra.preview.errors import WrongInput
from infra.preview.model import STACK_TYPE, Mode
from infra.preview.monitor import Registration
from infra.preview.policy_process import PolicyProcess

Status = Literal["violated", "undecided", "passed", "not applicable"]
STATUSES: Final[tuple[Status, ...]] = ("violated", "undecided", "passed", "not applicable")
"""From the worst."""
_REPORT: Final = "estate-report"
"""The policy in which our own pack tells how often each outcome occurred, which the protocol has no word for."""
_CANNOT_RUN: Final = "can't run policy"
_CALL_SECONDS: Final = 120
_ASKED_AT_ONCE: Final = 16
_MESSAGE_LIMIT: Final = 64 * 2**20


@dataclass(frozen=True)
class Finding:
    """One thing a rule said of one resource (or, with an empty ``urn``, of the stack)."""

    rule: str
    urn: str
    status: Status
    message: str
    mode: Mode


@dataclass(frozen=True)
class Rule:
    """A rule of the pack and its verdict in each mode that was judged."""

    name: str
    level: str
    description: str
    verdicts: Mapping[str, Status]

    @property
    def verdict(self) -> Status:
        """The verdict over all modes: a violation anywhere counts; an unknown counts only where no mode decided it."""
        seen = set(self.verdicts.values())
        if "violated" in seen:
            return "violated"
        decided = [verdict for verdict in seen if verdict != "undecided"]
        return decided[0] if len(decided) == 1 else "passed" if decided else "undecided"


@dataclass(frozen=True)
class Judgement:
    """What the whole pack says of the whole estate.

    ``checks`` counts, for each mode, how often a rule looked at a resource with which outcome, where the pack tells.
    """

    pack: str
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...] = field(default=())
    checks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def violated(self) -> tuple[Rule, ...]:
        """The mandatory rules that are violated: any of them fails the preview."""
        return tuple(rule for rule in self.rules if rule.verdict == "violated" and rule.level == "mandatory")

    @property
    def advisories(self) -> tuple[Rule, ...]:
        """The advisory rules that are violated."""
        return tuple(rule for rule in self.rules if rule.verdict == "violated" and rule.level != "mandatory")

    def counts(self, mode: Mode | None = None) -> dict[Status, int]:
        """How many rules have each verdict, over all modes or in one."""
        verdicts = [rule.verdict if mode is None else rule.verdicts.get(mode) for rule in self.rules]
        return {status: verdicts.count(status) for status in STATUSES}

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "pack": self.pack,
            "counts": self.counts(),
            "checks": {mode: dict(counts) for mode, counts in self.checks.items()},
            "rules": [
                {"name": r.name, "level": r.level, "verdict": r.verdict, "verdicts": dict(r.verdicts)}
                for r in self.rules
            ],
            "findings": [vars(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class Opinion:
    """What the pack says of an estate in one mode: each finding, and each rule's verdict."""

    mode: Mode
    findings: tuple[Finding, ...]
    verdicts: Mapping[str, Status]
    checks: Mapping[str, int]


class PolicyClient:
    """Speaks with a started pack. Runs may be judged one by one, from several threads, as soon as each is there.

    Raises:
        WrongInput: the pack did not start or does not answer.
    """

    def __init__(self, process: PolicyProcess) -> None:
        self._directory = process.directory
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
            ("grpc.max_send_message_length", _MESSAGE_LIMIT),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{process.port()}", options=options)
        self._stub = analyzer_pb2_grpc.AnalyzerStub(self._channel)
        with self._errors():
            self._info = self._stub.GetAnalyzerInfo(empty_pb2.Empty(), timeout=_CALL_SECONDS)
            self._counts_itself = any(policy.name == _REPORT for policy in self._info.policies)
            if self._counts_itself:
                settings = analyzer_pb2.PolicyConfig(enforcementLevel=analyzer_pb2.ADVISORY)
                settings.properties.update({"format": "json"})
                request = analyzer_pb2.ConfigureAnalyzerRequest(policyConfig={_REPORT: settings})
                self._stub.Configure(request, timeout=_CALL_SECONDS)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            details = (error.details() if isinstance(error, grpc.Call) else str(error)) or "no details"
            raise WrongInput(f"policy pack {self._directory} failed: {details.splitlines()[0]}") from None

    def judge(self, run: Run) -> Opinion:
        """What the pack says of one run.

        Raises:
            WrongInput: one of the rules crashed.
        """
        with self._errors():
            return self._judge(run)

    def _judge(self, run: Run) -> Opinion:
        configuration = run.configuration
        self._stub.ConfigureStack(
            analyzer_pb2.AnalyzerStackConfigureRequest(
                stack=configuration.stack,
                project=configuration.project,
                organization="organization",
                dry_run=run.capture.mode == "preview",
                config=dict(configuration.values),
                config_secret_keys=list(configuration.secret_keys),
            ),
            timeout=_CALL_SECONDS,
        )
        registrations = {registration.urn: registration for registration in run.registrations}
        remediates = any(policy.enforcementLevel == analyzer_pb2.REMEDIATE for policy in self._info.policies)
        tally = _Tally(run, self._info)
        asked: deque[tuple[Any, str]] = deque()
        for registration in run.registrations:
            if registration.request.type == STACK_TYPE or registration.read:
                continue
            request = _request(registration, registrations)
            if remediates:
                for remediation in self._stub.Remediate(request, timeout=_CALL_SECONDS).remediations:
                    if remediation.HasField("properties"):
                        request.properties.CopyFrom(remediation.properties)
            # The pack judges one resource while the next one's question is made.
            asked.append((self._stub.Analyze.future(request, timeout=_CALL_SECONDS), registration.urn))
            if len(asked) > _ASKED_AT_ONCE:
                answer, urn = asked.popleft()
                tally.add(answer.result(), urn)
        for answer, urn in asked:
            tally.add(answer.result(), urn)
        stack = analyzer_pb2.AnalyzeStackRequest(
            resources=[_stack_resource(r, registrations) for r in run.registrations if not r.read]
        )
        tally.add(self._stub.AnalyzeStack(stack, timeout=_CALL_SECONDS), "")
        return Opinion(run.capture.mode, tuple(tally.findings), tally.verdicts(), tally.checks)

    def conclude(self, opinions: Sequence[Opinion]) -> Judgement:
        """Bring together what was said of each mode."""
        findings = sorted(
            (f for opinion in opinions for f in opinion.findings), key=lambda f: (f.rule, f.urn, f.mode, f.message)
        )
        rules = tuple(
            Rule(
                name=policy.name,
                level=analyzer_pb2.EnforcementLevel.Name(policy.enforcementLevel).lower(),
                description=policy.description,
                verdicts={opinion.mode: opinion.verdicts[policy.name] for opinion in opinions},
            )
            for policy in sorted(self._info.policies, key=lambda policy: policy.name)
            if policy.name != _REPORT
        )
        checks: dict[str, Mapping[str, int]] = {
            opinion.mode: dict(opinion.checks) for opinion in opinions if opinion.checks
        }
        return Judgement(self._info.name, rules, tuple(findings), checks)


class _Tally:
    """Counts what each rule said in one mode."""

    def __init__(self, run: Run, info: analyzer_pb2.AnalyzerInfo) -> None:
        self._run = run
        self._kinds = {policy.name: policy.policy_type for policy in info.policies}
        self._not_applicable: dict[str, int] = {}
        self._calls = {analyzer_pb2.POLICY_TYPE_RESOURCE: 0, analyzer_pb2.POLICY_TYPE_STACK: 0}
        self.findings: list[Finding] = []
        self.checks: dict[str, int] = {}

    def add(self, response: analyzer_pb2.AnalyzeResponse, urn: str) -> None:
        self._calls[analyzer_pb2.POLICY_TYPE_RESOURCE if urn else analyzer_pb2.POLICY_TYPE_STACK] += 1
        for diagnostic in response.diagnostics:
            if diagnostic.policyName == _REPORT:
                self.checks = json.loads(diagnostic.message)["totals"]
                continue
            undecided = diagnostic.message.startswith(_CANNOT_RUN)
            message = diagnostic.message.removeprefix(diagnostic.description).strip(" :\n") or diagnostic.description
            message = message.rpartition("during preview: ")[2] if undecided else message
            self.findings.append(
                Finding(
                    rule=diagnostic.policyName,
                    urn=diagnostic.urn or urn,
                    status="undecided" if undecided else "violated",
                    message=self._run.redact(message),
                    mode=self._run.capture.mode,
                )
            )
        for absent in response.not_applicable:
            self._not_applicable[absent.policy_name] = self._not_applicable.get(absent.policy_name, 0) + 1

    def verdicts(self) -> dict[str, Status]:
        """The worst each rule said; ``not applicable`` only where it said so of everything it was shown."""
        result: dict[str, Status] = {}
        for name, kind in self._kinds.items():
            said = {finding.status for finding in self.findings if finding.rule == name}
            silent: Status = (
                "not applicable" if 0 < self._calls.get(kind, 0) <= self._not_applicable.get(name, 0) else "passed"
            )
            result[name] = next((status for status in STATUSES if status in said), silent)
        return result


def _options(registration: Registration) -> analyzer_pb2.AnalyzerResourceOptions:
    request = registration.request
    return analyzer_pb2.AnalyzerResourceOptions(
        protect=request.protect,
        ignoreChanges=request.ignoreChanges,
        deleteBeforeReplace=request.deleteBeforeReplace,
        deleteBeforeReplaceDefined=request.deleteBeforeReplaceDefined,
        additionalSecretOutputs=request.additionalSecretOutputs,
        aliases=[alias.urn for alias in request.aliases if alias.urn],
        parent=request.parent,
    )


def _provider(
    registration: Registration, registrations: Mapping[str, Registration]
) -> analyzer_pb2.AnalyzerProviderResource | None:
    provider = registrations.get(registration.request.provider.rpartition("::")[0])
    if provider is None:
        return None
    return analyzer_pb2.AnalyzerProviderResource(
        type=provider.request.type, properties=provider.request.object, urn=provider.urn, name=provider.request.name
    )


def _request(registration: Registration, registrations: Mapping[str, Registration]) -> analyzer_pb2.AnalyzeRequest:
    return analyzer_pb2.AnalyzeRequest(
        type=registration.request.type,
        properties=registration.request.object,
        urn=registration.urn,
        name=registration.request.name,
        options=_options(registration),
        provider=_provider(registration, registrations),
    )


def _stack_resource(
    registration: Registration, registrations: Mapping[str, Registration]
) -> analyzer_pb2.AnalyzerResource:
    request = registration.request
    return analyzer_pb2.AnalyzerResource(
        type=request.type,
        properties=registration.outputs if request.custom else registration.registered_outputs,
        urn=registration.urn,
        name=request.name,
        options=_options(registration),
        provider=_provider(registration, registrations),
        parent=request.parent,
        dependencies=sorted(request.dependencies),
        propertyDependencies={
            key: analyzer_pb2.AnalyzerPropertyDependencies(urns=sorted(value.urns))
            for key, value in request.propertyDependencies.items()
        },
    )
