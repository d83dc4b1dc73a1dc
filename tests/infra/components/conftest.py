"""Single components under Pulumi's own mocks: what they register, by type and name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest


@dataclass
class Recorded:
    """Registrations of one component, in order."""

    resources: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def of(self, token: str) -> dict[str, dict[str, Any]]:
        """Inputs by name of all resources whose type ends in ``token``."""
        return {name: inputs for kind, name, inputs in self.resources if kind.endswith(token)}

    def one(self, token: str) -> dict[str, Any]:
        """Inputs of the only resource of the type."""
        (inputs,) = self.of(token).values()
        return inputs


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self._recorded.resources.append((args.typ, args.name, dict(args.inputs)))
        computed = {
            "arn": f"arn:{args.name}",
            "arnSuffix": f"suffix/{args.name}",
            "name": args.inputs.get("name", args.name),
            "bucket": args.name,
            "dnsName": f"{args.name}.elb.example",
            "zoneId": "ZLB",
            "latestVersion": 1,
            "hex": "abc123",
            "userId": args.inputs.get("userId", ""),
            "domainValidationOptions": [
                {"resourceRecordName": "_x", "resourceRecordType": "CNAME", "resourceRecordValue": "_y"}
            ],
            "certificateAuthority": {"data": "Q0E="},
            "masterUserSecrets": [{"secretArn": "arn:master"}],
            "resources": [{"autoscalingGroups": [{"name": "asg"}]}],
        }
        return f"{args.name}-id", computed | dict(args.inputs)

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        raise AssertionError(f"a component calls the cloud: {args.token}")


Build = Callable[[Callable[[], object]], Recorded]


@pytest.fixture
def build() -> Iterator[Build]:
    """Runs a component's constructor and gives what it registered."""

    def run(construct: Callable[[], object]) -> Recorded:
        recorded = Recorded()
        asyncio.set_event_loop(asyncio.new_event_loop())
        pulumi.runtime.set_mocks(_Mocks(recorded), project="grandmodel", stack="test")

        def program() -> None:
            construct()

        pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]
        return recorded

    yield run
    asyncio.set_event_loop(None)
