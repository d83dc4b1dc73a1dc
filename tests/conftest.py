"""Real servers for the tests: one PostgreSQL and one cache a session, one fresh migrated database a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from functools import cache as memoize

import psycopg
import pytest
from psycopg import sql

from app.contract import Service
from ops.local.cache import cache_url
from ops.local.postgres import postgres_url, replace_database

NewDatabase = Callable[[Service], str]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the superuser of a running PostgreSQL with pgvector: ``DATABASE_URL`` or an embedded one."""
    with postgres_url(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a running Redis-compatible cache with a password: ``REDIS_URL`` or an embedded one."""
    with cache_url(tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Iterator[NewDatabase]:
    """Makes a fresh, migrated database of a service and returns its superuser URL.

    For fixtures with a scope of their own. The migrations run once a session and service, into a template; a copy
    costs some 50 ms.
    """
    created: list[str] = []
    numbers = itertools.count(1)

    def create(template: str | None) -> str:
        name = f"test_{os.getpid()}_{next(numbers)}"
        with psycopg.connect(postgres, autocommit=True) as connection:
            origin = sql.SQL("") if template is None else sql.SQL("TEMPLATE {}").format(sql.Identifier(template))
            connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), origin))
        created.append(name)
        return name

    @memoize
    def template_of(service: Service) -> str:
        from app.service.migrations import migrate  # noqa: PLC0415 (the estate's tests need no database)

        name = create(None)
        migrate(replace_database(postgres, name), service)
        return name

    yield lambda service: replace_database(postgres, create(template_of(service)))
    if "DATABASE_URL" not in os.environ:
        return  # an embedded server goes with its directory, and each drop costs a checkpoint
    with psycopg.connect(postgres, autocommit=True) as connection:
        for name in created:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def strategic_database(new_database: NewDatabase) -> str:
    """URL of a fresh database of the strategic service, as its superuser."""
    return new_database(Service.STRATEGIC)


@pytest.fixture
def tactical_database(new_database: NewDatabase) -> str:
    """URL of a fresh database of the tactical service, as its superuser."""
    return new_database(Service.TACTICAL)


@pytest.fixture
def database(strategic_database: str) -> str:
    """URL of a fresh migrated database, for what both services share (audit, idempotency keys)."""
    return strategic_database
