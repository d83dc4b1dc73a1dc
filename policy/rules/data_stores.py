"""Databases and caches: who reaches them, how they survive, what they tell."""

from __future__ import annotations

from collections.abc import Iterator

from policy.checks import at_least, includes, is_false, is_given, is_true
from policy.rule import Case, Check, Finding, Rule, Severity, Violation
from policy.rules.traffic import is_world, rules_of, sources
from policy.rules.transport import parameter
from policy.rules.types import (
    CACHE,
    CACHE_USER,
    DATABASE,
    DATABASE_EVENTS,
    DATABASE_PARAMETERS,
    DATABASE_SNAPSHOT,
    LOAD_BALANCER,
    SECURITY_GROUP,
)

_PRODUCTION = ("production",)
_OLD_AUTHORITIES = ("rds-ca-2015", "rds-ca-2019")


def _groups_only(path: str) -> Check:
    """The security groups at ``path`` admit groups only, none of them public or a load balancer's."""

    def check(case: Case) -> Iterator[Finding]:
        estate = case.estate
        groups = estate.links(case.resource, path, SECURITY_GROUP)
        if not groups:
            yield Violation(f"{path} is not set: the VPC's default group applies")
        for group in groups:
            for owner, item in rules_of(estate, group, "ingress"):
                if item.cidrs:
                    yield Violation(f"{group.name} admits {', '.join(item.cidrs)} on {item.ports}", owner.urn)
                for source in sources(estate, owner) if owner is not group else ():
                    yield from _exposed(case, source.urn, owner.urn)

    return check


def _exposed(case: Case, source_urn: str, rule_urn: str) -> Iterator[Finding]:
    source = case.estate.by_urn[source_urn]
    if any(user.type == LOAD_BALANCER for user in case.estate.referrers(source)):
        yield Violation(f"it is reached from {source.name}, a load balancer's group", rule_urn)
    for _, item in rules_of(case.estate, source, "ingress"):
        if any(is_world(cidr) for cidr in item.cidrs):
            yield Violation(f"it is reached from {source.name}, which the internet reaches", rule_urn)


def _monitored(case: Case) -> Iterator[Finding]:
    if not case.node.number("monitoringInterval"):
        yield Violation("monitoringInterval is not set")
    elif case.node.raw("monitoringRoleArn") in (None, ""):
        yield Violation("monitoringRoleArn is not set")


def _query_logging(case: Case) -> Iterator[Finding]:
    groups = case.estate.links(case.resource, "parameterGroupName", DATABASE_PARAMETERS)
    statement = parameter(groups, "log_statement")
    duration = parameter(groups, "log_min_duration_statement")
    if statement not in {"ddl", "mod", "all"} and (duration is None or duration == "-1"):
        yield Violation("neither log_statement nor log_min_duration_statement is set in its parameter group")


def _authority(case: Case) -> Iterator[Finding]:
    authority = case.node.text("caCertIdentifier")
    if authority is None or authority in _OLD_AUTHORITIES or not authority.endswith("-g1"):
        yield Violation(f"caCertIdentifier is {authority or 'not set'}, not one of rds-ca-*-g1")


def _engine_version(case: Case) -> Iterator[Finding]:
    major = (case.node.text("engineVersion") or "").partition(".")[0]
    if not major.isdigit():
        yield Violation("engineVersion is not set")
    elif int(major) < case.parameters["minimum_major"]:
        yield Violation(f"PostgreSQL {major} is older than {case.parameters['minimum_major']:g}")


def _administrator(case: Case) -> Iterator[Finding]:
    if (case.node.text("username") or "").lower() in {"", "postgres", "admin", "root", "administrator", "rdsadmin"}:
        yield Violation("username is a default that every attacker tries first")


def _managed_password(case: Case) -> Iterator[Finding]:
    if case.node.has("password"):
        yield Violation("password is an input: it is in the state, and nothing rotates it")
    elif not case.node.flag("manageMasterUserPassword") and not case.node.has("passwordWo"):
        yield Violation("manageMasterUserPassword is not true")


def _events(case: Case) -> Iterator[Finding]:
    subscriptions = case.estate.referrers(case.resource, DATABASE_EVENTS)
    everything = [s for s in case.estate.of(DATABASE_EVENTS) if not s.node.has("sourceIds")]
    if not subscriptions and not everything:
        yield Violation("nobody subscribes to its events: failover, low storage, failure")


def _snapshot_private(case: Case) -> Iterator[Finding]:
    if "all" in case.node.texts("sharedAccounts"):
        yield Violation("the snapshot is shared with every account")


def _final_snapshot(case: Case) -> Iterator[Finding]:
    if case.node.flag("skipFinalSnapshot"):
        yield Violation("skipFinalSnapshot is true: deleting the instance deletes the data")
    elif not case.node.has("finalSnapshotIdentifier"):
        yield Violation("finalSnapshotIdentifier is not set: deleting the instance fails half-way")


def _family(case: Case) -> Iterator[Finding]:
    version = (case.node.text("engineVersion") or "").partition(".")[0]
    for group in case.estate.links(case.resource, "parameterGroupName", DATABASE_PARAMETERS):
        family = group.node.text("family") or ""
        if family != f"postgres{version}":
            yield Violation(
                f"family {family or '(not set)'} does not fit engineVersion {version or '(not set)'}", group.urn
            )


def _cache_authenticated(case: Case) -> Iterator[Finding]:
    if not case.node.has("userGroupIds") and not case.node.has("authToken"):
        yield Violation("neither userGroupIds nor authToken is set: whoever reaches the port is in")


def _cache_failover(case: Case) -> Iterator[Finding]:
    for path in ("automaticFailoverEnabled", "multiAzEnabled"):
        if not case.node.flag(path):
            yield Violation(f"{path} is not true")


def _user_locked(case: Case) -> Iterator[Finding]:
    node = case.node
    kind = node.node("authenticationMode").text("type") or (
        "no-password-required" if node.flag("noPasswordRequired") else ""
    )
    if kind == "no-password-required" and not (node.text("accessString") or "").startswith("off"):
        yield Violation("the user needs no password and is not switched off")


def _rule(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    check: Check,
    severity: Severity,
    *controls: str,
    stacks: tuple[str, ...] = ("*",),
    token: str = DATABASE,
) -> Rule:
    """A rule that one database or cache decides."""
    return Rule(
        id=rule_id,
        title=title,
        reason=reason,
        remedy=remedy,
        types=(token,),
        check=check,
        severity=severity,
        controls=controls,
        stacks=stacks,
    )


_HIGH, _MEDIUM, _LOW = Severity.HIGH, Severity.MEDIUM, Severity.LOW

RULES = (
    _rule(
        "rds-not-public",
        "Databases have no public address",
        "A database with a public address is one security-group mistake away from the internet.",
        "Set publiclyAccessible to false.",
        is_false("publiclyAccessible"),
        Severity.CRITICAL,
        "RDS.2",
        "CKV_AWS_17",
        "CIS-AWS 2.3.3",
    ),
    _rule(
        "rds-subnet-group",
        "Databases stand in a subnet group of the estate",
        "Without one they land in the default VPC.",
        "Set dbSubnetGroupName.",
        is_given("dbSubnetGroupName"),
        _HIGH,
        "RDS.18",
    ),
    _rule(
        "rds-multi-az",
        "Databases have a standby in another zone",
        "Without it, maintenance and a zone's failure are outages, and data since the last backup can be lost.",
        "Set multiAz to true.",
        is_true("multiAz"),
        _MEDIUM,
        "RDS.5",
        "CKV_AWS_157",
        stacks=_PRODUCTION,
    ),
    _rule(
        "rds-backup-retention",
        "Databases can be restored to any moment of the last week",
        "An error is often noticed days later.",
        "Set backupRetentionPeriod to 7 or more.",
        at_least("backupRetentionPeriod", 7, unit=" days"),
        _HIGH,
        "RDS.11",
        "CKV_AWS_133",
    ),
    _rule(
        "rds-deletion-protection",
        "Databases cannot be deleted by one call",
        "A replaced logical name or a wrong stack would delete the data.",
        "Set deletionProtection to true.",
        is_true("deletionProtection"),
        _MEDIUM,
        "RDS.8",
        "CKV_AWS_293",
        stacks=_PRODUCTION,
    ),
    _rule(
        "rds-log-exports",
        "Database logs reach CloudWatch",
        "Logs on the instance are gone with it, and no alarm reads them.",
        "Name postgresql and upgrade in enabledCloudwatchLogsExports.",
        includes("enabledCloudwatchLogsExports", ("postgresql", "upgrade")),
        _MEDIUM,
        "RDS.9",
        "RDS.36",
        "CKV_AWS_129",
    ),
    _rule(
        "rds-enhanced-monitoring",
        "Databases report what their operating system does",
        "A full disk queue or a swapping host does not show in the engine's own figures.",
        "Set monitoringInterval (60) and monitoringRoleArn.",
        _monitored,
        _LOW,
        "RDS.6",
        "CKV_AWS_118",
    ),
    _rule(
        "rds-performance-insights",
        "Databases show which statements take the time",
        "Without it, the slow statement is guessed.",
        "Set performanceInsightsEnabled to true.",
        is_true("performanceInsightsEnabled"),
        _LOW,
        "CKV_AWS_353",
    ),
    _rule(
        "rds-iam-authentication",
        "Pods sign in to databases by IAM",
        "IAM tokens live fifteen minutes; a leaked password lives until somebody notices.",
        "Set iamDatabaseAuthenticationEnabled to true.",
        is_true("iamDatabaseAuthenticationEnabled"),
        _MEDIUM,
        "RDS.10",
        "CKV_AWS_161",
    ),
    _rule(
        "rds-minor-upgrades",
        "Databases take minor versions by themselves",
        "Minor versions carry the security fixes.",
        "Leave autoMinorVersionUpgrade true.",
        is_true("autoMinorVersionUpgrade", default=True),
        _HIGH,
        "RDS.13",
        "CKV_AWS_226",
        "CIS-AWS 2.3.2",
    ),
    _rule(
        "rds-copy-tags",
        "Snapshots carry the database's tags",
        "Backup selection, costs and data class are read off the tags.",
        "Set copyTagsToSnapshot to true.",
        is_true("copyTagsToSnapshot"),
        _LOW,
        "RDS.17",
        "CKV2_AWS_60",
    ),
    _rule(
        "rds-modern-authority",
        "Databases present a certificate of a current authority",
        "The authority of 2019 has expired: clients that verify would refuse, and those that do not verify are open.",
        "Set caCertIdentifier to rds-ca-rsa2048-g1 or another -g1.",
        _authority,
        _MEDIUM,
        "CKV_AWS_211",
    ),
    _rule(
        "rds-administrator-name",
        "The database's administrator has a name of its own",
        "Default names are what password guessing starts with.",
        "Choose another username.",
        _administrator,
        _MEDIUM,
        "RDS.25",
    ),
    _rule(
        "rds-managed-password",
        "The administrator's password is made and rotated by AWS",
        "A password that the program sets lies in the state and is never changed.",
        "Set manageMasterUserPassword and masterUserSecretKmsKeyId; drop password.",
        _managed_password,
        _HIGH,
        "SecretsManager.1",
    ),
    _rule(
        "rds-final-snapshot",
        "A deleted database leaves a snapshot",
        "Deletion by mistake would be final.",
        "Set skipFinalSnapshot to false and finalSnapshotIdentifier.",
        _final_snapshot,
        _MEDIUM,
        stacks=_PRODUCTION,
    ),
    Rule(
        id="rds-engine-version",
        title="Databases run a PostgreSQL that is supported and free of known holes",
        reason="Old versions of log_fdw let a user read files of the host; pgvector needs a current engine.",
        remedy="Set engineVersion to a current major version.",
        types=(DATABASE,),
        check=_engine_version,
        severity=_HIGH,
        controls=("CKV_AWS_250", "CKV_AWS_388"),
        parameters={"minimum_major": {"type": "integer", "default": 16}},
    ),
    Rule(
        id="rds-query-logging",
        title="Databases log changes of schema or slow statements",
        reason="Without it, neither an intruder's nor a colleague's statements can be told afterwards.",
        remedy="Set log_statement to ddl, or log_min_duration_statement, in the parameter group.",
        types=(DATABASE,),
        check=_query_logging,
        severity=_LOW,
        scope="stack",
        controls=("CKV2_AWS_30",),
    ),
    Rule(
        id="rds-events",
        title="Somebody is told of a database's events",
        reason="A failover or low storage is announced once.",
        remedy="Declare an rds.EventSubscription for the instance to the alarm topic.",
        types=(DATABASE,),
        check=_events,
        severity=_LOW,
        scope="stack",
        controls=("RDS.20",),
    ),
    Rule(
        id="rds-snapshot-private",
        title="Snapshots are shared with nobody in general",
        reason="A public snapshot is the whole database for anyone.",
        remedy="Remove all from sharedAccounts.",
        types=(DATABASE_SNAPSHOT,),
        check=_snapshot_private,
        severity=Severity.CRITICAL,
        controls=("RDS.1",),
    ),
    Rule(
        id="rds-parameter-family",
        title="The parameter group fits the engine's major version",
        reason="RDS refuses another family, in the middle of the update.",
        remedy="Set family to postgres and the major version.",
        types=(DATABASE,),
        check=_family,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="rds-reached-by-groups",
        title="Databases are reached only from security groups that nothing outside reaches",
        reason="A range admits whatever gets an address in it; a public group admits the internet one hop later.",
        remedy="Admit the port from the nodes' security group, by reference.",
        types=(DATABASE,),
        check=_groups_only("vpcSecurityGroupIds"),
        severity=_HIGH,
        scope="stack",
        controls=("NSA/CISA network separation",),
    ),
    Rule(
        id="elasticache-reached-by-groups",
        title="Caches are reached only from security groups that nothing outside reaches",
        reason="A range admits whatever gets an address in it; a public group admits the internet one hop later.",
        remedy="Admit the port from the nodes' security group, by reference.",
        types=(CACHE,),
        check=_groups_only("securityGroupIds"),
        severity=_HIGH,
        scope="stack",
        controls=("NSA/CISA network separation",),
    ),
    _rule(
        "elasticache-authenticated",
        "Caches know their users",
        "Without it, one foothold in the VPC reads and changes everything.",
        "Set userGroupIds with one user for each service.",
        _cache_authenticated,
        _HIGH,
        "ElastiCache.6",
        "CKV_AWS_31",
        token=CACHE,
    ),
    _rule(
        "elasticache-user-locked",
        "No cache user comes in without a password or IAM",
        "Valkey's default user is there in every user group.",
        'Give the user IAM authentication, or an access string that starts with "off".',
        _user_locked,
        _HIGH,
        "ElastiCache.6",
        token=CACHE_USER,
    ),
    _rule(
        "elasticache-failover",
        "Caches fail over to another zone",
        "Rate limits and leases stop with the one node.",
        "Set automaticFailoverEnabled and multiAzEnabled with a replica.",
        _cache_failover,
        _MEDIUM,
        "ElastiCache.3",
        "CKV2_AWS_50",
        stacks=_PRODUCTION,
        token=CACHE,
    ),
    _rule(
        "elasticache-snapshots",
        "Caches are snapshotted",
        "A lost cache that cannot be restored starts cold under full load.",
        "Set snapshotRetentionLimit to 1 or more.",
        at_least("snapshotRetentionLimit", 1, unit=" day"),
        _HIGH,
        "ElastiCache.1",
        "CKV_AWS_134",
        token=CACHE,
    ),
    _rule(
        "elasticache-minor-upgrades",
        "Caches take minor versions by themselves",
        "Minor versions carry the security fixes.",
        "Leave autoMinorVersionUpgrade true.",
        is_true("autoMinorVersionUpgrade", default=True),
        _HIGH,
        "ElastiCache.2",
        "CKV_AWS_322",
        token=CACHE,
    ),
    _rule(
        "elasticache-subnet-group",
        "Caches stand in a subnet group of the estate",
        "Without one they land in the default VPC's public subnets.",
        "Set subnetGroupName.",
        is_given("subnetGroupName"),
        _HIGH,
        "ElastiCache.7",
        "CKV_AWS_323",
        token=CACHE,
    ),
)
