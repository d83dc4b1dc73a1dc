"""Pattern search over an index that was built when patterns were few, as it is every morning."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql

from tests.app.strategic.conftest import StrategicServer

PATTERNS = 25_000
SEARCH = "/api/strategic/patterns/search"


@pytest.fixture(scope="module")
def patterns(module_database: str) -> NDArray[Any]:
    """(N, 13) patterns that are stored and indexed, with their row as id."""
    random = np.random.default_rng(5)
    made: NDArray[Any] = np.round(np.tanh(random.standard_normal((PATTERNS, 13))), 4)
    with psycopg.connect(module_database, autocommit=True) as connection:
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY vector_patterns (id, timestamp, pattern_vector) FROM STDIN") as target,
        ):
            for row, pattern in enumerate(made.tolist()):
                target.write_row((row, "2026-01-05T14:30:00Z", str(pattern)))
        for (statement,) in connection.execute("SELECT * FROM pattern_index_statements()").fetchall():
            connection.execute(sql.SQL(statement))
        found = connection.execute("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%ivfflat%'").fetchone()
        assert found == (1,)
    return made


def test_as_many_matches_come_as_were_asked_for(server: StrategicServer, patterns: NDArray[Any]) -> None:
    with server.client("viewer") as client:
        answer = client.post(SEARCH, json={"pattern": patterns[0].tolist(), "k": 1000}).raise_for_status()
    matches = answer.json()["matches"]
    assert len({match["id"] for match in matches}) == 1000
    distances = [match["distance"] for match in matches]
    assert distances == sorted(distances)
    assert distances[0] < 1e-6


def test_most_of_the_true_neighbours_are_found(server: StrategicServer, patterns: NDArray[Any]) -> None:
    found = 0
    with server.client("viewer") as client:
        for row in range(0, PATTERNS, PATTERNS // 40):
            asked = patterns[row]
            answer = client.post(SEARCH, json={"pattern": asked.tolist(), "k": 10}).raise_for_status()
            exact = set(np.argsort(((patterns - asked) ** 2).sum(axis=1))[:10].tolist())
            found += len(exact & {match["id"] for match in answer.json()["matches"]})
    assert found / 410 > 0.5  # uniform noise in 13 dimensions is the hardest that there is; no market looks like it
