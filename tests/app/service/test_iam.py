from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from app.service import iam
from app.service.settings import ServiceSettings, SettingsError, load_settings

BASE = {
    "DATABASE_URL": "postgresql://tactical_app@db.example:5432/tactical_db?sslmode=verify-full",
    "REDIS_URL": "rediss://grandmodel-staging-tactical@cache.example:6379/0",
    "JWT_SECRET": "x" * 32,
}


@pytest.fixture(autouse=True)
def pod_credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-pod")
    iam._session.cache_clear()
    yield
    iam._session.cache_clear()


def test_the_database_is_signed_in_to_by_a_token_for_this_user_and_host() -> None:
    url = urlsplit(iam.database_url_with_token(BASE["DATABASE_URL"], "eu-central-1"))
    assert url.username == "tactical_app"
    assert url.query == "sslmode=verify-full"
    token = urlsplit("//" + unquote(url.password or ""))
    assert token.netloc == "db.example:5432"
    claims = parse_qs(token.query)
    assert claims["Action"] == ["connect"]
    assert claims["DBUser"] == ["tactical_app"]
    assert "/eu-central-1/rds-db/aws4_request" in claims["X-Amz-Credential"][0]
    assert claims["X-Amz-Signature"][0]
    assert "secret-of-the-pod" not in url.geturl()


def test_the_cache_is_signed_in_to_by_a_token_for_this_user_and_replication_group() -> None:
    token = urlsplit("//" + iam.cache_token("grandmodel-staging-tactical", "group-1", "eu-central-1"))
    assert token.netloc == "group-1"
    claims = parse_qs(token.query)
    assert claims["User"] == ["grandmodel-staging-tactical"]
    assert claims["X-Amz-Expires"] == ["900"]
    assert "/eu-central-1/elasticache/aws4_request" in claims["X-Amz-Credential"][0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"REDIS_IAM_REPLICATION_GROUP": "group-1", "AWS_REGION": None}, "AWS_REGION is missing"),
        (
            {"REDIS_IAM_REPLICATION_GROUP": "g", "AWS_REGION": "eu-central-1", "REDIS_URL": "rediss://cache"},
            "REDIS_URL names no user",
        ),
        (
            {"DATABASE_IAM_REGION": "eu-central-1", "DATABASE_URL": "postgresql://db/tactical_db"},
            "DATABASE_URL names no user",
        ),
    ],
)
def test_signing_in_by_iam_needs_a_user_and_a_region(
    overrides: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(SettingsError, match=message):
        load_settings(ServiceSettings, {**BASE, **overrides})
