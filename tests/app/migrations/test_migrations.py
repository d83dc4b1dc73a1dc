"""Migrations on a real PostgreSQL with pgvector: repeatable, serialised, without superuser, and least privilege."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest
from psycopg import errors, sql

from app.contract import Service
from app.service.migrations import MigrationError, Roles, current_revision, downgrade, head_revision, migrate
from ops.local.postgres import replace_database

DOCUMENTED: dict[Service, dict[str, tuple[str, ...]]] = {
    Service.STRATEGIC: {
        "matrix_data": ("id", "timestamp", "matrix_data", "processing_time", "created_at"),
        "uncertainty_data": ("id", "timestamp", "confidence_level", "uncertainty_score", "created_at"),
        "regime_data": ("id", "timestamp", "regime_classification", "confidence_score", "created_at"),
        "vector_patterns": ("id", "timestamp", "pattern_vector", "metadata", "created_at"),
    },
    Service.TACTICAL: {
        "training_data": ("id", "timestamp", "episode_number", "training_metrics", "created_at"),
        "model_versions": ("id", "version", "model_type", "model_path", "performance_metrics", "created_at"),
        "agent_actions": ("id", "timestamp", "agent_type", "action_data", "reward", "created_at"),
    },
}
services = pytest.mark.parametrize("service", list(Service))


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """URL of a database that does not exist yet."""
    name = f"empty_{secrets.token_hex(4)}"
    yield replace_database(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.service.migrations", *arguments],
        env={"DATABASE_URL": url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@services
def test_a_second_run_changes_nothing(empty_database: str, service: Service) -> None:
    first = migrate(empty_database, service)
    assert (first.before, first.after, first.created_database) == (None, head_revision(service), True)
    second = migrate(empty_database, service)
    assert (second.before, second.after, second.created_database) == (first.after, first.after, False)


@services
def test_the_documented_names_are_there(empty_database: str, service: Service) -> None:
    migrate(empty_database, service)
    with psycopg.connect(empty_database) as connection:
        for table, wanted in DOCUMENTED[service].items():
            found = connection.execute(
                "SELECT array_agg(column_name::text) FROM information_schema.columns WHERE table_name = %s", [table]
            ).fetchone()
            assert found is not None
            assert set(wanted) <= set(found[0]), table
        assert connection.execute(
            "SELECT count(*) FROM pg_extension WHERE extname IN ('vector', 'pg_stat_statements')"
        ).fetchone() == (2,)


@services
def test_a_downgrade_leaves_nothing_and_can_be_undone(empty_database: str, service: Service) -> None:
    migrate(empty_database, service)
    assert downgrade(empty_database, service, "base").after is None
    with psycopg.connect(empty_database) as connection:
        left = connection.execute(
            "SELECT array_agg(relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND "
            "relkind IN ('r', 'p', 'S') AND NOT EXISTS "
            "(SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')"
        ).fetchone()
        assert left == (["alembic_version"],)
    assert migrate(empty_database, service).up_to_date


def test_concurrent_runs_wait_for_each_other(empty_database: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(lambda _: migrate(empty_database, Service.STRATEGIC), range(4)))
    assert sum(report.before is None for report in reports) == 1
    assert all(report.up_to_date for report in reports)


def test_a_master_user_without_superuser_can_migrate(postgres: str, empty_database: str) -> None:
    """As on RDS: CREATEROLE and CREATEDB; only the extensions need rds_superuser, and are there already."""
    password = secrets.token_hex(8)
    master, database = f"master_{secrets.token_hex(4)}", empty_database.rpartition("/")[2]
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {}").format(
                sql.Identifier(master), sql.Literal(password)
            )
        )
        admin.execute(
            sql.SQL("GRANT pg_read_all_data, pg_monitor TO {} WITH ADMIN OPTION").format(sql.Identifier(master))
        )
        for role in Roles.of(Service.STRATEGIC).all():
            if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None:
                admin.execute(
                    sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(role), sql.Identifier(master))
                )
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(master)))
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector; CREATE EXTENSION pg_stat_statements")
    assert migrate(replace_database(postgres, database, user=master, password=password), Service.STRATEGIC).up_to_date
    with psycopg.connect(empty_database) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert owners == [("strategic_owner",)]


INSERT_SAMPLE = "INSERT INTO samples (timestamp, matrix) VALUES (now(), decode(repeat('00', 2496), 'hex'))"
INSERT_PATTERN = "INSERT INTO vector_patterns (timestamp, pattern_vector) VALUES (now(), '[1,2,3,4,5,6,7,8,9,0,1,2,3]')"
AUDIT = "INSERT INTO access_audit (request_id, subject, action, resource) VALUES ('r', 's', 'a', 'x')"


@pytest.mark.parametrize(
    ("role", "statement", "allowed"),
    [
        ("strategic_app", INSERT_SAMPLE, True),
        ("strategic_app", INSERT_PATTERN, True),
        ("strategic_app", "SELECT matrix_data FROM matrix_data", True),
        ("strategic_app", "SELECT nextval('sample_ids')", True),
        ("strategic_app", AUDIT, True),
        ("strategic_app", "SELECT * FROM access_audit", False),
        ("strategic_app", "DELETE FROM access_audit", False),
        ("strategic_app", "DELETE FROM samples", False),
        ("strategic_app", "UPDATE regime_data SET regime_classification = 'BULL'", False),
        ("strategic_app", "TRUNCATE samples", False),
        ("strategic_app", "CREATE TABLE mine ()", False),
        ("strategic_app", "CREATE TEMP TABLE mine ()", False),
        ("strategic_app", "DROP TABLE samples", False),
        ("strategic_app", "SELECT drop_expired_partitions()", False),
        ("strategic_app", "SELECT create_partitions()", False),
        ("strategic_app", "UPDATE alembic_version SET version_num = 'x'", False),
        ("strategic_app", "SELECT pg_read_file('/etc/passwd')", False),
        ("strategic_app", "COPY samples TO PROGRAM 'cat'", False),
        ("strategic_reader", "SELECT matrix_data FROM matrix_data", True),
        ("strategic_reader", "SELECT * FROM decisions", True),
        ("strategic_reader", "SELECT * FROM uncertainty_data", True),
        ("strategic_reader", "INSERT INTO backfills (source, next_row, samples) VALUES ('x', 0, 0)", False),
        ("strategic_reader", "SELECT nextval('sample_ids')", False),
        ("strategic_reader", "SELECT * FROM access_audit", False),
        ("grandmodel_backup", "SELECT * FROM samples", True),
        ("grandmodel_backup", "SELECT * FROM access_audit", True),
        ("grandmodel_backup", "DELETE FROM samples", False),
        ("grandmodel_monitoring", "SELECT * FROM pg_stat_statements", True),
        ("grandmodel_monitoring", "SELECT * FROM partitions", True),
        ("grandmodel_monitoring", "SELECT * FROM samples", False),
        ("grandmodel_monitoring", "SELECT * FROM access_audit", False),
        ("strategic_owner", "SELECT create_partitions()", True),
        ("strategic_owner", "SELECT drop_expired_partitions()", True),
        ("strategic_owner", "CREATE ROLE intruder", False),
        ("tactical_app", "SELECT * FROM public.samples", False),
        ("tactical_owner", "SELECT * FROM public.samples", False),
    ],
)  # fmt: skip
def test_each_role_can_do_what_it_must_and_nothing_more(
    role_database: str, role: str, statement: str, *, allowed: bool
) -> None:
    with psycopg.connect(role_database) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        if allowed:
            connection.execute(statement)
        else:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
        connection.rollback()


@pytest.fixture(scope="module")
def role_database(postgres: str) -> Iterator[str]:
    name = f"roles_{secrets.token_hex(4)}"
    url = replace_database(postgres, name)
    migrate(url, Service.STRATEGIC)
    migrate(replace_database(postgres, f"{name}_t"), Service.TACTICAL)
    yield url
    with psycopg.connect(postgres, autocommit=True) as connection:
        for database in (name, f"{name}_t"):
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


def test_a_stranger_cannot_connect_even_with_a_password(postgres: str, role_database: str) -> None:
    stranger = f"stranger_{secrets.token_hex(4)}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'p'").format(sql.Identifier(stranger)))
    name = role_database.rpartition("/")[2]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(replace_database(postgres, name, user=stranger, password="p"))


def test_a_role_logs_in_once_its_password_is_given(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATEGIC_APP_PASSWORD", "a password with ' and %")
    migrate(empty_database, Service.STRATEGIC)
    name = empty_database.rpartition("/")[2]
    url = replace_database(empty_database, name, user="strategic_app", password="a password with ' and %")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("strategic_app",)


def test_a_matrix_reads_as_json_and_can_be_written_as_json(strategic_database: str) -> None:
    matrix = np.random.default_rng(7).standard_normal((48, 13)).astype(np.float32)
    matrix[0] = [
        0,
        7,
        1e-45,
        1.1754942e-38,
        3.4028235e38,
        -3.4028235e38,
        0.1,
        1 / 3,
        16777217,
        -1,
        1e-20,
        5e-324,
        2.5,
    ]
    with psycopg.connect(strategic_database) as connection:
        connection.execute("INSERT INTO samples (timestamp, matrix) VALUES (now(), %s)", [matrix.tobytes()])
        connection.execute(
            "INSERT INTO matrix_data (timestamp, matrix_data) VALUES (now(), %s)", [json.dumps(matrix.tolist())]
        )
        rows = connection.execute("SELECT matrix_data FROM matrix_data").fetchall()
        stored = connection.execute("SELECT count(DISTINCT matrix), count(DISTINCT id) FROM samples").fetchone()
    assert stored == (1, 2)
    for (document,) in rows:
        np.testing.assert_array_equal(np.array(document, np.float32), matrix)


@pytest.mark.parametrize("document", ["{}", "[]", "[[1]]", json.dumps([[0] * 13] * 47), json.dumps([[0] * 12] * 48)])
def test_a_matrix_of_another_shape_is_refused(strategic_database: str, document: str) -> None:
    with psycopg.connect(strategic_database) as connection, pytest.raises(errors.CheckViolation):
        connection.execute("INSERT INTO matrix_data (timestamp, matrix_data) VALUES (now(), %s)", [document])


def test_a_matrix_is_kept_in_its_row_uncompressed(strategic_database: str) -> None:
    with psycopg.connect(strategic_database) as connection:
        connection.execute(
            "INSERT INTO samples (timestamp, matrix) SELECT now(), decode(repeat('00', 2496), 'hex') "
            "FROM generate_series(1, 30)"
        )
        toast = connection.execute(
            "SELECT sum(pg_relation_size(reltoastrelid)) FROM pg_class "
            "WHERE relname LIKE 'samples_p%' AND relkind = 'r'"
        ).fetchone()
        assert toast == (0,)
        assert connection.execute("SELECT max(pg_column_size(matrix)) FROM samples").fetchone() == (2500,)


def test_partitions_are_made_ahead_filled_and_dropped_when_expired(strategic_database: str) -> None:
    with psycopg.connect(strategic_database, autocommit=True) as connection:
        ahead = "SELECT count(*) FROM partitions WHERE parent = 'samples' AND lower_bound > now()"
        assert connection.execute(ahead).fetchone() == (7,)
        assert connection.execute("SELECT count(*) FROM create_partitions()").fetchone() == (0,)
        connection.execute(
            "INSERT INTO regime_data (timestamp, created_at, confidence_score, regime_classification) "
            "VALUES (now(), '2020-01-01 12:00+00', 1, 'BULL')"
        )
        assert connection.execute("SELECT count(*) FROM regime_data_default").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM create_partitions('2020-01-01')").fetchone() == (32,)
        assert connection.execute("SELECT count(*) FROM regime_data_default").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM regime_data_p20200101t0000").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM drop_expired_partitions()").fetchone() == (32,)
        assert connection.execute("SELECT count(*) FROM regime_data").fetchone() == (0,)
        assert connection.execute(ahead).fetchone() == (7,)


def test_pattern_indexes_follow_a_partition_through_its_life(strategic_database: str) -> None:
    with psycopg.connect(strategic_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO vector_patterns (id, timestamp, pattern_vector) SELECT i, now(), "
            "array_agg(random())::real[]::vector "
            "FROM generate_series(1, 3000) AS i, generate_series(1, 13) GROUP BY i"
        )

        def due(at: str) -> list[str]:
            query = sql.SQL("SELECT * FROM pattern_index_statements({}, 1000)").format(sql.SQL(at))
            statements = [str(row[0]) for row in connection.execute(query)]
            for statement in statements:
                connection.execute(sql.SQL(statement))
            return statements

        (build,) = due("now()")
        assert build.startswith("CREATE INDEX CONCURRENTLY")
        assert "ivfflat" in build
        assert due("now()") == []
        plan = connection.execute(
            "EXPLAIN SELECT id FROM vector_patterns ORDER BY pattern_vector <-> '[0,0,0,0,0,0,0,0,0,0,0,0,0]' LIMIT 5"
        ).fetchall()
        assert any("_ivfflat" in row[0] for row in plan)

        prepared = connection.execute("SELECT * FROM prepare_pattern_indexes(now(), 2000)").fetchall()
        assert len(prepared) == 1
        assert connection.execute("SELECT count(*) FROM vector_patterns").fetchone() == (3000,)

        closing = due("now() + interval '1 day'")
        assert [("hnsw" in closing[0]), ("DROP INDEX" in closing[1])] == [True, True]
        assert due("now() + interval '1 day'") == []


def test_a_pattern_index_is_built_within_the_memory_for_maintenance(strategic_database: str) -> None:
    with psycopg.connect(strategic_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO vector_patterns (id, timestamp, pattern_vector) SELECT i, now(), "
            "array_agg(random())::real[]::vector "
            "FROM generate_series(1, 60000) AS i, generate_series(1, 13) GROUP BY i"
        )
        for memory, most in (("16MB", 264), ("64MB", 528)):
            connection.execute(sql.SQL("SET maintenance_work_mem = {}").format(memory))
            assert connection.execute("SELECT pattern_lists(1000000000)").fetchone() == (most,)
            (build,) = (str(row[0]) for row in connection.execute("SELECT * FROM pattern_index_statements()"))
            connection.execute(sql.SQL(build))
            connection.execute("SELECT * FROM prepare_pattern_indexes()")
            connection.execute(sql.SQL(build.replace("CREATE INDEX", "DROP INDEX").partition(" ON ")[0]))


@services
def test_the_command_reports_and_checks(empty_database: str, service: Service) -> None:
    migrate(empty_database, service)
    downgrade(empty_database, service, "base")
    behind = command(empty_database, "--database", service, "--check")
    assert (behind.returncode, "no revision, behind" in behind.stdout) == (1, True)
    done = command(empty_database, "--database", service, "--json")
    assert json.loads(done.stdout)["after"] == head_revision(service)
    checked = command(empty_database, "--database", service, "--check")
    assert (checked.returncode, "up to date" in checked.stdout) == (0, True)
    assert current_revision(empty_database) == head_revision(service)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "error: DATABASE_URL is not set"),
        ("mysql://x/y", "error: DATABASE_URL is not set to a URL"),
        ("postgresql://user:hunter2@127.0.0.1:1/db", "error: cannot migrate db: connection failed"),
        ("postgresql://user:hunter2@127.0.0.1:1", "error: DATABASE_URL names no database"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(url: str, said: str) -> None:
    done = command(url, "--database", "strategic")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(said)
    assert "hunter2" not in done.stderr


def test_a_newer_database_than_the_release_is_refused(empty_database: str) -> None:
    migrate(empty_database, Service.TACTICAL)
    with psycopg.connect(empty_database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 't9999'")
    with pytest.raises(MigrationError, match="t9999"):
        migrate(empty_database, Service.TACTICAL)
