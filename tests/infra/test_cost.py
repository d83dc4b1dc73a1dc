"""What a stack costs is counted in what it declares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from infra.preview.model import Capture
from infra.sizing import SIZINGS, Profile
from ops.cost import HOURS, PRICES, Amount, CostError, amounts, main


def found(estate: Capture) -> dict[str, Amount]:
    return {amount.thing: amount for amount in amounts(estate)}


def test_the_amounts_are_those_of_production(production: Capture) -> None:
    amount = found(production)
    sizing = SIZINGS[Profile(production.config["grandmodel:profile"])]
    assert (amount["m7i.4xlarge"].least, amount["m7i.4xlarge"].most) == (3, 12)
    assert (amount["g6.2xlarge"].least, amount["g6.2xlarge"].most) == (2, 6)
    assert amount["volume-gib"].least == 3 * sizing.cpu_node.disk_gib + 2 * sizing.gpu_node.disk_gib
    assert amount["db.m7g.xlarge"].least == 2, "a standby is billed as well"
    assert amount["database-gib"].least == 2 * sizing.database_storage_gib
    assert amount["cache.m7g.large"].least == 3
    assert amount["nat-gateway"].least == 3
    assert amount["interface-endpoint"].least % 3 == 0


def test_an_hour_is_a_730th_of_a_month() -> None:
    prices = {"per_hour": {"thing": 0.5}, "per_month": {"thing": 2.0}}
    assert Amount("thing", "per_hour", 3, 3).cost(3, prices) == 3 * 0.5 * HOURS
    assert Amount("thing", "per_month", 3, 3).cost(3, prices) == 6


def test_what_has_no_price_is_no_gift(estate: Capture) -> None:
    with pytest.raises(CostError, match=r"no price per_hour of eks"):
        found(estate)["eks"].cost(1, {"per_hour": {}})


@pytest.mark.parametrize("profile", list(Profile))
def test_every_size_has_a_price(profile: Profile) -> None:
    sizing = SIZINGS[profile]
    kinds = {
        sizing.cpu_node.instance_type,
        sizing.gpu_node.instance_type,
        sizing.database_instance_class,
        sizing.cache_node_type,
    }
    assert kinds <= yaml.safe_load(PRICES.read_text(encoding="utf-8"))["per_hour"].keys()


def test_a_budget_is_above_what_the_smallest_size_costs(estate: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stack", estate.stack, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["least_usd"] == pytest.approx(sum(row["least_usd"] for row in report["rows"]))
    assert 0 < report["least_usd"] < int(estate.config["grandmodel:monthlyBudgetUsd"])


def test_prices_that_are_none_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("region: mars\n", encoding="utf-8")
    assert main(["--prices", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {file}: cannot be read as prices")
