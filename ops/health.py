"""Is the system well? Every part is asked by itself, so that the answer names the one that is not."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx
import psycopg
import redis
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from app.contract import HEALTH_PATH, METRICS_PATH, READY_PATH, SERVICES, ServiceContract
from ops.target import Target

CERTIFICATE_WARNING_DAYS: Final = 14
_CONNECT_SECONDS: Final = 5

Status = Literal["ok", "failed"]
_OK: Final[Status] = "ok"
_FAILED: Final[Status] = "failed"


class Check(BaseModel):
    """One question and its answer."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str = ""
    milliseconds: float = 0.0


class HealthReport(BaseModel):
    """All checks of one run."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether every check succeeded."""
        return all(check.status == "ok" for check in self.checks)


def check_health(target: Target) -> HealthReport:
    """Ask every part of ``target`` that can be reached. Takes a few seconds at most; changes nothing."""
    questions = [*_service_questions(target), *_database_questions(target)]
    if target.cache_url:
        questions.append(("cache: answers", partial(_ping_cache, target.cache_url)))
    return HealthReport(at=datetime.now(UTC), checks=tuple(_ask(name, question) for name, question in questions))


Question = Callable[[], str]


def _ask(name: str, question: Question) -> Check:
    start = time.perf_counter()
    status: Status
    try:
        detail, status = question(), _OK
    except (httpx.HTTPError, OSError, psycopg.Error, RedisError, AssertionError) as error:
        detail, status = (str(error) or type(error).__name__).splitlines()[0], _FAILED
    elapsed = 1000 * (time.perf_counter() - start)
    return Check(name=name, status=status, detail=detail, milliseconds=round(elapsed, 1))


def _service_questions(target: Target) -> Iterator[tuple[str, Question]]:
    for contract in SERVICES:
        if contract.service not in target.service_urls:
            continue
        yield f"{contract.service}: alive", partial(_get, target, contract, HEALTH_PATH)
        yield f"{contract.service}: ready", partial(_get, target, contract, READY_PATH)
        yield f"{contract.service}: metrics", partial(_metrics, target, contract)
        yield f"{contract.service}: certificate", partial(_certificate, target, contract)


def _get(target: Target, contract: ServiceContract, path: str) -> str:
    with target.client(contract, timeout=_CONNECT_SECONDS) as client:
        answer = client.get(path)
    if answer.status_code != httpx.codes.OK:
        raise AssertionError(f"{answer.status_code}: {answer.text[:300]}")
    return ""


def _metrics(target: Target, contract: ServiceContract) -> str:
    with target.client(contract, timeout=_CONNECT_SECONDS) as client:
        series = client.get(METRICS_PATH).text
    if contract.autoscaling_metric not in series:
        raise AssertionError(f"{contract.autoscaling_metric} is missing: the autoscaler is blind")
    return ""


def _certificate(target: Target, contract: ServiceContract) -> str:
    address = urlsplit(target.service_urls[contract.service])
    if address.scheme != "https":
        raise AssertionError("the service does not speak TLS")
    context = ssl.create_default_context(cafile=str(target.ca_certificate) if target.ca_certificate else None)
    host, port = address.hostname or "", address.port or 443
    with (
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        certificate = tls.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
    if days < CERTIFICATE_WARNING_DAYS:
        raise AssertionError(f"expires in {days:.0f} days")
    return f"{days:.0f} days left"


def _database_questions(target: Target) -> Iterator[tuple[str, Question]]:
    for service, url in target.databases.items():
        yield f"{service} database: durable", partial(_durability, url)


def _durability(url: str) -> str:
    with psycopg.connect(url, connect_timeout=_CONNECT_SECONDS) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
            if row is None or row[0] != "on":
                raise AssertionError(
                    f"{setting} is {row[0] if row else 'unknown'}: an acknowledged sample could be lost"
                )
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
    return f"PostgreSQL {row[0] if row else '?'}"


def _ping_cache(url: str) -> str:
    with redis.Redis.from_url(url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_CONNECT_SECONDS) as client:
        client.ping()
    return ""
