DROP VIEW matrix_data, decisions;
DROP TABLE samples, uncertainty_data, regime_data, vector_patterns, backfills, access_audit, idempotency_keys;
DROP FUNCTION insert_matrix_data, matrix_from_json, matrix_to_json, floats_at, float32_at, next_sample_id,
    prepare_pattern_indexes, pattern_index_statements, pattern_lists,
    expire_idempotency_keys, drop_expired_partitions, create_partitions, create_partition;
DROP SEQUENCE sample_ids;
DROP VIEW partitions;
DROP TABLE partition_policy;
