"""HTTP load by wrk: one request sent again and again over open connections, and what came of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCRIPT: Final = """
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"
{headers}
{pause}
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("RESULT %.6f %.6f %.6f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed + summary.errors.status))
end
"""


class WrkError(RuntimeError):
    """Wrk is missing or did not finish."""


@dataclass(frozen=True)
class Request:
    """What is sent.

    Attributes:
        url: where to.
        body: sent as it is.
        headers: of the request.
    """

    url: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, median and p99 in milliseconds, and failed requests."""

    rate: float
    median: float
    p99: float
    failed: int


def send(request: Request, directory: Path, *, connections: int, seconds: float, pause: int = 0) -> Load:
    """Send ``request`` over ``connections`` for ``seconds``, the next one some time after the answer to the last.

    Pauses are drawn from an exponential distribution, so that clients come independently of each other: with equal
    pauses those that are answered together come back together for ever, and a load of 5,000 a second is one of bursts.

    Args:
        request: what to send.
        directory: for wrk's script and the body.
        connections: kept open.
        seconds: whole ones.
        pause: mean in milliseconds; clients that pause set the rate, if the service keeps up.

    Raises:
        WrkError: Wrk is not installed, or said nothing that can be read.
    """
    if shutil.which("wrk") is None:
        raise WrkError("wrk not found: apt-get install wrk")
    body, script = directory / "wrk.body", directory / "wrk.lua"
    body.write_bytes(request.body)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items())
    pausing = f"delay = function() return math.floor(0.5 - {pause} * math.log(1 - math.random())) end" if pause else ""
    script.write_text(_SCRIPT.replace("{body}", str(body)).replace("{headers}", headers).replace("{pause}", pausing))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}", "--timeout", "30", "-s", str(script), request.url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 90)
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", done.stdout)
    if found is None:
        raise WrkError(f"wrk said: {done.stdout} {done.stderr}")
    rate, median, p99, failed = found.groups()
    return Load(float(rate), float(median), float(p99), int(failed))
