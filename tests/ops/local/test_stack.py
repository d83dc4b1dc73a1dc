"""``python -m ops serve``: from an empty directory to two ready services, and nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ops.local.process import free_port, is_port_free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(directory: Path, *options: str) -> subprocess.Popen[str]:
    ports = ("--strategic-port", str(free_port()), "--tactical-port", str(free_port()))
    command = [sys.executable, "-m", "ops", "serve", "--directory", str(directory), "--json", *ports, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_both_services_answer_over_tls_with_the_printed_token_and_ctrl_c_stops_everything(tmp_path: Path) -> None:
    with start(tmp_path / "data") as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line, running.stderr.read() if running.stderr else ""
        stack = json.loads(line)
        context = ssl.create_default_context(cafile=stack["ca"])

        def ask(url: str, body: object = None) -> dict[str, object]:
            request = urllib.request.Request(  # noqa: S310 - the address is our own
                url,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {stack['token']}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310
                return dict(json.load(answer))

        market_data = {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": [[0.1] * 13] * 48}}
        first = ask(f"{stack['strategic']}/api/strategic/process", market_data)
        assert first["decision"] in {"STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY"}
        assert ask(f"{stack['tactical']}/ready") == {"status": "ready"}
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    ports = [int(stack[service].rpartition(":")[2]) for service in ("strategic", "tactical")]
    deadline = time.monotonic() + 10
    while not all(map(is_port_free, ports)):
        assert time.monotonic() < deadline, "a service outlived the stack"
        time.sleep(0.1)
    assert oct((tmp_path / "data" / "secrets.json").stat().st_mode)[-3:] == "600"


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "ops", "serve", "--directory", tmp_path / "data", "--strategic-port", port],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert f"error: port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
