"""What the commands speak to: a system of ``make serve``, or any system by its URLs."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from app.contract import SERVICES, STRATEGIC, TACTICAL, ServiceContract
from ops.errors import OpsError

DEFAULT_DIRECTORY: Final = Path(".serve")
DESCRIPTION: Final = "serve.json"
"""What ``make serve`` writes about itself, in its directory."""
TOKEN_VARIABLE: Final = "GRANDMODEL_TOKEN"  # noqa: S105 -- the variable's name


@dataclass(frozen=True)
class Target:
    """A running system. Secrets are kept out of ``repr``."""

    service_urls: Mapping[str, str]
    """Base URL of each service, by its name."""
    ca_certificate: Path | None = None
    token: str = field(default="", repr=False)
    databases: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Owner's URL of each service's database, by service name; empty when only the services can be reached."""
    cache_url: str = field(default="", repr=False)
    processes: Mapping[str, int] = field(default_factory=dict)
    directory: Path | None = None

    def client(self, contract: ServiceContract, *, timeout: float = 30.0) -> httpx.Client:
        """HTTP client of one service, with the system's CA and the token."""
        context: ssl.SSLContext | bool = True
        if self.ca_certificate is not None:
            context = ssl.create_default_context(cafile=str(self.ca_certificate))
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(
            base_url=self.service_urls[contract.service], verify=context, headers=headers, timeout=timeout
        )

    def database(self, service: str) -> str:
        """URL of a service's database.

        Raises:
            OpsError: when this target does not know it.
        """
        try:
            return self.databases[service]
        except KeyError:
            hint = "run it where `make serve` runs, or set STRATEGIC_DATABASE_URL and TACTICAL_DATABASE_URL"
            raise OpsError(f"database of {service}: its address is not known: {hint}") from None


def find_target(
    directory: Path = DEFAULT_DIRECTORY,
    *,
    strategic_url: str | None = None,
    tactical_url: str | None = None,
    ca_certificate: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Target:
    """The system that was named by URLs, or else the one that ``make serve`` runs in ``directory``.

    Raises:
        OpsError: when neither is there.
    """
    variables = os.environ if environment is None else environment
    if strategic_url or tactical_url:
        urls = {STRATEGIC.service.value: strategic_url, TACTICAL.service.value: tactical_url}
        databases = {
            contract.service.value: variables[name]
            for contract in SERVICES
            if (name := f"{contract.service.upper()}_DATABASE_URL") in variables
        }
        return Target(
            service_urls={name: url.rstrip("/") for name, url in urls.items() if url},
            ca_certificate=ca_certificate,
            token=variables.get(TOKEN_VARIABLE, ""),
            databases=databases,
            cache_url=variables.get("REDIS_URL", ""),
        )
    return _local_target(directory)


def _local_target(directory: Path) -> Target:
    file = directory / DESCRIPTION
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        return Target(
            service_urls={
                STRATEGIC.service.value: description["strategic_url"],
                TACTICAL.service.value: description["tactical_url"],
            },
            ca_certificate=Path(description["ca_certificate"]),
            token=description["token"],
            databases=description["databases"],
            cache_url=description["cache_url"],
            processes=description["processes"],
            directory=directory,
        )
    except FileNotFoundError:
        raise OpsError(
            f"no system runs here ({file} is missing): start one with `make serve`, or name one with --strategic-url"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise OpsError(f"{file}: cannot be read as the description of a running system: {error!r}") from None
