DROP TABLE training_data, model_versions, agent_actions, access_audit, idempotency_keys;
DROP FUNCTION expire_idempotency_keys, drop_expired_partitions, create_partitions, create_partition;
DROP VIEW partitions;
DROP TABLE partition_policy;
