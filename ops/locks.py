"""The packages of each image, pinned by hash: ``python -m ops.locks`` writes one lock file an image.

A lock names exactly one wheel of each package, for CPython 3.11 on Linux x86-64, as pip chooses them under
``constraints.txt``. ``make wheels`` downloads these wheels; the images are built from them without a network.

PyPI's torch is the CUDA build. Locks of CPU images take torch from where pip is configured to find the CPU build; the
lock of the CUDA image ignores that configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from app.contract import Service

Variant = Literal["cpu", "cuda"]

EXTRAS: Final = {
    Service.STRATEGIC: "service,engine,jobs",
    Service.TACTICAL: "service,learner,jobs",
}
"""What each image installs: the service, and the commands that scheduled jobs run."""

IMAGES: Final[tuple[tuple[Service, Variant], ...]] = (
    (Service.STRATEGIC, "cpu"),
    (Service.TACTICAL, "cpu"),
    (Service.TACTICAL, "cuda"),
)

_TOOLS: Final = ("pip==26.1", "async-timeout==5.0.1")
"""pip installs the others inside the build, and stays out of the image; redis needs async-timeout before Python 3.11.3,
which a base image may carry (Debian 12 has 3.11.2)."""


def lock_file(service: Service, variant: Variant, root: Path = Path()) -> Path:
    """Where the lock of an image lies."""
    return root / "app" / service / f"requirements-{variant}.lock"


def resolve(service: Service, variant: Variant) -> str:
    """Text of the lock: ``name==version --hash=sha256:...``, one line a package, sorted.

    Raises:
        subprocess.CalledProcessError: when pip finds no set of packages.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["-c", "constraints.txt", *_TOOLS, f".[{EXTRAS[service]}]"]
    environment = {key: value for key, value in os.environ.items() if variant == "cpu" or not key.startswith("PIP_")}
    if variant == "cuda":
        environment["PIP_CONFIG_FILE"] = os.devnull
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    report = json.loads(result.stdout)
    lines = []
    for item in report["install"]:
        metadata, archive = item["metadata"], item["download_info"].get("archive_info")
        if archive is None:
            continue  # this repository itself is copied, not installed
        # A local build of a public version (2.13.0+cpu) is locked as the version; its hash says which build.
        version = metadata["version"].partition("+")[0]
        lines.append(f"{metadata['name'].lower()}=={version} --hash=sha256:{archive['hashes']['sha256']}")
    return "\n".join(sorted(lines)) + "\n"


def main() -> None:
    """Write all locks."""
    argparse.ArgumentParser(prog="python -m ops.locks", description=__doc__).parse_args()
    for service, variant in IMAGES:
        print(f"resolving {service}, {variant} ...", file=sys.stderr)
        lock_file(service, variant).write_text(resolve(service, variant), encoding="utf-8")


if __name__ == "__main__":
    main()
