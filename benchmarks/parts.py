"""The real parts that the tests run, and how long each takes from its start until it takes work.

The Docker engine and its registry are left out: they need root and are started by ``tests/images`` alone.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml

from benchmarks.figures import Figure, summarise
from infra.gateway.nginx import GatewayConfig, render
from infra.monitoring import alertmanager, prometheus
from ops.local.cache import EmbeddedCache
from ops.local.certificates import issue_certificates
from ops.local.postgres import EmbeddedPostgres
from ops.local.process import free_port
from ops.local.service_process import ServiceProcess
from ops.local.stack import StackOptions, running_stack

_RUNS: Final = 3
_TIMEOUT_SECONDS: Final = 60.0


def measure() -> list[Figure]:
    """One figure for each part, in seconds."""
    with tempfile.TemporaryDirectory(prefix="parts-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL and nginx's workers are nobody
        figures = [*_servers(directory), *_services(directory)]
        for part, start in _PROGRAMS.items():
            figures.append(_figure(part, [_started(*start(directory)) for _ in range(_RUNS)]))
    return figures


def _figure(part: str, seconds: Sequence[float], note: str = "") -> Figure:
    value, spread = summarise(seconds)
    return Figure(name=f"start of {part}", value=value, spread=spread, unit="s", note=note)


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _servers(directory: Path) -> Iterator[Figure]:
    """PostgreSQL from nothing and again, and the cache."""
    postgres = EmbeddedPostgres(directory / "postgres")
    yield _figure("PostgreSQL, empty directory", [_timed(postgres.start)], "with initdb; until it answers a query")
    again = []
    for _ in range(_RUNS):
        postgres.stop()
        again.append(_timed(postgres.start))
    postgres.destroy()
    yield _figure("PostgreSQL, with its data", again)
    seconds = []
    for run in range(_RUNS):
        cache = EmbeddedCache(directory / f"cache-{run}")
        seconds.append(_timed(cache.start))
        cache.stop()
    yield _figure("Valkey", seconds)


def _services(directory: Path) -> Iterator[Figure]:
    """Each service beside servers that run, and the whole system."""
    options = StackOptions(directory=directory / "system", strategic_port=free_port(), tactical_port=free_port())
    with running_stack(options) as (stack, children):
        yield _figure("the whole system", [stack.seconds_to_ready], "`make serve`, empty directory")
        for child in children:
            seconds = []
            for _ in range(_RUNS):
                child.stop()
                seconds.append(_timed(partial(_start_service, child, stack.ca)))
            yield _figure(f"the {child.contract.service} service", seconds, "until /ready answers 200")


def _start_service(child: ServiceProcess, ca: Path) -> None:
    child.start()
    child.await_ready(ca)


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _started(command: Sequence[str], url: str, log: Path) -> float:
    """Seconds until ``url`` answers."""
    begin = time.perf_counter()
    with _running(command, log) as process:
        while time.perf_counter() - begin < _TIMEOUT_SECONDS:
            if _answers(url):
                return time.perf_counter() - begin
            if process.poll() is not None:
                break
            time.sleep(0.01)
    raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-300:]}")


def _answers(url: str) -> bool:
    """Whether there is any answer but one that says "not yet"."""
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=2)
    try:
        connection.request("GET", address.path or "/")
        return connection.getresponse().status != HTTPStatus.SERVICE_UNAVAILABLE
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install {package}")
    return found


_Start = Callable[[Path], tuple[Sequence[str], str, Path]]


def _nginx(directory: Path) -> tuple[Sequence[str], str, Path]:
    work = directory / f"nginx-{free_port()}"
    work.mkdir()
    certificates = issue_certificates(work / "tls")
    for source, name in (
        (certificates.certificate, "tls.crt"),
        (certificates.key, "tls.key"),
        (certificates.ca, "ca.crt"),
    ):
        shutil.copy(source, work / name)
    config = GatewayConfig(
        upstreams=(),
        tls_directory=str(work),
        https_port=free_port(),
        http_port=free_port(),
        private_port=free_port(),
        working_directory=str(work),
        extra_main=("user root;",),
    )
    (work / "nginx.conf").write_text(render(config), encoding="utf-8")
    command = [_program("nginx", "nginx-light"), "-c", str(work / "nginx.conf"), "-e", str(work / "start.log")]
    log = work / "nginx.log"
    return [*command, "-g", "daemon off;"], f"http://127.0.0.1:{config.http_port}", log


def _prometheus(directory: Path) -> tuple[Sequence[str], str, Path]:
    port = free_port()
    document = prometheus.configuration([], alertmanagers=[], external_labels={}) | {"rule_files": []}
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [
        _program("prometheus", "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / f'prometheus-{port}'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return command, f"http://127.0.0.1:{port}/-/ready", directory / "prometheus.log"


def _alertmanager(directory: Path) -> tuple[Sequence[str], str, Path]:
    port = free_port()
    file = directory / "alertmanager.yml"
    document = alertmanager.configuration("arn:aws:sns:eu-west-1:111111111111:alerts", "eu-west-1")
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [
        _program("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={directory / f'alertmanager-{port}'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    return command, f"http://127.0.0.1:{port}/-/ready", directory / "alertmanager.log"


def _node_exporter(directory: Path) -> tuple[Sequence[str], str, Path]:
    port = free_port()
    command = [
        _program("prometheus-node-exporter", "prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return command, f"http://127.0.0.1:{port}/metrics", directory / "node-exporter.log"


def _moto(directory: Path) -> tuple[Sequence[str], str, Path]:
    port = free_port()
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    return command, f"http://127.0.0.1:{port}/moto-api/data.json", directory / "moto.log"


_PROGRAMS: Final[dict[str, _Start]] = {
    "nginx": _nginx,
    "Prometheus": _prometheus,
    "Alertmanager": _alertmanager,
    "node exporter": _node_exporter,
    "AWS (moto)": _moto,
}
