"""Rotation of a secret that is nothing but random text: the signing keys of the services (runs in AWS Lambda).

The four steps are those of Secrets Manager's rotation contract. Nothing outside stores the value, so ``setSecret`` has
nothing to do. Services accept the current and the previous version until their tokens have expired.
"""

from typing import Any, TypeAlias

import boto3

Client: TypeAlias = Any
"""Secrets Manager client: boto3 makes its classes at run time."""

SECRET_LENGTH = 64


def handle(event: dict[str, str], _context: object = None, *, client: Client = None) -> None:
    """Carry out one step of a rotation.

    Args:
        event: ``Step``, ``SecretId`` and ``ClientRequestToken``, as Secrets Manager sends them.
        client: Secrets Manager client; the default one of the function's region when absent.

    Raises:
        ValueError: when the step is unknown, rotation is off, or the version is not staged for it.
    """
    client = client or boto3.client("secretsmanager")
    secret_id, token, step = event["SecretId"], event["ClientRequestToken"], event["Step"]
    description = client.describe_secret(SecretId=secret_id)
    stages = description.get("VersionIdsToStages", {})
    if not description.get("RotationEnabled"):
        raise ValueError(f"rotation is not enabled for {secret_id}")
    if token not in stages:
        raise ValueError(f"version {token} of {secret_id} is not staged for rotation")
    if "AWSCURRENT" in stages[token]:
        return
    match step:
        case "createSecret":
            _create(client, secret_id, token)
        case "setSecret":
            pass
        case "testSecret":
            _test(client, secret_id, token)
        case "finishSecret":
            _finish(client, secret_id, token, stages)
        case _:
            raise ValueError(f"unknown rotation step {step!r}")


def _create(client: Client, secret_id: str, token: str) -> None:
    """Put a random value under AWSPENDING, once: a retried step keeps the first value."""
    try:
        client.get_secret_value(SecretId=secret_id, VersionId=token, VersionStage="AWSPENDING")
    except client.exceptions.ResourceNotFoundException:
        value = client.get_random_password(PasswordLength=SECRET_LENGTH, ExcludePunctuation=True)["RandomPassword"]
        client.put_secret_value(
            SecretId=secret_id, ClientRequestToken=token, SecretString=value, VersionStages=["AWSPENDING"]
        )


def _test(client: Client, secret_id: str, token: str) -> None:
    value = client.get_secret_value(SecretId=secret_id, VersionId=token, VersionStage="AWSPENDING")["SecretString"]
    if len(value) < SECRET_LENGTH:
        raise ValueError(f"pending version {token} of {secret_id} is shorter than {SECRET_LENGTH} characters")


def _finish(client: Client, secret_id: str, token: str, stages: dict[str, list[str]]) -> None:
    current = next((version for version, names in stages.items() if "AWSCURRENT" in names), None)
    moved_from = {"RemoveFromVersionId": current} if current else {}
    client.update_secret_version_stage(
        SecretId=secret_id, VersionStage="AWSCURRENT", MoveToVersionId=token, **moved_from
    )
