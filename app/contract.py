"""What the estate and the services must agree on: ports, probe paths, metric names, environment names.

Both halves import this module and nothing else of each other. A constant belongs here when a mismatch between the
estate and a service would only show in production.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Service(StrEnum):
    """The two services, by the name that images, paths, databases and labels carry."""

    STRATEGIC = "strategic"
    TACTICAL = "tactical"


@dataclass(frozen=True)
class ServiceContract:
    """What one service offers to the estate."""

    service: Service
    port: int
    database: str
    api_prefix: str
    autoscaling_metric: str
    """The series in ``/metrics`` on which the service's HPA scales."""
    autoscaling_target: str
    """Average value per replica, as a Kubernetes quantity."""


NAMESPACE: Final = "grandmodel"
"""Kubernetes namespace of the services and the gateway; each Deployment is called like its service."""

HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/ready"
METRICS_PATH: Final = "/metrics"

METRIC_STRATEGIC_THROUGHPUT: Final = "strategic_throughput"
METRIC_TACTICAL_TRAINING_TIME: Final = "tactical_training_time"
METRIC_TACTICAL_TRAINING_STEPS: Final = "tactical_training_steps_total"

# Every service exports these; dashboards and alerts name them.
METRIC_HTTP_REQUESTS: Final = "http_requests_total"
METRIC_HTTP_DURATION: Final = "http_request_duration_seconds"
METRIC_HTTP_IN_FLIGHT: Final = "http_requests_in_flight"
METRIC_DEPENDENCY_UP: Final = "dependency_up"
METRIC_RATE_LIMITED: Final = "rate_limited_requests_total"
METRIC_AUTHENTICATION_FAILURES: Final = "authentication_failures_total"
METRIC_DATABASE_POOL_CONNECTIONS: Final = "database_pool_connections"
METRIC_DATABASE_POOL_WAITING: Final = "database_pool_waiting_requests"
METRIC_AUDIT_BACKLOG: Final = "audit_backlog_lines"

STRATEGIC: Final = ServiceContract(
    service=Service.STRATEGIC,
    port=8000,
    database="strategic_db",
    api_prefix="/api/strategic",
    autoscaling_metric=METRIC_STRATEGIC_THROUGHPUT,
    autoscaling_target="10000",
)
TACTICAL: Final = ServiceContract(
    service=Service.TACTICAL,
    port=8001,
    database="tactical_db",
    api_prefix="/api/tactical",
    autoscaling_metric=METRIC_TACTICAL_TRAINING_TIME,
    autoscaling_target="1",
)
SERVICES: Final = (STRATEGIC, TACTICAL)

MATRIX_BARS: Final = 48
MATRIX_FEATURES: Final = 13
WINDOW_BARS: Final = 30
WINDOW_FEATURES: Final = 7
STRATEGIC_TARGET_SAMPLES_PER_SECOND: Final = 12_604


class Env(StrEnum):
    """Environment variables that the estate sets and the services read."""

    ENVIRONMENT = "ENVIRONMENT"
    LOG_LEVEL = "LOG_LEVEL"
    SECRET_KEY = "SECRET_KEY"  # noqa: S105 -- its name, not the secret
    DATABASE_URL = "DATABASE_URL"
    DATABASE_POOL_SIZE = "DATABASE_POOL_SIZE"
    DATABASE_POOL_MAX_OVERFLOW = "DATABASE_POOL_MAX_OVERFLOW"
    REDIS_URL = "REDIS_URL"
    REDIS_PASSWORD = "REDIS_PASSWORD"  # noqa: S105 -- its name, not the secret
    STRATEGIC_PERFORMANCE_TARGET = "STRATEGIC_PERFORMANCE_TARGET"
    STRATEGIC_MATRIX_SIZE = "STRATEGIC_MATRIX_SIZE"
    STRATEGIC_PROCESSING_THREADS = "STRATEGIC_PROCESSING_THREADS"
    STRATEGIC_MEMORY_LIMIT = "STRATEGIC_MEMORY_LIMIT"
    TACTICAL_PERFORMANCE_TARGET = "TACTICAL_PERFORMANCE_TARGET"
    TACTICAL_TRAINING_EPISODES = "TACTICAL_TRAINING_EPISODES"
    TACTICAL_JIT_ENABLED = "TACTICAL_JIT_ENABLED"
    JWT_SECRET = "JWT_SECRET"  # noqa: S105 -- its name, not the secret
    JWT_EXPIRATION = "JWT_EXPIRATION"
    CORS_ORIGINS = "CORS_ORIGINS"
    SSL_ENABLED = "SSL_ENABLED"
    SSL_CERT_PATH = "SSL_CERT_PATH"
    SSL_KEY_PATH = "SSL_KEY_PATH"
    PROMETHEUS_ENABLED = "PROMETHEUS_ENABLED"
    HEALTH_CHECK_INTERVAL = "HEALTH_CHECK_INTERVAL"
    MARKET_DATA_API_KEY = "MARKET_DATA_API_KEY"
    NOTIFICATION_WEBHOOK = "NOTIFICATION_WEBHOOK"
    BACKUP_S3_BUCKET = "BACKUP_S3_BUCKET"
    # Beyond the first release's list: the identity provider, limits and storage of this one.
    JWT_ISSUER = "JWT_ISSUER"
    JWT_AUDIENCE = "JWT_AUDIENCE"
    JWT_ALGORITHM = "JWT_ALGORITHM"
    JWT_JWKS_URL = "JWT_JWKS_URL"
    RATE_LIMIT_PER_MINUTE = "RATE_LIMIT_PER_MINUTE"
    RATE_LIMIT_UNIT = "RATE_LIMIT_UNIT"
    DRAIN_SECONDS = "DRAIN_SECONDS"
    SECRETS_DIR = "SECRETS_DIR"
    MODEL_STORE_URL = "MODEL_STORE_URL"
