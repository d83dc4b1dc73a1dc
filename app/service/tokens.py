"""Mints tokens for local servers and tests, and revokes tokens: ``python -m app.service.tokens``.

In production the identity provider mints; this command signs with ``JWT_SECRET`` (HS256) only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Sequence

import jwt

from app.service.cache import Cache, CacheUnavailableError
from app.service.permissions import Role
from app.service.revocation import revoke
from app.service.settings import ServiceSettings, SettingsError, load_settings


def mint_token(
    secret: str,
    *,
    subject: str,
    roles: Sequence[str],
    lifetime: float = 3600.0,
    issuer: str = "grandmodel",
    audience: str = "grandmodel",
    multi_factor: bool = True,
) -> str:
    """A token signed with HS256.

    Args:
        secret: of at least 32 bytes.
        subject: whom it speaks for; the rate limit counts by it.
        roles: see ``permissions.Role``.
        lifetime: seconds; negative for one that has expired.
        issuer: ``iss``.
        audience: ``aud``.
        multi_factor: whether ``amr`` says that a second factor was given.
    """
    now = time.time()
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "jti": uuid.uuid4().hex,
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now + lifetime),
        "roles": list(roles),
        "amr": ["pwd", "mfa"] if multi_factor else ["pwd"],
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.service.tokens", description=__doc__)
    parser.add_argument("--subject", default="local", help="whom the token speaks for (default: %(default)s)")
    parser.add_argument(
        "--role", action="append", choices=[role.value for role in Role], help="may be repeated (default: admin)"
    )
    parser.add_argument("--lifetime", type=float, help="seconds (default: JWT_EXPIRATION)")
    parser.add_argument("--no-mfa", action="store_true", help="leave the second factor out")
    parser.add_argument("--json", action="store_true", help="answer with a JSON object")
    parser.add_argument("--revoke", metavar="TOKEN", help="refuse TOKEN (read from standard input if -) from now on")
    return parser


async def _revoke(settings: ServiceSettings, token: str) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    cache = Cache(settings)
    try:
        await revoke(cache, str(claims["jti"]), float(claims["exp"]))
    finally:
        await cache.close()
    return str(claims["jti"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a token, or revoke one; 2 for a mistake of the caller, 1 when the cache is away."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(ServiceSettings)
        if options.revoke is not None:
            token = sys.stdin.readline().strip() if options.revoke == "-" else options.revoke
            token_id = asyncio.run(_revoke(settings, token))
            print(json.dumps({"revoked": token_id}) if options.json else f"revoked {token_id}")
            return 0
    except (SettingsError, jwt.PyJWTError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CacheUnavailableError as error:
        print(f"error: nothing revoked, the cache did not answer: {error}", file=sys.stderr)
        return 1
    if settings.jwt_secret is None:
        print("error: JWT_SECRET is missing: only HS256 tokens can be minted here", file=sys.stderr)
        return 2
    lifetime = settings.jwt_expiration if options.lifetime is None else options.lifetime
    token = mint_token(
        settings.jwt_secret.get_secret_value(),
        subject=options.subject,
        roles=options.role or [Role.ADMIN.value],
        lifetime=lifetime,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        multi_factor=not options.no_mfa,
    )
    print(json.dumps({"token": token, "expires_in": lifetime}) if options.json else token)
    return 0


if __name__ == "__main__":
    sys.exit(main())
