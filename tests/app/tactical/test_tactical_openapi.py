"""The OpenAPI document says what the service does: schemathesis looks for what it does else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# That a bar's high is not below its low, no schema can say; such bars are refused with 422.
CONFIGURATION = """
[[operations]]
include-name = "POST /api/tactical/jobs"
checks.positive_data_acceptance.enabled = false
"""


# Nor that one key is not for two requests, on whatever route; test_tactical_idempotency.py sends keys.
HOOKS = """
import schemathesis

@schemathesis.hook
def before_load_schema(context, raw_schema):
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            kept = [item for item in operation.get("parameters", []) if item["name"] != "Idempotency-Key"]
            operation["parameters"] = kept
"""


@pytest.fixture
def patient_server(tactical_database: str, cache: str, tmp_path: Path, tactical_server_class: Any) -> Iterator[Any]:
    """Whose longest permitted training ends in time on a busy machine too."""
    server = tactical_server_class(tactical_database, cache, tmp_path, {"REQUEST_TIMEOUT": "200"})
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_schemathesis_finds_nothing(patient_server: Any, tmp_path: Path) -> None:
    authorization = patient_server.client().headers["Authorization"]
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"http://127.0.0.1:{patient_server.port}/openapi.json",
        *("--header", f"Authorization: {authorization}"),
        *("--max-examples", "8"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "200"),
        *("--seed", "1"),
        "--no-color",
        *("--exclude-path", "/metrics"),
        # A stream ends with its job.
        *("--exclude-path", "/api/tactical/jobs/{job_id}/events"),
    ]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    (tmp_path / "hooks.py").write_text(HOOKS)
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert patient_server.client().get("/ready").status_code == 200


def test_every_operation_names_its_refusals_and_has_an_example(tactical_server: Any) -> None:
    document = tactical_server.client().get("/openapi.json").json()
    paths = document["paths"]
    assert set(paths) >= {
        "/api/tactical/train",
        "/api/tactical/act",
        "/api/tactical/jobs",
        "/api/tactical/jobs/{job_id}/events",
        "/api/tactical/models/{version}/activate",
    }
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/api/tactical/") and path != "/api/tactical/health":
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), path
                assert operation["security"] == [{"bearer": []}]
    for name in ("TrainRequest", "ActRequest", "JobRequest"):
        assert document["components"]["schemas"][name]["examples"]
