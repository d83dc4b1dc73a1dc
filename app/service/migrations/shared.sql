-- What both services keep: who did what, and which requests were already answered.
CREATE TABLE access_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timestamp timestamptz NOT NULL DEFAULT now(),
    request_id text NOT NULL,
    subject text NOT NULL,
    action text NOT NULL,
    resource text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX access_audit_timestamp ON access_audit (timestamp);
COMMENT ON TABLE access_audit IS 'Who changed or read what; the services may only append.';

CREATE TABLE idempotency_keys (
    subject text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL,
    first_id bigint,
    samples integer,
    response jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, key)
);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
COMMENT ON TABLE idempotency_keys IS 'Idempotency-Key of each answered request, committed with its rows. A retry with the '
    'same key is answered from here; the same key with another request_hash (SHA-256 of the body) is refused.';

CREATE FUNCTION expire_idempotency_keys(keep interval DEFAULT '24 hours')
RETURNS bigint LANGUAGE sql SET search_path = public, pg_temp AS $$
    WITH expired AS (DELETE FROM idempotency_keys WHERE created_at < now() - keep RETURNING 1) SELECT count(*) FROM expired
$$;

REVOKE ALL ON access_audit, idempotency_keys FROM {reader};
GRANT INSERT ON access_audit TO {app};
GRANT SELECT, INSERT ON idempotency_keys TO {app};
