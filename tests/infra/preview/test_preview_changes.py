"""What changed against a saved preview, and what it would cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from infra.preview.__main__ import main
from infra.preview.changes import Changes, compare

if TYPE_CHECKING:
    from tests.infra.preview.conftest import Project


def changes_after(project: Project, *edits: tuple[str, str]) -> Changes:
    before = project.capture()
    for old, new in edits:
        project.edit(old, new)
    return compare(before, project.capture())


def kinds(changes: Changes) -> set[tuple[str, str]]:
    return {(change.resource.name, change.kind) for change in changes.changes}


def test_nothing_changed(project: Project) -> None:
    assert changes_after(project).changes == ()


def test_added_and_removed(project: Project) -> None:
    changes = changes_after(project, ('aws.s3.Bucket("models"', 'aws.s3.Bucket("archive"'))
    assert kinds(changes) == {("models", "removed"), ("archive", "added")}


def test_a_change_in_place_names_the_property_and_both_values(project: Project) -> None:
    changes = changes_after(project, ("db.t4g.small", "db.m7g.large"))
    (change,) = changes.changes
    (item,) = change.properties
    assert (change.kind, item.path, item.before, item.after) == (
        "changed",
        "instanceClass",
        "db.t4g.small",
        "db.m7g.large",
    )
    assert changes.losses == ()


def test_replacing_a_database_is_a_loss(project: Project) -> None:
    (change,) = changes_after(project, ("storage_encrypted=True", "storage_encrypted=False")).changes
    assert change.kind == "replaced"
    assert change.loses == "a database"


def test_removing_a_bucket_is_a_loss_and_adding_one_is_not(project: Project) -> None:
    changes = changes_after(project, ('aws.s3.Bucket("models"', 'aws.s3.Bucket("archive"'))
    assert [change.resource.name for change in changes.losses] == ["models"]


def test_what_must_follow_a_replaced_resource_is_replaced_too(project: Project) -> None:
    changes = changes_after(project, ("10.0.0.0/16", "10.9.0.0/16"))
    assert ("vpc", "replaced") in kinds(changes)
    assert ("private-a", "replaced") in kinds(changes)
    subnet = next(change for change in changes.changes if change.resource.name == "private-a")
    assert subnet.follows.endswith("::vpc")


def test_what_the_sdk_documents_as_replacing_replaces(project: Project) -> None:
    # Not in our own table: the SDK's documentation says "Changing the `snapshot_name` forces a new resource".
    project.edit(
        'aws.s3.Bucket("models"',
        'aws.elasticache.Cluster("e", engine="redis", node_type="t", snapshot_name="one")\naws.s3.Bucket("models"',
    )
    changes = changes_after(project, ('snapshot_name="one"', 'snapshot_name="two"'))
    assert kinds(changes) == {("e", "replaced")}


def test_ignored_properties_do_not_count(project: Project) -> None:
    project.edit(
        "password=pulumi.Config()",
        'opts=pulumi.ResourceOptions(ignore_changes=["instanceClass"]), password=pulumi.Config()',
    )
    assert changes_after(project, ("db.t4g.small", "db.m7g.large")).changes == ()


def test_a_reference_to_another_resource_is_a_change_though_both_are_unknown(project: Project) -> None:
    project.edit('aws.s3.Bucket("models"', 'keys = [aws.kms.Key("one"), aws.kms.Key("two")]\naws.s3.Bucket("models"')
    project.edit('tags={"vpc": network.vpc.arn}', 'tags={"key": keys[0].arn}')
    (change,) = changes_after(project, ("keys[0].arn", "keys[1].arn")).changes
    assert change.resource.name == "models"
    assert change.properties[0].path == "tags"


def test_a_resource_that_moved_under_an_alias_is_the_same(project: Project) -> None:
    changes = changes_after(
        project,
        (
            'aws.s3.Bucket("models", tags',
            'aws.s3.Bucket("weights", opts=pulumi.ResourceOptions(aliases=[pulumi.Alias(name="models")]), tags',
        ),
    )
    assert kinds(changes) == set()


def test_children_of_an_aliased_component_move_with_it(project: Project) -> None:
    changes = changes_after(
        project,
        (
            '"toy:network:Network", name)',
            '"toy:net:Net", name, None, pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="toy:network:Network")]))',
        ),
    )
    assert kinds(changes) == set()


def test_a_changed_stack_output_is_told(project: Project) -> None:
    changes = changes_after(project, ('pulumi.export("vpc_id"', 'pulumi.export("network_id"'))
    assert {item.path for item in changes.outputs} == {"vpc_id", "network_id"}


def test_the_command_line_calls_a_loss_by_its_name_and_can_forbid_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--config-dir", str(project.root), "--output-dir", str(project.root / "out"), "--no-policy"]
    assert main(common) == 0
    baseline = project.root / "baseline.json"
    (project.root / "out/staging.json").rename(baseline)
    project.edit("storage_encrypted=True", "storage_encrypted=False")
    capsys.readouterr()
    assert main([*common, "--baseline", str(baseline)]) == 0
    assert "DATA LOSS: rds.Instance database is replaced: it holds a database" in capsys.readouterr().out
    comment = (project.root / "out/staging.md").read_text()
    assert "[!CAUTION]" in comment
    assert "`database` is **replaced** because of `storageEncrypted`" in comment
    assert (
        json.loads((project.root / "out/staging.json").read_text())["changes"]["resources"][0]["loses"] == "a database"
    )
    assert main([*common, "--baseline", str(baseline), "--forbid-losses"]) == 1
