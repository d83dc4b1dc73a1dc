from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from app.service.cache import Cache
from app.service.database import Database, DatabaseSettingError
from app.service.problems import ProblemError
from app.service.settings import ServiceSettings

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., ServiceSettings]


@pytest.fixture
def login(postgres: str) -> Iterator[Callable[[str], str]]:
    """Gives a role of its own a password, and the URL to sign in with it."""
    role = "rotating"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))

        def change(password: str) -> str:
            statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            connection.execute(statement)
            parts = urlsplit(postgres)
            return urlunsplit(parts._replace(netloc=f"{role}:{password}@{parts.netloc.rpartition('@')[2]}"))

        yield change
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def test_a_rotated_database_password_takes_hold_without_a_restart(
    make_settings: MakeSettings, login: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "url"
    mounted.write_text(login("first-password"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("DATABASE_URL_FILE", str(mounted))
    database = Database(make_settings(DATABASE_URL=mounted.read_text()), application_name="test")
    await database.open()
    try:
        assert database.available
        mounted.write_text(login("second-password"))
        connection = await database.dedicated_connection()
        await connection.close()
    finally:
        await database.close()


async def test_the_cache_takes_its_password_from_a_variable_of_its_own(make_settings: MakeSettings, cache: str) -> None:
    parts = urlsplit(cache)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    client = Cache(make_settings(REDIS_URL=bare, REDIS_PASSWORD=parts.password))
    assert await client.execute("PING")
    await client.close()
    refused = Cache(make_settings(REDIS_URL=bare, REDIS_PASSWORD="wrong"))
    await refused.open()
    assert not refused.available
    assert "wrong" not in refused.reason
    await refused.close()


async def test_a_database_that_would_lose_commits_is_not_ready(make_settings: MakeSettings, postgres: str) -> None:
    separator = "&" if "?" in postgres else "?"
    url = f"{postgres}{separator}options=-c%20synchronous_commit%3Doff"
    database = Database(make_settings(DATABASE_URL=url), application_name="test")
    await database.open()
    try:
        with pytest.raises(DatabaseSettingError, match="synchronous_commit is off"):
            await database.assert_durable()
    finally:
        await database.close()


async def test_a_database_without_tables_says_that_it_is_not_migrated(make_settings: MakeSettings) -> None:
    database = Database(make_settings(), application_name="test")
    await database.open()
    try:
        with pytest.raises(ProblemError) as error:
            async with database.connection() as connection:
                await connection.execute("SELECT FROM never_made")
        assert error.value.kind == "database-not-migrated"
        assert "never_made" in str(error.value.detail)
    finally:
        await database.close()
