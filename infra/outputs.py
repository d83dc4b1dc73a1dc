"""The contract that other teams consume: versioned, without secrets, one typed reader.

A field may be added within a schema version. Removing, renaming or redefining one takes a new ``SCHEMA_VERSION`` and a
new recorded contract under ``tests/infra/contracts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pulumi
from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1


class EstateOutputs(BaseModel):
    """What a stack tells other stacks. Secrets appear by ARN only."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = Field(description="Version of this contract; a reader refuses another one.")
    stack: str = Field(description="Name of the stack.")
    region: str = Field(description="AWS region that everything lives in.")
    vpc_id: str = Field(description="VPC of the estate.")
    private_subnet_ids: list[str] = Field(description="Subnets of nodes and pods, one for each zone.")
    nat_public_ips: list[str] = Field(description="Addresses that the estate's outbound traffic comes from.")
    node_security_group_id: str = Field(description="Security group of nodes and pods.")
    api_url: str = Field(description="Base URL of the public gateway; both APIs lie below /api.")
    strategic_url: str = Field(description="Base URL of the strategic service for trusted networks.")
    tactical_url: str = Field(description="Base URL of the tactical service for trusted networks.")
    load_balancer_dns_name: str = Field(description="DNS name of the network load balancer.")
    cluster_name: str = Field(description="Name of the EKS cluster.")
    cluster_endpoint: str = Field(description="URL of the Kubernetes API.")
    cluster_certificate_authority: str = Field(description="CA of the Kubernetes API, PEM in base64.")
    database_endpoint: str = Field(description="Host name of PostgreSQL.")
    database_port: int = Field(description="Port of PostgreSQL; TLS is required.")
    database_engine_version: str = Field(description="Version of PostgreSQL that actually runs.")
    database_master_secret_arn: str = Field(description="ARN of the secret that RDS rotates; not the secret.")
    cache_endpoint: str = Field(description="Host name of Valkey's primary.")
    cache_port: int = Field(description="Port of Valkey; TLS is required.")
    repository_urls: dict[str, str] = Field(description="Image repository of each service.")
    bucket_names: dict[str, str] = Field(description="S3 buckets by purpose.")
    key_arns: dict[str, str] = Field(description="Customer-managed keys by purpose.")
    secret_arns: dict[str, str] = Field(description="Secrets by name; their values are read at run time.")
    alert_topic_arn: str = Field(description="SNS topic of all alarms.")
    backup_vault_arn: str = Field(description="AWS Backup vault.")
    preview_role_arn: str = Field(description="Role that previews of pull requests assume.")


def export_outputs(values: Mapping[str, pulumi.Input[Any]]) -> None:
    """Export the contract, one stack output a field.

    Raises:
        ValueError: when ``values`` are not exactly the fields of the contract.
    """
    fields = set(EstateOutputs.model_fields) - {"schema_version"}
    if wrong := fields.symmetric_difference(values):
        raise ValueError(f"outputs do not match the contract: {', '.join(sorted(wrong))}")
    pulumi.export("schema_version", SCHEMA_VERSION)
    for name, value in values.items():
        pulumi.export(name, value)


def read_outputs(reference: pulumi.StackReference) -> pulumi.Output[EstateOutputs]:
    """The contract of the stack behind ``reference``, typed.

    The output fails with ``ContractError`` when the producer speaks another schema version, or lacks a field: a missing
    output would otherwise be a silent None (``StackReference.get_output``).
    """
    fields = {name: reference.get_output(name) for name in EstateOutputs.model_fields}
    return pulumi.Output.all(**fields).apply(parse_outputs)


class ContractError(pulumi.RunError):
    """The producing stack does not keep the contract that this reader knows."""


def parse_outputs(values: Mapping[str, Any]) -> EstateOutputs:
    """Check plain values against the contract.

    Raises:
        ContractError: naming what is missing, or the version that was found.
    """
    version = values.get("schema_version")
    if version is None or int(version) != SCHEMA_VERSION:
        raise ContractError(f"the estate's outputs have schema version {version}, this reader knows {SCHEMA_VERSION}")
    missing = sorted(name for name in EstateOutputs.model_fields if values.get(name) is None)
    if missing:
        raise ContractError(f"the estate's outputs lack {', '.join(missing)}")
    return EstateOutputs.model_validate(values)
