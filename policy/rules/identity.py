"""Who may do what: roles, their rights and those who may take them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from policy.model import UNKNOWN, Estate, Secret, walk
from policy.rule import Case, Check, Finding, Level, NotApplicable, Rule, Severity, Undecided, Violation
from policy.rules.documents import Statement, all_statements, is_everyone, matches, statements
from policy.rules.types import (
    ATTACHMENT_TYPES,
    BUCKET_POLICY,
    IAM_POLICY,
    KMS_KEY,
    NODE_GROUP,
    POD_IDENTITY,
    QUEUE_POLICY,
    REPOSITORY_POLICY,
    ROLE,
    ROLE_ATTACHMENT,
    ROLE_POLICY,
    SECRET,
    SECRET_POLICY,
    TOPIC_POLICY,
    USER_TYPES,
)

_DOCUMENTS = (ROLE_POLICY, IAM_POLICY, ROLE)
_PATHS = {ROLE_POLICY: ("policy",), IAM_POLICY: ("policy",), ROLE: ("inlinePolicies",)}

# After cloudsplaining and checkov's IAM checks: what each action lets its holder become or take.
_ESCALATION: Final = (
    "iam:PassRole",
    "iam:CreatePolicyVersion",
    "iam:SetDefaultPolicyVersion",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:UpdateLoginProfile",
    "iam:UpdateAssumeRolePolicy",
    "iam:AddUserToGroup",
    "sts:AssumeRole",
    "lambda:UpdateFunctionCode",
    "lambda:AddPermission",
    "cloudformation:CreateStack",
    "ec2:RunInstances",
    "eks:AssociateAccessPolicy",
    "eks:CreateAccessEntry",
)
_CREDENTIALS: Final = (
    "secretsmanager:GetSecretValue",
    "ssm:GetParameter",
    "ssm:GetParameters",
    "iam:GetLoginProfile",
    "sts:GetFederationToken",
    "sts:GetSessionToken",
    "chime:CreateApiKey",
    "codepipeline:PollForJobs",
    "redshift:GetClusterCredentials",
    "rds-db:connect",
)
_EXFILTRATION: Final = (
    "s3:GetObject",
    "s3:GetObjectVersion",
    "dynamodb:GetItem",
    "dynamodb:Scan",
    "rds:DownloadCompleteDBLogFile",
    "rds:CopyDBSnapshot",
    "ec2:CreateSnapshot",
    "logs:GetLogEvents",
    "sqs:ReceiveMessage",
)
_PERMISSIONS: Final = (
    "iam:Attach*",
    "iam:Put*",
    "iam:Detach*",
    "iam:Delete*",
    "kms:PutKeyPolicy",
    "kms:CreateGrant",
    "s3:PutBucketPolicy",
    "s3:PutBucketAcl",
    "sns:AddPermission",
    "sns:SetTopicAttributes",
    "sqs:AddPermission",
    "ecr:SetRepositoryPolicy",
    "secretsmanager:PutResourcePolicy",
    "lambda:RemovePermission",
    "eks:CreatePodIdentityAssociation",
)
_DECRYPTION: Final = ("kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncrypt*")
_READ_VERBS: Final = ("describe", "list", "get", "batchget", "batchcheck", "lookup", "search", "view", "select")
# Actions for which IAM knows no resource, so that "*" is the only one (service authorization reference).
_UNRESTRICTABLE: Final = (
    "cloudwatch:PutMetricData",
    "cloudwatch:GetMetric*",
    "ecr:GetAuthorizationToken",
    "secretsmanager:GetRandomPassword",
    "sts:GetCallerIdentity",
    "tag:GetResources",
    "pricing:GetProducts",
    "xray:Put*",
    "ec2:Get*",
    "logs:StartQuery",
    "ssmmessages:*Channel",
    "ec2messages:*",
)


def _allowed(case: Case) -> Iterator[Statement]:
    for statement in all_statements(case.node, *_PATHS[case.resource.type]):
        if statement.allows:
            yield statement


def _service_wildcard(action: str) -> bool:
    service, _, verb = action.partition(":")
    return action != "*" and (verb == "*" or service == "*")


def _unrestrictable(action: str) -> bool:
    return any(matches(pattern, action) for pattern in _UNRESTRICTABLE)


def _no_admin(case: Case) -> Iterator[Finding]:
    for statement in _allowed(case):
        if "*" in statement.actions and "*" in statement.resources:
            yield Violation(f"{statement.node.path} allows every action on every resource")


def _no_service_wildcard(case: Case) -> Iterator[Finding]:
    for statement in _allowed(case):
        wide = [action for action in statement.actions if _service_wildcard(action)]
        if wide:
            yield Violation(f"{statement.node.path} allows {', '.join(sorted(wide))}")
        elif "*" in statement.actions and "*" not in statement.resources:
            yield Violation(f"{statement.node.path} allows every action")


def _category(action: str) -> str:
    """The first concern that an action on all resources raises."""
    if any(matches(action, pattern) for pattern in _DECRYPTION):
        return "decryption"
    for name, patterns in _CATEGORIES.items():
        if any(matches(action, pattern) for pattern in patterns):
            return name
    verb = action.partition(":")[2].lower()
    if not verb.startswith(_READ_VERBS):
        return "write"
    # Describe and List mostly know no resource; Get does.
    return "read" if verb.startswith(("get", "batchget", "select")) else ""


_CATEGORIES: Final = {
    "escalation": _ESCALATION,
    "credentials": _CREDENTIALS,
    "exfiltration": _EXFILTRATION,
    "permissions": _PERMISSIONS,
}


def _unconstrained(case: Case, category: str) -> Iterator[Finding]:
    """Actions of ``category`` that a statement allows on every resource without a condition."""
    for statement in _allowed(case):
        if not statement.covers_everything:
            continue
        found = [
            action
            for action in statement.actions
            if action != "*"
            and not _service_wildcard(action)
            and not _unrestrictable(action)
            and _category(action) == category
        ]
        if found:
            yield Violation(f"{statement.node.path} allows {', '.join(sorted(found))} on every resource")


def _trust(case: Case) -> Iterator[Finding]:
    for statement in statements(case.node, "assumeRolePolicy"):
        if statement.allows and any(is_everyone(principal) for principal in statement.principals):
            yield Violation("assumeRolePolicy lets everyone take the role")


def _trust_conditions(case: Case) -> Iterator[Finding]:
    """A service that acts for many accounts has to be told for which one (the confused deputy)."""
    exempt = {f"{service}.amazonaws.com" for service in case.parameters["exempt_services"]}
    for statement in statements(case.node, "assumeRolePolicy"):
        if not statement.allows or statement.conditions:
            continue
        bare = [p for p in statement.principals if not is_everyone(p) and p not in exempt]
        if bare:
            yield Violation(f"assumeRolePolicy trusts {', '.join(sorted(bare))} without any condition")


def _github(case: Case) -> Iterator[Finding]:
    for statement in statements(case.node, "assumeRolePolicy"):
        if not statement.allows or not any("token.actions.githubusercontent.com" in p for p in statement.principals):
            continue
        subjects = [
            str(subject)
            for keys in statement.conditions.values()
            if isinstance(keys, dict)
            for key, value in keys.items()
            if key.endswith(":sub")
            for subject in (value if isinstance(value, list) else [value])
        ]
        if not subjects or any(subject.split(":")[1:2] in (["*"], [""]) or "/" not in subject for subject in subjects):
            yield Violation("assumeRolePolicy does not name the repository in the sub claim")


def _attachment(case: Case) -> Iterator[Finding]:
    arns = [arn for path in ("policyArn", "policyArns", "managedPolicyArns") for arn in case.node.texts(path)]
    for arn in arns:
        if arn.endswith(("/AdministratorAccess", "/IAMFullAccess", "/PowerUserAccess")):
            yield Violation(f"attaches {arn.rpartition('/')[2]}")


def _no_user(case: Case) -> Iterator[Finding]:
    yield Violation(
        f"{case.resource.type.rpartition(':')[2]} belongs to a user, whose keys live until somebody remembers them"
    )


_NODE_POLICIES = ["AmazonEKSWorkerNodePolicy", "AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryReadOnly"]
_NODE_POLICIES += ["AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore", "AmazonEKS_CNI_Policy"]


def _node_role(case: Case) -> Iterator[Finding]:
    estate = case.estate
    allowed = set(case.parameters["allowed_policies"])
    for role in estate.links(case.resource, "nodeRoleArn", ROLE):
        if role.node.has("inlinePolicies"):
            yield Violation("the node role has inline policies", role.urn)
        for right in estate.referrers(role, ROLE_POLICY, ROLE_ATTACHMENT):
            if not estate.refers(right, "role", role):
                continue
            if right.type == ROLE_POLICY:
                yield from _node_statements(case, right.urn)
            else:
                name = (right.node.text("policyArn") or "").rpartition("/")[2]
                if name not in allowed:
                    yield Violation(f"the node role has {name or 'a policy without a name'}", right.urn)


def _node_statements(case: Case, urn: str) -> Iterator[Finding]:
    right = case.estate.by_urn[urn]
    data: tuple[str, ...] = (
        "s3:GetObject",
        "s3:PutObject",
        "secretsmanager:GetSecretValue",
        "rds-db:connect",
        "dynamodb:GetItem",
    )
    data += ("kms:Decrypt", "elasticache:Connect", "sns:Publish", "sqs:ReceiveMessage")
    for statement in statements(right.node, "policy"):
        found = [action for action in statement.actions if any(matches(action, pattern) for pattern in data)]
        if statement.allows and found:
            yield Violation(f"the node role may {', '.join(sorted(found))}: every pod on the node may", urn)


def _pod_role(case: Case) -> Iterator[Finding]:
    """A Pod Identity role is narrowed to the namespace and service account that it is associated with."""
    namespace, account = case.node.text("namespace"), case.node.text("serviceAccount")
    if not namespace or not account:
        yield Violation("namespace or serviceAccount is not set")
        return
    for role in case.estate.links(case.resource, "roleArn", ROLE):
        for statement in statements(role.node, "assumeRolePolicy"):
            if "pods.eks.amazonaws.com" not in statement.principals:
                yield Violation(f"role {role.name} does not trust pods.eks.amazonaws.com", role.urn)
            named = {str(value) for _, value in walk(statement.conditions)}
            for wanted in (namespace, account):
                if wanted not in named:
                    yield Violation(f"role {role.name} may be taken by other pods than {namespace}/{account}", role.urn)
                    break


def _key_policy(case: Case) -> Iterator[Finding]:
    if not case.node.has("policy"):
        yield Violation("policy is not set: AWS's default lets every identity policy of the account use the key")
    yield from _open_principals(case)


def _open_principals(case: Case) -> Iterator[Finding]:
    """Allowances for everyone that no condition narrows to accounts, organisations, sources or networks."""
    for statement in statements(case.node, "policy"):
        if statement.allows and any(map(is_everyone, statement.principals)) and not _narrowed(statement):
            yield Violation(f"{statement.node.path} admits everyone")


_NARROWING: Final = (
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:principalaccount",
    "aws:principalorgid",
    "aws:principalarn",
    "aws:sourcevpce",
    "aws:sourcevpc",
    "aws:sourceowner",
    "kms:calleraccount",
    "sns:endpoint",
)


def _narrowed(statement: Statement) -> bool:
    for operator, keys in statement.conditions.items():
        positive = "not" not in operator.lower() and "ifexists" not in operator.lower()
        if positive and isinstance(keys, dict) and any(key.lower() in _NARROWING for key in keys):
            return True
    return False


def _account(principal: str) -> str | None:
    account = principal.split(":")[4] if principal.count(":") >= 5 else principal
    return account if account.isdigit() and len(account) == 12 else None


def _own_account(estate: Estate) -> str | None:
    """The account that the estate's policies name most often; None where no policy names one."""
    named: Counter[str] = Counter()
    for resource in estate.of(*_RESOURCE_POLICIES, ROLE):
        for path in ("policy", "assumeRolePolicy"):
            document = resource.node.raw(path)
            if isinstance(document, str):
                named.update(_ACCOUNT.findall(document))
    return named.most_common(1)[0][0] if named else None


_ACCOUNT: Final = re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])")
_RESOURCE_POLICIES: Final = (BUCKET_POLICY, TOPIC_POLICY, QUEUE_POLICY, SECRET_POLICY, REPOSITORY_POLICY, KMS_KEY)


def _cross_account(case: Case) -> Iterator[Finding]:
    allowed = {case.estate.once(_own_account), *case.parameters["accounts"]}
    for statement in statements(case.node, "policy"):
        foreign = {_account(principal) for principal in statement.principals} - allowed - {None}
        if statement.allows and foreign:
            yield Violation(f"{statement.node.path} admits account {', '.join(sorted(map(str, foreign)))}")


def _provider_keys(case: Case) -> Iterator[Finding]:
    for path in ("accessKey", "secretKey", "token"):
        if case.node.has(path):
            yield Violation(f"{path} is set: a static key in the configuration")


def _readers(case: Case) -> Iterator[Finding]:
    """Every secret is named by at most the roles of one service account and by the functions that rotate it."""
    if case.resource.name in case.parameters["shared"]:
        yield NotApplicable("meant for several workloads")
        return
    readers: dict[str, str] = {}
    unknown = False
    for right in case.estate.referrers(case.resource, ROLE_POLICY, IAM_POLICY):
        document = right.node.raw("policy")
        if document is UNKNOWN or isinstance(document, Secret):
            unknown = True
            continue
        for statement in statements(right.node, "policy"):
            reads = any(matches(action, "secretsmanager:GetSecretValue") for action in statement.actions)
            if statement.allows and reads:
                for role in case.estate.links(right, "role", ROLE) if right.type == ROLE_POLICY else ():
                    if case.estate.referrers(role, POD_IDENTITY):
                        readers[role.urn] = role.name
    if len(readers) > 1:
        yield Violation(f"{len(readers)} workloads may read it: {', '.join(sorted(readers.values()))}")
    elif unknown:
        yield Undecided("a policy that names it is known only after the update")


def _rule(
    rule_id: str,
    title: str,
    reason: str,
    remedy: str,
    check: Check,
    severity: Severity,
    *controls: str,
    types: Sequence[str] = _DOCUMENTS,
) -> Rule:
    return Rule(rule_id, title, reason, remedy, tuple(types), check, severity, controls=controls)


_CRITICAL, _HIGH, _MEDIUM = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM
_NARROW = "Name the resources by ARN, or add a condition that narrows them."


def _unconstrained_rule(
    rule_id: str, category: str, title: str, reason: str, severity: Severity, *controls: str
) -> Rule:
    return _rule(rule_id, title, reason, _NARROW, lambda case: _unconstrained(case, category), severity, *controls)


RULES = (
    _rule(
        "iam-no-admin",
        "No policy allows everything on everything",
        "One leaked credential is then the account.",
        "List the actions and the resources that the holder needs.",
        _no_admin,
        _CRITICAL,
        "IAM.1",
        "CKV_AWS_62",
        "CKV_AWS_1",
        "CKV2_AWS_40",
        "CIS-AWS 1.16",
    ),
    _rule(
        "iam-no-service-wildcard",
        "No policy allows all actions of a service",
        "The service's next action is allowed on the day it appears, deletion and policy changes included.",
        "List the actions that the holder needs.",
        _no_service_wildcard,
        _HIGH,
        "IAM.21",
        "CKV_AWS_63",
        "CKV_AWS_49",
    ),
    _unconstrained_rule(
        "iam-no-escalation",
        "escalation",
        "Nobody may raise their own rights",
        "Passing, taking or changing any role is having its rights.",
        _CRITICAL,
        "CKV_AWS_286",
        "CKV_AWS_110",
    ),
    _unconstrained_rule(
        "iam-no-credentials-exposure",
        "credentials",
        "Nobody may read all credentials",
        "One foothold would open every secret of the account.",
        _HIGH,
        "CKV_AWS_287",
        "CKV_AWS_107",
    ),
    _unconstrained_rule(
        "iam-no-exfiltration",
        "exfiltration",
        "Nobody may read all data",
        "One foothold would carry away every object and snapshot.",
        _HIGH,
        "CKV_AWS_288",
        "CKV_AWS_108",
    ),
    _unconstrained_rule(
        "iam-no-permissions-management",
        "permissions",
        "Nobody may change permissions at large",
        "Whoever writes policies needs no other right.",
        _HIGH,
        "CKV_AWS_289",
        "CKV_AWS_109",
    ),
    _unconstrained_rule(
        "iam-no-unconstrained-write",
        "write",
        "Nobody may change resources at large",
        "A mistake or an intruder reaches resources that have nothing to do with the holder.",
        _MEDIUM,
        "CKV_AWS_290",
        "CKV_AWS_111",
    ),
    _unconstrained_rule(
        "iam-no-unconstrained-read",
        "read",
        "Rights to read name what they read",
        "Configuration at large tells an intruder where to go.",
        _MEDIUM,
        "CKV_AWS_355",
        "CKV_AWS_356",
    ),
    _unconstrained_rule(
        "iam-no-decrypt-everything",
        "decryption",
        "No policy allows decryption with every key",
        "It undoes the separation of keys by purpose.",
        _HIGH,
        "KMS.1",
        "KMS.2",
    ),
    _rule(
        "iam-trust-named",
        "Roles name who may take them",
        "A role that everyone may take is everyone's.",
        "Name services, accounts or identity providers in the trust policy.",
        _trust,
        _CRITICAL,
        "CKV_AWS_60",
        "CKV_AWS_61",
        "CKV_AWS_283",
        types=(ROLE,),
    ),
    Rule(
        id="iam-trust-conditions",
        title="Trust in a service or account carries a condition",
        reason="A service that works for every account can be made to use this role for another one.",
        remedy="Add aws:SourceAccount, or the sub claim of the identity provider.",
        types=(ROLE,),
        check=_trust_conditions,
        severity=_MEDIUM,
        parameters={
            "exempt_services": {
                "type": "array",
                "items": {"type": "string"},
                "default": ["ec2"],
                "description": "services that send no source account, without .amazonaws.com",
            }
        },
    ),
    _rule(
        "iam-github-subject",
        "Trust in GitHub names the repository",
        "Otherwise any repository's workflow takes the role.",
        "Set token.actions.githubusercontent.com:sub to repo:OWNER/NAME:...",
        _github,
        _CRITICAL,
        "CKV_AWS_358",
        "CKV_AWS_393",
        types=(ROLE,),
    ),
    _rule(
        "iam-no-admin-attachment",
        "AWS's administrator policies are attached to nothing",
        "One leaked credential is then the account.",
        "Attach a policy with the actions that are needed.",
        _attachment,
        _CRITICAL,
        "CKV_AWS_274",
        "CKV_AWS_275",
        "CKV2_AWS_56",
        "CIS-AWS 1.16",
        types=(*ATTACHMENT_TYPES, ROLE),
    ),
    _rule(
        "iam-no-users",
        "The estate has no IAM users and no access keys",
        "Keys without an end leak into files, logs and histories.",
        "Use roles: Pod Identity for pods, an identity provider for people and pipelines.",
        _no_user,
        _MEDIUM,
        "IAM.2",
        "CKV_AWS_40",
        types=USER_TYPES,
    ),
    Rule(
        id="iam-node-role-without-data",
        title="The nodes' role reads no data",
        reason="Every pod that reaches the node's metadata would have the rights of all.",
        remedy="Give rights to service accounts by Pod Identity; keep the node role to joining and pulling images.",
        types=(NODE_GROUP,),
        check=_node_role,
        severity=_HIGH,
        scope="stack",
        controls=("C-0225", "CIS-EKS 5.2.1"),
        parameters={
            "allowed_policies": {
                "type": "array",
                "items": {"type": "string"},
                "default": _NODE_POLICIES,
                "description": "names of AWS's policies that nodes may have",
            }
        },
    ),
    Rule(
        id="pod-identity-narrow",
        title="A pod's role can be taken by its own service account only",
        reason="Any other pod of the cluster could be associated with it.",
        remedy="Condition the trust on aws:RequestTag/kubernetes-namespace and -service-account.",
        types=(POD_IDENTITY,),
        check=_pod_role,
        severity=_HIGH,
        scope="stack",
        controls=("C-0225", "CIS-EKS 5.2.1"),
    ),
    Rule(
        id="secret-single-reader",
        title="Each secret is read by one workload only",
        reason="A secret that several may read is changed by nobody when one of them leaks it.",
        remedy="Make a secret for each workload and name it in that workload's role only.",
        types=(SECRET,),
        check=_readers,
        severity=_MEDIUM,
        scope="stack",
        level=Level.ADVISORY,
        parameters={
            "shared": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "logical names of secrets that several workloads have to read",
            }
        },
    ),
    _rule(
        "kms-policy-closed",
        "Keys have a policy that admits nobody at large",
        "A key that everyone may use protects nothing.",
        "Name the account and the services that use the key.",
        _key_policy,
        _CRITICAL,
        "KMS.5",
        "CKV_AWS_33",
        "CKV2_AWS_64",
        types=(KMS_KEY,),
    ),
    _rule(
        "s3-policy-closed",
        "Bucket policies admit nobody at large",
        "A public bucket is found and copied within hours.",
        "Name principals, or add a condition on account or source.",
        _open_principals,
        _CRITICAL,
        "S3.2",
        "S3.3",
        "CKV_AWS_70",
        types=(BUCKET_POLICY,),
    ),
    _rule(
        "sns-policy-closed",
        "Topic policies admit nobody at large",
        "Anyone could publish alarms, or listen to them.",
        "Name the publishing services with aws:SourceAccount.",
        _open_principals,
        _CRITICAL,
        "SNS.4",
        "CKV_AWS_169",
        "CKV_AWS_385",
        types=(TOPIC_POLICY,),
    ),
    _rule(
        "sqs-policy-closed",
        "Queue policies admit nobody at large",
        "Anyone could read or forge messages.",
        "Name the sending services with aws:SourceArn.",
        _open_principals,
        _CRITICAL,
        "SQS.3",
        "CKV_AWS_168",
        types=(QUEUE_POLICY,),
    ),
    _rule(
        "ecr-policy-closed",
        "Repository policies admit nobody at large",
        "Anyone could read the images, or replace them.",
        "Name the accounts that pull.",
        _open_principals,
        _CRITICAL,
        "CKV_AWS_32",
        "C-0222",
        "C-0223",
        types=(REPOSITORY_POLICY,),
    ),
    _rule(
        "secret-policy-closed",
        "Policies of secrets admit nobody at large",
        "Anyone could read the secret.",
        "Name the roles that read it.",
        _open_principals,
        _CRITICAL,
        types=(SECRET_POLICY,),
    ),
    Rule(
        id="policies-own-account",
        title="Resource policies admit the estate's own account only",
        reason="An account that was trusted once stays trusted.",
        remedy="Remove the account, or name it in the rule's parameter accounts.",
        types=_RESOURCE_POLICIES,
        check=_cross_account,
        severity=_HIGH,
        scope="stack",
        controls=("S3.6", "CKV_AWS_93"),
        parameters={
            "accounts": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "further accounts that may be admitted",
            }
        },
    ),
    _rule(
        "provider-no-static-keys",
        "Providers take no static keys",
        "A key in the configuration ends up in the state and in the history.",
        "Use a profile, an assumed role or the pipeline's identity.",
        _provider_keys,
        _CRITICAL,
        "CKV_AWS_41",
        types=("pulumi:providers:aws",),
    ),
)
