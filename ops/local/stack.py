"""Both services on loopback over TLS, with a PostgreSQL and a cache of their own, from an empty directory."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from app.contract import SERVICES, Env, Service, ServiceContract
from app.service.migrations import MigrationError, Roles, migrate
from app.service.migrations.roles import password_variable
from app.service.tokens import mint_token
from ops.local import process
from ops.local.cache import REDIS_URL, EmbeddedCache
from ops.local.certificates import Certificates, issue_certificates
from ops.local.postgres import DATABASE_URL, EmbeddedPostgres, replace_database
from ops.local.process import MissingPartError, StartError
from ops.local.service_process import ServiceProcess
from ops.target import DESCRIPTION

TOKEN_LIFETIME_SECONDS: Final = 12 * 3600
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
    database_parameters: Mapping[str, str] = {}
    """Of the local PostgreSQL, on top of `ops.local.postgres.DURABLE`."""


class RunningStack(BaseModel):
    """What a user of the running stack needs."""

    model_config = ConfigDict(frozen=True)

    strategic: str | None
    tactical: str | None
    ca: Path
    token: str
    """Of an administrator, with a second factor; valid for 12 hours."""
    directory: Path
    databases: dict[Service, str] = Field(repr=False, exclude=True)
    """Owner's URL of each database; for the on-call's commands, never printed."""
    cache_url: str = Field(repr=False, exclude=True)
    seconds_to_ready: float

    def description(self, processes: Mapping[str, int | None]) -> dict[str, object]:
        """What ``ops.target`` reads: addresses, token and process ids."""
        return {
            "strategic_url": self.strategic,
            "tactical_url": self.tactical,
            "ca_certificate": str(self.ca),
            "token": self.token,
            "databases": self.databases,
            "cache_url": self.cache_url,
            "processes": {"supervisor": os.getpid(), **processes},
        }

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


@contextmanager
def running_stack(options: StackOptions) -> Iterator[tuple[RunningStack, list[ServiceProcess]]]:
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
        postgres, database_url = _database(directory, options.database_parameters, cleanup)
        cache, redis_url = _cache(directory, cleanup)
        children = [
            _start_service(contract, options, certificates, kept, database_url(contract), redis_url, cleanup)
            for contract in SERVICES
            if contract.service in options.services
        ]
        # Both from this thread: each server ends with the thread that started it (PR_SET_PDEATHSIG, prctl(2)).
        if cache:
            cache.start()
        if postgres:
            postgres.start()
        with ThreadPoolExecutor(2) as threads:
            admin_url = os.environ.get(DATABASE_URL) or (postgres.url if postgres else "")
            with _environment({password_variable(role): word for role, word in kept.role_passwords.items()}):
                for child in children:
                    migrate(replace_database(admin_url, child.contract.database), child.contract.service)
            for ready in [threads.submit(child.await_ready, certificates.ca) for child in children]:
                ready.result()
        urls = {child.contract.service: child.url for child in children}
        yield (
            RunningStack(
                strategic=urls.get(Service.STRATEGIC),
                tactical=urls.get(Service.TACTICAL),
                ca=certificates.ca,
                token=mint_token(kept.jwt_secret, subject="local", roles=["admin"], lifetime=TOKEN_LIFETIME_SECONDS),
                directory=directory,
                databases={
                    child.contract.service: replace_database(admin_url, child.contract.database) for child in children
                },
                cache_url=redis_url,
                seconds_to_ready=time.monotonic() - started,
            ),
            children,
        )


def serve(options: StackOptions, *, once: bool, as_json: bool) -> int:
    """Run the stack until a signal; exit code 0, 1 when a part does not start or ends by itself, 2 when one is missing.

    Args:
        options: what to start.
        once: stop as soon as everything is ready.
        as_json: print one JSON object instead of the report.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not as_json:
            print("starting PostgreSQL, cache and services ...", file=sys.stderr)
        with running_stack(options) as (stack, children), _described(stack, children):
            print(stack.model_dump_json() if as_json else stack.describe(), flush=True)
            return 0 if once else _supervise(children)
    except KeyboardInterrupt:
        if not as_json:
            print("stopped", file=sys.stderr)
    except (MissingPartError, StartError, MigrationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, MissingPartError) else 1
    return 0


def _supervise(children: list[ServiceProcess]) -> int:
    """Until a service ends by itself. SIGUSR1 stops all services and SIGUSR2 starts them again (`ops emergency`)."""
    wanted: list[signal.Signals] = []
    for chosen in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(chosen, lambda number, _frame: wanted.append(signal.Signals(number)))
    while True:
        while wanted:
            stops = wanted.pop(0) is signal.SIGUSR1
            for child in children:
                child.stop() if stops else child.start()
        if failures := [failure for child in children if (failure := child.failure())]:
            print("\n".join(f"error: {failure}" for failure in failures), file=sys.stderr)
            return 1
        time.sleep(0.2)


@contextmanager
def _described(stack: RunningStack, children: list[ServiceProcess]) -> Iterator[None]:
    """``serve.json`` for the on-call's commands, readable by its owner alone, as long as the stack runs."""
    file = stack.directory / DESCRIPTION
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(stack.description({child.contract.service: child.pid for child in children})))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _database(
    directory: Path, parameters: Mapping[str, str], cleanup: ExitStack
) -> tuple[EmbeddedPostgres | None, _DatabaseUrl]:
    given = os.environ.get(DATABASE_URL)
    if given:
        return None, _DatabaseUrl(given, directory)
    postgres = EmbeddedPostgres(directory / "postgres", port=process.free_port(), parameters=parameters)
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
) -> ServiceProcess:
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
    url = f"{'https' if options.tls else 'http'}://localhost:{port}"
    service = ServiceProcess(contract, url, directory / f"{contract.service}.log", environment)
    cleanup.callback(service.stop)
    service.start()
    return service


def _port(wanted: int, documented: int) -> int:
    if wanted:
        if not process.is_port_free(wanted):
            raise StartError(f"port {wanted} is in use: choose another one, or 0 for any")
        return wanted
    return documented if process.is_port_free(documented) else process.free_port()


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
