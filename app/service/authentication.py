"""Bearer tokens (RFC 6750, RFC 7519): verified in full once, then known by their SHA-256 until they expire.

The algorithm is pinned by the settings, never taken from the token. ``iss``, ``aud``, ``exp``, ``sub``, ``jti`` and
``roles`` are required; ``nbf`` and ``iat`` are checked where present. A revoked token is refused within
``revocation.POLL_SECONDS``.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import jwt

from app.service.keys import KeySource, KeyUnavailableError, UnknownKeyError, VerificationKey
from app.service.permissions import Principal, permissions_of
from app.service.problems import ProblemError, unavailable

LEEWAY_SECONDS: Final = 5.0
CACHE_ENTRIES: Final = 10_000
MAXIMUM_TOKEN_BYTES: Final = 8192
REQUIRED_CLAIMS: Final = ["iss", "aud", "exp", "sub", "jti", "roles"]


class RevokedTokens:
    """Token ids that are refused before they expire, as this process knows them."""

    def __init__(self) -> None:
        self._expires_at: dict[str, float] = {}

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._expires_at

    def __len__(self) -> int:
        return len(self._expires_at)

    def add(self, token_id: str, expires_at: float) -> None:
        """Refuse ``token_id`` until ``expires_at`` (seconds since the epoch), when it expires by itself."""
        self._expires_at[token_id] = max(expires_at, self._expires_at.get(token_id, 0.0))

    def forget_expired(self) -> None:
        """Drop ids whose tokens have expired."""
        now = time.time() - LEEWAY_SECONDS
        self._expires_at = {token_id: expiry for token_id, expiry in self._expires_at.items() if expiry > now}


def _unauthorized(detail: str) -> ProblemError:
    challenge = 'Bearer realm="grandmodel", error="invalid_token"'
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})


class TokenVerifier:
    """Turns an ``Authorization`` header into a ``Principal``."""

    def __init__(
        self, keys: KeySource, *, algorithm: str, issuer: str, audience: str, revoked: RevokedTokens | None = None
    ) -> None:
        self._keys = keys
        self._algorithm = algorithm
        self._issuer = issuer
        self._audience = audience
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self.revoked = RevokedTokens() if revoked is None else revoked

    def cached(self, authorization: bytes) -> Principal | None:
        """The principal of a header verified before; None when it has to be verified. Raises as ``verify`` does."""
        digest = hashlib.sha256(authorization).digest()
        principal = self._verified.get(digest)
        if principal is None:
            return None
        if principal.expires_at + LEEWAY_SECONDS <= time.time():
            del self._verified[digest]
            raise _unauthorized("The token has expired.")
        if principal.token_id in self.revoked:
            raise _unauthorized("The token was revoked.")
        self._verified.move_to_end(digest)
        return principal

    async def verify(self, authorization: bytes | None) -> Principal:
        """The principal that ``Authorization: Bearer <token>`` speaks for.

        Raises:
            ProblemError: 401 without a valid token, 503 when the issuer's keys cannot be fetched.
        """
        if authorization is None:
            raise ProblemError(
                401,
                "unauthorized",
                "A bearer token is required.",
                headers={"WWW-Authenticate": 'Bearer realm="grandmodel"'},
            )
        known = self.cached(authorization)
        if known is not None:
            return known
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise _unauthorized("The Authorization header must be 'Bearer <token>'.")
        if len(token) > MAXIMUM_TOKEN_BYTES:
            raise _unauthorized(f"The token is longer than {MAXIMUM_TOKEN_BYTES} bytes.")
        principal = _principal(await self._claims(token.strip()))
        if principal.token_id in self.revoked:
            raise _unauthorized("The token was revoked.")
        self._verified[hashlib.sha256(authorization).digest()] = principal
        if len(self._verified) > CACHE_ENTRIES:
            self._verified.popitem(last=False)
        return principal

    def forget(self) -> None:
        """Verify every token anew from now on."""
        self._verified.clear()

    async def _claims(self, token: bytes) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") != self._algorithm:
                raise _unauthorized(f"The token must be signed with {self._algorithm}.")
            claims = self._verified_claims(token, await self._keys.keys(header.get("kid")))
        except KeyUnavailableError as error:
            raise unavailable(f"The token cannot be verified: {error}.", 5.0) from error
        except UnknownKeyError as error:
            raise _unauthorized(f"The token cannot be verified: {error}.") from error
        except jwt.ExpiredSignatureError as error:
            raise _unauthorized("The token has expired.") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise _unauthorized(f"The token is not valid: {error}.") from error
        return claims

    def _verified_claims(self, token: bytes, keys: Sequence[VerificationKey]) -> dict[str, Any]:
        for key in keys[:-1]:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return self._decode(token, key)
        return self._decode(token, keys[-1])

    def _decode(self, token: bytes, key: VerificationKey) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[self._algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": REQUIRED_CLAIMS},
        )
        return claims


def _principal(claims: dict[str, Any]) -> Principal:
    roles, methods = claims["roles"], claims.get("amr", [])
    for name, value in (("roles", roles), ("amr", methods)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _unauthorized(f"The token's claim '{name}' must be a list of strings.")
    for name in ("sub", "jti"):
        if not isinstance(claims[name], str) or not 0 < len(claims[name]) <= 256:
            raise _unauthorized(f"The token's claim '{name}' must be a string of 1 to 256 characters.")
    return Principal(
        subject=claims["sub"],
        token_id=claims["jti"],
        permissions=permissions_of(roles),
        multi_factor="mfa" in methods,
        expires_at=float(claims["exp"]),
    )
