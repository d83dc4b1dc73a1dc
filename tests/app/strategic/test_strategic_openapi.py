"""The OpenAPI document says what the service does: schemathesis looks for what it does else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.strategic.conftest import StrategicServer

# No schema can say that octets are whole records of 2,504 bytes with finite numbers; others are refused with 422.
CONFIGURATION = """
[[operations]]
include-name = "POST /api/strategic/process"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(server: StrategicServer, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{server.port}/openapi.json",
        *("--header", f"Authorization: {server.headers('admin')['Authorization']}"),
        *("--max-examples", "8"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "60"),
        *("--seed", "1"),
        "--no-color",
        *("--exclude-path", "/metrics"),
    ]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    with server.client() as client:
        assert client.get("/ready").status_code == 200
