"""TLS contexts that take up a renewed certificate without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
import uvicorn

POLL_SECONDS: Final = 10.0

_log = structlog.stdlib.get_logger(__name__)
_served: list[CertificateFiles] = []
"""What this process serves with; the server makes its context where no argument reaches the application."""


class CertificateFiles:
    """A context and the files that it was loaded from."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        self._context = context
        self._certificate = certificate
        self._key = key
        self._seen = self._modified()

    def reload_if_changed(self) -> bool:
        """Load the files again if they are newer; new connections then use them. False if unchanged or not usable."""
        current = self._modified()
        if current == self._seen:
            return False
        try:
            self._context.load_cert_chain(self._certificate, self._key)
        except (OSError, ssl.SSLError) as error:
            _log.warning("certificate not reloaded, the old one stays", error=str(error))
            return False
        self._seen = current
        _log.info("certificate reloaded", path=str(self._certificate))
        return True

    def _modified(self) -> tuple[int, ...]:
        with contextlib.suppress(OSError):
            return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        return ()


def reloading_context(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Uvicorn's default context, TLS 1.2 and up, remembered so that ``watch_certificates`` can reload it."""
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _served.append(CertificateFiles(context, Path(str(config.ssl_certfile)), Path(str(config.ssl_keyfile))))
    return context


async def watch_certificates() -> None:
    """Reload what has changed, for ever."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        for files in _served:
            files.reload_if_changed()
