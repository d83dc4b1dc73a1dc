"""Named tensors and a JSON document on disk: written whole or not at all, and verified before use.

A checkpoint ``NAME`` in a directory is a payload ``NAME-<sha256, 16 digits>.safetensors`` and a manifest ``NAME.json``
that names the payload, its length and its SHA-256. The payload is on the disk before the manifest replaces the older
one, so that a reader finds the old checkpoint or the new one, whenever the writer is killed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FORMAT: Final = "grandmodel-tactical/1"
_HEADER: Final = "document"
_TEMPORARY: Final = ".writing-"

Document = dict[str, Any]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written. The message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Saved:
    """Where a checkpoint went."""

    manifest: Path
    payload: Path
    sha256: str
    size: int
    """Bytes of the payload."""


def encode(tensors: dict[str, Tensor], document: Document) -> bytes:
    """Tensors and document as one safetensors file; the document is in its header.

    Raises:
        CheckpointError: when a number in a tensor or in the document is not finite.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"checkpoint: {name} holds a number that is not finite")
    try:
        text = json.dumps(document, allow_nan=False, sort_keys=True)
    except ValueError as error:
        raise CheckpointError(f"checkpoint: a number in the document is not finite: {error}") from error
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return bytes(safetensors.torch.save(contiguous, metadata={"format": FORMAT, _HEADER: text}))


def decode(data: bytes, *, source: str = "checkpoint") -> tuple[dict[str, Tensor], Document]:
    """Takes back what ``encode`` gave.

    Raises:
        CheckpointError: when the bytes are no safetensors file, a truncated one, or one of another program.
    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: not a whole safetensors file ({error})") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{source}: format {header.get('format')!r}, expected {FORMAT!r}; made by another program?"
        )
    try:
        document = json.loads(header[_HEADER])
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: its document is not readable ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{source}: its document is a {type(document).__name__}, expected an object")
    return tensors, document


def save(directory: Path, name: str, tensors: dict[str, Tensor], document: Document) -> Saved:
    """Writes the checkpoint ``name``, then removes the payload that it replaced.

    Raises:
        CheckpointError: when the disk is full or refuses; an older checkpoint of this name stays as it was.
    """
    data = encode(tensors, document)
    sha256 = hashlib.sha256(data).hexdigest()
    payload = directory / f"{name}-{sha256[:16]}.safetensors"
    manifest = directory / f"{name}.json"
    entry = {"format": FORMAT, "file": payload.name, "sha256": sha256, "bytes": len(data), "document": document}
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be made ({error.strerror or error})") from error
    existed = payload.exists()
    write_atomically(payload, data)
    try:
        write_atomically(manifest, (json.dumps(entry, indent=1, allow_nan=False) + "\n").encode())
    except CheckpointError:
        if not existed:
            payload.unlink(missing_ok=True)
        raise
    _sweep(directory, name, keep=payload.name)
    return Saved(manifest, payload, sha256, len(data))


def load(directory: Path, name: str) -> tuple[dict[str, Tensor], Document]:
    """Reads the checkpoint ``name`` and verifies it.

    Raises:
        CheckpointError: when there is none, or its manifest or payload is missing, corrupt, truncated or foreign.
    """
    manifest = directory / f"{name}.json"
    try:
        entry = json.loads(manifest.read_bytes())
        file, expected = str(entry["file"]), str(entry["sha256"])
    except FileNotFoundError:
        raise CheckpointError(f"{manifest}: not found; there is no checkpoint of that name") from None
    except OSError as error:
        raise CheckpointError(f"{manifest}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest}: not a checkpoint's manifest ({type(error).__name__}: {error})") from error
    if Path(file).name != file:
        raise CheckpointError(f"{manifest}: names the file {file!r}, which is outside its directory")
    try:
        data = (directory / file).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{directory / file}: cannot be read ({error.strerror})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise CheckpointError(
            f"{directory / file}: SHA-256 {found[:16]}..., expected {expected[:16]}...; the file is damaged"
        )
    return decode(data, source=str(directory / file))


def exists(directory: Path, name: str) -> bool:
    """Whether there is a checkpoint of this name, sound or not."""
    return (directory / f"{name}.json").exists()


def write_atomically(path: Path, data: bytes) -> None:
    """Puts ``data`` at ``path`` for good: a temporary file beside it, fsync, rename, fsync of the directory.

    Raises:
        CheckpointError: when the disk is full or refuses; ``path`` is as it was and nothing else is left behind.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, suffix=f".{path.name}", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - the pair of mkstemp, which speaks in strings
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error


def _sweep(directory: Path, name: str, *, keep: str) -> None:
    """Removes older payloads of ``name`` and what a killed writer left, never what the manifest names."""
    with contextlib.suppress(OSError):
        for old in directory.glob(f"{name}-{'[0-9a-f]' * 16}.safetensors"):
            if old.name != keep:
                old.unlink(missing_ok=True)
        for stray in directory.glob(f"{_TEMPORARY}*.{name}*"):
            stray.unlink(missing_ok=True)
