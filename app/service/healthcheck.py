"""Is the service in this container alive? ``python -m app.service.healthcheck PORT`` for Docker's HEALTHCHECK.

It asks over loopback, where the certificate's name cannot match: what is checked is life, not identity.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request

from app.contract import HEALTH_PATH

_TIMEOUT_SECONDS = 3


def alive(port: int) -> bool:
    """Whether the service on ``port`` of this machine answers its liveness probe over TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        address = f"https://127.0.0.1:{port}{HEALTH_PATH}"
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if alive(int(sys.argv[1])) else 1)
