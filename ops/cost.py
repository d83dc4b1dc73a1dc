"""``make cost``: what a stack is billed for by the hour and the month, counted in the captured estate, times prices.

The amounts are exact: they are what the program declares, with as many nodes as the autoscaler keeps at least, and at
most. The prices are a file of their own (``ops/prices.yaml``: assumptions). What follows the traffic is left out and
named at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from infra.preview.capture import capture
from infra.preview.errors import WrongInput
from infra.preview.model import Capture, Resource

HOURS: Final = 730
"""Of an average month."""
PRICES: Final = Path(__file__).with_name("prices.yaml")
LEFT_OUT: Final = "traffic, requests, logs, metrics, snapshots, backups and objects in S3"
Basis = Literal["per_hour", "per_month"]


class CostError(Exception):
    """A file of prices that cannot be used; one line for a person."""


@dataclass(frozen=True)
class Amount:
    """How much of one thing is billed: at least, and with all nodes that the autoscaler may add."""

    thing: str
    """Name of its price."""
    basis: Basis
    least: float
    most: float

    def cost(self, amount: float, prices: Mapping[str, Mapping[str, float]]) -> float:
        """US dollars a month of ``amount``.

        Raises:
            CostError: when nobody said what it costs.
        """
        try:
            price = float(prices[self.basis][self.thing])
        except (LookupError, TypeError, ValueError):
            raise CostError(f"no price {self.basis} of {self.thing}") from None
        return amount * price * (HOURS if self.basis == "per_hour" else 1)


def amounts(estate: Capture) -> list[Amount]:
    """Everything that is billed by time, summed by what it is."""
    found: dict[tuple[str, Basis], tuple[float, float]] = {}
    for thing, basis, least, most in _billed(estate):
        before = found.get((thing, basis), (0.0, 0.0))
        found[thing, basis] = (before[0] + least, before[1] + most)
    return [Amount(thing, basis, *both) for (thing, basis), both in sorted(found.items())]


_EACH: Final[Mapping[str, tuple[str, Basis]]] = {
    "aws:eks/cluster:Cluster": ("eks", "per_hour"),
    "aws:ec2/natGateway:NatGateway": ("nat-gateway", "per_hour"),
    "aws:lb/loadBalancer:LoadBalancer": ("load-balancer", "per_hour"),
    "aws:kms/key:Key": ("key", "per_month"),
    "aws:secretsmanager/secret:Secret": ("secret", "per_month"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("alarm", "per_month"),
}
"""What is billed by its number alone."""


def _billed(estate: Capture) -> Iterator[tuple[str, Basis, float, float]]:
    disks = {r.name: r.inputs for r in estate.of_type("aws:ec2/launchTemplate:LaunchTemplate")}
    for resource in estate.custom:
        values = resource.inputs
        if resource.type in _EACH:
            yield *_EACH[resource.type], 1, 1
        elif resource.type == "aws:eks/nodeGroup:NodeGroup":
            yield from _nodes(resource, disks[resource.name])
        elif resource.type == "aws:ec2/vpcEndpoint:VpcEndpoint" and values["vpcEndpointType"] == "Interface":
            yield "interface-endpoint", "per_hour", *_always(len(values["subnetIds"]))
        elif resource.type == "aws:rds/instance:Instance":
            copies = 2 if values.get("multiAz") else 1
            yield values["instanceClass"], "per_hour", *_always(copies)
            yield "database-gib", "per_month", *_always(copies * values["allocatedStorage"])
        elif resource.type == "aws:elasticache/replicationGroup:ReplicationGroup":
            yield values["nodeType"], "per_hour", *_always(values["numCacheClusters"])


def _nodes(group: Resource, template: Mapping[str, Any]) -> Iterator[tuple[str, Basis, float, float]]:
    sizes = group.inputs["scalingConfig"]
    least, most = float(sizes["minSize"]), float(sizes["maxSize"])
    [kind] = group.inputs["instanceTypes"]
    gibibytes = sum(float(mapping["ebs"]["volumeSize"]) for mapping in template["blockDeviceMappings"])
    yield kind, "per_hour", least, most
    yield "volume-gib", "per_month", least * gibibytes, most * gibibytes


def _always(amount: float) -> tuple[float, float]:
    return amount, amount


def main(arguments: list[str] | None = None) -> int:
    """Print amounts and costs; 0 when done, 2 on wrong input."""
    parser = argparse.ArgumentParser(prog="python -m ops.cost", description=__doc__)
    parser.add_argument("--stack", default="staging", help="which stack")
    parser.add_argument("--prices", type=Path, default=PRICES, help="YAML as ops/prices.yaml")
    parser.add_argument("--json", action="store_true", help="print amounts and costs as JSON")
    options = parser.parse_args(arguments)
    try:
        prices = _read(options.prices)
        estate = capture(options.stack, resolved=True)
        rows = [
            {**asdict(a), "least_usd": a.cost(a.least, prices), "most_usd": a.cost(a.most, prices)}
            for a in amounts(estate)
        ]
    except CostError as error:
        print(f"error: {options.prices}: {error}", file=sys.stderr)
        return 2
    except WrongInput as error:
        print("\n".join(f"error: {line}" for line in error.lines), file=sys.stderr)
        return 2
    least, most = (sum(row[f"{end}_usd"] for row in rows) for end in ("least", "most"))
    if options.json:
        print(json.dumps({"region": prices["region"], "rows": rows, "least_usd": least, "most_usd": most}, indent=2))
        return 0
    print(f"{options.stack}: US dollars a month at the prices of {options.prices.name} ({prices['region']})")
    for row in rows:
        amount = f"{row['least']:g}" if row["least"] == row["most"] else f"{row['least']:g} to {row['most']:g}"
        print(f"  {row['thing']:<20} {amount:>14}   {_range(row['least_usd'], row['most_usd'])}")
    print(f"  {'sum':<20} {'':>14}   {_range(least, most)}\n  without {LEFT_OUT}")
    return 0


def _range(least: float, most: float) -> str:
    return f"{least:,.0f}" if round(least) == round(most) else f"{least:,.0f} to {most:,.0f}"


def _read(file: Path) -> Mapping[str, Any]:
    try:
        prices = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {"region": str(prices["region"]), **{basis: dict(prices[basis]) for basis in ("per_hour", "per_month")}}
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise CostError(f"cannot be read as prices: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
