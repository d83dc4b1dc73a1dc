-- Every sample has one id and one created_at in all four tables; created_at partitions them, timestamp is the market's.
-- A process leases ids 65,536 at a time and counts inside its block, so that an answer needs no second round trip.
CREATE SEQUENCE sample_ids INCREMENT BY 65536 MINVALUE 65536 START 65536;

CREATE FUNCTION next_sample_id() RETURNS bigint LANGUAGE sql VOLATILE SET search_path = public, pg_temp
RETURN nextval('sample_ids');

-- The matrix as 48 x 13 little-endian float32: JSONB carries 2,000 rows a second, bytes 40,000. EXTERNAL storage and
-- toast_tuple_target keep it in the row, uncompressed, three rows to a page.
CREATE TABLE samples (
    id bigint NOT NULL DEFAULT next_sample_id(),
    timestamp timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    processing_time real,
    decision smallint CHECK (decision BETWEEN 0 AND 4),
    matrix bytea STORAGE EXTERNAL NOT NULL CHECK (octet_length(matrix) = 48 * 13 * 4),
    outcome bytea STORAGE EXTERNAL CHECK (octet_length(outcome) = 30 * 4),
    model_version text STORAGE MAIN,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
COMMENT ON COLUMN samples.processing_time IS 'Milliseconds from the arrival of the request to its decision.';
COMMENT ON COLUMN samples.decision IS '0 STRONG_SELL, 1 SELL, 2 HOLD, 3 BUY, 4 STRONG_BUY';
COMMENT ON COLUMN samples.outcome IS '30 little-endian float32: probabilities of the 5 decisions, those of MLMI, NWRQK and '
    'Regime (5 each), weights of these three, confidence, epistemic and aleatoric uncertainty, probabilities of BULL, BEAR, '
    'SIDEWAYS and VOLATILE.';

CREATE TABLE uncertainty_data (
    id bigint NOT NULL DEFAULT next_sample_id(),
    timestamp timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    uncertainty_score real NOT NULL,
    confidence_level text NOT NULL CHECK (confidence_level IN ('HIGH', 'MEDIUM', 'LOW')),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

CREATE TABLE regime_data (
    id bigint NOT NULL DEFAULT next_sample_id(),
    timestamp timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    confidence_score real NOT NULL,
    regime_classification text NOT NULL CHECK (regime_classification IN ('BULL', 'BEAR', 'SIDEWAYS', 'VOLATILE')),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

CREATE TABLE vector_patterns (
    id bigint NOT NULL DEFAULT next_sample_id(),
    timestamp timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    pattern_vector vector(13) NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

-- BRIN: rows arrive nearly in the order of their timestamps, and a B-tree on each of four tables costs a third of the
-- rate at which rows can be made durable.
CREATE INDEX samples_timestamp ON samples USING brin (timestamp) WITH (pages_per_range = 32);
CREATE INDEX uncertainty_data_timestamp ON uncertainty_data USING brin (timestamp) WITH (pages_per_range = 32);
CREATE INDEX regime_data_timestamp ON regime_data USING brin (timestamp) WITH (pages_per_range = 32);
CREATE INDEX vector_patterns_timestamp ON vector_patterns USING brin (timestamp) WITH (pages_per_range = 32);

CREATE TABLE samples_default PARTITION OF samples DEFAULT WITH (toast_tuple_target = 8160);
CREATE TABLE uncertainty_data_default PARTITION OF uncertainty_data DEFAULT;
CREATE TABLE regime_data_default PARTITION OF regime_data DEFAULT;
CREATE TABLE vector_patterns_default PARTITION OF vector_patterns DEFAULT;

INSERT INTO partition_policy (parent, width, ahead, keep, storage_parameters) VALUES
    ('samples', '1 day', 7, '30 days', 'toast_tuple_target = 8160'),
    ('uncertainty_data', '1 day', 7, '90 days', ''),
    ('regime_data', '1 day', 7, '90 days', ''),
    ('vector_patterns', '1 day', 7, '90 days', '');
SELECT create_partitions();

-- The documented names. float32_at is exact: every float32 is a double, and its text is the shortest that reads back.
CREATE FUNCTION float32_at(raw bytea, index integer) RETURNS real LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT CASE
        WHEN exponent = 255 THEN CASE WHEN mantissa > 0 THEN 'NaN' WHEN sign < 0 THEN '-Infinity' ELSE 'Infinity' END::real
        WHEN exponent = 0 THEN (sign * mantissa * power(2::float8, -149))::real
        ELSE (sign * (8388608 + mantissa) * power(2::float8, exponent - 150))::real
    END
    FROM (SELECT get_byte(raw, 4 * index) | (get_byte(raw, 4 * index + 1) << 8)
                     | ((get_byte(raw, 4 * index + 2) & 127) << 16) AS mantissa,
                 (get_byte(raw, 4 * index + 2) >> 7) | ((get_byte(raw, 4 * index + 3) & 127) << 1) AS exponent,
                 1 - 2 * (get_byte(raw, 4 * index + 3) >> 7) AS sign) AS bits
);

CREATE FUNCTION floats_at(raw bytea, first integer, count integer) RETURNS real[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT array_agg(float32_at(raw, first + i) ORDER BY i) FROM generate_series(0, count - 1) AS i);

CREATE FUNCTION matrix_to_json(raw bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (SELECT jsonb_agg(to_jsonb(floats_at(raw, 13 * bar, 13)) ORDER BY bar) FROM generate_series(0, 47) AS bar);

CREATE FUNCTION matrix_from_json(document jsonb) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = public, pg_temp AS $$
BEGIN
    IF jsonb_typeof(document) <> 'array' OR jsonb_array_length(document) <> 48
       OR EXISTS (SELECT FROM jsonb_array_elements(document) AS bar WHERE jsonb_typeof(bar) <> 'array' OR jsonb_array_length(bar) <> 13) THEN
        RAISE EXCEPTION 'matrix_data must be 48 arrays of 13 numbers' USING ERRCODE = 'check_violation';
    END IF;
    RETURN (SELECT string_agg(substring(big FROM 4 FOR 1) || substring(big FROM 3 FOR 1) || substring(big FROM 2 FOR 1)
                              || substring(big FROM 1 FOR 1), ''::bytea ORDER BY bar, feature)
            FROM jsonb_array_elements(document) WITH ORDINALITY AS rows(cells, bar),
                 jsonb_array_elements_text(cells) WITH ORDINALITY AS columns(cell, feature),
                 float4send(cell::real) AS big);
END
$$;

CREATE VIEW matrix_data AS
SELECT id, timestamp, matrix_to_json(matrix) AS matrix_data, processing_time, created_at FROM samples;
COMMENT ON VIEW matrix_data IS 'The stored matrices as 48 JSON arrays of 13 numbers; takes inserts in that form too.';
ALTER VIEW matrix_data ALTER COLUMN id SET DEFAULT next_sample_id();
ALTER VIEW matrix_data ALTER COLUMN created_at SET DEFAULT now();

CREATE FUNCTION insert_matrix_data() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO samples (id, timestamp, matrix, processing_time, created_at)
    VALUES (NEW.id, NEW.timestamp, matrix_from_json(NEW.matrix_data), NEW.processing_time, NEW.created_at);
    RETURN NEW;
END
$$;
CREATE TRIGGER insert_matrix_data INSTEAD OF INSERT ON matrix_data FOR EACH ROW EXECUTE FUNCTION insert_matrix_data();

CREATE VIEW decisions AS
SELECT id, timestamp,
       (ARRAY['STRONG_SELL', 'SELL', 'HOLD', 'BUY', 'STRONG_BUY'])[decision + 1] AS decision,
       floats_at(outcome, 0, 5) AS probabilities,
       floats_at(outcome, 5, 5) AS mlmi_probabilities,
       floats_at(outcome, 10, 5) AS nwrqk_probabilities,
       floats_at(outcome, 15, 5) AS regime_agent_probabilities,
       floats_at(outcome, 20, 3) AS agent_weights,
       float32_at(outcome, 23) AS confidence,
       float32_at(outcome, 24) AS epistemic_uncertainty,
       float32_at(outcome, 25) AS aleatoric_uncertainty,
       floats_at(outcome, 26, 4) AS regime_probabilities,
       model_version, created_at
FROM samples WHERE decision IS NOT NULL;
COMMENT ON VIEW decisions IS 'samples.outcome with its numbers named.';

-- Nearest patterns: IVFFlat where rows still arrive (HNSW takes 425 inserts a second), HNSW once a partition is closed.
-- Each statement must run by itself outside a transaction (CONCURRENTLY), so this only says what is due.
CREATE FUNCTION pattern_index_statements(at timestamptz DEFAULT now(), minimum_rows integer DEFAULT 20000)
RETURNS SETOF text LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    place record;
    stored bigint;
    lists integer;
BEGIN
    FOR place IN
        SELECT p.partition, coalesce(p.upper_bound <= at, false) AS closed, coalesce(p.lower_bound > at, false) AS future,
               max(i.relname::text) FILTER (WHERE m.amname = 'ivfflat' AND x.indisvalid) AS ivfflat,
               max(i.relname::text) FILTER (WHERE m.amname = 'hnsw' AND x.indisvalid) AS hnsw,
               array_agg(i.relname::text) FILTER (WHERE m.amname IN ('ivfflat', 'hnsw') AND NOT x.indisvalid) AS broken
        FROM partitions AS p
        LEFT JOIN pg_index AS x ON x.indrelid = format('%I', p.partition)::regclass
        LEFT JOIN pg_class AS i ON i.oid = x.indexrelid
        LEFT JOIN pg_am AS m ON m.oid = i.relam
        WHERE p.parent = 'vector_patterns' GROUP BY 1, 2, 3 ORDER BY 1
    LOOP
        IF place.broken IS NOT NULL THEN
            RETURN QUERY SELECT format('DROP INDEX CONCURRENTLY %I', name) FROM unnest(place.broken) AS name;
        END IF;
        IF place.closed AND place.hnsw IS NULL THEN
            RETURN NEXT format('CREATE INDEX CONCURRENTLY %I ON %I USING hnsw (pattern_vector vector_l2_ops)',
                               place.partition || '_hnsw', place.partition);
        END IF;
        IF place.closed AND place.ivfflat IS NOT NULL THEN
            RETURN NEXT format('DROP INDEX CONCURRENTLY %I', place.ivfflat);
        ELSIF NOT place.closed AND NOT place.future AND place.ivfflat IS NULL THEN
            EXECUTE format('SELECT count(*) FROM %I', place.partition) INTO stored;
            IF stored >= minimum_rows THEN
                RETURN NEXT format('CREATE INDEX CONCURRENTLY %I ON %I USING ivfflat (pattern_vector vector_l2_ops) WITH (lists = %s)',
                                   place.partition || '_ivfflat', place.partition, pattern_lists(stored));
            END IF;
        END IF;
    END LOOP;
END
$$;

-- The square root of the rows, bounded by memory: pgvector's k-means keeps a float for each list and each of 50 samples a
-- list, and refuses to build where that exceeds maintenance_work_mem (204 bytes a squared list and 4,200 a list with 0.8.6).
CREATE FUNCTION pattern_lists(expected_rows bigint) RETURNS integer LANGUAGE sql STABLE
RETURN greatest(100, floor(least(sqrt(greatest(expected_rows, 1000000)),
                                 sqrt(pg_size_bytes(current_setting('maintenance_work_mem')) / 240.0))))::integer;

-- An IVFFlat index learns its lists when it is built, and tomorrow's partition is empty: build it over a sample of
-- today's patterns and take the sample out again, all in one transaction; the lists stay.
CREATE FUNCTION prepare_pattern_indexes(at timestamptz DEFAULT now(), sample_rows integer DEFAULT 50000)
RETURNS SETOF text LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    place record;
    latest text;
    stored bigint;
BEGIN
    SELECT p.partition INTO latest FROM partitions AS p
    WHERE p.parent = 'vector_patterns' AND p.lower_bound <= at AND p.upper_bound > at;
    IF latest IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT count(*) FROM %I', latest) INTO stored;
    IF stored < sample_rows THEN
        RETURN;
    END IF;
    FOR place IN
        SELECT p.partition, p.lower_bound FROM partitions AS p
        WHERE p.parent = 'vector_patterns' AND p.lower_bound > at AND NOT EXISTS (
            SELECT FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS m ON m.oid = i.relam
            WHERE x.indrelid = format('%I', p.partition)::regclass AND m.amname = 'ivfflat')
        ORDER BY p.lower_bound LIMIT 1
    LOOP
        EXECUTE format('INSERT INTO %I (id, timestamp, created_at, pattern_vector) '
                       'SELECT id, timestamp, $1, pattern_vector FROM %I TABLESAMPLE SYSTEM (least(100, 100.0 * $2 / $3)::real)',
                       place.partition, latest) USING place.lower_bound, sample_rows, stored;
        EXECUTE format('CREATE INDEX %I ON %I USING ivfflat (pattern_vector vector_l2_ops) WITH (lists = %s)',
                       place.partition || '_ivfflat', place.partition, pattern_lists(stored));
        EXECUTE format('DELETE FROM %I', place.partition);
        RETURN NEXT place.partition;
    END LOOP;
END
$$;

CREATE TABLE backfills (
    source text PRIMARY KEY,
    next_row bigint NOT NULL CHECK (next_row >= 0),
    samples bigint NOT NULL CHECK (samples >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE backfills IS 'How far each bar file (by the SHA-256 of its content) was read; committed with its samples.';

GRANT SELECT, INSERT ON samples, uncertainty_data, regime_data, vector_patterns TO {app};
GRANT SELECT, INSERT, UPDATE ON backfills TO {app};
GRANT SELECT ON matrix_data, decisions TO {app};
GRANT INSERT ON matrix_data TO {app};
GRANT USAGE ON SEQUENCE sample_ids TO {app};
GRANT SELECT ON partitions TO {app}, {monitoring};
GRANT EXECUTE ON FUNCTION next_sample_id, float32_at, floats_at, matrix_to_json, matrix_from_json, insert_matrix_data TO {app};
GRANT EXECUTE ON FUNCTION float32_at, floats_at, matrix_to_json TO {reader}, {backup};
