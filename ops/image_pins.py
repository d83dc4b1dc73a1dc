"""Images of others, pinned by digest in Dockerfiles and ``compose.yaml``: which digests their tags have now.

``python -m ops.image_pins --check`` asks the registries and says what is stale; without ``--check`` it writes the new
digests. A tag of a patch release moves when its base is rebuilt with security fixes: that is what renewing is for.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

FILES: Final = (
    Path("app/strategic/Dockerfile"),
    Path("app/tactical/Dockerfile"),
    Path("infra/gateway/Dockerfile"),
    Path("compose.yaml"),
)

_REFERENCE: Final = re.compile(
    r"(?P<registry>[a-z0-9][a-z0-9.-]*(?:\.[a-z]+|:\d+))/(?P<repository>[a-z0-9._/-]+):(?P<tag>[\w.-]+)"
    r"@(?P<digest>sha256:[0-9a-f]{64})"
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_HOSTS: Final = {"docker.io": "registry-1.docker.io"}
"""Registries whose interface is served under another name."""


class ImagePinsError(Exception):
    """A registry gave no digest; the message is one line for a person."""


@dataclass(frozen=True, order=True)
class Pin:
    """One image as it is named in a file: ``registry/repository:tag@digest``."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


def pins_in(text: str) -> set[Pin]:
    """Every image that the text names by tag and digest."""
    return {Pin(**match.groupdict()) for match in _REFERENCE.finditer(text)}


def current_digest(pin: Pin, client: httpx.Client) -> str:
    """Digest that the registry has for the pin's tag now.

    Raises:
        ImagePinsError: the registry cannot be reached, refuses, or does not know the tag.
    """
    host = _HOSTS.get(pin.registry, pin.registry)
    scheme = "http" if host.startswith(("localhost:", "127.0.0.1:")) else "https"
    url = f"{scheme}://{host}/v2/{pin.repository}/manifests/{pin.tag}"
    headers = {"Accept": ", ".join(_MANIFESTS)}
    try:
        answer = client.head(url, headers=headers)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            token = _token(answer.headers.get("WWW-Authenticate", ""), pin, client)
            answer = client.head(url, headers=headers | {"Authorization": f"Bearer {token}"})
    except httpx.HTTPError as error:
        raise ImagePinsError(f"{pin}: {host} cannot be reached: {error}") from None
    digest = answer.headers.get("Docker-Content-Digest", "")
    if answer.status_code != httpx.codes.OK or not digest.startswith("sha256:"):
        raise ImagePinsError(f"{pin}: {host} gave no digest (HTTP {answer.status_code})")
    return str(digest)


def _token(challenge: str, pin: Pin, client: httpx.Client) -> str:
    """What a registry wants to see even of those who only read what is public: distribution's token authentication."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in fields:
        raise ImagePinsError(f"{pin}: the registry asks for a sign-in that is not known here: {challenge or 'nothing'}")
    query = {"service": fields.get("service", ""), "scope": fields.get("scope", f"repository:{pin.repository}:pull")}
    answer = client.get(fields["realm"], params=query)
    found = answer.json() if answer.status_code == httpx.codes.OK else {}
    token = found.get("token") or found.get("access_token")
    if not token:
        raise ImagePinsError(f"{pin}: {fields['realm']} gave no token (HTTP {answer.status_code})")
    return str(token)


def main(arguments: list[str] | None = None) -> int:
    """Renew or check; 0 when fresh or renewed, 1 when ``--check`` finds a stale digest, 2 when a registry is silent."""
    parser = argparse.ArgumentParser(prog="python -m ops.image_pins", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a digest is stale")
    parser.add_argument("--directory", type=Path, default=Path(), help="root of the repository")
    options = parser.parse_args(arguments)
    texts = {options.directory / file: (options.directory / file).read_text(encoding="utf-8") for file in FILES}
    pins = sorted(set().union(*map(pins_in, texts.values())))
    try:
        with httpx.Client(timeout=20, follow_redirects=True) as client:
            current = {pin: current_digest(pin, client) for pin in pins}
    except ImagePinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stale = {pin: digest for pin, digest in current.items() if digest != pin.digest}
    for pin, digest in stale.items():
        print(f"{pin}: {pin.digest} -> {digest}")
    if not stale:
        print("all images are fresh")
        return 0
    if options.check:
        return 1
    for file, text in texts.items():
        file.write_text(_renewed(text, stale), encoding="utf-8")
    return 0


def _renewed(text: str, digests: Mapping[Pin, str]) -> str:
    for pin, digest in digests.items():
        text = text.replace(f"{pin}@{pin.digest}", f"{pin}@{digest}")
    return text


if __name__ == "__main__":
    sys.exit(main())
