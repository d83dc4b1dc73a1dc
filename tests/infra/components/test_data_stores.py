"""Keys, database, cache, secrets, buckets, backups: what happens to data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.components.backup import Backup, BackupArgs
from infra.components.cache import Cache, CacheArgs
from infra.components.database import Database, DatabaseArgs
from infra.components.encryption import Purpose, key_statements
from infra.components.iam import Statement
from infra.components.postgresql_parameters import POSTGRESQL_PARAMETERS
from infra.components.rotation import handler
from infra.components.storage import BucketName, Storage, StorageArgs
from infra.settings import DataClass
from infra.tags import Tags

TAGS = Tags("grandmodel", "test", "team", "cc-1", DataClass.RESTRICTED)
ACCOUNT = "111111111111"
Build = Callable[[Callable[[], object]], Any]


@pytest.fixture
def database(build: Build) -> Any:
    args = DatabaseArgs(
        account_id=ACCOUNT,
        vpc_id="vpc",
        subnet_ids=["a", "b", "c"],
        instance_class="db.m7g.large",
        storage_gib=100,
        multi_az=True,
        backup_retention_days=35,
        performance_insights_days=731,
        deletion_protection=True,
        protect=True,
        storage_key_arn="arn:database-key",
        secrets_key_arn="arn:secrets-key",
        logs_key_arn="arn:logs-key",
        log_retention_days=365,
        topic_arn="arn:topic",
        tags=TAGS,
    )
    return build(lambda: Database("database", args))


@pytest.fixture
def cache(build: Build) -> Any:
    args = CacheArgs(
        vpc_id="vpc",
        subnet_ids=["a", "b", "c"],
        node_type="cache.m7g.large",
        replicas=2,
        snapshot_retention_days=7,
        protect=True,
        key_arn="arn:cache-key",
        logs_key_arn="arn:logs-key",
        log_retention_days=365,
        topic_arn="arn:topic",
        tags=TAGS,
    )
    return build(lambda: Cache("cache", args))


def test_postgresql_refuses_plain_connections(database: Any) -> None:
    parameters = {p["name"]: p for p in database.one("parameterGroup:ParameterGroup")["parameters"]}
    assert parameters["rds.force_ssl"] == {"name": "rds.force_ssl", "value": "1", "applyMethod": "pending-reboot"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_buffers", 2 * 1024**3 // 8192),
        ("effective_cache_size", 6 * 1024**3 // 8192),
        ("wal_buffers", 16 * 1024**2 // 8192),
        ("maintenance_work_mem", 512 * 1024),
        ("work_mem", 32 * 1024),
        ("min_wal_size", 1024),
        ("max_wal_size", 4096),
        ("checkpoint_completion_target", 0.9),
        ("default_statistics_target", 100),
        ("random_page_cost", 1.1),
        ("effective_io_concurrency", 200),
        ("max_worker_processes", 8),
        ("max_parallel_workers_per_gather", 4),
        ("max_parallel_workers", 8),
        ("max_parallel_maintenance_workers", 4),
    ],
)
def test_postgresql_is_sized_as_documented_in_the_units_of_rds(name: str, value: float) -> None:
    (parameter,) = [p for p in POSTGRESQL_PARAMETERS if p.name == name]
    assert float(parameter.value) == value


def test_the_database_is_encrypted_private_and_survives_a_zone(database: Any) -> None:
    instance = database.one("rds/instance:Instance")
    assert instance["storageEncrypted"] is True
    assert instance["kmsKeyId"] == instance["performanceInsightsKmsKeyId"] == "arn:database-key"
    assert instance["publiclyAccessible"] is False
    assert instance["multiAz"] is True
    assert instance["deletionProtection"] is True
    assert instance["skipFinalSnapshot"] is False


def test_nobody_ever_sees_the_master_password(database: Any) -> None:
    instance = database.one("rds/instance:Instance")
    assert instance["manageMasterUserPassword"] is True
    assert instance["masterUserSecretKmsKeyId"] == "arn:secrets-key"
    assert "password" not in instance


def test_log_groups_exist_under_our_key_before_rds_would_make_its_own(database: Any) -> None:
    groups = database.of("logGroup:LogGroup").values()
    assert {group["name"] for group in groups} == {
        f"/aws/rds/instance/grandmodel-test-abc123/{export}" for export in ("postgresql", "upgrade")
    }
    order = [name for _, name, _ in database.resources]
    assert order.index("database-upgrade-logs") < order.index("database-postgresql")


def test_the_cache_speaks_tls_only_and_fails_over(cache: Any) -> None:
    group = cache.one("replicationGroup:ReplicationGroup")
    assert group["transitEncryptionEnabled"] is True
    assert group["transitEncryptionMode"] == "required"
    assert group["atRestEncryptionEnabled"] is True
    assert group["automaticFailoverEnabled"] is True
    assert group["numCacheClusters"] == 3
    assert "authToken" not in group


def test_each_service_reaches_its_own_keys_and_the_default_user_none(cache: Any) -> None:
    users = cache.of("elasticache/user:User")
    assert users["cache-default"]["accessString"].startswith("off")
    assert users["cache-strategic"]["authenticationMode"] == {"type": "iam"}
    assert "~strategic:*" in users["cache-strategic"]["accessString"]
    assert "~strategic:*" not in users["cache-tactical"]["accessString"]
    assert users["cache-strategic"]["userId"] == users["cache-strategic"]["userName"]


def test_every_node_of_the_cache_is_watched(cache: Any) -> None:
    alarms = cache.of("metricAlarm:MetricAlarm").values()
    assert {a["dimensions"]["CacheClusterId"] for a in alarms} == {f"cache-valkey-id-00{i}" for i in (1, 2, 3)}


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_key_serves_no_stranger(purpose: Purpose) -> None:
    for statement in key_statements(purpose, "eu-west-1", ACCOUNT):
        rendered = statement.render()
        principals = rendered["Principal"]
        assert principals != "*"
        assert all(ACCOUNT in member for member in principals.get("AWS", []))
        if "Service" in principals:
            assert rendered["Condition"], f"{purpose}: a service may use the key for any account"


def test_the_logs_key_serves_log_groups_of_this_account_only() -> None:
    (_, statement) = key_statements(Purpose.LOGS, "eu-west-1", ACCOUNT)
    context = statement.conditions["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
    assert context == f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:*"


def test_buckets_refuse_plain_http_and_strangers(build: Build) -> None:
    storage = build(lambda: Storage("storage", StorageArgs("eu-west-1", ACCOUNT, "arn:key", protect=True, tags=TAGS)))
    assert len(storage.of("s3/bucket:Bucket")) == len(BucketName)
    for policy in storage.of("bucketPolicy:BucketPolicy").values():
        denial = json.loads(policy["policy"])["Statement"][0]
        assert (denial["Effect"], denial["Principal"]) == ("Deny", "*")
        assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    for block in storage.of("bucketPublicAccessBlock:BucketPublicAccessBlock").values():
        assert all(
            block[k] for k in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
        )
    logged = storage.of("bucketLogging:BucketLogging")
    assert set(logged) == {f"storage-{b}" for b in BucketName if b is not BucketName.ACCESS_LOGS}


def test_backups_are_kept_from_everyone_and_restored_every_month(build: Build) -> None:
    args = BackupArgs(
        account_id=ACCOUNT,
        key_arn="arn:key",
        resources={"database": "arn:db", "models": "arn:models"},
        database_arn="arn:db",
        retention_days=365,
        compliance_lock=True,
        protect=True,
        topic_arn="arn:topic",
        tags=TAGS,
    )
    backup = build(lambda: Backup("backup", args))
    assert backup.one("vaultLockConfiguration:VaultLockConfiguration")["changeableForDays"] == 3
    (denial,) = json.loads(backup.one("vaultPolicy:VaultPolicy")["policy"])["Statement"]
    assert "backup:DeleteRecoveryPoint" in denial["Action"]
    assert backup.one("selection:Selection")["resources"] == ["arn:db", "arn:models"]
    assert backup.one("restoreTestingSelection:RestoreTestingSelection")["protectedResourceArns"] == ["arn:db"]


def test_a_statement_renders_as_iam_reads_it() -> None:
    statement = Statement("Sid", actions=["s3:GetObject"], resources=["arn:x"], principals={"AWS": ["arn:y"]})
    assert statement.render() == {
        "Sid": "Sid",
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:x"],
        "Principal": {"AWS": ["arn:y"]},
    }


@pytest.fixture
def secrets_manager(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("secretsmanager", region_name="eu-west-1")


def rotate(client: Any, secret: str, token: str) -> None:
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        event = {"Step": step, "SecretId": secret, "ClientRequestToken": token}
        handler.handle(event, client=_Enabled(client, token))


class _Enabled:
    """moto wants a real Lambda to enable rotation: report it as enabled, with the pending version announced."""

    def __init__(self, client: Any, token: str) -> None:
        self._client, self._token = client, token

    def describe_secret(self, **arguments: Any) -> dict[str, Any]:
        description = self._client.describe_secret(**arguments)
        stages = dict(description.get("VersionIdsToStages", {}))
        stages.setdefault(self._token, ["AWSPENDING"])
        return {**description, "RotationEnabled": True, "VersionIdsToStages": stages}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_rotation_makes_the_first_key_and_then_another(secrets_manager: Any) -> None:
    secret = secrets_manager.create_secret(Name="jwt")["ARN"]
    values = []
    for token in ("1" * 32, "2" * 32):
        rotate(secrets_manager, secret, token)
        values.append(secrets_manager.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"])
    assert len(values[0]) == len(values[1]) == handler.SECRET_LENGTH
    assert values[0] != values[1]
    previous = secrets_manager.get_secret_value(SecretId=secret, VersionStage="AWSPREVIOUS")["SecretString"]
    assert previous == values[0]


def test_a_repeated_step_keeps_the_pending_key(secrets_manager: Any) -> None:
    secret, token = secrets_manager.create_secret(Name="jwt")["ARN"], "1" * 32
    event = {"Step": "createSecret", "SecretId": secret, "ClientRequestToken": token}
    read = {"SecretId": secret, "VersionId": token, "VersionStage": "AWSPENDING"}
    handler.handle(event, client=_Enabled(secrets_manager, token))
    first = secrets_manager.get_secret_value(**read)["SecretString"]
    handler.handle(event, client=_Enabled(secrets_manager, token))
    assert secrets_manager.get_secret_value(**read)["SecretString"] == first


def test_rotation_of_an_unknown_version_is_refused(secrets_manager: Any) -> None:
    secret = secrets_manager.create_secret(Name="jwt", SecretString="x")["ARN"]
    event = {"Step": "createSecret", "SecretId": secret, "ClientRequestToken": "9" * 32}
    with pytest.raises(ValueError, match="rotation is not enabled"):
        handler.handle(event, client=secrets_manager)
