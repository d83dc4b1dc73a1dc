CREATE TABLE training_data (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timestamp timestamptz NOT NULL DEFAULT now(),
    episode_number integer NOT NULL CHECK (episode_number >= 0),
    training_metrics jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX training_data_timestamp ON training_data (timestamp);

CREATE TABLE model_versions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version text NOT NULL UNIQUE,
    model_type text NOT NULL,
    model_path text NOT NULL,
    performance_metrics jsonb NOT NULL DEFAULT '{}',
    checksum text NOT NULL CHECK (checksum ~ '^[0-9a-f]{64}$'),
    size_bytes bigint NOT NULL CHECK (size_bytes > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_versions_model_type ON model_versions (model_type);
COMMENT ON COLUMN model_versions.checksum IS 'SHA-256 of the file at model_path, in hexadecimal.';

CREATE TABLE agent_actions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    timestamp timestamptz NOT NULL DEFAULT now(),
    agent_type text NOT NULL,
    action_data jsonb NOT NULL DEFAULT '{}',
    reward double precision,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX agent_actions_timestamp ON agent_actions (timestamp);
CREATE INDEX agent_actions_agent_type ON agent_actions (agent_type);
CREATE TABLE agent_actions_default PARTITION OF agent_actions DEFAULT;

INSERT INTO partition_policy (parent, width, ahead, keep) VALUES ('agent_actions', '1 day', 7, '90 days');
SELECT create_partitions();

GRANT SELECT, INSERT ON training_data, model_versions, agent_actions TO {app};
GRANT SELECT ON partitions TO {app}, {monitoring};
