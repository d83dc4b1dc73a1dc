"""A stranger who reads everything that the system writes finds no secret.

Every secret that the system is given is a canary of ours. The whole system then runs, is misused and loses its servers,
and whatever it printed, logged, answered, reported or put on a command line is searched for each canary, in each form
that text takes on its way.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx
import psycopg
import pytest
import yaml
from psycopg import sql

from app.contract import SERVICES, STRATEGIC, TACTICAL, Service
from app.service.migrations import Roles
from app.service.tokens import mint_token
from ops.local.cache import EmbeddedCache
from ops.local.postgres import EmbeddedPostgres
from ops.local.process import free_port
from ops.local.service_process import READY_TIMEOUT_SECONDS
from ops.target import Target, find_target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[1]
MATRIX = {"market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": [[0.1] * 13] * 48}}


def canary(name: str) -> str:
    """Long enough for every rule, with a character that URLs must quote."""
    return f"canary+of/{name}+" + "k" * 24


ENVIRONMENT = {
    "SECRET_KEY": canary("session-key"),
    "REDIS_PASSWORD": canary("cache"),
    "MARKET_DATA_API_KEY": canary("market-data"),
    "NOTIFICATION_WEBHOOK": f"http://127.0.0.1:1/{quote(canary('webhook'), safe='')}",
    "AWS_SECRET_ACCESS_KEY": canary("aws"),
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARYCANA",
    "PULUMI_CONFIG_PASSPHRASE": canary("pulumi-passphrase"),
    "PULUMI_ACCESS_TOKEN": canary("pulumi-token"),
}
ROLE_PASSWORDS = {role: canary(role) for service in Service for role in Roles.of(service).all()}
CANARIES = {
    "signing key": canary("jwt"),
    "cache": canary("cache"),
    "session key": canary("session-key"),
    "market data": canary("market-data"),
    "webhook": canary("webhook"),
    "AWS": canary("aws"),
    "Pulumi passphrase": canary("pulumi-passphrase"),
    "Pulumi token": canary("pulumi-token"),
    "secure configuration": canary("configuration"),
    "stolen token": canary("stolen-token"),
    "wrong password": canary("wrong-password"),
    **ROLE_PASSWORDS,
}


def forms(secret: str) -> Iterator[str]:
    """How a text may look after it was quoted, escaped or encoded."""
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield json.dumps(secret)[1:-1]
    yield secret.replace("/", "\\/")
    yield secret.encode().hex()
    for shift in range(3):
        # Base64 of a text in the middle of another one: three possible alignments, whole groups only.
        encoded = base64.b64encode(b"x" * shift + secret.encode()).decode()
        yield encoded[4 : len(encoded) - len(encoded) % 4 - 4]


def leaks(text: str, canaries: Mapping[str, str]) -> list[str]:
    """Names of the canaries that are in ``text`` in any form."""
    return [name for name, secret in canaries.items() if any(form in text for form in forms(secret))]


class CommandLines:
    """Every command line on the machine while it is entered."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))


def run(*command: str, environment: Mapping[str, str]) -> str:
    """Everything that a command prints, whatever it ends with."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return f"{done.stdout}\n{done.stderr}"


def texts(directory: Path) -> str:
    return "\n".join(file.read_text(errors="replace") for file in sorted(directory.rglob("*")) if file.is_file())


def estate_places(directory: Path) -> Iterator[tuple[str, str]]:
    """The estate with every secret variable set and one secure value in the stack's file."""
    (directory / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    document = yaml.safe_load((ROOT / "Pulumi.production.yaml").read_text())
    document["config"]["aws:secretKey"] = {"secure": canary("configuration")}
    (directory / "Pulumi.production.yaml").write_text(yaml.safe_dump(document))
    options = ["--stack", "production", "--config-dir", str(directory), "--program", str(ROOT / "infra")]
    options += ["--policy-pack", str(ROOT / "policy"), "--output-dir", str(directory / "out")]
    yield "preview on the screen", run("-m", "infra.preview", *options, environment=ENVIRONMENT)
    for ending in ("json", "md", "svg"):
        yield f"preview as {ending}", (directory / "out" / f"production.{ending}").read_text()
    state = (
        "import json; from pathlib import Path; from infra.preview.capture import capture;"
        f"found = capture('production', resolved=True, config_dir=Path({str(directory)!r}), program=Path('infra'));"
        "print(json.dumps([[r.urn, r.inputs, r.outputs] for r in found.resources], default=str))"
    )
    yield "manifests and state", run("-c", state, environment=ENVIRONMENT)


class System:
    """Both services as ``make serve`` starts them, on servers that the test can take away."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "system"
        self.directory.mkdir()
        (self.directory / "secrets.json").touch(mode=0o600)
        kept = {"jwt_secret": canary("jwt"), "role_passwords": ROLE_PASSWORDS}
        (self.directory / "secrets.json").write_text(json.dumps(kept))
        self.postgres = EmbeddedPostgres(directory / "postgres")
        self.cache = EmbeddedCache(directory / "cache", password=canary("cache"))
        self.output = directory / "serve.out"
        self.environment = dict(ENVIRONMENT)

    def start(self, cleanup: contextlib.ExitStack) -> None:
        self.postgres.start()
        cleanup.callback(self.postgres.destroy)
        self.cache.start()
        cleanup.callback(self.cache.stop)
        self.environment |= {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.cache.url,
            "LOG_LEVEL": "DEBUG",
        }
        command = [sys.executable, "-m", "ops", "serve", "--directory", str(self.directory), "--workers", "1"]
        command += ["--strategic-port", str(free_port()), "--tactical-port", str(free_port())]
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **self.environment}
            )
        cleanup.callback(process.wait, 60)
        cleanup.callback(process.send_signal, signal.SIGINT)
        deadline = time.monotonic() + 2 * READY_TIMEOUT_SECONDS
        while not (self.directory / "serve.json").exists():
            assert process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.1)

    @property
    def target(self) -> Target:
        return find_target(self.directory)

    def secrets(self) -> dict[str, str]:
        """Those that the servers made themselves."""
        password = urlsplit(self.postgres.url).password
        assert password
        return {"superuser": unquote(password)}

    def ask(self, contract: Any, method: str, path: str, **options: Any) -> str:
        """An answer with its headers."""
        context = ssl.create_default_context(cafile=str(self.target.ca_certificate))
        url = self.target.service_urls[contract.service]
        try:
            with httpx.Client(base_url=url, verify=context, timeout=30, trust_env=False) as client:
                answer = client.request(method, path, **options)
        except httpx.TransportError as error:
            return repr(error)
        return f"{answer.status_code} {answer.headers} {answer.text}"

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.target.token}"}

    def misuse(self) -> Iterator[str]:
        """Answers to strangers, to broken requests, and while servers are away or sign-in fails."""
        stolen = mint_token(canary("stolen-token"), subject="mallory", roles=["admin"])
        for contract, path in ((STRATEGIC, "process"), (TACTICAL, "act")):
            post = (contract, "POST", f"{contract.api_prefix}/{path}")
            for value in (f"Bearer {stolen}", f"Bearer {canary('stolen-token')}", f"Basic {canary('stolen-token')}"):
                yield self.ask(*post, headers={"Authorization": value}, json=MATRIX)
            yield self.ask(*post, headers=self.bearer(), content=b'{"market_data": {"data": [[1, "x"')
            yield self.ask(contract, "GET", "/nowhere", headers=self.bearer())
        yield from self.without("cache", self.cache.stop, self.cache.start)
        with self.wrong_passwords():
            yield from self.without("sign-in", lambda: None, lambda: None)
        yield from self.without("database", self.postgres.stop, self.postgres.start)

    def without(self, what: str, take: Any, give: Any) -> Iterator[str]:
        take()
        for contract in SERVICES:
            yield f"without {what}: " + self.ask(contract, "GET", "/ready")
            yield self.ask(contract, "GET", "/health")
        yield self.ask(STRATEGIC, "POST", "/api/strategic/process", headers=self.bearer(), json=MATRIX)
        yield self.ask(TACTICAL, "GET", "/api/tactical/models", headers=self.bearer())
        give()

    @contextlib.contextmanager
    def wrong_passwords(self) -> Iterator[None]:
        """The services' passwords are changed behind their backs, and their connections cut."""
        roles = [Roles.of(service).app for service in Service]
        self._set_passwords({role: canary("wrong-password") for role in roles})
        yield
        self._set_passwords({role: ROLE_PASSWORDS[role] for role in roles})

    def _set_passwords(self, passwords: Mapping[str, str]) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("SET log_statement = 'none'")
            for role, password in passwords.items():
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))
                cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
                connection.execute(cut, [role])

    def ops(self, *arguments: str) -> str:
        return run("-m", "ops", *arguments, "--directory", str(self.directory), environment=self.environment)


def service_places(system: System, directory: Path) -> Iterator[tuple[str, str]]:
    for contract in SERVICES:
        answers = [system.ask(contract, "GET", path) for path in ("/metrics", "/openapi.json", "/ready", "/health")]
        assert all(answer.startswith("200 ") for answer in answers)
        yield f"{contract.service}: metrics, OpenAPI and probes", "\n".join(answers)
    yield "answers to misuse", "\n".join(system.misuse())
    yield (
        "settings that are refused",
        "\n".join(
            run("-m", f"app.{contract.service}.main", environment={**system.environment, **wrong})
            for contract in SERVICES
            for wrong in (
                {"DATABASE_URL": f"mysql://user:{quote(canary('wrong-password'), safe='')}@h/d", "JWT_SECRET": "short"},
                {
                    "REDIS_URL": f"redis://:{quote(canary('wrong-password'), safe='')}@h:port/0",
                    "JWT_SECRET": canary("jwt"),
                },
            )
        ),
    )
    validation = ("validate", "--requests", "10", "--threads", "2", "--matrices", "2", "--trainings", "1")
    yield "ops health", system.ops("health", "--json") + system.ops("health")
    screen = system.ops(*validation, "--sustained", "1", "--report-directory", str(directory / "reports"))
    yield "ops validate", screen + texts(directory / "reports")
    yield "ops maintain", system.ops("maintain", "strategic", "--json")
    yield (
        "ops backup",
        "".join(system.ops("backup", service.value, "--to", str(directory / "b")) for service in Service),
    )
    yield "manifests of backups", "\n".join(file.read_text() for file in (directory / "b").rglob("*.json"))
    system.ops("diagnose", "--output", str(directory / "bundle.tar.gz"))
    with tarfile.open(directory / "bundle.tar.gz") as archive:
        archive.extractall(directory / "bundle", filter="data")
    yield "ops diagnose", texts(directory / "bundle")
    restore = (
        "restore",
        "strategic",
        "--from",
        str(directory / "b"),
        "--into",
        "postgresql://nobody@127.0.0.1:1/none",
        "--yes",
    )
    password = {"PGPASSWORD": canary("wrong-password")}
    yield "ops restore without a server", run("-m", "ops", *restore, environment=system.environment | password)
    shutdown = ("emergency", "shutdown", "--reason", "drill", "--yes")
    yield "ops emergency", system.ops(*shutdown) + system.ops("emergency", "recover", "--reason", "over", "--yes")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """Text by the place where it was found, and the canaries that were planted."""
    directory = tmp_path_factory.mktemp("canaries")
    system = System(directory)
    places: dict[str, str] = {}
    with contextlib.ExitStack() as cleanup:
        with CommandLines() as lines:
            system.start(cleanup)
            canaries = CANARIES | system.secrets()
            places |= dict(service_places(system, directory))
            (directory / "estate").mkdir()
            places |= dict(estate_places(directory / "estate"))
        places["command lines"] = "\n".join(lines.seen)
        for service in Service:
            places[f"{service}: log"] = (system.directory / f"{service}.log").read_text()
        places["terminal of make serve"] = system.output.read_text()
        places["logs of PostgreSQL and the cache"] = system.postgres.log.read_text() + system.cache.log.read_text()
    return places, canaries


PLACES = [
    "preview on the screen",
    "preview as json",
    "preview as md",
    "preview as svg",
    "manifests and state",
    "strategic: metrics, OpenAPI and probes",
    "tactical: metrics, OpenAPI and probes",
    "strategic: log",
    "tactical: log",
    "logs of PostgreSQL and the cache",
    "answers to misuse",
    "settings that are refused",
    "terminal of make serve",
    "command lines",
    "ops health",
    "ops validate",
    "ops maintain",
    "ops backup",
    "manifests of backups",
    "ops diagnose",
    "ops restore without a server",
    "ops emergency",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_found(found: tuple[dict[str, str], dict[str, str]], place: str) -> None:
    places, canaries = found
    assert len(places[place]) > 40, f"nothing was written here: {places[place]!r}"
    assert leaks(places[place], canaries) == []


def test_no_place_is_forgotten(found: tuple[dict[str, str], dict[str, str]]) -> None:
    assert found[0].keys() == set(PLACES)


def test_the_system_really_was_in_trouble(found: tuple[dict[str, str], dict[str, str]]) -> None:
    """Otherwise silence proves nothing."""
    places = found[0]
    assert {"400", "401", "404", "503"} <= {line[:3] for line in places["answers to misuse"].splitlines()}
    assert "password authentication failed" in places["logs of PostgreSQL and the cache"]
    for service in Service:
        assert '"level":"error"' in places[f"{service}: log"] or '"level":"warning"' in places[f"{service}: log"]
    assert "JWT_SECRET" in places["settings that are refused"]
    assert any("ops serve" in line for line in places["command lines"].splitlines())


@pytest.mark.parametrize("form", range(9))
def test_a_leak_would_be_found_in_every_form(form: int) -> None:
    secret = canary("planted")
    written = list(forms(secret))[form]
    assert leaks(f"before {written} after", {"planted": secret, "other": canary("other")}) == ["planted"]


def test_a_leak_inside_base64_would_be_found() -> None:
    url = f"postgresql://u:{canary('planted')}@h/d"
    assert leaks(base64.b64encode(url.encode()).decode(), {"planted": canary("planted")}) == ["planted"]
