"""Makes decided samples durable: one statement, one round trip, one commit for all four tables.

The statement takes whole columns as binary arrays and bytes. Its answer means that the rows are on disk: the connection
is in autocommit mode and the server runs with fsync and synchronous_commit on (readiness asserts it).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from app.service.database import Connection
from app.service.request_key import RequestKey
from app.strategic import wire
from app.strategic.answers import ACTIONS
from app.strategic.codec import MATRIX_BYTES, Float32, Int64
from app.strategic.outcomes import EPISTEMIC, OUTCOME_WIDTH, Outcomes
from app.strategic.statements import Encoded, Statement

ID_LEASE: Final = 65_536

_TYPES: Final = {
    "first_id": wire.BIGINT,
    "timestamps": wire.TIMESTAMPTZ_ARRAY,
    "processing_times": wire.REAL_ARRAY,
    "decisions": wire.SMALLINT_ARRAY,
    "matrices": wire.BYTEA,
    "outcomes": wire.BYTEA,
    "model_version": wire.TEXT,
    "uncertainties": wire.REAL_ARRAY,
    "levels": wire.SMALLINT_ARRAY,
    "regime_confidences": wire.REAL_ARRAY,
    "regimes": wire.SMALLINT_ARRAY,
    "patterns": wire.REAL_ARRAY,
    "metadata": wire.TEXT,
    "subjects": wire.TEXT_ARRAY,
    "keys": wire.TEXT_ARRAY,
    "hashes": wire.BYTEA_ARRAY,
    "first_ids": wire.BIGINT_ARRAY,
    "counts": wire.BIGINT_ARRAY,
    "requests": wire.BIGINT_ARRAY,
}
"""Of the statements' parameters."""

# The documents are selected so that their text is read once for a statement instead of once for a row.
_INSERTS: Final = """
stored_samples AS (
    INSERT INTO samples (id, timestamp, processing_time, decision, matrix, outcome, model_version)
    SELECT $first_id + i - 1, t, p, d,
           substring($matrices FROM ((i - 1) * {matrix_bytes} + 1)::int FOR {matrix_bytes}),
           substring($outcomes FROM ((i - 1) * {outcome_bytes} + 1)::int FOR {outcome_bytes}),
           $model_version
    FROM unnest($timestamps, $processing_times, $decisions) WITH ORDINALITY AS sample(t, p, d, i) {where}
), stored_uncertainty AS (
    INSERT INTO uncertainty_data (id, timestamp, uncertainty_score, confidence_level)
    SELECT $first_id + i - 1, t, u, (ARRAY['HIGH', 'MEDIUM', 'LOW'])[l + 1]
    FROM unnest($timestamps, $uncertainties, $levels) WITH ORDINALITY AS sample(t, u, l, i) {where}
), stored_regimes AS (
    INSERT INTO regime_data (id, timestamp, confidence_score, regime_classification)
    SELECT $first_id + i - 1, t, c, (ARRAY['BULL', 'BEAR', 'SIDEWAYS', 'VOLATILE'])[r + 1]
    FROM unnest($timestamps, $regime_confidences, $regimes) WITH ORDINALITY AS sample(t, c, r, i) {where}
), stored_patterns AS (
    INSERT INTO vector_patterns (id, timestamp, pattern_vector, metadata)
    SELECT $first_id + i - 1, t, ($patterns)[((i - 1) * 13 + 1)::int : (i * 13)::int]::vector,
           ((SELECT $metadata::text::jsonb[]))[d + 1]
    FROM unnest($timestamps, $decisions) WITH ORDINALITY AS sample(t, d, i) {where}
)""".replace("{matrix_bytes}", str(MATRIX_BYTES)).replace("{outcome_bytes}", str(4 * OUTCOME_WIDTH))
_STORE: Final = Statement.of("store", "WITH " + _INSERTS.replace("{where}", "") + " SELECT", _TYPES)

# Where requests carry an Idempotency-Key each sample names its request, and only samples of requests whose key is new
# are stored. Keys are inserted in order, so that two services committing the same two keys wait instead of deadlocking.
_CLAIMS: Final = """
given AS (
    SELECT * FROM unnest($subjects::text[], $keys::text[], $hashes::bytea[], $first_ids, $counts)
        AS request(subject, key, request_hash, first_id, samples)
), claimed AS (
    INSERT INTO idempotency_keys (subject, key, request_hash, first_id, samples)
    SELECT * FROM given WHERE key IS NOT NULL ORDER BY subject, key
    ON CONFLICT DO NOTHING RETURNING first_id
), fresh AS MATERIALIZED (
    SELECT first_id FROM claimed UNION ALL SELECT first_id FROM given WHERE key IS NULL
), """
_OF_A_FRESH_REQUEST: Final = "WHERE ($requests)[i] IN (SELECT first_id FROM fresh)"
_STORE_WITH_KEYS: Final = Statement.of(
    "store_with_keys",
    "WITH " + _CLAIMS + _INSERTS.replace("{where}", _OF_A_FRESH_REQUEST) + " SELECT first_id FROM fresh",  # noqa: S608 - constants
    _TYPES,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one or several requests, to be committed together.

    Attributes:
        outcomes: numbered, N samples.
        timestamps: (N,) int64, epoch microseconds.
        matrices: (N, 48, 13) float32.
        milliseconds: (N,) float32, from the arrival of the request to its decision.
        counts: samples of each request, in order; they sum to N.
        keys: of each request, None where it has none.
    """

    outcomes: Outcomes
    timestamps: Int64
    matrices: Float32
    milliseconds: Float32
    counts: Sequence[int]
    keys: Sequence[RequestKey | None]


@dataclass(frozen=True, slots=True)
class Stored:
    """What an idempotency key stands for: samples that were stored before."""

    request_hash: bytes
    timestamps: Int64
    outcomes: Outcomes


async def prepare(connection: Connection) -> None:
    """Make a connection ready for `commit`."""
    for statement in (_STORE, _STORE_WITH_KEYS):
        await statement.prepare(connection)


async def lease_ids(connection: Connection) -> range:
    """Ids that nobody else uses."""
    row = await (await connection.execute("SELECT next_sample_id()")).fetchone()
    if row is None:
        raise RuntimeError("a sequence gave no value")
    first = int(row[0])
    return range(first, first + ID_LEASE)


async def commit(connection: Connection, batch: Batch) -> list[bool]:
    """Store ``batch`` in one transaction; returns once it is durable.

    Returns:
        For each request whether it was stored; False where its key had been used before.

    Raises:
        psycopg.Error: nothing is known to be stored.
    """
    values = _values(batch)
    if not any(batch.keys):
        await _STORE.run(connection, values)
        return [True] * len(batch.counts)
    firsts = batch.outcomes.first_id + np.cumsum([0, *batch.counts[:-1]])
    values |= {
        "subjects": wire.texts([key.subject if key else None for key in batch.keys]),
        "keys": wire.texts([key.key if key else None for key in batch.keys]),
        "hashes": wire.byte_strings([key.request_hash if key else None for key in batch.keys]),
        "first_ids": wire.bigints(firsts),
        "counts": wire.bigints(np.asarray(batch.counts)),
        "requests": wire.bigints(np.repeat(firsts, batch.counts)),
    }
    result = await _STORE_WITH_KEYS.run(connection, values)
    fresh = {result.get_value(row, 0) for row in range(result.ntuples)}
    return [wire.bigint(first) in fresh for first in firsts.tolist()]


async def recall(connection: Connection, key: RequestKey) -> Stored | None:
    """What was stored under a key; None while nothing is."""
    cursor = await connection.execute(
        "SELECT request_hash, first_id, samples FROM idempotency_keys WHERE subject = %s AND key = %s",
        (key.subject, key.key),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    request_hash, first_id, count = row
    cursor = await connection.execute(
        "SELECT (extract(epoch FROM s.timestamp) * 1000000)::bigint, s.outcome, p.pattern_vector::real[], "
        "s.model_version FROM samples AS s JOIN vector_patterns AS p ON p.id = s.id AND p.created_at = s.created_at "
        "WHERE s.id >= %s AND s.id < %s ORDER BY s.id",
        (first_id, first_id + count),
        binary=True,
    )
    rows = await cursor.fetchall()
    if len(rows) != count:
        return None
    outcome = np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(count, OUTCOME_WIDTH)
    pattern = np.array([row[2] for row in rows], np.float32)
    return Stored(
        request_hash,
        np.array([row[0] for row in rows], np.int64),
        Outcomes.read(first_id, np.hstack([outcome, pattern]), str(rows[0][3])),
    )


def _values(batch: Batch) -> dict[str, Encoded]:
    outcomes = batch.outcomes
    regimes = outcomes.outcome[:, 26:30]
    return {
        "first_id": wire.bigint(outcomes.first_id),
        "timestamps": wire.timestamps(batch.timestamps),
        "processing_times": wire.reals(batch.milliseconds),
        "decisions": wire.smallints(outcomes.decision),
        "matrices": np.ascontiguousarray(batch.matrices, "<f4").data.cast("B"),
        "outcomes": outcomes.outcome.astype("<f4", copy=False).tobytes(),
        "model_version": outcomes.model_version.encode(),
        "uncertainties": wire.reals(outcomes.outcome[:, EPISTEMIC]),
        "levels": wire.smallints(outcomes.level),
        "regime_confidences": wire.reals(regimes.max(axis=1)),
        "regimes": wire.smallints(outcomes.regime),
        "patterns": wire.reals(outcomes.pattern.ravel()),
        "metadata": _metadata(outcomes.model_version),
    }


@functools.lru_cache(maxsize=8)
def _metadata(version: str) -> bytes:
    """Literal of a PostgreSQL array with one JSON document per action."""
    documents = (orjson.dumps({"decision": action, "model_version": version}).decode() for action in ACTIONS)
    return b"{" + b",".join(orjson.dumps(document) for document in documents) + b"}"
