"""Where backups lie: a directory, or an S3 bucket."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from ops.errors import OpsError


class Storage(Protocol):
    """Files by name; a name may contain slashes."""

    def put(self, name: str, source: Path) -> None:
        """Store the file ``source`` under ``name``, all of it or nothing."""

    def fetch(self, name: str, destination: Path) -> None:
        """Copy what is stored under ``name`` to ``destination``."""

    def names(self) -> list[str]:
        """All names, sorted."""

    def remove(self, name: str) -> None:
        """Delete what is stored under ``name``."""


def open_storage(location: str) -> Storage:
    """Storage at ``location``: a path, or ``s3://bucket/prefix``."""
    parts = urlsplit(location)
    if parts.scheme == "s3":
        return BucketStorage(parts.netloc, parts.path.strip("/"), boto3.client("s3"))
    return DirectoryStorage(Path(location))


@dataclass(frozen=True)
class DirectoryStorage:
    """Files below a directory, which is made when the first one is put."""

    directory: Path

    def put(self, name: str, source: Path) -> None:
        """Store by copy and rename, so that a name never stands for half a file."""
        destination = self.directory / name
        partial = destination.with_name(destination.name + ".partial")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial)
            partial.rename(destination)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OpsError(f"{destination}: cannot be written: {error.strerror}") from None

    def fetch(self, name: str, destination: Path) -> None:
        """Copy a file out."""
        try:
            shutil.copyfile(self.directory / name, destination)
        except OSError as error:
            raise OpsError(f"{self.directory / name}: cannot be read: {error.strerror}") from None

    def names(self) -> list[str]:
        """All files, partial ones left out."""
        files = (path for path in self.directory.rglob("*") if path.is_file() and path.suffix != ".partial")
        return sorted(str(path.relative_to(self.directory)) for path in files)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.directory / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class BucketStorage:
    """Objects below a prefix of a bucket, encrypted as the bucket's default says."""

    bucket: str
    prefix: str
    client: Any  # boto3 makes its client classes at run time

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def put(self, name: str, source: Path) -> None:
        """Upload; S3 shows an object when it is whole."""
        try:
            self.client.upload_file(str(source), self.bucket, self._key(name))
        except (BotoCoreError, ClientError, boto3.exceptions.S3UploadFailedError) as error:
            raise OpsError(f"s3://{self.bucket}/{self._key(name)}: cannot be written: {error}") from None

    def fetch(self, name: str, destination: Path) -> None:
        """Download."""
        try:
            self.client.download_file(self.bucket, self._key(name), str(destination))
        except (BotoCoreError, ClientError) as error:
            raise OpsError(f"s3://{self.bucket}/{self._key(name)}: cannot be read: {error}") from None

    def names(self) -> list[str]:
        """All names below the prefix."""
        start = len(self.prefix) + 1 if self.prefix else 0
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            return sorted(item["Key"][start:] for page in pages for item in page.get("Contents", []))
        except (BotoCoreError, ClientError) as error:
            raise OpsError(f"s3://{self.bucket}/{self.prefix}: cannot be listed: {error}") from None

    def remove(self, name: str) -> None:
        """Delete; a versioned bucket keeps the object until its lifecycle ends it."""
        try:
            self.client.delete_object(Bucket=self.bucket, Key=self._key(name))
        except (BotoCoreError, ClientError) as error:
            raise OpsError(f"s3://{self.bucket}/{self._key(name)}: cannot be deleted: {error}") from None
