"""The Dockerfiles, read by hadolint and by whoever may not be able to build them."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from app import __version__
from app.contract import SERVICES
from ops.images import sbom
from ops.locks import lock_file

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"
DOCKERFILES = sorted(path for folder in ("app", "infra") for path in (ROOT / folder).rglob("Dockerfile"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_hadolint_finds_nothing(file: Path) -> None:
    found = subprocess.run([HADOLINT, "--no-color", file], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_hadolint_would_find_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(
        DOCKERFILES[0].read_text(encoding="utf-8").replace('ENTRYPOINT ["', "ENTRYPOINT "), encoding="utf-8"
    )
    assert subprocess.run([HADOLINT, broken], capture_output=True, check=False).returncode != 0


def test_both_services_are_built_alike() -> None:
    """Two files, since each service has its own; whoever mends one must mend the other."""
    texts = []
    for contract in SERVICES:
        text = (ROOT / "app" / contract.service / "Dockerfile").read_text(encoding="utf-8")
        assert f'io.grandmodel.image.sbom="{sbom.PATH}"' in text
        assert sbom.LABEL in text
        assert f'image.version="{__version__}"' in text
        text = text.replace("/sources /volumes -exec", "/sources -exec")
        words = {contract.service.value: "SERVICE", str(contract.port): "PORT"}
        for word, name in words.items():
            text = text.replace(word, name)
        own = ("image.description", "/volumes", "# A volume")  # only the tactical service writes files
        texts.append([line for line in text.splitlines() if not any(word in line for word in own)])
    assert texts[0] == texts[1]


def test_every_variant_has_a_lock_with_a_hash_on_every_line() -> None:
    locks = sorted((ROOT / "app").rglob("requirements-*.lock"))
    assert {lock.relative_to(ROOT) for lock in locks} >= {lock_file(c.service, "cpu") for c in SERVICES}
    for lock in locks:
        lines = lock.read_text(encoding="utf-8").splitlines()
        assert len(sbom.read_lock("\n".join(lines))) == len(lines)
