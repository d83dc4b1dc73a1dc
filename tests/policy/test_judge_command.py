"""The command over an exported state: what people and pipelines get, and what wrong input gets."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from policy.catalog import RULES
from policy.document import OUT, document
from policy.judge import judge, main
from policy.model import UNKNOWN, Secret
from policy.report import counts_json, counts_text, to_json, to_text
from policy.rule import Outcome
from policy.sarif import to_sarif
from policy.settings import SettingsError, pack_schema, settings_of_all
from policy.state import StateError, estate_of
from policy.verdict import Judge

ROOT = Path(__file__).resolve().parents[2]
DATABASE_URN = "urn:pulumi:production::grandmodel::aws:rds/instance:Instance::database"
SECRET_SIGNATURE = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


def state(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"version": 3, "deployment": {"resources": list(resources)}}


def database(**properties: Any) -> dict[str, Any]:
    return {"urn": DATABASE_URN, "type": "aws:rds/instance:Instance", "inputs": properties, "outputs": properties}


def written(folder: Path, content: Any) -> str:
    file = folder / "state.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_a_violation_is_told_with_what_why_and_how_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", written(tmp_path, state(database(storageEncrypted=False)))]) == 1
    told = capsys.readouterr().out
    for part in ("HIGH", "rds-storage-encrypted", DATABASE_URN, "what ", "why ", "mend ", "securityhub"):
        assert part in told


def test_an_empty_stack_is_judged_and_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", written(tmp_path, {"version": 3, "deployment": {}})]) == 0
    assert "holds no resources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"version": 3, "deployment": {"resources": [{"urn": "urn:pu', "cut off"),
        ("", "cut off"),
        ("[]", "pulumi stack export"),
        ("[" * 100_000, "too deeply"),
        ({"version": 99, "deployment": {}}, "version"),
        ({"version": 3, "deployment": {"resources": {}}}, "not a list"),
        (state({"urn": 7, "type": "x"}), "no URN"),
        (state({"urn": "no-urn", "type": "x"}), "no URN"),
        (state({**database(), "inputs": [1]}), "not an object"),
    ],
)
def test_a_wrong_state_is_one_clear_line(
    content: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", written(tmp_path, content)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_missing_or_binary_file_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path / "gone.json")]) == 2
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    assert main(["--state", str(tmp_path / "binary")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_unknown_types_and_missing_inputs_get_a_verdict(tmp_path: Path) -> None:
    odd = {"urn": "urn:pulumi:production::p::acme:x/y:Z::z", "type": "acme:x/y:Z"}
    bare = {"urn": DATABASE_URN, "type": "aws:rds/instance:Instance"}
    assert main(["--state", written(tmp_path, state(odd, bare))]) == 1


def test_a_resource_about_to_be_deleted_is_not_judged() -> None:
    assert estate_of(state({**database(storageEncrypted=False), "delete": True})).resources == ()


def test_no_secret_is_printed_in_any_form() -> None:
    """Neither a value marked as secret nor one that a rule takes for a secret."""
    hidden = {**SECRET_SIGNATURE, "value": "hunter2-the-password"}
    shaped = "AKIA" + "ABCDEFGHIJKLMNOP"
    report = judge(estate_of(state(database(password=hidden, tags={"note": hidden}, description=shaped))))
    for told in (to_text(report), json.dumps(to_json(report)), json.dumps(to_sarif(report, "state.json"))):
        assert "hunter2" not in told
        assert shaped not in told
    assert "hunter2" not in repr(Secret("hunter2"))
    assert {"no-credentials-in-plain-inputs", "tags-without-secrets"} <= {
        v.rule.id for v in report.of(Outcome.VIOLATED)
    }


def test_ciphertext_is_a_known_secret_with_unknown_content() -> None:
    sealed = {**SECRET_SIGNATURE, "ciphertext": "AAABAMH..."}
    resource = estate_of(state(database(username=sealed))).resources[0]
    assert resource.properties["username"] == Secret(UNKNOWN)


def test_json_counts_every_rule_once_for_each_resource(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--state", written(tmp_path, state(database(storageEncrypted=True))), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert set(told["rules"]) == {rule.id for rule in RULES}
    assert told["rules"]["rds-storage-encrypted"] == {"passed": 1}
    assert told["rules"]["eks-nodes-private"] == {"not_applicable": 1}
    assert sum(told["totals"].values()) == sum(sum(count.values()) for count in told["rules"].values())


def test_sarif_names_rules_resources_and_suppressions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--state", written(tmp_path, state(database(storageEncrypted=False))), "--sarif"])
    run = json.loads(capsys.readouterr().out)["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    found = next(result for result in run["results"] if result["ruleId"] == "rds-storage-encrypted")
    assert (found["kind"], found["level"]) == ("fail", "error")
    assert found["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == DATABASE_URN


def test_what_only_the_update_decides_is_listed() -> None:
    sealed = {**SECRET_SIGNATURE, "ciphertext": "x"}
    report = judge(estate_of(state(database(storageEncrypted=sealed))))
    assert "decided only by the update" in counts_text(report)
    assert counts_json(report)["rules"]["rds-storage-encrypted"] == {"undecided": 1}


def test_help_and_module_run_from_anywhere(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "policy.judge", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "exit code" in shown.stdout


# Configuration and waivers


def settings_with(**given: Any) -> Any:
    return settings_of_all(RULES, {name.replace("_", "-"): value for name, value in given.items()})


def verdicts(given: Any, today: dt.date = dt.date(2026, 12, 1)) -> dict[str, list[Outcome]]:
    estate = estate_of(state(database(storageEncrypted=False)))
    found: dict[str, list[Outcome]] = {}
    for verdict in Judge.of(RULES, given, today).judge(estate).verdicts:
        found.setdefault(verdict.rule.id, []).append(verdict.outcome)
    return found


def waiver(expires: str, urn: str = "urn:pulumi:production::*::database") -> dict[str, Any]:
    return {"waivers": [{"urn": urn, "reason": "restored next week", "expires": expires}]}


def test_a_waiver_holds_until_its_last_day_and_is_a_violation_after_it() -> None:
    assert verdicts(settings_with(rds_storage_encrypted=waiver("2026-12-01")))["rds-storage-encrypted"] == [
        Outcome.WAIVED
    ]
    after = verdicts(settings_with(rds_storage_encrypted=waiver("2026-11-30")))["rds-storage-encrypted"]
    assert after == [Outcome.VIOLATED, Outcome.VIOLATED]


def test_a_waiver_covers_its_resource_only() -> None:
    other = settings_with(rds_storage_encrypted=waiver("2027-01-01", "urn:pulumi:staging::*"))
    assert verdicts(other)["rds-storage-encrypted"] == [Outcome.VIOLATED]


def test_levels_and_stacks_are_the_configurations_to_choose() -> None:
    estate = estate_of(state(database(storageEncrypted=False)))
    advisory = settings_of_all(RULES, {"all": "advisory"})
    assert not Judge.of(RULES, advisory).judge(estate).blocks
    elsewhere = settings_with(rds_storage_encrypted={"stacks": ["staging"]})
    assert verdicts(elsewhere)["rds-storage-encrypted"] == [Outcome.NOT_APPLICABLE]
    assert "rds-storage-encrypted" not in verdicts(settings_with(rds_storage_encrypted="disabled"))


@pytest.mark.parametrize(
    "given",
    [
        {"rds-storage-encryptd": "advisory"},
        {"rds-storage-encrypted": "sometimes"},
        {"rds-storage-encrypted": {"waiver": []}},
        {"rds-storage-encrypted": {"waivers": [{"urn": "x"}]}},
        {"rds-storage-encrypted": {"waivers": [{"urn": "x", "reason": "because", "expires": "2027-01-01"}]}},
        {"rds-storage-encrypted": {"waivers": [{"urn": "x", "reason": "long enough", "expires": "soon"}]}},
        {"log-group-retention": {"minimum_days": "many"}},
        {"tags-required": {"keys": [1]}},
        {"rds-storage-encrypted": 7},
    ],
)
def test_a_wrong_configuration_names_the_rule(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        settings_of_all(RULES, given)


def test_the_schema_takes_what_the_reader_takes() -> None:
    schema = pack_schema(RULES)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((ROOT / "policy" / "config.json").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"no-such-rule": "advisory"}, schema)


def test_a_wrong_state_raises_for_callers_too() -> None:
    with pytest.raises(StateError):
        estate_of({"deployment": {}})


def test_the_documentation_is_current() -> None:
    assert OUT.read_text(encoding="utf-8") == document(), "run `python -m policy.document`"
