"""The model store in an S3 bucket: S3 shows an object only when it has arrived whole."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.tactical.registry import StorageError, StoredFile, verified


class S3Store:
    """Objects under ``prefix`` of ``bucket``; credentials and region come from the environment (Pod Identity)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        retries: Any = {"max_attempts": 3, "mode": "standard"}
        self._client = boto3.client("s3", config=Config(connect_timeout=3, read_timeout=10, retries=retries))

    def write(self, path: str, content: bytes) -> StoredFile:
        """See ``FileStore``; S3 compares the checksum before it keeps the object."""
        digest = hashlib.sha256(content)
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + path,
                Body=content,
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
            )
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"cannot write {path} to bucket {self._bucket}: {error}") from error
        return StoredFile(path, digest.hexdigest(), len(content))

    def read(self, path: str, checksum: str) -> bytes:
        """See ``FileStore``."""
        try:
            content = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"cannot read {path} from bucket {self._bucket}: {error}") from error
        return verified(path, content, checksum)

    def delete(self, path: str) -> None:
        """See ``FileStore``."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + path)
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"cannot delete {path} from bucket {self._bucket}: {error}") from error

    def paths(self, prefix: str, *, older_than: float) -> list[str]:
        """See ``FileStore``."""
        latest = datetime.now(UTC) - timedelta(seconds=older_than)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        try:
            return [
                item["Key"].removeprefix(self._prefix)
                for page in pages
                for item in page.get("Contents", [])
                if item["LastModified"] < latest
            ]
        except (BotoCoreError, ClientError) as error:
            raise StorageError(f"cannot list bucket {self._bucket}: {error}") from error

    def check(self) -> str | None:
        """See ``FileStore``."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (BotoCoreError, ClientError) as error:
            return f"bucket {self._bucket}: {error}"
        return None
