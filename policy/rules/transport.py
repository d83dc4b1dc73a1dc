"""Nothing crosses a wire in the clear."""

from __future__ import annotations

from collections.abc import Iterator

from policy.rule import Case, Finding, Rule, Severity, Violation

LISTENER = "aws:lb/listener:Listener"


def _listener_encrypted(case: Case) -> Iterator[Finding]:
    protocol = case.node.text("protocol")
    if protocol not in {"TLS", "HTTPS"}:
        yield Violation(f"protocol is {protocol or 'not set'}, not TLS")


def _listener_tls13(case: Case) -> Iterator[Finding]:
    policy = case.node.text("sslPolicy")
    if policy is None or not policy.startswith("ELBSecurityPolicy-TLS13-"):
        yield Violation(f"sslPolicy is {policy or 'not set (the provider then takes ELBSecurityPolicy-2016-08)'}")
    elif policy.startswith(("ELBSecurityPolicy-TLS13-1-0", "ELBSecurityPolicy-TLS13-1-1")):
        yield Violation(f"sslPolicy {policy} still admits TLS older than 1.2")


RULES = (
    Rule(
        id="lb-listener-encrypted",
        title="Load-balancer listeners speak TLS",
        reason="On a plain listener, tokens and market data cross the network in the clear.",
        remedy='Set protocol to "TLS" with a certificate, and drop the plain listener.',
        types=(LISTENER,),
        check=_listener_encrypted,
        severity=Severity.HIGH,
        controls=("checkov CKV_AWS_2", "checkov CKV_AWS_378", "FSBP ELB.18", "kubescape C-0231"),
    ),
    Rule(
        id="lb-listener-tls-policy",
        title="Load-balancer listeners take a TLS 1.3 policy without anything older than 1.2",
        reason="The provider's default policy of 2016 admits TLS 1.0 and weak ciphers.",
        remedy="Set sslPolicy to ELBSecurityPolicy-TLS13-1-2-2021-06 or a later one.",
        types=(LISTENER,),
        check=_listener_tls13,
        severity=Severity.HIGH,
        controls=("checkov CKV_AWS_103", "checkov CKV2_AWS_74", "FSBP ELB.17"),
    ),
)
