"""A deployment under load: pods are replaced one by one, and no client of the gateway is the worse for it.

Two instances of each service behind the real nginx with the rendered configuration. Each instance in turn is told to
end as Kubernetes tells a pod: SIGTERM first, and only later do the gateways learn that its address is gone (in the
cluster by asking the Service's name every 5 s, here by a reload). The drain of the Deployment covers that gap.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest

from app.contract import Env, Service
from infra.gateway.nginx import GatewayConfig, render
from ops.local.certificates import Certificates, issue_certificates
from ops.local.service_process import ServiceProcess
from ops.local.stack import RunningStack, StackOptions, running_stack
from tests.infra.gateway.conftest import free_port, nginx_runs_as_root, start, stop, upstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

DRAIN_SECONDS = 6.0
ENDPOINT_LAG_SECONDS = 3.0
"""The Deployment drains for 15 s and a gateway needs 5 s and the time of a look-up to learn of it: about this share."""
SAMPLES = 4
MATRIX = [[0.1] * 13] * 48
DECIDE = [{"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": MATRIX}}] * SAMPLES
WINDOW = [[0.01 * (bar % 5)] * 7 for bar in range(30)]
TRAIN = {"training_data": {"episodes": 1, "data": WINDOW}}
ACT = {"market_data": {"data": WINDOW}}


@dataclass
class Deployment:
    """Both services twice, and the gateway in front of them."""

    stack: RunningStack
    instances: dict[Service, list[ServiceProcess]]
    config: GatewayConfig
    directory: Path
    gateway: subprocess.Popen[bytes]

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://localhost:{self.config.https_port}",
            headers={"Authorization": f"Bearer {self.stack.token}"},
            verify=ssl.create_default_context(cafile=str(self.stack.ca)),
            timeout=60,
            trust_env=False,
        )

    def admit(self, without: int | None = None) -> None:
        """Tell the gateway which instances there are: all, or all but one of each service."""
        upstreams = [
            upstream(
                service.value,
                [address(child) for number, child in enumerate(children) if number != without],
                server_name="localhost",
            )
            for service, children in self.instances.items()
        ]
        (self.directory / "nginx.conf").write_text(render(replace(self.config, upstreams=upstreams)), encoding="utf-8")
        self.gateway.send_signal(signal.SIGHUP)

    def replace_one(self, number: int) -> None:
        """One instance of each service ends and comes back, as pods of a Deployment do."""
        ending = [children[number] for children in self.instances.values()]
        with ThreadPoolExecutor(len(ending)) as threads:
            ends = [threads.submit(child.stop) for child in ending]
            time.sleep(ENDPOINT_LAG_SECONDS)
            self.admit(without=number)
            for end in ends:
                end.result()
        for child in ending:
            child.start()
        for child in ending:
            child.await_ready(self.stack.ca)
        self.admit()

    def answers(self) -> list[dict[str, Any]]:
        """What the gateway's own log says of every answer."""
        lines = (self.directory / "nginx.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def address(child: ServiceProcess) -> str:
    return f"127.0.0.1:{child.environment['PORT']}"


def mounted(certificates: Certificates, directory: Path) -> Path:
    """The certificates as a pod of the gateway has them."""
    directory.mkdir(mode=0o755)
    for source, name in (
        (certificates.certificate, "tls.crt"),
        (certificates.key, "tls.key"),
        (certificates.ca, "ca.crt"),
    ):
        shutil.copy(source, directory / name)
    return directory


def second(child: ServiceProcess, directory: Path) -> ServiceProcess:
    """Another instance like ``child``."""
    port = free_port()
    log = directory / f"{child.contract.service}-2.log"
    return ServiceProcess(child.contract, f"https://localhost:{port}", log, {**child.environment, "PORT": str(port)})


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    environment = {Env.DRAIN_SECONDS.value: str(DRAIN_SECONDS), Env.RATE_LIMIT_PER_MINUTE.value: "1000000000"}
    options = StackOptions(
        directory=tmp_path / "system",
        strategic_workers=1,
        strategic_port=free_port(),
        tactical_port=free_port(),
        environment=environment,
    )
    with running_stack(options) as (stack, children):
        instances = {child.contract.service: [child, second(child, tmp_path)] for child in children}
        others = [pair[1] for pair in instances.values()]
        try:
            for child in others:
                child.start()
            for child in others:
                child.await_ready(stack.ca)
            directory = tmp_path / "gateway"
            directory.mkdir()
            config = GatewayConfig(
                upstreams=[
                    upstream(service.value, [address(child) for child in pair], server_name="localhost")
                    for service, pair in instances.items()
                ],
                tls_directory=str(mounted(issue_certificates(stack.directory / "certificates"), tmp_path / "tls")),
                private_networks=("127.0.0.1/32",),
                https_port=free_port(),
                http_port=free_port(),
                private_port=free_port(),
                working_directory=str(directory),
                # All clients of the test have one address.
                rate=100_000,
                burst=100_000,
                extra_main=("user root;",) if nginx_runs_as_root() else (),
            )
            gateway = start(config, directory)
            try:
                yield Deployment(stack, instances, config, directory, gateway)
            finally:
                stop(gateway)
        finally:
            for child in others:
                os.kill(child.pid, signal.SIGKILL) if child.pid else None


@dataclass
class Load:
    """Clients that ask without pause, repeat what was not answered, and keep what was."""

    deployment: Deployment
    decided: int = 0
    acted: int = 0
    versions: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken_connections: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(9))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        work: list[Callable[[], None]] = [*[self._decide] * 6, *[self._act] * 2, self._train]
        self._running = [self._pool.submit(one) for one in work]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result(120)
        self._pool.shutdown()

    def _decide(self) -> None:
        with self.deployment.client() as client:
            while not self._stop.is_set():
                key = {"Idempotency-Key": f"deployment-{next(self._numbers)}"}
                assert len(self._until_answered(client, "/api/strategic/process", DECIDE, key)) == SAMPLES
                with self._lock:
                    self.decided += SAMPLES

    def _act(self) -> None:
        with self.deployment.client() as client:
            while not self._stop.is_set():
                self._until_answered(client, "/api/tactical/act", ACT)
                with self._lock:
                    self.acted += 1

    def _train(self) -> None:
        with self.deployment.client() as client:
            while not self._stop.is_set():
                self.versions.append(self._until_answered(client, "/api/tactical/train", TRAIN)["model_version"])

    def _until_answered(
        self, client: httpx.Client, path: str, document: object, headers: dict[str, str] | None = None
    ) -> Any:
        while True:
            try:
                answer = client.post(path, json=document, headers=headers)
            except httpx.TransportError:
                with self._lock:
                    self.broken_connections += 1
                continue
            with self._lock:
                self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                return answer.json()
            assert answer.status_code >= 500, answer.text
            time.sleep(0.05)


def count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_a_rolling_restart_loses_nothing_and_fails_nobody(deployment: Deployment) -> None:
    with Load(deployment) as load:
        time.sleep(2)
        for number in range(2):
            deployment.replace_one(number)
        time.sleep(2)
    assert load.statuses.keys() == {200}, load.statuses
    answers = deployment.answers()
    assert [answer for answer in answers if int(answer["status"]) >= 500] == []
    served = Counter(address for answer in answers for address in answer["upstream"].split(", "))
    assert {address(child) for pair in deployment.instances.values() for child in pair} <= served.keys()
    databases = deployment.stack.databases
    assert count(databases[Service.STRATEGIC], "SELECT count(*) FROM samples") == load.decided > 0
    assert count(databases[Service.TACTICAL], "SELECT count(*) FROM agent_actions") >= 3 * load.acted > 0
    with psycopg.connect(databases[Service.TACTICAL]) as connection:
        stored = {row[0] for row in connection.execute("SELECT version FROM model_versions")}
    assert load.versions
    assert set(load.versions) <= stored
    print(
        f"{load.decided} decisions, {load.acted} actions, {len(load.versions)} trainings; "
        f"{load.broken_connections} connections closed by the gateway's reloads and asked again"
    )
