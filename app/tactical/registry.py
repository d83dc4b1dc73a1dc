"""Files of models and checkpoints: written whole or not at all, verified by checksum when read.

A directory or an S3 bucket. The database knows which files count; a file that it does not know was never acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from app.service.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAXIMUM_FILE_BYTES: Final = 512 * 1024 * 1024
_TEMPORARY: Final = ".partial-"


class StorageError(Exception):
    """A file could not be written or read; the message says which and why, and nothing half-written is left."""


class StorageFullError(StorageError):
    """There is no room for the file."""


class CorruptFileError(StorageError):
    """A file is not the one that was saved."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is safely there."""

    path: str
    """Relative to the store."""
    checksum: str
    """SHA-256 in hexadecimal."""
    size: int
    """Bytes."""


class FileStore(Protocol):
    """Keeps whole files under relative paths. Every method blocks: call it in a thread."""

    def write(self, path: str, content: bytes) -> StoredFile:
        """Keep ``content`` durably, replacing what was there, or raise ``StorageError`` and keep what was there."""
        ...

    def read(self, path: str, checksum: str) -> bytes:
        """The content; raises ``CorruptFileError`` when it is not what ``checksum`` tells, ``StorageError`` without."""
        ...

    def delete(self, path: str) -> None:
        """Remove the file if it is there."""
        ...

    def paths(self, prefix: str, *, older_than: float) -> list[str]:
        """Files under ``prefix`` that were written more than ``older_than`` seconds ago."""
        ...

    def check(self) -> str | None:
        """None when files can be written, else why not."""
        ...


def open_store(url: str) -> FileStore:
    """The store at ``file:///directory`` or ``s3://bucket/prefix``.

    Raises:
        StorageError: the directory cannot be made.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from app.tactical.registry_s3 import S3Store  # noqa: PLC0415 - boto3 only where a bucket is used

        return S3Store(parts.netloc, parts.path.strip("/"))
    return DirectoryStore(Path(parts.path))


class DirectoryStore:
    """A directory: each file is written beside its place, flushed to the disk, and moved there in one step."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the directory {root}: {error.strerror}") from error

    def write(self, path: str, content: bytes) -> StoredFile:
        """See ``FileStore``."""
        target = self._resolve(path)
        partial = target.with_name(_TEMPORARY + secrets.token_hex(8))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
                _sync_directory(target.parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
        except OSError as error:
            raise _storage_error("write", path, error) from error
        return StoredFile(path, hashlib.sha256(content).hexdigest(), len(content))

    def read(self, path: str, checksum: str) -> bytes:
        """See ``FileStore``."""
        try:
            content = self._resolve(path).read_bytes()
        except OSError as error:
            raise _storage_error("read", path, error) from error
        return verified(path, content, checksum)

    def delete(self, path: str) -> None:
        """See ``FileStore``."""
        with contextlib.suppress(OSError):
            self._resolve(path).unlink()

    def paths(self, prefix: str, *, older_than: float) -> list[str]:
        """See ``FileStore``; leftovers of writes that a kill cut short are among them."""
        latest = time.time() - older_than
        return [str(file.relative_to(self._root)) for file in self._files(prefix) if _written_at(file) < latest]

    def check(self) -> str | None:
        """See ``FileStore``."""
        if not os.access(self._root, os.W_OK):
            return f"{self._root} cannot be written"
        return None

    def _files(self, prefix: str) -> Iterator[Path]:
        return (file for file in self._resolve(prefix).rglob("*") if file.is_file())

    def _resolve(self, path: str) -> Path:
        target = (self._root / path).resolve()
        if not target.is_relative_to(self._root.resolve()):
            raise StorageError(f"{path!r} lies outside the model store")
        return target


def verified(path: str, content: bytes, checksum: str) -> bytes:
    """``content`` if its SHA-256 is ``checksum``.

    Raises:
        CorruptFileError: it is not.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise CorruptFileError(
            f"{path} is not the file that was saved: its SHA-256 is {found[:12]}..., expected {checksum[:12]}..."
        )
    return content


def storage_problem(error: StorageError) -> ProblemError:
    """What a client is told: 507 for a full disk, else 500."""
    if isinstance(error, StorageFullError):
        return ProblemError(507, "storage-full", f"Nothing was stored: {error}.", retry_after=60.0)
    return ProblemError(500, "storage-failed", f"The model store failed: {error}.")


def _storage_error(verb: str, path: str, error: OSError) -> StorageError:
    kind: type[Any] = StorageFullError if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} else StorageError
    found: StorageError = kind(f"cannot {verb} {path}: {error.strerror or error}")
    return found


def _written_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return time.time()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
