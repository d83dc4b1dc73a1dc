from __future__ import annotations

from pathlib import Path

import pytest

from app.service.settings import ServiceSettings, SettingsError, load_settings

COMPLETE = {
    "DATABASE_URL": "postgresql://user:hunter2@db/strategic_db",
    "REDIS_URL": "redis://cache",
    "JWT_SECRET": "x" * 32,
}


@pytest.fixture(autouse=True)
def only_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET", "REDIS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_is_read_by_the_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, "CORS_ORIGINS": "https://a.example, https://b.example", "PORT": "9000"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(ServiceSettings)
    assert settings.database_url.get_secret_value() == COMPLETE["DATABASE_URL"]
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.port == 9000


def test_every_mistake_is_named_at_once_and_no_value_is_shown() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(
            ServiceSettings, {"DATABASE_URL": "mysql://hunter2", "JWT_SECRET": "hunter2", "DATABASE_POOL_SIZE": "many"}
        )
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "DATABASE_URL",
        "DATABASE_POOL_SIZE",
        "REDIS_URL",
        "JWT_SECRET",
    ]
    assert "hunter2" not in str(error.value)
    assert "at least 32 bytes" in lines[3]


def test_settings_never_print_a_secret() -> None:
    settings = load_settings(ServiceSettings, COMPLETE)
    assert "hunter2" not in repr(settings)
    assert "x" * 32 not in str(settings.model_dump())


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("y" * 40 + "\n")
    monkeypatch.setenv("JWT_SECRET_FILE", str(tmp_path / "jwt"))
    settings = load_settings(ServiceSettings, {k: v for k, v in COMPLETE.items() if k != "JWT_SECRET"})
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == "y" * 40


def test_secrets_may_come_from_a_mounted_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in COMPLETE.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    assert load_settings(ServiceSettings).redis_url.get_secret_value() == "redis://cache"


def test_a_secret_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JWT_SECRET_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"JWT_SECRET_FILE: cannot read .*nowhere"):
        load_settings(ServiceSettings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"JWT_SECRET": None}, "JWT_SECRET is missing"),
        ({"JWT_JWKS_URL": "https://issuer/keys"}, "exclude each other"),
        ({"JWT_ALGORITHM": "RS256"}, "JWT_JWKS_URL is missing"),
        ({"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM"),
        (
            {"JWT_ALGORITHM": "RS256", "JWT_JWKS_URL": "http://issuer/keys", "ENVIRONMENT": "production"},
            "must begin with https",
        ),
        ({"SSL_ENABLED": "true"}, "SSL_CERT_PATH"),
        ({"RATE_LIMIT_PER_MINUTE": "0"}, "RATE_LIMIT_PER_MINUTE"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(ServiceSettings, {**COMPLETE, **overrides})
