-- Time partitions on created_at: made ahead, dropped when expired. The maintenance job calls create_partitions() and
-- drop_expired_partitions() as the owner. A DEFAULT partition catches rows should the job ever stop, so that no insert
-- fails; create_partitions() moves them where they belong.
CREATE TABLE partition_policy (
    parent text PRIMARY KEY,
    width interval NOT NULL CHECK (width > interval '0'),
    ahead integer NOT NULL CHECK (ahead >= 1),
    keep interval NOT NULL CHECK (keep > interval '0'),
    storage_parameters text NOT NULL DEFAULT ''
);
COMMENT ON TABLE partition_policy IS 'Width of a partition, how many are made ahead, and how long rows are kept.';
COMMENT ON COLUMN partition_policy.storage_parameters IS 'WITH (...) of each partition: a partitioned table has none itself.';

CREATE VIEW partitions AS
SELECT parent.relname::text AS parent,
       child.relname::text AS partition,
       substring(pg_get_expr(child.relpartbound, child.oid) FROM 'FROM \(''([^'']+)''\)')::timestamptz AS lower_bound,
       substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS upper_bound,
       greatest(child.reltuples, 0)::bigint AS estimated_rows,
       pg_total_relation_size(child.oid) AS bytes
FROM pg_inherits
JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_class AS child ON child.oid = inhrelid
WHERE parent.relkind = 'p' AND parent.relnamespace = 'public'::regnamespace;

CREATE FUNCTION create_partition(parent text, lower_bound timestamptz, upper_bound timestamptz, storage_parameters text)
RETURNS text LANGUAGE plpgsql SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    partition text := parent || to_char(lower_bound, '"_p"YYYYMMDD"t"HH24MI');
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING IDENTITY)', partition, parent);
    IF storage_parameters <> '' THEN
        EXECUTE format('ALTER TABLE %I SET (%s)', partition, storage_parameters);
    END IF;
    EXECUTE format(
        'WITH moved AS (DELETE FROM %I WHERE created_at >= $1 AND created_at < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved',
        parent || '_default', partition) USING lower_bound, upper_bound;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, partition, lower_bound, upper_bound);
    RETURN partition;
END
$$;

CREATE FUNCTION create_partitions(at timestamptz DEFAULT now())
RETURNS SETOF text LANGUAGE plpgsql SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    policy partition_policy;
    start_of_day timestamptz;
BEGIN
    FOR policy IN SELECT * FROM partition_policy ORDER BY parent LOOP
        FOR step IN 0 .. policy.ahead LOOP
            start_of_day := date_bin(policy.width, at, timestamptz '2000-01-03 00:00:00+00') + step * policy.width;
            IF NOT EXISTS (SELECT FROM partitions AS p WHERE p.parent = policy.parent
                           AND p.lower_bound < start_of_day + policy.width AND p.upper_bound > start_of_day) THEN
                RETURN NEXT create_partition(policy.parent, start_of_day, start_of_day + policy.width, policy.storage_parameters);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

CREATE FUNCTION drop_expired_partitions(at timestamptz DEFAULT now())
RETURNS SETOF text LANGUAGE plpgsql SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    expired text;
BEGIN
    FOR expired IN SELECT p.partition FROM partitions AS p JOIN partition_policy USING (parent)
                   WHERE p.upper_bound <= at - keep ORDER BY p.partition LOOP
        EXECUTE format('DROP TABLE %I', expired);
        RETURN NEXT expired;
    END LOOP;
END
$$;
