"""Digests of base images are asked from a real registry, renewed by one command and by nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ops import image_pins
from ops.image_pins import Pin

ROOT = Path(__file__).resolve().parents[2]
STALE = "sha256:" + "0" * 64


def push(registry: str, repository: str, tag: str, content: bytes) -> str:
    """Push an image of one odd layer under a tag; gives its digest."""
    url = f"http://{registry}/v2/{repository}"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    upload = httpx.post(f"{url}/blobs/uploads/").headers["Location"]
    httpx.put(upload, params={**dict(httpx.URL(upload).params), "digest": digest}, content=content).raise_for_status()
    media = "application/vnd.oci.image.manifest.v1+json"
    blob = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(content)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "config": blob, "layers": []}).encode()
    answer = httpx.put(f"{url}/manifests/{tag}", content=manifest, headers={"Content-Type": media})
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"]


@pytest.fixture
def repository(tmp_path: Path, registry: str) -> Path:
    """A repository whose files name images of the test's registry; compose.yaml names a stale digest."""
    fresh = push(registry, "library/python", "3.11", b"{}")
    push(registry, "cache", "8", b'{"a": 1}')
    for file in image_pins.FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"ARG BASE_IMAGE={registry}/library/python:3.11@{fresh}\n", encoding="utf-8")
    compose = f"# kept\nimage: ${{CACHE_IMAGE:-{registry}/cache:8@{STALE}}}\n"
    (tmp_path / "compose.yaml").write_text(compose, encoding="utf-8")
    return tmp_path


def test_checking_tells_what_is_stale_and_writes_nothing(
    repository: Path, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (repository / "compose.yaml").read_text(encoding="utf-8")
    assert image_pins.main(["--check", "--directory", str(repository)]) == 1
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"{registry}/cache:8: {STALE} -> sha256:[0-9a-f]{{64}}\n", printed)
    assert (repository / "compose.yaml").read_text(encoding="utf-8") == before


def test_renewing_writes_the_digest_of_now_and_leaves_the_rest_alone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dockerfile = (repository / "app/strategic/Dockerfile").read_text(encoding="utf-8")
    assert image_pins.main(["--directory", str(repository)]) == 0
    text = (repository / "compose.yaml").read_text(encoding="utf-8")
    assert text.startswith("# kept\n")
    assert STALE not in text
    assert (repository / "app/strategic/Dockerfile").read_text(encoding="utf-8") == dockerfile
    assert image_pins.main(["--check", "--directory", str(repository)]) == 0
    assert capsys.readouterr().out.endswith("all images are fresh\n")


@pytest.mark.parametrize("name", ["unknown/image", "cache-of-nobody"])
def test_an_image_that_the_registry_does_not_know_is_one_line(
    repository: Path, registry: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "compose.yaml").write_text(f"image: {registry}/{name}:1@{STALE}\n", encoding="utf-8")
    assert image_pins.main(["--check", "--directory", str(repository)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {registry}/{name}:1: {registry} gave no digest (HTTP 404)\n"


def test_a_registry_that_is_away_is_one_line(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "compose.yaml").write_text(f"image: localhost:1/a:1@{STALE}\n", encoding="utf-8")
    assert image_pins.main(["--check", "--directory", str(repository)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: localhost:1/a:1: localhost:1 cannot be reached: ")
    assert error.count("\n") == 1


class TokenRegistry(BaseHTTPRequestHandler):
    """Asks for a token as the large public registries do."""

    digest = "sha256:" + "a" * 64

    def do_HEAD(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer opened"
        self.send_response(200 if allowed else 401)
        if allowed:
            self.send_header("Docker-Content-Digest", self.digest)
        else:
            realm = f"http://{self.headers['Host']}/token"
            scope = "repository:team/image:pull"
            self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",service="registry.test",scope="{scope}"')
        self.end_headers()

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        known = query == {"service": ["registry.test"], "scope": ["repository:team/image:pull"]}
        body = json.dumps({"token": "opened"}).encode() if known else b"{}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silent."""


def test_a_token_is_asked_for_where_a_registry_wants_one() -> None:
    with HTTPServer(("127.0.0.1", 0), TokenRegistry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            pin = Pin(f"localhost:{server.server_address[1]}", "team/image", "1", STALE)
            with httpx.Client() as client:
                assert image_pins.current_digest(pin, client) == TokenRegistry.digest
        finally:
            server.shutdown()


def test_every_image_of_others_is_pinned_where_the_command_looks() -> None:
    """A Dockerfile or an image that the command does not see would never be renewed."""
    dockerfiles = {
        path.relative_to(ROOT) for folder in ("app", "infra") for path in (ROOT / folder).rglob("Dockerfile")
    }
    assert dockerfiles == {file for file in image_pins.FILES if file.name == "Dockerfile"}
    for file in dockerfiles:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert len(image_pins.pins_in(text)) == 1
        assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${BASE_IMAGE}", "packages", "scratch"}
        assert "# syntax=" not in text, "a front end that is fetched is one more image without a digest"
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    images = re.findall(r"^ +image: (\S+)$", compose, re.MULTILINE)
    others = [image for image in images if not image.startswith("grandmodel/")]
    assert len(image_pins.pins_in(compose)) == len(others) == 4
