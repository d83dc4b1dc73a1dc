"""The bill of materials says what is installed, whatever is installed, and the same for the same."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ops.images import sbom
from ops.images.sbom import SbomError

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: GNU C Library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 1:2026a-0
"""


def install(directory: Path, name: str, version: str, *extra: str) -> None:
    information = directory / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *extra]
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_distribution_has_the_hash_of_its_wheel_and_its_licence(tmp_path: Path) -> None:
    install(tmp_path, "Typing_Extensions", "4.16.0", "License-Expression: PSF-2.0")
    lock = sbom.read_lock(f"typing-extensions==4.16.0 --hash=sha256:{'a' * 64}\n")
    (component,) = sbom.python_components(distributions(path=[str(tmp_path)]), lock)
    assert component["purl"] == "pkg:pypi/typing-extensions@4.16.0"
    assert component["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert component["licenses"] == [{"expression": "PSF-2.0"}]


def test_a_local_build_is_the_version_that_was_locked(tmp_path: Path) -> None:
    install(tmp_path, "torch", "2.13.0+cpu")
    lock = sbom.read_lock(f"torch==2.13.0 --hash=sha256:{'b' * 64}")
    (component,) = sbom.python_components(distributions(path=[str(tmp_path)]), lock)
    assert component["version"] == "2.13.0+cpu"
    assert component["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert component["hashes"][0]["content"] == "b" * 64


def test_another_version_than_the_locked_one_stops_the_build(tmp_path: Path) -> None:
    install(tmp_path, "numpy", "2.4.5")
    lock = sbom.read_lock(f"numpy==2.4.6 --hash=sha256:{'c' * 64}")
    with pytest.raises(SbomError, match=r"^numpy: 2\.4\.5 is installed, 2\.4\.6 is locked$"):
        list(sbom.python_components(distributions(path=[str(tmp_path)]), lock))


def test_a_distribution_that_nobody_locked_is_listed_all_the_same(tmp_path: Path) -> None:
    install(tmp_path, "smuggled", "1")
    (component,) = sbom.python_components(distributions(path=[str(tmp_path)]), {})
    assert component["name"] == "smuggled"
    assert "hashes" not in component


def test_debian_packages_are_those_that_are_installed() -> None:
    libc, tzdata = sbom.debian_components(STATUS, "debian-12")
    assert libc["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12"
    assert libc["version"] == "2.36-9+deb12u13"
    assert tzdata["version"] == "1:2026a-0"


def test_the_document_is_valid_and_does_not_depend_on_order_or_time(tmp_path: Path) -> None:
    install(tmp_path, "a", "1")
    install(tmp_path, "b", "2")
    components = [
        *sbom.python_components(distributions(path=[str(tmp_path)]), {}),
        *sbom.debian_components(STATUS, "debian-12"),
        sbom.interpreter_component(),
    ]
    one, two = (sbom.document("grandmodel/x", "1.0", each) for each in (components, components[::-1]))
    assert one == two
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(one)) is None
    other = sbom.document("grandmodel/x", "1.1", components)
    assert other["serialNumber"] != one["serialNumber"]
