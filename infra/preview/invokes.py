"""Provider functions that need no cloud: an IAM policy document is text, and where the stack lives is configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.preview.outputs import ACCOUNT


@dataclass(frozen=True)
class Answer:
    """What a provider function returns."""

    value: Mapping[str, Any]


def answer(token: str, arguments: Mapping[str, Any], region: str) -> Answer | None:
    """The answer to an invoke that can be given locally, or None where only the cloud knows."""
    local = _LOCAL.get(token)
    return Answer(local(arguments, region)) if local else None


def _policy_document(arguments: Mapping[str, Any], region: str) -> dict[str, Any]:
    """``aws:iam/getPolicyDocument``, as the provider renders it: lists of one become plain strings."""
    del region
    document: dict[str, Any] = {"Version": arguments.get("version") or "2012-10-17"}
    if arguments.get("policyId"):
        document["Id"] = arguments["policyId"]
    statements: list[dict[str, Any]] = []
    for source in arguments.get("sourcePolicyDocuments") or ():
        statements.extend(_statements(json.loads(source)))
    statements.extend(_statement(statement) for statement in arguments.get("statements") or ())
    for override in arguments.get("overridePolicyDocuments") or ():
        for statement in _statements(json.loads(override)):
            statements = [s for s in statements if not s.get("Sid") or s.get("Sid") != statement.get("Sid")]
            statements.append(statement)
    document["Statement"] = statements
    return {
        "id": "policy-document",
        "json": json.dumps(document, indent=2),
        "minifiedJson": json.dumps(document, separators=(",", ":")),
    }


def _statements(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = document.get("Statement", [])
    return list(found) if isinstance(found, list) else [found]


def _statement(given: Mapping[str, Any]) -> dict[str, Any]:
    statement: dict[str, Any] = {}
    if given.get("sid"):
        statement["Sid"] = given["sid"]
    statement["Effect"] = given.get("effect") or "Allow"
    for ours, theirs in (
        ("actions", "Action"),
        ("notActions", "NotAction"),
        ("resources", "Resource"),
        ("notResources", "NotResource"),
    ):
        if given.get(ours):
            statement[theirs] = _one_or_many(given[ours])
    for ours, theirs in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
        if given.get(ours):
            statement[theirs] = _principals(given[ours])
    conditions: dict[str, dict[str, Any]] = {}
    for condition in given.get("conditions") or ():
        conditions.setdefault(condition["test"], {})[condition["variable"]] = _one_or_many(condition["values"])
    if conditions:
        statement["Condition"] = conditions
    return statement


def _principals(given: list[Mapping[str, Any]]) -> str | dict[str, str | list[str]]:
    merged: dict[str, list[str]] = {}
    for principal in given:
        merged.setdefault(principal["type"], []).extend(principal["identifiers"])
    return "*" if merged == {"*": ["*"]} else {kind: _one_or_many(identifiers) for kind, identifiers in merged.items()}


def _one_or_many(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else sorted(values, reverse=True)


def _region(arguments: Mapping[str, Any], region: str) -> dict[str, Any]:
    name = arguments.get("region") or arguments.get("name") or region
    return {"id": name, "region": name, "name": name, "description": name, "endpoint": f"ec2.{name}.amazonaws.com"}


def _partition(arguments: Mapping[str, Any], region: str) -> dict[str, Any]:
    del arguments
    partition, suffix = ("aws-cn", "amazonaws.com.cn") if region.startswith("cn-") else ("aws", "amazonaws.com")
    return {
        "id": partition,
        "partition": partition,
        "dnsSuffix": suffix,
        "reverseDnsPrefix": ".".join(reversed(suffix.split("."))),
    }


def _caller(arguments: Mapping[str, Any], region: str) -> dict[str, Any]:
    del arguments, region
    return {"id": ACCOUNT, "accountId": ACCOUNT, "arn": f"arn:aws:iam::{ACCOUNT}:role/preview", "userId": "preview"}


_LOCAL: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "aws:iam/getPolicyDocument:getPolicyDocument": _policy_document,
    "aws:index/getRegion:getRegion": _region,
    "aws:index/getPartition:getPartition": _partition,
    "aws:index/getCallerIdentity:getCallerIdentity": _caller,
}
