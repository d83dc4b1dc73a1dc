"""Both services on loopback over TLS, with a PostgreSQL and a cache of their own, from an empty directory."""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from app.contract import READY_PATH, SERVICES, Env, Service, ServiceContract
from app.service.migrations import Roles, migrate
from app.service.migrations.roles import password_variable
from app.service.tokens import mint_token
from ops.local import process
from ops.local.cache import REDIS_URL, EmbeddedCache
from ops.local.certificates import Certificates, issue_certificates
from ops.local.postgres import DATABASE_URL, EmbeddedPostgres, replace_database
from ops.local.process import StartError

TOKEN_LIFETIME_SECONDS: Final = 12 * 3600
READY_TIMEOUT_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 15.0
_EXAMPLE_BODY: Final = (
    'python3 -c \'import json; print(json.dumps({"market_data": {"timestamp": "2026-01-05T14:30:00Z",'
    ' "data": [[0.1] * 13] * 48}}))\''
)


class StackOptions(BaseModel):
    """How to start the stack."""

    model_config = ConfigDict(frozen=True)

    directory: Path = Path(".serve")
    """Data of the servers, certificates and passwords; kept between starts."""
    strategic_workers: int = 2
    strategic_port: int = 0
    """0 takes the documented port when it is free, else any."""
    tactical_port: int = 0
    services: tuple[Service, ...] = (Service.STRATEGIC, Service.TACTICAL)
    tls: bool = True
    """Off only for load generators that know no TLS."""
    environment: Mapping[str, str] = {}
    """More variables for the services."""


class RunningStack(BaseModel):
    """What a user of the running stack needs."""

    model_config = ConfigDict(frozen=True)

    strategic: str | None
    tactical: str | None
    ca: Path
    token: str
    """Of an administrator, with a second factor; valid for 12 hours."""
    directory: Path
    seconds_to_ready: float

    def describe(self) -> str:
        """The report for a person."""
        lines = [
            f"  {service:<10} {url}   (docs: {url}/docs)"
            for service, url in (("strategic", self.strategic), ("tactical", self.tactical))
            if url is not None
        ]
        lines += [f"  CA         {self.ca}", f"  logs       {self.directory}", f"  token      {self.token}", ""]
        if self.strategic is not None:
            lines += [
                "Try:",
                f"  export TOKEN={self.token}",
                f"  {_EXAMPLE_BODY} |",
                f"  curl --cacert {self.ca} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\",
                f"       --data-binary @- {self.strategic}/api/strategic/process",
                "",
            ]
        return "\n".join([f"ready after {self.seconds_to_ready:.1f} s", *lines, "Ctrl-C stops everything."])


class Secrets(BaseModel):
    """Passwords of the local stack, made once and kept in a file that only its owner reads."""

    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    role_passwords: dict[str, str]


@dataclass
class _Child:
    contract: ServiceContract
    url: str
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def running_stack(options: StackOptions) -> Iterator[tuple[RunningStack, list[_Child]]]:
    """Start everything, yield once both services are ready, stop everything in reverse order.

    Raises:
        MissingPartError: a server is not installed.
        StartError: a part did not become ready; the message names its log.
    """
    started = time.monotonic()
    directory = options.directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        certificates = issue_certificates(directory / "certificates")
        kept = _load_secrets(directory / "secrets.json")
        postgres, database_url = _database(directory, cleanup)
        cache, redis_url = _cache(directory, cleanup)
        children = [
            _start_service(contract, options, certificates, kept, database_url(contract), redis_url, cleanup)
            for contract in SERVICES
            if contract.service in options.services
        ]
        with ThreadPoolExecutor(4) as threads:
            cache_started = threads.submit(cache.start) if cache else None
            if postgres:
                postgres.start()
            admin_url = os.environ.get(DATABASE_URL) or (postgres.url if postgres else "")
            with _environment({password_variable(role): word for role, word in kept.role_passwords.items()}):
                for child in children:
                    migrate(replace_database(admin_url, child.contract.database), child.contract.service)
            if cache_started:
                cache_started.result()
            for ready in [threads.submit(_await_ready, child, certificates) for child in children]:
                ready.result()
        urls = {child.contract.service: child.url for child in children}
        yield (
            RunningStack(
                strategic=urls.get(Service.STRATEGIC),
                tactical=urls.get(Service.TACTICAL),
                ca=certificates.ca,
                token=mint_token(kept.jwt_secret, subject="local", roles=["admin"], lifetime=TOKEN_LIFETIME_SECONDS),
                directory=directory,
                seconds_to_ready=time.monotonic() - started,
            ),
            children,
        )


def serve(options: StackOptions, *, once: bool, as_json: bool) -> int:
    """Run the stack until a signal; exit code 0, or 1 when a service ends by itself.

    Args:
        options: what to start.
        once: stop as soon as everything is ready.
        as_json: print one JSON object instead of the report.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not as_json:
            print("starting PostgreSQL, cache and services ...", file=sys.stderr)
        with running_stack(options) as (stack, children):
            print(stack.model_dump_json() if as_json else stack.describe(), flush=True)
            while not once:
                time.sleep(0.5)
                for child in children:
                    if child.process.poll() is not None:
                        print(f"error: {_ended(child)}", file=sys.stderr)
                        return 1
    except KeyboardInterrupt:
        if not as_json:
            print("stopped", file=sys.stderr)
    return 0


def _database(directory: Path, cleanup: ExitStack) -> tuple[EmbeddedPostgres | None, _DatabaseUrl]:
    given = os.environ.get(DATABASE_URL)
    if given:
        return None, _DatabaseUrl(given, directory)
    postgres = EmbeddedPostgres(directory / "postgres", port=process.free_port())
    cleanup.callback(postgres.stop)
    return postgres, _DatabaseUrl(f"postgresql://127.0.0.1:{postgres.port}/postgres", directory)


@dataclass(frozen=True)
class _DatabaseUrl:
    """URL of a service's database as its application role, known before the server runs."""

    server: str
    directory: Path

    def __call__(self, contract: ServiceContract) -> str:
        role = Roles.of(contract.service).app
        password = _load_secrets(self.directory / "secrets.json").role_passwords[role]
        return replace_database(self.server, contract.database, user=role, password=password)


def _cache(directory: Path, cleanup: ExitStack) -> tuple[EmbeddedCache | None, str]:
    given = os.environ.get(REDIS_URL)
    if given:
        return None, given
    cache = EmbeddedCache(directory / "cache", port=process.free_port())
    cleanup.callback(cache.stop)
    return cache, cache.url


def _start_service(
    contract: ServiceContract,
    options: StackOptions,
    certificates: Certificates,
    kept: Secrets,
    database_url: str,
    redis_url: str,
    cleanup: ExitStack,
) -> _Child:
    strategic = contract.service is Service.STRATEGIC
    port = _port(options.strategic_port if strategic else options.tactical_port, contract.port)
    directory = options.directory.absolute()
    models = directory / "models"
    models.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        Env.ENVIRONMENT: "development",
        Env.DATABASE_URL: database_url,
        Env.REDIS_URL: redis_url,
        Env.JWT_SECRET: kept.jwt_secret,
        Env.SSL_ENABLED: str(options.tls).lower(),
        Env.SSL_CERT_PATH: str(certificates.certificate),
        Env.SSL_KEY_PATH: str(certificates.key),
        Env.MODEL_STORE_URL: f"file://{models}",
        Env.DRAIN_SECONDS: "0",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": str(options.strategic_workers if strategic else 1),
        **options.environment,
    }
    log = directory / f"{contract.service}.log"
    command = [sys.executable, "-m", f"app.{contract.service}.main"]
    child = process.start(command, log=log, environment=environment)
    cleanup.callback(process.end, child, signal.SIGTERM, timeout=_STOP_SECONDS)
    scheme = "https" if options.tls else "http"
    return _Child(contract, f"{scheme}://localhost:{port}", log, child)


def _port(wanted: int, documented: int) -> int:
    if wanted:
        if not process.is_port_free(wanted):
            raise StartError(f"port {wanted} is in use: choose another one, or 0 for any")
        return wanted
    return documented if process.is_port_free(documented) else process.free_port()


def _await_ready(child: _Child, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    missing = "no answer"
    while time.monotonic() < deadline:
        if child.process.poll() is not None:
            raise StartError(_ended(child))
        try:
            with urllib.request.urlopen(child.url + READY_PATH, timeout=5, context=context) as answer:  # noqa: S310 - ours
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            missing = str(json.loads(error.read()).get("detail", error))
        except OSError as error:
            missing = str(error)
        time.sleep(0.05)
    raise StartError(
        f"{child.contract.service} not ready after {READY_TIMEOUT_SECONDS:.0f} s: {missing} (log: {child.log})"
    )


def _ended(child: _Child) -> str:
    code = child.process.returncode
    return f"{child.contract.service} ended with code {code}: {process.last_line(child.log)} (log: {child.log})"


def _load_secrets(path: Path) -> Secrets:
    if path.exists():
        return Secrets.model_validate_json(path.read_bytes())
    roles = {role for service in Service for role in Roles.of(service).all()}
    made = Secrets(role_passwords={role: secrets.token_urlsafe(24) for role in sorted(roles)})
    path.touch(mode=0o600)
    path.write_text(made.model_dump_json())
    return made


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set ``variables`` while migrations run: they take passwords from there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
