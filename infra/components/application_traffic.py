"""Who may speak to the application's pods, and to whom they may speak: the NetworkPolicies of its namespace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

import pulumi

from app.contract import SERVICES, ServiceContract
from infra.components import gateway
from infra.components.cache import PORT as CACHE_PORT
from infra.components.database import PORT as DATABASE_PORT
from infra.components.load_balancer import GATEWAY_PORT
from infra.components.namespaces import Namespace
from infra.components.network_policies import DNS, POD_IDENTITY, Addresses, Allow, Pods, allow
from infra.components.pods import selector_of

PART_LABEL: Final = "app.kubernetes.io/component"
_HTTPS: Final = 443
PROMETHEUS: Final = Pods(Namespace.MONITORING.value, {"app.kubernetes.io/name": "prometheus"})


@dataclass(frozen=True)
class Ranges:
    """Addresses of the VPC by tier, and who outside may come in."""

    public: Sequence[str]
    private: Sequence[str]
    database: Sequence[str]
    cache: Sequence[str]
    public_sources: Sequence[str]
    trusted_sources: Sequence[str]


@dataclass(frozen=True)
class ApplicationTrafficArgs:
    """The ranges, and the namespaces that must exist."""

    ranges: Ranges
    namespaces: Sequence[pulumi.Resource]


class ApplicationTraffic(pulumi.ComponentResource):
    """Allowances on top of the namespace's denial: clients by the load balancer, gateway to services, out to data."""

    def __init__(self, name: str, args: ApplicationTrafficArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:ApplicationTraffic", name, None, opts)
        self._ranges = args.ranges
        self._opts = pulumi.ResourceOptions(parent=self, depends_on=list(args.namespaces))
        for contract in SERVICES:
            self._service(contract)
        self._gateway()
        for part in ("migration", "maintenance"):
            allow(
                part,
                Namespace.APPLICATION,
                {PART_LABEL: part},
                egress=[*DNS, POD_IDENTITY, self._database(), self._aws()],
                opts=self._opts,
            )
        self.register_outputs({})

    def _service(self, contract: ServiceContract) -> None:
        ranges = self._ranges
        allow(
            contract.service.value,
            Namespace.APPLICATION,
            selector_of(contract.service),
            ingress=[
                Allow(
                    [
                        Pods(Namespace.APPLICATION.value, selector_of(gateway.NAME)),
                        PROMETHEUS,
                        *_clients(ranges.trusted_sources, ranges),
                    ],
                    [contract.port],
                )
            ],
            egress=[
                *DNS,
                POD_IDENTITY,
                self._database(),
                Allow([Addresses(cidr) for cidr in ranges.cache], [CACHE_PORT]),
                self._aws(),
            ],
            opts=self._opts,
        )

    def _gateway(self) -> None:
        ranges = self._ranges
        services = [
            Allow([Pods(Namespace.APPLICATION.value, selector_of(contract.service))], [contract.port])
            for contract in SERVICES
        ]
        allow(
            gateway.NAME,
            Namespace.APPLICATION,
            selector_of(gateway.NAME),
            ingress=[
                Allow(_clients(ranges.public_sources, ranges), [GATEWAY_PORT]),
                Allow([PROMETHEUS], [gateway.METRICS_PORT]),
            ],
            egress=[*DNS, *services],
            opts=self._opts,
        )

    def _database(self) -> Allow:
        return Allow([Addresses(cidr) for cidr in self._ranges.database], [DATABASE_PORT])

    def _aws(self) -> Allow:
        """AWS APIs by their interface endpoints in the private subnets; nothing beyond the VPC."""
        return Allow([Addresses(cidr) for cidr in self._ranges.private], [_HTTPS])


def _clients(sources: Sequence[str], ranges: Ranges) -> list[Addresses]:
    """Clients, whose addresses the load balancer keeps, and the balancer's own health checks out of the public subnets.

    The private subnets are left out of every range: pods come by name, not by having an address.
    """
    private = [IPv4Network(cidr) for cidr in ranges.private]
    clients = [
        Addresses(source, [str(block) for block in private if block.subnet_of(IPv4Network(source))])
        for source in sources
    ]
    covered = [IPv4Network(source) for source in sources]
    health_checks = [
        Addresses(cidr) for cidr in ranges.public if not any(IPv4Network(cidr).subnet_of(c) for c in covered)
    ]
    return [*clients, *health_checks]
