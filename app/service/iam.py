"""Signing in to RDS and ElastiCache by IAM: a token for each new connection instead of a password.

The tokens are signed here with the pod's credentials (Pod Identity), live 15 minutes, and are checked when a connection
is made. References: RDS user guide, "IAM database authentication"; ElastiCache user guide, "Authenticating with IAM".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

TOKEN_SECONDS: Final = 900
POSTGRESQL_PORT: Final = 5432


@lru_cache(maxsize=1)
def _session() -> Any:  # noqa: ANN401 - boto3 ships no types
    import boto3  # noqa: PLC0415 - only where AWS is signed in to

    return boto3.Session()


def database_url_with_token(url: str, region: str) -> str:
    """``url`` (user, no password) with an RDS token as its password. Blocks while credentials are fetched."""
    parts = urlsplit(url)
    user, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port or POSTGRESQL_PORT
    token = _session().client("rds", region_name=region).generate_db_auth_token(host, port, user, region)
    netloc = f"{quote(user, safe='')}:{quote(token, safe='')}@{host}:{port}"
    return urlunsplit(parts._replace(netloc=netloc))


def cache_token(user: str, replication_group: str, region: str) -> str:
    """An ElastiCache token for ``user``. Blocks while credentials are fetched."""
    from botocore.model import ServiceId  # noqa: PLC0415 - only where AWS is signed in to
    from botocore.signers import RequestSigner  # noqa: PLC0415

    session = _session()
    signer = RequestSigner(
        ServiceId("elasticache"), region, "elasticache", "v4", session.get_credentials(), session.events
    )
    query = urlencode({"Action": "connect", "User": user})
    request = {"method": "GET", "url": f"http://{replication_group}/?{query}", "body": {}, "headers": {}, "context": {}}
    signed: str = signer.generate_presigned_url(
        request, operation_name="connect", expires_in=TOKEN_SECONDS, region_name=region
    )
    return signed.removeprefix("http://")
