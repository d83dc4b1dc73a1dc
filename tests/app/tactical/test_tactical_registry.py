from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from app.tactical.registry import CorruptFileError, DirectoryStore, FileStore, StorageError, open_store

CONTENT = b"model" * 1000


@pytest.fixture(scope="module")
def bucket_url() -> Iterator[str]:
    """A bucket of a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        boto3.client("s3").create_bucket(
            Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield "s3://models/tactical"
    server.stop()


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    url = tmp_path.as_uri() if request.param == "directory" else request.getfixturevalue("bucket_url")
    return open_store(url)


def test_what_was_written_is_read_back(store: FileStore) -> None:
    file = store.write("models/one.safetensors", CONTENT)
    assert file.checksum == hashlib.sha256(CONTENT).hexdigest()
    assert file.size == len(CONTENT)
    assert store.read(file.path, file.checksum) == CONTENT
    assert store.check() is None


def test_a_file_that_is_not_what_was_saved_is_refused(store: FileStore) -> None:
    file = store.write("models/two.safetensors", CONTENT)
    store.write("models/two.safetensors", CONTENT[:-1])
    with pytest.raises(CorruptFileError, match=r"two\.safetensors is not the file that was saved"):
        store.read(file.path, file.checksum)


def test_a_missing_file_is_named(store: FileStore) -> None:
    with pytest.raises(StorageError, match=r"cannot read models/none"):
        store.read("models/none", "0" * 64)


def test_files_are_listed_and_deleted(store: FileStore) -> None:
    store.write("checkpoints/job/a", CONTENT)
    assert "checkpoints/job/a" in store.paths("checkpoints", older_than=-10)
    assert store.paths("checkpoints", older_than=60) == []
    store.delete("checkpoints/job/a")
    store.delete("checkpoints/job/a")
    assert "checkpoints/job/a" not in store.paths("checkpoints", older_than=-10)


def test_an_absent_bucket_keeps_the_service_from_being_ready(bucket_url: str) -> None:
    problem = open_store(bucket_url.replace("models", "absent")).check()
    assert problem is not None
    assert "absent" in problem


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "models/../../outside"])
def test_no_path_leads_out_of_the_directory(tmp_path: Path, path: str) -> None:
    store = DirectoryStore(tmp_path / "store")
    with pytest.raises(StorageError, match="outside"):
        store.write(path, CONTENT)
    with pytest.raises(StorageError, match="outside"):
        store.read(path, "0" * 64)


WRITE = """
import resource, signal, sys
from pathlib import Path
from app.tactical.registry import DirectoryStore, StorageFullError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    DirectoryStore(Path(sys.argv[1])).write("models/one", b"x" * 20_000)
except StorageFullError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part_of_the_new(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    store = DirectoryStore(tmp_path)
    file = store.write("models/one", CONTENT)
    done = subprocess.run([sys.executable, "-c", WRITE, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot write models/one: ")
    assert store.read("models/one", file.checksum) == CONTENT
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["one"]


KILLED = """
import os, sys, threading, time
from pathlib import Path
from app.tactical.registry import DirectoryStore
store = DirectoryStore(Path(sys.argv[1]))
threading.Timer(float(sys.argv[2]), lambda: os.kill(os.getpid(), 9)).start()
print("ready", flush=True)
for number in range(10_000_000):
    store.write("models/one", bytes([number % 251]) * 3_000_000)
"""


@pytest.mark.parametrize("seconds", [0.05, 0.11, 0.19])
def test_a_kill_during_a_write_leaves_a_whole_file(tmp_path: Path, seconds: float) -> None:
    store = DirectoryStore(tmp_path)
    store.write("models/one", b"\0" * 3_000_000)
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(seconds)], capture_output=True, check=False)
    content = (tmp_path / "models" / "one").read_bytes()
    assert len(content) == 3_000_000
    assert len(set(content)) == 1
    assert "models/one" in store.paths("models", older_than=-1)
