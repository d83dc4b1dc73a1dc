"""Image repositories: one for each service, and pull-through caches for images of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from app.contract import Service
from infra.components.iam import Statement, deny_without_tls, policy_document, service_trust
from infra.tags import Tags

UPSTREAMS: Final[Mapping[str, str]] = {
    "public-ecr": "public.ecr.aws",
    "kubernetes": "registry.k8s.io",
    "quay": "quay.io",
}
"""Registries whose images the cluster runs, by the prefix under which our registry serves them."""

CACHE_TAG: Final = "buildcache"
"""The one tag that moves: BuildKit's layers, which nothing ever runs."""


class Repository(StrEnum):
    """The images that are built here."""

    STRATEGIC = Service.STRATEGIC.value
    TACTICAL = Service.TACTICAL.value
    GATEWAY = "gateway"


_KEPT_IMAGES: Final = 30
_UNTAGGED_DAYS: Final = 7


@dataclass(frozen=True)
class RegistryArgs:
    """What the registry needs to know."""

    region: str
    account_id: str
    key_arn: pulumi.Input[str]
    protect: bool
    tags: Tags


class Registry(pulumi.ComponentResource):
    """ECR under a CMK: immutable tags, scan on push, old images expire, third parties come through our own registry."""

    repository_urls: Mapping[Repository, pulumi.Output[str]]
    repository_arns: Mapping[Repository, pulumi.Output[str]]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Registry", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        repositories = {repository: self._repository(repository) for repository in Repository}
        self.repository_urls = {name: repository.repository_url for name, repository in repositories.items()}
        self.repository_arns = {name: repository.arn for name, repository in repositories.items()}
        self._pull_through()
        self.register_outputs({})

    def _repository(self, image: Repository) -> aws.ecr.Repository:
        args = self._args
        repository = aws.ecr.Repository(
            f"{self._name}-{image}",
            name=f"{args.tags.project}/{args.tags.stack}/{image}",
            image_tag_mutability="IMMUTABLE_WITH_EXCLUSION",
            image_tag_mutability_exclusion_filters=[
                aws.ecr.RepositoryImageTagMutabilityExclusionFilterArgs(filter=CACHE_TAG, filter_type="WILDCARD")
            ],
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=args.key_arn)
            ],
            force_delete=False,
            tags=args.tags.named(f"{image}-images"),
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        aws.ecr.LifecyclePolicy(
            f"{self._name}-{image}",
            repository=repository.name,
            policy=json.dumps(lifecycle_policy()),
            opts=self._child,
        )
        aws.ecr.RepositoryPolicy(
            f"{self._name}-{image}",
            repository=repository.name,
            policy=policy_document(deny_without_tls(action="ecr:*")),
            opts=self._child,
        )
        return repository

    def _pull_through(self) -> None:
        args = self._args
        role = aws.iam.Role(
            f"{self._name}-pull-through",
            description="Creates encrypted repositories for images that come through the cache",
            assume_role_policy=service_trust("ecr.amazonaws.com", args.account_id),
            tags=args.tags.named("pull-through"),
            opts=self._child,
        )
        prefixes = [f"{args.tags.project}/{args.tags.stack}/{prefix}" for prefix in UPSTREAMS]
        arn = f"arn:aws:ecr:{args.region}:{args.account_id}:repository"
        rights = aws.iam.RolePolicy(
            f"{self._name}-pull-through",
            role=role.id,
            policy=policy_document(
                Statement(
                    "CreateRepositories",
                    actions=["ecr:CreateRepository", "ecr:TagResource"],
                    resources=[f"{arn}/{prefix}/*" for prefix in prefixes],
                ),
                Statement(
                    "UseRegistryKey",
                    actions=["kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant"],
                    resources=[args.key_arn],
                ),
            ),
            opts=self._child,
        )
        for (upstream, url), prefix in zip(UPSTREAMS.items(), prefixes, strict=True):
            template = aws.ecr.RepositoryCreationTemplate(
                f"{self._name}-{upstream}",
                prefix=prefix,
                description=f"Images of {url}",
                applied_fors=["PULL_THROUGH_CACHE"],
                custom_role_arn=role.arn,
                image_tag_mutability="IMMUTABLE",
                encryption_configurations=[
                    aws.ecr.RepositoryCreationTemplateEncryptionConfigurationArgs(
                        encryption_type="KMS", kms_key=args.key_arn
                    )
                ],
                lifecycle_policy=json.dumps(lifecycle_policy()),
                resource_tags=args.tags.named(upstream),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[rights]),
            )
            aws.ecr.PullThroughCacheRule(
                f"{self._name}-{upstream}",
                ecr_repository_prefix=prefix,
                upstream_registry_url=url,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[template]),
            )


def lifecycle_policy() -> dict[str, Any]:
    """Untagged images go after a week; of tagged ones the last thirty stay, enough to roll back by digest."""
    return {
        "rules": [
            {
                "rulePriority": 1,
                "description": "untagged images",
                "selection": {
                    "tagStatus": "untagged",
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": _UNTAGGED_DAYS,
                },
                "action": {"type": "expire"},
            },
            {
                "rulePriority": 2,
                "description": "all but the newest images",
                "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": _KEPT_IMAGES},
                "action": {"type": "expire"},
            },
        ]
    }
