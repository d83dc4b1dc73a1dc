from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.service import authentication, keys
from app.service.authentication import TokenVerifier
from app.service.keys import IssuerKeys, SharedSecret
from app.service.permissions import Permission
from app.service.problems import ProblemError
from app.service.tokens import mint_token

pytestmark = pytest.mark.anyio
SECRET = "s" * 32
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SigningKey = str | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def verifier(algorithm: str = "HS256", source: keys.KeySource | None = None) -> TokenVerifier:
    return TokenVerifier(
        source or SharedSecret(SECRET.encode), algorithm=algorithm, issuer="grandmodel", audience="grandmodel"
    )


def claims(**changes: object) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": "grandmodel",
        "aud": "grandmodel",
        "sub": "quant-1",
        "jti": "token-1",
        "exp": now + 60,
        "nbf": now,
        "roles": ["quant"],
        "amr": ["mfa"],
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


def header(payload: dict[str, Any], key: SigningKey | None = SECRET, algorithm: str = "HS256", **fields: str) -> bytes:
    return b"Bearer " + jwt.encode(payload, key or "", algorithm=algorithm, headers=fields or None).encode()


async def refusal(check: TokenVerifier, authorization: bytes | None) -> ProblemError:
    with pytest.raises(ProblemError) as error:
        await check.verify(authorization)
    return error.value


async def test_a_valid_token_tells_who_asks_and_what_is_permitted() -> None:
    principal = await verifier().verify(header(claims()))
    assert principal.subject == "quant-1"
    assert principal.permissions == {Permission.READ, Permission.PROCESS, Permission.ACT, Permission.TRAIN}
    assert principal.multi_factor


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": int(time.time()) - 3600}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
        ({"iss": "someone else"}, "issuer"),
        ({"aud": "another service"}, "[Aa]udience"),
        ({"iss": None}, "iss"),
        ({"aud": None}, "aud"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"jti": None}, "jti"),
        ({"roles": None}, "roles"),
        ({"roles": "admin"}, "list of strings"),
        ({"roles": [{"admin": True}]}, "list of strings"),
        ({"amr": "mfa"}, "list of strings"),
        ({"jti": "x" * 300}, "256 characters"),
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(changes: dict[str, Any], reason: str) -> None:
    error = await refusal(verifier(), header(claims(**changes)))
    assert error.status_code == 401
    assert error.headers is not None
    assert "invalid_token" in error.headers["WWW-Authenticate"]
    assert re.search(reason, str(error.detail))


async def test_an_unsigned_token_is_refused() -> None:
    assert (await refusal(verifier(), header(claims(), None, "none"))).status_code == 401


async def test_a_token_signed_with_another_secret_is_refused() -> None:
    assert (await refusal(verifier(), header(claims(), "t" * 32))).status_code == 401


async def test_the_algorithm_is_pinned_even_where_the_key_would_fit() -> None:
    assert "HS256" in str((await refusal(verifier(), header(claims(), SECRET * 2, "HS512"))).detail)


async def test_a_public_key_does_not_pass_as_a_shared_secret() -> None:
    """The key confusion of CVE-2016-10555: an HS256 token keyed with the issuer's public key."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    unsigned = header(claims(), "x" * 32, kid="a").removeprefix(b"Bearer ").rpartition(b".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(public, unsigned, "sha256")).rstrip(b"=")
    forged = b"Bearer " + unsigned + b"." + signature
    assert (await refusal(verifier("RS256", SharedSecret(lambda: public)), forged)).status_code == 401


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic dXNlcjpwYXNz",
        b"Bearer a.b.c",
        b"Bearer \xff\xfe",
        b"Bearer " + b"x" * 9000,
        b"Bearer " + base64.urlsafe_b64encode(b"[]") + b"." + base64.urlsafe_b64encode(b"{}") + b".",
    ],
)
async def test_what_is_no_token_is_refused(authorization: bytes | None) -> None:
    assert (await refusal(verifier(), authorization)).status_code == 401


async def test_after_a_rotation_the_secret_before_verifies_for_a_while() -> None:
    secrets = ["a" * 32]

    def current() -> bytes:
        return secrets[-1].encode()

    check = verifier(source=SharedSecret(current, overlap=0.2))
    secrets.append("b" * 32)
    await check.verify(header(claims(jti="new"), "b" * 32))
    await check.verify(header(claims(jti="old"), "a" * 32))
    await asyncio.sleep(0.25)
    check.forget()
    assert (await refusal(check, header(claims(jti="late"), "a" * 32))).status_code == 401
    assert (await refusal(check, header(claims(), "c" * 32))).status_code == 401
    await check.verify(header(claims(jti="new"), "b" * 32))


async def test_unknown_roles_grant_nothing() -> None:
    principal = await verifier().verify(header(claims(roles=["root", "viewer"])))
    assert principal.permissions == {Permission.READ}


async def test_a_cached_token_stops_being_valid_when_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    check = verifier()
    authorization = header(claims())
    await check.verify(authorization)
    assert check.cached(authorization) is not None
    later = time.time() + 120
    monkeypatch.setattr("app.service.authentication.time.time", lambda: later)
    assert (await refusal(check, authorization)).detail == "The token has expired."


async def test_a_revoked_token_is_refused_though_it_was_verified_before() -> None:
    check = verifier()
    authorization = header(claims())
    await check.verify(authorization)
    check.revoked.add("token-1", time.time() + 60)
    assert (await refusal(check, authorization)).detail == "The token was revoked."


async def test_the_cache_of_verified_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "CACHE_ENTRIES", 3)
    check = verifier()
    authorizations = [header(claims(jti=str(number))) for number in range(5)]
    for authorization in authorizations:
        await check.verify(authorization)
    assert [check.cached(authorization) is not None for authorization in authorizations] == [False] * 2 + [True] * 3


async def test_minted_tokens_are_valid() -> None:
    token = mint_token(SECRET, subject="local", roles=["admin"])
    assert Permission.ACTIVATE in (await verifier().verify(b"Bearer " + token.encode())).permissions


class Issuer:
    """An identity provider that publishes its keys."""

    def __init__(self) -> None:
        self.published: dict[str, Any] = {}
        self.status = 200
        self.fetches = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                body = json.dumps({"keys": list(issuer.published.values())}).encode()
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, key_id: str, private: PrivateKey, algorithm: str) -> None:
        if isinstance(private, rsa.RSAPrivateKey):
            document = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        else:
            document = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        self.published[key_id] = {**document, "kid": key_id, "alg": algorithm, "use": "sig"}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    started = Issuer()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_keys_come_from_the_issuer_are_cached_and_rotate(
    issuer: Issuer, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new_key() -> PrivateKey:
        if algorithm == "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return ec.generate_private_key(ec.SECP256R1())

    first, second = new_key(), new_key()
    issuer.publish("first", first, algorithm)
    async with httpx.AsyncClient() as client:
        check = verifier(algorithm, IssuerKeys(issuer.url, algorithm, client))
        for number in range(5):
            await check.verify(header(claims(jti=str(number)), first, algorithm, kid="first"))
        assert issuer.fetches == 1

        issuer.publish("second", second, algorithm)
        rotated = header(claims(jti="rotated"), second, algorithm, kid="second")
        assert (await refusal(check, rotated)).status_code == 401  # within the pause between fetches
        assert issuer.fetches == 1
        monkeypatch.setattr(keys, "REFETCH_SECONDS", 0.0)
        await check.verify(rotated)

        del issuer.published["first"]
        check.forget()
        monkeypatch.setattr(keys, "MAXIMUM_AGE_SECONDS", 0.05)
        time.sleep(0.06)  # noqa: ASYNC251 - nothing else runs
        withdrawn = header(claims(jti="late"), first, algorithm, kid="first")
        assert (await refusal(check, withdrawn)).status_code == 401


async def test_a_flood_of_unknown_key_ids_fetches_once(issuer: Issuer) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    issuer.publish("known", private, "ES256")
    async with httpx.AsyncClient() as client:
        check = verifier("ES256", IssuerKeys(issuer.url, "ES256", client))
        for number in range(50):
            await refusal(check, header(claims(), private, "ES256", kid=f"unknown-{number}"))
    assert issuer.fetches == 1


async def test_a_token_cannot_be_verified_while_the_issuer_is_away(issuer: Issuer) -> None:
    issuer.status = 500
    private = ec.generate_private_key(ec.SECP256R1())
    async with httpx.AsyncClient() as client:
        check = verifier("ES256", IssuerKeys(issuer.url, "ES256", client))
        error = await refusal(check, header(claims(), private, "ES256", kid="a"))
    assert error.status_code == 503
    assert error.headers is not None
    assert "Retry-After" in error.headers
