"""Proofs of the rules on rights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from policy.model import UNKNOWN
from policy.mutation import Mutation, Proof, add, anyone, both, called, change, drop, unknown
from policy.rules.types import (
    BUCKET_POLICY,
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
)

_EVERYONE: Final = {"Effect": "Allow", "Action": "sns:GetTopicAttributes", "Resource": "*", "Principal": "*"}
_FOREIGN: Final = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*", "Principal": {"AWS": "999999999999"}}
_PLAIN: Final = called("flow-logs")


def _granting(actions: object, resources: object = "*") -> Mutation:
    """The flow-log role's policy with a statement more."""
    return _with_statement(ROLE_POLICY, {"Effect": "Allow", "Action": actions, "Resource": resources})


def _with_statement(token: str, statement: Mapping[str, object]) -> Mutation:
    def longer(old: str) -> str:
        document = json.loads(old)
        return json.dumps({**document, "Statement": [*document["Statement"], statement]})

    return change(token, "policy", longer, _PLAIN if token == ROLE_POLICY else anyone)


def _trusting(principal: object, condition: object | None = None) -> Mutation:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    if condition:
        statement["Condition"] = condition
    return change(ROLE, "assumeRolePolicy", json.dumps({"Statement": [statement]}), _PLAIN)


_READING: Final = json.dumps(
    {"Statement": [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "arn:aws:secret"}]}
)


def _reader(role: str, policy: object) -> Mutation:
    """Lets the pods under ``role`` read the first secret."""
    return add(
        ROLE_POLICY,
        {"policy": policy},
        refers={"role": (ROLE, called(role))},
        records={"policy": (SECRET, called("market-data"))},
        name=f"{role}-reads",
        blame=(SECRET, called("market-data")),
    )


_UNKNOWN_RIGHTS: Final = (unknown(ROLE_POLICY, "policy", _PLAIN),)
_UNKNOWN_TRUST: Final = (unknown(ROLE, "assumeRolePolicy", _PLAIN),)

PROOFS: dict[str, Proof] = {
    "iam-no-admin": Proof((_granting("*"),), _UNKNOWN_RIGHTS),
    "iam-no-service-wildcard": Proof((_granting("ec2:*"), _granting("*", ["arn:aws:s3:::one/*"])), _UNKNOWN_RIGHTS),
    "iam-no-escalation": Proof((_granting("iam:PassRole"), _granting(["sts:AssumeRole"])), _UNKNOWN_RIGHTS),
    "iam-no-credentials-exposure": Proof((_granting("ssm:GetParameter"),), _UNKNOWN_RIGHTS),
    "iam-no-exfiltration": Proof((_granting("s3:GetObject"), _granting("s3:GetObj*")), _UNKNOWN_RIGHTS),
    "iam-no-permissions-management": Proof((_granting("s3:PutBucketPolicy"),), _UNKNOWN_RIGHTS),
    "iam-no-unconstrained-write": Proof((_granting("ec2:TerminateInstances"),), _UNKNOWN_RIGHTS),
    "iam-no-unconstrained-read": Proof((_granting("s3:GetBucketAcl"),), _UNKNOWN_RIGHTS),
    "iam-no-decrypt-everything": Proof((_granting("kms:Decrypt"),), _UNKNOWN_RIGHTS),
    "iam-trust-named": Proof((_trusting("*"),), _UNKNOWN_TRUST),
    "iam-trust-conditions": Proof((_trusting({"Service": "lambda.amazonaws.com"}),), _UNKNOWN_TRUST),
    "iam-github-subject": Proof(
        (
            _trusting(
                {"Federated": "arn:aws:iam::222222222222:oidc-provider/token.actions.githubusercontent.com"},
                {"StringLike": {"token.actions.githubusercontent.com:sub": "repo:*"}},
            ),
        ),
        _UNKNOWN_TRUST,
    ),
    "iam-no-admin-attachment": Proof(
        (change(ROLE_ATTACHMENT, "policyArn", "arn:aws:iam::aws:policy/AdministratorAccess", called("addons-")),),
        (unknown(ROLE_ATTACHMENT, "policyArn", called("addons-")),),
    ),
    "iam-no-users": Proof(
        (add("aws:iam/user:User", {}), add("aws:iam/accessKey:AccessKey", {})),
        always_known="that it is declared is enough",
    ),
    "iam-node-role-without-data": Proof(
        (
            add(
                ROLE_POLICY,
                {
                    "policy": json.dumps(
                        {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::m/*"}]}
                    )
                },
                refers={"role": (ROLE, called("nodes-node"))},
            ),
            change(ROLE_ATTACHMENT, "policyArn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", called("nodes")),
        ),
        (unknown(NODE_GROUP, "nodeRoleArn"),),
    ),
    "pod-identity-narrow": Proof(
        (
            change(POD_IDENTITY, "serviceAccount", "another", blame=ROLE),
            change(POD_IDENTITY, "namespace", "another", blame=ROLE),
        ),
        (unknown(POD_IDENTITY, "roleArn"),),
        also=frozenset({"pod-identity-used"}),
    ),
    "secret-single-reader": Proof(
        (both(_reader("ebs-csi", _READING), _reader("cloudwatch-agent", _READING)),),
        (_reader("ebs-csi", UNKNOWN),),
    ),
    "kms-policy-closed": Proof(
        (_with_statement(KMS_KEY, {**_EVERYONE, "Action": "kms:Decrypt"}), drop(KMS_KEY, "policy")),
        (unknown(KMS_KEY, "policy"),),
    ),
    "s3-policy-closed": Proof(
        (_with_statement(BUCKET_POLICY, {**_EVERYONE, "Action": "s3:GetObject"}),), (unknown(BUCKET_POLICY, "policy"),)
    ),
    "sns-policy-closed": Proof((_with_statement(TOPIC_POLICY, _EVERYONE),), (unknown(TOPIC_POLICY, "policy"),)),
    "sqs-policy-closed": Proof(
        (add(QUEUE_POLICY, {"policy": json.dumps({"Statement": [{**_EVERYONE, "Action": "sqs:SendMessage"}]})}),),
        (add(QUEUE_POLICY, {"policy": UNKNOWN}),),
    ),
    "ecr-policy-closed": Proof(
        (_with_statement(REPOSITORY_POLICY, _EVERYONE),), (unknown(REPOSITORY_POLICY, "policy"),)
    ),
    "secret-policy-closed": Proof((_with_statement(SECRET_POLICY, _EVERYONE),), (unknown(SECRET_POLICY, "policy"),)),
    "policies-own-account": Proof((_with_statement(BUCKET_POLICY, _FOREIGN),), (unknown(BUCKET_POLICY, "policy"),)),
    "provider-no-static-keys": Proof(
        (change("pulumi:providers:aws", "secretKey", "x" * 20),),
        always_known="that a key is given shows without its value",
    ),
}
