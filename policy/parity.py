"""Two stacks of one program differ only where they are meant to.

Staging rehearses production: whatever differs beyond size, number and protection is something that no rehearsal has
seen. ``python -m policy.parity ONE.json OTHER.json`` compares two exported states; the exit code is 1 where they
differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from policy.model import UNKNOWN, Estate, Secret, Value, walk
from policy.state import StateError, read_state

_SIZE: Final = (
    "*:Instance * allocatedStorage",
    "*:Instance * instanceClass",
    "*:Instance * maxAllocatedStorage",
    "*:LaunchTemplate * blockDeviceMappings*.volumeSize",
    "*:NodeGroup * instanceTypes*",
    "*:NodeGroup * scalingConfig.*",
    "*:ReplicationGroup * nodeType",
    "*:Deployment * *.resources.*",
    "*:Deployment * *.env*.value",
    "*:HorizontalPodAutoscaler * spec.m??Replicas",
    "*:MetricAlarm * threshold",
    "*:Budget * limitAmount",
)
_NUMBER: Final = (
    "*:ReplicationGroup * numCacheClusters",
    "*:MetricAlarm cache-* (whole resource)",
    "*:Eip *-nat-* (whole resource)",
    "*:NatGateway *-nat-* (whole resource)",
    "*:Schedule nodes-* (whole resource)",
)
_PROTECTION: Final = (
    "*:Instance * multiAz",
    "*:Instance * backupRetentionPeriod",
    "*:Instance * performanceInsightsRetentionPeriod",
    "* * deletionProtection",
    "* * enableDeletionProtection",
    "* * deletionWindowInDays",
    "* * recoveryWindowInDays",
    "*:ReplicationGroup * snapshotRetentionLimit",
    "*:Plan * rules*.lifecycle.deleteAfter",
    "*:VaultLockConfiguration * *Days",
)
_ADDRESSES: Final = (
    "*:Certificate * domainName",
    "*:Record * name",
    "*:Record * zoneId",
    "*:Vpc * cidrBlock",
    "*:Subnet * cidrBlock",
    "*:NetworkAclRule * cidrBlock",
    "*:NetworkPolicy * *ipBlock*",
)
# Pulumi names these by a digest of their content or of the image that they run.
_DIGESTS: Final = ("*:ConfigMap * metadata.name", "*:Job * metadata.name", "*:Deployment * *.configMap.name")

ALLOWED: Final = (*_SIZE, *_NUMBER, *_PROTECTION, *_ADDRESSES, *_DIGESTS)
"""Patterns of ``type name path`` that may differ: size, number, protection, addresses, and names made from content."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that stands in one stack only, or is another in the other. Values are not kept: they may be secret."""

    type: str
    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.type} {self.name} {self.path}"


def differences(one: Estate, other: Estate, allowed: Sequence[str] = ALLOWED) -> list[Difference]:
    """What differs between two stacks and is not allowed to, in the order of the first."""
    return [found for found in _differences(one, other) if not any(fnmatchcase(str(found), a) for a in allowed)]


def _differences(one: Estate, other: Estate) -> Iterator[Difference]:
    left, right = _declared(one), _declared(other)
    for key in dict.fromkeys((*left, *right)):
        if key not in left or key not in right:
            yield Difference(*key, "(whole resource)")
            continue
        for path in dict.fromkeys((*left[key], *right[key])):
            if left[key].get(path) != right[key].get(path):
                yield Difference(*key, path)


def _declared(estate: Estate) -> Mapping[tuple[str, str], Mapping[str, Value]]:
    return {
        (resource.type, _neutral(resource.name, resource.stack)): {
            path: _neutral(value, resource.stack)
            for path, value in walk(resource.properties)
            if not isinstance(value, Secret) and value is not UNKNOWN
        }
        for resource in estate.resources
    }


_ACCOUNT: Final = re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])")


def _neutral(value: Value, stack: str) -> Value:
    """``value`` without the stack's name and account."""
    return _ACCOUNT.sub("<account>", value.replace(stack, "<stack>")) if isinstance(value, str) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two exported states; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m policy.parity", description="Compare two exported states.")
    parser.add_argument("states", nargs=2, type=Path, metavar="FILE", help="output of `pulumi stack export`")
    parser.add_argument("--json", action="store_true", help="the differences as JSON")
    options = parser.parse_args(arguments)
    try:
        one, other = (read_state(file) for file in options.states)
    except StateError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    found = differences(one, other)
    if options.json:
        sys.stdout.write(json.dumps([asdict(difference) for difference in found], indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{difference}\n" for difference in found)
        sys.stdout.write(f"{len(found)} differences beyond size, number, protection and addresses\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
