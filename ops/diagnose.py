"""One bundle that holds what an engineer would ask for, and no secret."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import tarfile
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from app.contract import METRICS_PATH, SERVICES, Env
from ops.errors import OpsError
from ops.health import check_health
from ops.target import Target

_SECRET_VARIABLES: Final = frozenset(
    {
        Env.SECRET_KEY,
        Env.DATABASE_URL,
        Env.REDIS_URL,
        Env.REDIS_PASSWORD,
        Env.JWT_SECRET,
        Env.MARKET_DATA_API_KEY,
        Env.NOTIFICATION_WEBHOOK,
    }
)
_REDACTED: Final = "[redacted]"
_PATTERNS: Final = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),  # JSON web tokens
    re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),  # credentials in URLs
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL),
    re.compile(r"(?i)(?<=password=)[^\s&\"']+"),
)
_LOG_TAIL_BYTES: Final = 256 * 1024
_QUERIES: Final = {
    "activity": "SELECT state, wait_event_type, wait_event, count(*) FROM pg_stat_activity "
    "GROUP BY 1, 2, 3 ORDER BY 4 DESC",
    "tables": "SELECT relname, n_live_tup, n_dead_tup, last_autovacuum, last_autoanalyze FROM pg_stat_user_tables "
    "ORDER BY n_live_tup DESC LIMIT 50",
    "locks": "SELECT mode, granted, count(*) FROM pg_locks GROUP BY 1, 2 ORDER BY 3 DESC",
    "settings": "SELECT name, setting FROM pg_settings WHERE source <> 'default' "
    "AND name NOT LIKE '%password%' ORDER BY 1",
}


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without the given secrets, and without whatever looks like one."""
    for secret in sorted((s for s in secrets if len(s) >= 8), key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    for pattern in _PATTERNS:
        text = pattern.sub(_REDACTED, text)
    return text


def collect(target: Target, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names and redacted contents of a bundle's files; what cannot be had is said in its file."""
    variables = dict(os.environ if environment is None else environment)
    files = {
        "about.json": _json(_about()),
        "environment.json": _json(_environment(variables)),
        "health.json": check_health(target).model_dump_json(indent=2),
    }
    for contract in SERVICES:
        if contract.service in target.service_urls:
            files[f"{contract.service}/metrics.txt"] = _metrics(target, contract.service)
    for service, url in target.databases.items():
        for name, query in _QUERIES.items():
            files[f"{service}/database/{name}.json"] = _query(url, query)
    for log in sorted(target.directory.rglob("*.log")) if target.directory else []:
        files[f"logs/{log.name}"] = _tail(log)
    secrets = [
        *(variables[name] for name in _SECRET_VARIABLES if name in variables),
        target.token,
        target.cache_url,
        *target.databases.values(),
    ]
    return {name: redact(text, secrets) for name, text in files.items()}


def write_bundle(files: Mapping[str, str], destination: Path) -> Path:
    """Write ``files`` as a gzipped tar.

    Raises:
        OpsError: when it cannot be written; no half bundle is left.
    """
    partial = destination.with_name(destination.name + ".partial")
    try:
        with tarfile.open(partial, "w:gz") as archive:
            for name, text in sorted(files.items()):
                data = text.encode()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(data))
        partial.rename(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OpsError(f"{destination}: cannot be written: {error.strerror}") from None
    return destination


def _about() -> dict[str, Any]:
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions())
    return {
        "at": datetime.now(UTC).isoformat(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": packages,
    }


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The documented variables; secret ones only as set or not."""
    return {
        name.value: (_REDACTED if name in _SECRET_VARIABLES else variables[name]) for name in Env if name in variables
    }


def _metrics(target: Target, service: str) -> str:
    contract = next(contract for contract in SERVICES if contract.service == service)
    try:
        with target.client(contract, timeout=5.0) as client:
            return client.get(METRICS_PATH).text
    except httpx.HTTPError as error:
        return f"not available: {error}"


def _query(url: str, query: str) -> str:
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            cursor = connection.execute(query.encode())
            columns = [column.name for column in cursor.description or ()]
            return _json([dict(zip(columns, row, strict=True)) for row in cursor.fetchall()])
    except psycopg.Error as error:
        return _json({"not available": str(error).splitlines()[0]})


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError as error:
        return f"not available: {error.strerror}"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, default=str)
