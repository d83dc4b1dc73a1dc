CREATE TABLE training_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    client text NOT NULL,
    request_id text NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    parameters jsonb NOT NULL,
    bars bytea NOT NULL,
    progress jsonb NOT NULL DEFAULT '{}',
    checkpoint_path text,
    checkpoint_checksum text CHECK (checkpoint_checksum ~ '^[0-9a-f]{64}$'),
    crashes integer NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    lease_owner text,
    lease_expires_at timestamptz,
    model_version text REFERENCES model_versions (version),
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    turn_started_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    CHECK ((state = 'running') = (lease_owner IS NOT NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX training_jobs_waiting ON training_jobs (created_at) WHERE state IN ('queued', 'running');
CREATE INDEX training_jobs_client ON training_jobs (client, turn_started_at);
CREATE INDEX training_jobs_created_at ON training_jobs (created_at, id);
COMMENT ON COLUMN training_jobs.bars IS 'What is trained on: a NumPy .npz archive, no pickle; empty when the job has ended.';
COMMENT ON COLUMN training_jobs.turn_started_at IS 'When the job last got a device; clients take turns by it.';
COMMENT ON COLUMN training_jobs.crashes IS 'How often its process died since the last checkpoint.';

CREATE TABLE training_job_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES training_jobs (id) ON DELETE CASCADE,
    event text NOT NULL,
    data jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX training_job_events_job ON training_job_events (job_id, id);
COMMENT ON TABLE training_job_events IS 'What the event stream tells; a reader resumes after the last id it has seen.';

CREATE TABLE model_activations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_type text NOT NULL,
    version text NOT NULL REFERENCES model_versions (version),
    activated_by text NOT NULL,
    activated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_activations_latest ON model_activations (model_type, id DESC);
COMMENT ON TABLE model_activations IS 'History: the newest row of a model_type tells which version acts.';

GRANT SELECT, INSERT ON model_activations, training_job_events TO {app};
GRANT SELECT, INSERT, UPDATE ON training_jobs TO {app};
