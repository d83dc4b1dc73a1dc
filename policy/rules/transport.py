"""Nothing crosses a wire in the clear."""

from __future__ import annotations

from collections.abc import Iterator

from policy.checks import is_one_of
from policy.model import Resource
from policy.rule import Case, Check, Finding, Level, NotApplicable, Rule, Scope, Severity, Violation
from policy.rules.documents import statements
from policy.rules.types import (
    BUCKET,
    BUCKET_POLICY,
    CACHE,
    CERTIFICATE,
    CERTIFICATE_VALIDATION,
    DATABASE,
    DATABASE_PARAMETERS,
    LISTENER,
    LOAD_BALANCER,
    QUEUE,
    QUEUE_POLICY,
    REPOSITORY_POLICY,
    SECRET_POLICY,
    TARGET_GROUP,
    TOPIC,
    TOPIC_POLICY,
)

_STRONG_KEYS = ("RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1", "EC_secp521r1")


def _listener_tls_policy(case: Case) -> Iterator[Finding]:
    policy = case.node.text("sslPolicy")
    if policy is None or not policy.startswith("ELBSecurityPolicy-TLS13-"):
        yield Violation(f"sslPolicy is {policy or 'not set (the provider then takes ELBSecurityPolicy-2016-08)'}")
    elif policy.startswith(("ELBSecurityPolicy-TLS13-1-0", "ELBSecurityPolicy-TLS13-1-1")):
        yield Violation(f"sslPolicy {policy} still admits TLS older than 1.2")


def _listener_certificate(case: Case) -> Iterator[Finding]:
    if not case.node.has("certificateArn"):
        yield Violation("certificateArn is not set")
    elif not case.estate.links(case.resource, "certificateArn", CERTIFICATE, CERTIFICATE_VALIDATION):
        yield Violation("the certificate is not one that the estate declares and renews")


def _target_group_used(case: Case) -> Iterator[Finding]:
    if not case.estate.referrers(case.resource, LISTENER, "aws:lb/listenerRule:ListenerRule"):
        yield Violation("no listener forwards to it")


def _certificate_name(case: Case) -> Iterator[Finding]:
    names = [case.node.text("domainName") or "", *case.node.texts("subjectAlternativeNames")]
    if any(name.startswith("*.") for name in names):
        yield Violation("it holds for a wildcard name: one stolen key impersonates every host")


def _transparency(case: Case) -> Iterator[Finding]:
    if case.node.node("options").text("certificateTransparencyLoggingPreference") == "DISABLED":
        yield Violation("transparency logging is off: a forged certificate would go unseen")


def _application_balancer(case: Case) -> Iterator[Finding]:
    if (case.node.text("loadBalancerType") or "application") != "application":
        yield NotApplicable("no application load balancer")
        return
    if not case.node.flag("dropInvalidHeaderFields"):
        yield Violation("dropInvalidHeaderFields is not true")
    if (case.node.text("desyncMitigationMode") or "defensive") not in {"defensive", "strictest"}:
        yield Violation("desyncMitigationMode lets ambiguous requests through")


def _parameters(case: Case) -> list[Resource] | None:
    """The parameter groups of a PostgreSQL instance; None where the engine is another."""
    if not (case.node.text("engine") or "postgres").startswith(("postgres", "aurora-postgres")):
        return None
    return case.estate.links(case.resource, "parameterGroupName", DATABASE_PARAMETERS)


def parameter(groups: list[Resource], name: str) -> str | None:
    """The value of a parameter in the first group that sets it."""
    for group in groups:
        for item in group.node.nodes("parameters"):
            if item.text("name") == name:
                value = item.read("value")
                return None if value is None else str(value)
    return None


def _force_ssl(case: Case) -> Iterator[Finding]:
    groups = _parameters(case)
    if groups is None:
        yield NotApplicable("not PostgreSQL")
    elif not groups:
        yield Violation("parameterGroupName names no parameter group of the estate")
    elif parameter(groups, "rds.force_ssl") not in {"1", "1.0"}:
        yield Violation("rds.force_ssl is not 1: the server accepts plain connections", groups[0].urn)


def _cache_in_transit(case: Case) -> Iterator[Finding]:
    if not case.node.flag("transitEncryptionEnabled"):
        yield Violation("transitEncryptionEnabled is not true")
    elif (case.node.text("transitEncryptionMode") or "required") != "required":
        yield Violation("transitEncryptionMode still accepts plain connections")


def _requires_tls(policy: Resource) -> bool:
    return any(statement.requires_tls() for statement in statements(policy.node, "policy"))


def _tls_only(policy_type: str, path: str, own: str | None = None) -> Check:
    """Some policy of ``policy_type`` on the resource, or its own document at ``own``, denies plain requests."""

    def check(case: Case) -> Iterator[Finding]:
        policies = [
            policy
            for policy in case.estate.referrers(case.resource, policy_type)
            if case.estate.refers(policy, path, case.resource)
        ]
        if own is not None and case.node.has(own):
            policies.append(case.resource)
        if not policies:
            yield Violation("it has no resource policy, so plain requests are served")
        elif not any(_requires_tls(policy) for policy in policies):
            yield Violation("its policy does not deny requests without TLS", policies[0].urn)

    return check


def _policy_denies_plain(case: Case) -> Iterator[Finding]:
    if not _requires_tls(case.resource):
        yield Violation("the policy does not deny requests without TLS")


def _deny_rule(rule_id: str, what: str, token: str, check: Check, *controls: str, scope: Scope = "stack") -> Rule:
    return Rule(
        id=rule_id,
        title=f"{what} deny requests that do not come over TLS",
        reason="A client that is told a plain address would send data and signatures in the clear.",
        remedy='Add a statement that denies "*" to everyone when aws:SecureTransport is false.',
        types=(token,),
        check=check,
        severity=Severity.MEDIUM,
        scope=scope,
        controls=controls,
    )


RULES = (
    Rule(
        id="lb-listener-encrypted",
        title="Load-balancer listeners speak TLS",
        reason="On a plain listener, tokens and market data cross the network in the clear.",
        remedy='Set protocol to "TLS" with a certificate, and drop the plain listener.',
        types=(LISTENER,),
        check=is_one_of("protocol", ("TLS", "HTTPS")),
        severity=Severity.HIGH,
        controls=("ELB.18", "CKV_AWS_2", "CKV_AWS_378", "C-0231"),
    ),
    Rule(
        id="lb-listener-tls-policy",
        title="Load-balancer listeners take a TLS 1.3 policy without anything older than 1.2",
        reason="The provider's default policy of 2016 admits TLS 1.0 and weak ciphers.",
        remedy="Set sslPolicy to ELBSecurityPolicy-TLS13-1-2-2021-06 or a later one.",
        types=(LISTENER,),
        check=_listener_tls_policy,
        severity=Severity.HIGH,
        controls=("ELB.17", "CKV_AWS_103", "CKV2_AWS_74"),
    ),
    Rule(
        id="lb-listener-certificate",
        title="Listeners present a certificate of the estate",
        reason="A certificate from elsewhere expires without anybody here being told.",
        remedy="Set certificateArn from the estate's own acm.Certificate, by way of its validation.",
        types=(LISTENER,),
        check=_listener_certificate,
        severity=Severity.MEDIUM,
        scope="stack",
    ),
    Rule(
        id="lb-target-group-used",
        title="Every target group is behind a listener",
        reason="Pods that register there are never called.",
        remedy="Forward a listener to it or remove it.",
        types=(TARGET_GROUP,),
        check=_target_group_used,
        severity=Severity.LOW,
        scope="stack",
    ),
    Rule(
        id="alb-refuses-bad-requests",
        title="Application load balancers drop invalid headers and ambiguous requests",
        reason="Request smuggling passes a request by the checks of the first server.",
        remedy="Set dropInvalidHeaderFields and desyncMitigationMode defensive or strictest.",
        types=(LOAD_BALANCER,),
        check=_application_balancer,
        severity=Severity.MEDIUM,
        controls=("ELB.4", "ELB.12", "CKV_AWS_131", "CKV_AWS_328"),
    ),
    Rule(
        id="acm-key-algorithm",
        title="Certificates use RSA of 2048 bits or more, or elliptic curves",
        reason="Shorter keys can be factored.",
        remedy="Set keyAlgorithm to EC_prime256v1 or RSA_2048.",
        types=(CERTIFICATE,),
        check=is_one_of("keyAlgorithm", _STRONG_KEYS, default="RSA_2048"),
        severity=Severity.HIGH,
        controls=("ACM.2",),
    ),
    Rule(
        id="acm-no-wildcard",
        title="Certificates name their hosts",
        reason="The key of a wildcard certificate impersonates every host of the domain.",
        remedy="Name each host in domainName and subjectAlternativeNames.",
        types=(CERTIFICATE,),
        check=_certificate_name,
        severity=Severity.LOW,
        level=Level.ADVISORY,
        controls=("CKV2_AWS_71",),
    ),
    Rule(
        id="acm-transparency",
        title="Certificates are in the transparency logs",
        reason="Browsers refuse others, and only the logs show a forged one.",
        remedy="Leave certificateTransparencyLoggingPreference at ENABLED.",
        types=(CERTIFICATE,),
        check=_transparency,
        severity=Severity.LOW,
        level=Level.ADVISORY,
        controls=("CKV_AWS_234", "CKV_AWS_233"),
    ),
    Rule(
        id="rds-force-ssl",
        title="PostgreSQL refuses plain connections",
        reason="A client without sslmode would send its password and every row in the clear.",
        remedy="Set rds.force_ssl to 1 (apply_method pending-reboot) in the instance's parameter group.",
        types=(DATABASE,),
        check=_force_ssl,
        severity=Severity.HIGH,
        scope="stack",
        controls=("RDS.38", "CKV2_AWS_69"),
    ),
    Rule(
        id="elasticache-in-transit",
        title="Caches require TLS",
        reason="Cached data and credentials would cross the VPC in the clear.",
        remedy='Set transitEncryptionEnabled, and transitEncryptionMode to "required".',
        types=(CACHE,),
        check=_cache_in_transit,
        severity=Severity.HIGH,
        controls=("ElastiCache.5", "CKV_AWS_30"),
    ),
    _deny_rule(
        "s3-tls-only",
        "Buckets",
        BUCKET,
        _tls_only(BUCKET_POLICY, "bucket"),
        "S3.5",
        "CKV_AWS_379",
        "CIS-AWS 2.1.1",
    ),
    _deny_rule("sns-tls-only", "Topics", TOPIC, _tls_only(TOPIC_POLICY, "arn", "policy")),
    _deny_rule("sqs-tls-only", "Queues", QUEUE, _tls_only(QUEUE_POLICY, "queueUrl", "policy")),
    _deny_rule("secret-tls-only", "Policies of secrets", SECRET_POLICY, _policy_denies_plain, scope="resource"),
    _deny_rule("ecr-tls-only", "Policies of repositories", REPOSITORY_POLICY, _policy_denies_plain, scope="resource"),
)
