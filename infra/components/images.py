"""The images: built by BuildKit from this repository, pushed to its own registry, deployed by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pulumi
import pulumi_docker_build as docker_build

from infra.components.registry import CACHE_TAG, Repository

_ROOT: Final = Path(__file__).resolve().parents[2]
_FROM_PROGRAM: Final = ".."
"""The repository as the engine sees it: its plugins run in the folder that Pulumi.yaml calls ``main``."""
_SHARED_SOURCES: Final = ("pyproject.toml", "constraints.txt", ".dockerignore")
_SOURCES: Final[Mapping[Repository, tuple[str, ...]]] = {
    Repository.STRATEGIC: ("app", "ops"),
    Repository.TACTICAL: ("app", "ops"),
    Repository.GATEWAY: ("infra/gateway",),
}
_DOCKERFILES: Final[Mapping[Repository, str]] = {
    Repository.STRATEGIC: "app/strategic/Dockerfile",
    Repository.TACTICAL: "app/tactical/Dockerfile",
    Repository.GATEWAY: "infra/gateway/Dockerfile",
}
_TAG_LENGTH: Final = 16


@dataclass(frozen=True)
class ImagesArgs:
    """Where images go, and what is built in or taken as it is."""

    repository_urls: Mapping[Repository, pulumi.Input[str]]
    build_arguments: Mapping[Repository, Mapping[str, pulumi.Input[str]]]
    digests: Mapping[Repository, str]
    """Images that exist already (a rollback, a promotion), as ``sha256:...``: deployed, not built."""


class Images(pulumi.ComponentResource):
    """One image for each repository; nothing is built in a preview.

    The provider has no attestations (docs/decisions/2026-11-25-sbom.md): each service's image carries its bill of
    materials, and whoever deploys attests it and the provenance for the digest that was pushed.

    Credentials are those of whoever runs Pulumi (the ECR credential helper): a token here would be stored, and would
    differ in every run.
    """

    references: Mapping[Repository, pulumi.Output[str]]
    """``repository@sha256:...`` of each."""

    def __init__(self, name: str, args: ImagesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Images", name, None, opts)
        self._name, self._args = name, args
        self.references = {
            repository: self._pinned(repository) if repository in args.digests else self._built(repository)
            for repository in Repository
        }
        self.register_outputs({"references": {r.value: reference for r, reference in self.references.items()}})

    def _pinned(self, repository: Repository) -> pulumi.Output[str]:
        return pulumi.Output.concat(self._args.repository_urls[repository], "@", self._args.digests[repository])

    def _built(self, repository: Repository) -> pulumi.Output[str]:
        url = self._args.repository_urls[repository]
        layers = pulumi.Output.concat(url, ":", CACHE_TAG)
        image = docker_build.Image(
            f"{self._name}-{repository}",
            context=docker_build.BuildContextArgs(location=_FROM_PROGRAM),
            dockerfile=docker_build.DockerfileArgs(location=f"{_FROM_PROGRAM}/{_DOCKERFILES[repository]}"),
            build_args=dict(self._args.build_arguments.get(repository, {})),
            platforms=[docker_build.Platform.LINUX_AMD64],
            tags=[pulumi.Output.concat(url, ":", content_tag(repository))],
            push=True,
            build_on_preview=False,
            cache_from=[
                docker_build.CacheFromArgs(registry=docker_build.CacheFromRegistryArgs(ref=layers)),
            ],
            cache_to=[
                docker_build.CacheToArgs(
                    registry=docker_build.CacheToRegistryArgs(
                        ref=layers,
                        mode=docker_build.CacheMode.MAX,
                        image_manifest=True,
                        oci_media_types=True,
                        ignore_error=True,
                    )
                )
            ],
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        return image.ref


@cache
def content_tag(repository: Repository, root: Path = _ROOT) -> str:
    """Tag that says what is in the image: a digest of its sources. Equal sources never push twice to immutable tags."""
    digest = hashlib.sha256()
    for path in _sources(repository, root):
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_TAG_LENGTH]


def _sources(repository: Repository, root: Path) -> Iterable[Path]:
    names = (*_SHARED_SOURCES, *_SOURCES[repository])
    found = {
        path
        for name in names
        for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(found)
