"""What images leave out: what is listed and nothing else, and no package that was renamed goes unnoticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.images.slim import DROPPED, slim

ROOT = Path(__file__).resolve().parents[2]


def write(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"1234")


def test_what_developers_need_goes_and_code_stays(tmp_path: Path) -> None:
    stays = ["package/__init__.py", "package/testing.py", "package/native.so", "package/data.h5", "package/test.py"]
    goes = ["package/tests/test_a.py", "package/__init__.pyi", "package/include.h", "package/deep/lib.a"]
    write(tmp_path, *stays, *goes)
    assert slim(tmp_path) == 4 * len(goes)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(stays)


def test_where_names_are_kept_all_others_go(tmp_path: Path) -> None:
    write(tmp_path, *(f"torch/bin/{name}" for name in ("torch_shm_manager", "protoc", "test_jit")), "torch/__init__.py")
    slim(tmp_path)
    assert [path.name for path in (tmp_path / "torch/bin").iterdir()] == ["torch_shm_manager"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/precious.py")
    (tmp_path / "site/package").mkdir(parents=True)
    (tmp_path / "site/package/tests").symlink_to(tmp_path / "elsewhere")
    slim(tmp_path / "site")
    assert (tmp_path / "elsewhere/precious.py").exists()
    assert not (tmp_path / "site/package/tests").is_symlink()


def test_slimming_twice_frees_nothing_more(tmp_path: Path) -> None:
    write(tmp_path, "numpy/f2py/a.py", "numpy/core.py")
    assert slim(tmp_path) == 4
    assert slim(tmp_path) == 0


@pytest.mark.parametrize("folder", sorted(DROPPED))
def test_every_rule_meets_something_in_the_packages_of_today(folder: str) -> None:
    """A rule that meets nothing is a package that changed: what it left out is back in the image."""
    site_packages = Path(pytest.__file__).parents[1]
    for pattern in DROPPED[folder]:
        assert list((site_packages / folder).glob(pattern.removeprefix("!"))), f"{folder}/{pattern}"


def test_every_service_of_aws_that_is_called_stays_described() -> None:
    sources = [path for folder in ("app", "ops") for path in (ROOT / folder).rglob("*.py") if path.name != "pins.py"]
    called = {
        name for path in sources for name in re.findall(r'\.client\("([\w-]+)"', path.read_text(encoding="utf-8"))
    }
    assert called >= {"s3", "sns", "rds"}
    assert {f"!{name}" for name in called} <= set(DROPPED["botocore/data"])
