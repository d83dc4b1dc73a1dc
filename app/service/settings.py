"""Settings of a service out of its environment and its mounted secrets.

Every name is an environment variable of ``app.contract.Env``. A secret may instead come from a file: ``<NAME>_FILE``
holds its path, or ``SECRETS_DIR`` names a directory (the Secrets Store CSI mount) with a file called ``<NAME>``. A
mistake gives one line that names the variable and never its value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.contract import Env

MINIMUM_SECRET_BYTES = 32  # RFC 7518, section 3.2: an HS256 key is at least as long as the hash
MEBIBYTE = 1024 * 1024


class SettingsError(Exception):
    """The environment does not describe a service; the message has one line for each mistake."""


class Environment(StrEnum):
    """Where the service runs; ``production`` demands multi-factor authentication of whoever changes something."""

    DEVELOPMENT = "development"
    TEST = "test"
    STAGING = "staging"
    PRODUCTION = "production"


class RateLimitUnit(StrEnum):
    """What the rate limit counts."""

    REQUESTS = "requests"
    SAMPLES = "samples"


def _split_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES:
        raise ValueError(f"needs at least {MINIMUM_SECRET_BYTES} bytes (RFC 7518, section 3.2)")
    return secret


def _url_of(*schemes: str) -> AfterValidator:
    def check(url: SecretStr | None) -> SecretStr | None:
        if url is not None and urlsplit(url.get_secret_value()).scheme not in schemes:
            raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url

    return AfterValidator(check)


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


def _from_file(name: str) -> str | None:
    """Contents of the file that holds ``name``, without the newline at its end; None where there is none."""
    path = os.environ.get(f"{name}_FILE")
    if path is not None:
        try:
            return Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE: cannot read {path}: {error}") from error
    directory = os.environ.get(Env.SECRETS_DIR)
    if directory and (mounted := Path(directory) / name).is_file():
        return mounted.read_text().rstrip("\r\n")
    return None


def current_secret(name: str, loaded: SecretStr) -> str:
    """The present value of a secret whose file may have been rotated since it was ``loaded``."""
    if name in os.environ:
        return loaded.get_secret_value()
    try:
        return _from_file(name) or loaded.get_secret_value()
    except (SettingsError, OSError):
        return loaded.get_secret_value()


class SecretFiles(PydanticBaseSettingsSource):
    """Values from ``<NAME>_FILE`` paths and from the files of ``SECRETS_DIR``."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401 - as in the base
        """The field's value out of a file."""
        name = str(field.validation_alias or field_name)
        return _from_file(name), name, False

    def __call__(self) -> dict[str, Any]:
        """Values by environment name, of the fields that have a file."""
        values: dict[str, Any] = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, name, _ = self.get_field_value(field, field_name)
            if value is not None:
                values[name] = value
        return values


class ServiceSettings(BaseSettings):
    """What both services are told. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True, case_sensitive=True
    )

    environment: Environment = Field(default=Environment.DEVELOPMENT, validation_alias=Env.ENVIRONMENT.value)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias=Env.LOG_LEVEL.value
    )

    database_url: Annotated[SecretStr, _url_of("postgresql", "postgres")] = Field(
        validation_alias=Env.DATABASE_URL.value
    )
    database_pool_size: int = Field(default=10, ge=1, le=1000, validation_alias=Env.DATABASE_POOL_SIZE.value)
    database_pool_max_overflow: int = Field(
        default=20, ge=0, le=1000, validation_alias=Env.DATABASE_POOL_MAX_OVERFLOW.value
    )
    database_pool_timeout: float = Field(default=30.0, gt=0, validation_alias="DATABASE_POOL_TIMEOUT")
    database_pool_recycle: float = Field(default=1800.0, gt=0, validation_alias="DATABASE_POOL_RECYCLE")

    redis_url: Annotated[SecretStr, _url_of("redis", "rediss", "unix")] = Field(validation_alias=Env.REDIS_URL.value)
    redis_password: SecretStr | None = Field(default=None, validation_alias=Env.REDIS_PASSWORD.value)

    database_iam_region: str | None = Field(default=None, validation_alias="DATABASE_IAM_REGION")
    """Set: sign in to PostgreSQL by an IAM token of this region; the URL then has a user and no password."""
    redis_iam_replication_group: str | None = Field(default=None, validation_alias="REDIS_IAM_REPLICATION_GROUP")
    """Set: sign in to the cache by an IAM token; the URL then has a user and no password."""
    aws_region: str | None = Field(default=None, validation_alias="AWS_REGION")

    jwt_secret: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(
        default=None, validation_alias=Env.JWT_SECRET.value
    )
    jwt_jwks_url: Annotated[SecretStr, _url_of("https", "http")] | None = Field(
        default=None, validation_alias=Env.JWT_JWKS_URL.value
    )
    jwt_algorithm: Literal["HS256", "RS256", "ES256"] = Field(default="HS256", validation_alias=Env.JWT_ALGORITHM.value)
    jwt_issuer: str = Field(default="grandmodel", min_length=1, validation_alias=Env.JWT_ISSUER.value)
    jwt_audience: str = Field(default="grandmodel", min_length=1, validation_alias=Env.JWT_AUDIENCE.value)
    jwt_expiration: int = Field(default=3600, ge=1, validation_alias=Env.JWT_EXPIRATION.value)

    cors_origins: Origins = Field(default=(), validation_alias=Env.CORS_ORIGINS.value)
    rate_limit_per_minute: int = Field(default=1000, ge=1, validation_alias=Env.RATE_LIMIT_PER_MINUTE.value)
    rate_limit_unit: RateLimitUnit = Field(default=RateLimitUnit.REQUESTS, validation_alias=Env.RATE_LIMIT_UNIT.value)
    request_timeout: float = Field(default=30.0, gt=0, validation_alias="REQUEST_TIMEOUT")
    body_limit: int = Field(default=100 * MEBIBYTE, ge=1024, validation_alias="BODY_LIMIT")
    body_memory: int = Field(default=256 * MEBIBYTE, ge=1024, validation_alias="BODY_MEMORY")
    """Bytes of request bodies held at one time, over all connections; beyond it a request is asked to come again."""

    host: str = Field(default="0.0.0.0", validation_alias="HOST")  # noqa: S104 - in a pod the NetworkPolicy decides who connects
    port: int | None = Field(default=None, ge=0, le=65535, validation_alias="PORT")
    workers: int = Field(default=1, ge=1, le=128, validation_alias="WORKERS")
    ssl_enabled: bool = Field(default=False, validation_alias=Env.SSL_ENABLED.value)
    ssl_cert_path: Path | None = Field(default=None, validation_alias=Env.SSL_CERT_PATH.value)
    ssl_key_path: Path | None = Field(default=None, validation_alias=Env.SSL_KEY_PATH.value)
    drain_seconds: float = Field(default=5.0, ge=0, validation_alias=Env.DRAIN_SECONDS.value)
    prometheus_enabled: bool = Field(default=True, validation_alias=Env.PROMETHEUS_ENABLED.value)
    health_check_interval: float = Field(default=30.0, gt=0, validation_alias=Env.HEALTH_CHECK_INTERVAL.value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature of the base class
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature of the base class
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then files: a variable set by hand overrides what is mounted."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @model_validator(mode="after")
    def _keys_fit_the_algorithm(self) -> Self:
        if self.jwt_algorithm == "HS256":
            if self.jwt_secret is None:
                raise ValueError("JWT_SECRET is missing: HS256 needs it (or set JWT_ALGORITHM and JWT_JWKS_URL)")
            if self.jwt_jwks_url is not None:
                raise ValueError(
                    "JWT_JWKS_URL and JWT_ALGORITHM=HS256 exclude each other: set JWT_ALGORITHM to RS256 or ES256"
                )
        elif self.jwt_jwks_url is None:
            raise ValueError(
                f"JWT_JWKS_URL is missing: JWT_ALGORITHM={self.jwt_algorithm} takes its keys from the issuer"
            )
        elif self.environment is Environment.PRODUCTION and not self.jwt_jwks_url.get_secret_value().startswith(
            "https://"
        ):
            raise ValueError("JWT_JWKS_URL must begin with https:// in production")
        return self

    @model_validator(mode="after")
    def _tokens_have_a_user(self) -> Self:
        if self.redis_iam_replication_group is not None:
            if self.aws_region is None:
                raise ValueError("AWS_REGION is missing: REDIS_IAM_REPLICATION_GROUP needs it")
            if urlsplit(self.redis_url.get_secret_value()).username is None:
                raise ValueError("REDIS_URL names no user: REDIS_IAM_REPLICATION_GROUP needs one")
        if self.database_iam_region is not None and urlsplit(self.database_url.get_secret_value()).username is None:
            raise ValueError("DATABASE_URL names no user: DATABASE_IAM_REGION needs one")
        return self

    @model_validator(mode="after")
    def _certificate_is_there(self) -> Self:
        if self.ssl_enabled:
            for name, path in ((Env.SSL_CERT_PATH, self.ssl_cert_path), (Env.SSL_KEY_PATH, self.ssl_key_path)):
                if path is None or not path.is_file():
                    raise ValueError(f"{name} must name a readable file because SSL_ENABLED is set")
        return self


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(settings: type[SettingsT], overrides: Mapping[str, object] | None = None) -> SettingsT:
    """Settings from the environment.

    Args:
        settings: the class to fill.
        overrides: values by environment name that take precedence, for tests and local servers.

    Raises:
        SettingsError: with one line for each variable that is missing or wrong.
    """
    try:
        return settings(**dict(overrides or {}))  # type: ignore[arg-type] # the keys are validation aliases
    except ValidationError as error:
        lines = []
        for mistake in error.errors(include_input=False, include_url=False):
            name = ".".join(str(part) for part in mistake["loc"])
            message = "is missing" if mistake["type"] == "missing" else mistake["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        raise SettingsError("\n".join(lines)) from None
