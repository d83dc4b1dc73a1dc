"""The software bill of materials of an image, as CycloneDX 1.6: ``python -m ops.images.sbom --help``.

It lists what is really there: every distribution that Python's metadata finds, with the hash of the wheel that the lock
pinned, every Debian package, and the interpreter. Equal images get equal documents: no clock, no random number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

PATH: Final = "/usr/local/share/sbom/grandmodel.cdx.json"
"""Where the document lies in an image; the label `LABEL` says so."""
LABEL: Final = "io.grandmodel.image.sbom"

_PIN: Final = re.compile(r"^(?P<name>[^=\s]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$")

Component = dict[str, Any]


class SbomError(Exception):
    """What is installed is not what was pinned; the message is one line."""


def read_lock(text: str) -> dict[str, tuple[str, str]]:
    """Version and SHA-256 of the wheel by normalised name, out of a lock of `ops.locks`."""
    pins = [match for line in text.splitlines() if (match := _PIN.match(line))]
    return {normalised(pin["name"]): (pin["version"], pin["sha256"]) for pin in pins}


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_components(installed: Iterable[Distribution], lock: Mapping[str, tuple[str, str]]) -> Iterator[Component]:
    """One library for each installed distribution.

    Raises:
        SbomError: when the lock pins another version than is installed.
    """
    for distribution in installed:
        name, version = normalised(distribution.name), distribution.version
        purl = f"pkg:pypi/{name}@{quote(version)}"
        component: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if pin := lock.get(name):
            pinned, sha256 = pin
            if version.partition("+")[0] != pinned:
                raise SbomError(f"{name}: {version} is installed, {pinned} is locked")
            component["hashes"] = [{"alg": "SHA-256", "content": sha256}]
        if expression := distribution.metadata["License-Expression"]:
            component["licenses"] = [{"expression": expression}]
        yield component


def debian_components(status: str, release: str) -> Iterator[Component]:
    """One library for each package that dpkg's status file calls installed.

    Args:
        status: text of ``/var/lib/dpkg/status``.
        release: identifier of the distribution, such as ``debian-12``.
    """
    for paragraph in status.strip().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}&distro={release}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def interpreter_component() -> Component:
    """CPython itself: a base image may have compiled it, so that no package names it."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {"type": "platform", "bom-ref": purl, "name": "python", "version": version, "purl": purl}


def document(name: str, version: str, components: Iterable[Component]) -> dict[str, Any]:
    """The bill of one image; its serial number is derived from its content.

    Args:
        name: of the image.
        version: of what this repository adds to it.
        components: in any order; one that occurs twice is listed once.
    """
    listed = sorted({each["bom-ref"]: each for each in components}.values(), key=lambda each: str(each["bom-ref"]))
    image = {"type": "container", "bom-ref": name, "name": name, "version": version}
    digest = hashlib.sha256(json.dumps([image, listed], sort_keys=True).encode()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {"component": image},
        "components": listed,
        "dependencies": [{"ref": name, "dependsOn": [each["bom-ref"] for each in listed]}],
    }


def main() -> int:
    """Write the bill of the image that is being built; 1 when it contradicts the lock."""
    parser = argparse.ArgumentParser(prog="python -m ops.images.sbom", description=__doc__)
    parser.add_argument("--name", required=True, help="name of the image")
    parser.add_argument("--version", required=True, help="version of this repository's part")
    parser.add_argument("--lock", required=True, type=Path, help="lock that the packages came from")
    parser.add_argument("--site-packages", required=True, type=Path, help="where they are installed")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args()
    # A base image may bring distributions of its own; Debian's are packages of Debian.
    own = Path(sys.base_prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    release = platform.freedesktop_os_release()
    components = [
        interpreter_component(),
        *debian_components(
            Path("/var/lib/dpkg/status").read_text(encoding="utf-8"), f"{release['ID']}-{release['VERSION_ID']}"
        ),
        *python_components(distributions(path=[str(own)]), {}),
    ]
    try:
        lock = read_lock(options.lock.read_text(encoding="utf-8"))
        components += python_components(distributions(path=[str(options.site_packages)]), lock)
    except SbomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    bill = document(options.name, options.version, components)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
