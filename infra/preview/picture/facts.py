"""What the picture shows, read from a capture: the network by tier and zone, the way in, the cluster, the data stores.

Everything is read from declared inputs and from which resource refers to which; a value that is unknown is left out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from infra.preview.model import Capture, Resource, short_type
from infra.preview.picture.services import Card, Unit, at, own_name, read_cards

TIERS: Final = ("public", "private", "database", "cache")
_GPU_INSTANCE: Final = re.compile(r"^(g\d|p\d|gr\d)")


@dataclass(frozen=True)
class Subnet:
    """A subnet at the crossing of a tier and a zone."""

    urn: str
    tier: str
    zone: str
    cidr: str


@dataclass(frozen=True)
class Listener:
    """A listener of the load balancer, who may reach it and where it leads."""

    urn: str
    port: int
    protocol: str
    target: str
    target_urn: str
    health_check: str
    sources: tuple[str, ...]

    @property
    def trusted_only(self) -> bool:
        """Whether only private networks may reach it."""
        return bool(self.sources) and all(_is_private(source) for source in self.sources)


@dataclass(frozen=True)
class NodeGroup:
    """A group of nodes of the cluster."""

    urn: str
    name: str
    gpu: bool
    instances: str
    sizes: str


@dataclass(frozen=True)
class Workload:
    """Something that runs in the cluster."""

    urn: str
    name: str
    namespace: str
    kind: str
    replicas: str
    gpu: bool


@dataclass(frozen=True)
class Store:
    """A data store and how many copies of it stand in how many zones."""

    urn: str
    title: str
    lines: tuple[str, ...]
    copies: int
    standby: bool


@dataclass(frozen=True)
class Facts:
    """All that the picture shows."""

    project: str
    stack: str
    region: str
    counts: Mapping[str, int]
    zones: tuple[str, ...]
    vpc: Unit | None
    subnets: tuple[Subnet, ...]
    nats: Mapping[str, str]
    internet_gateway: Unit | None
    endpoints: tuple[Unit, ...]
    balancer: Unit | None
    listeners: tuple[Listener, ...]
    cluster: Unit | None
    add_ons: tuple[Unit, ...]
    node_groups: tuple[NodeGroup, ...]
    workloads: tuple[Workload, ...]
    databases: tuple[Store, ...]
    caches: tuple[Store, ...]
    cards: tuple[Card, ...]
    also: Mapping[str, int] = field(default_factory=dict)


def read_facts(capture: Capture) -> Facts:
    """Read ``capture``."""
    subnets = tuple(_subnet(resource) for resource in capture.of_type("aws:ec2/subnet:Subnet"))
    zone_of = {subnet.urn: subnet.zone for subnet in subnets}
    nats = {
        resource.urn: next(
            (zone_of[urn] for urn in resource.property_dependencies.get("subnetId", ()) if urn in zone_of), ""
        )
        for resource in capture.of_type("aws:ec2/natGateway:NatGateway")
    }
    cards, in_cards = read_cards(capture)
    facts = Facts(
        project=capture.project,
        stack=capture.stack,
        region=_plain(capture.config.get("aws:region")),
        counts=_counts(capture),
        zones=tuple(sorted({subnet.zone for subnet in subnets if subnet.zone})),
        vpc=_vpc(capture),
        subnets=subnets,
        nats=nats,
        internet_gateway=_first_unit(capture, "aws:ec2/internetGateway:InternetGateway", "Internet gateway"),
        endpoints=_endpoints(capture),
        balancer=_balancer(capture),
        listeners=tuple(sorted(_listeners(capture), key=lambda listener: listener.port)),
        cluster=_cluster(capture),
        add_ons=_add_ons(capture),
        node_groups=tuple(sorted(_node_groups(capture), key=lambda group: (group.gpu, group.name))),
        workloads=tuple(_workloads(capture)),
        databases=tuple(_databases(capture)),
        caches=tuple(_caches(capture)),
        cards=cards,
    )
    drawn = in_cards | set(_drawn(facts))
    also: dict[str, int] = {}
    for resource in capture.custom:
        if resource.urn not in drawn:
            also[short_type(resource.type)] = also.get(short_type(resource.type), 0) + 1
    return Facts(**{**vars(facts), "also": dict(sorted(also.items(), key=lambda item: (-item[1], item[0])))})


def _drawn(facts: Facts) -> Iterable[str]:
    for unit in (facts.vpc, facts.internet_gateway, facts.balancer, facts.cluster, *facts.endpoints, *facts.add_ons):
        if unit is not None:
            yield unit.urn
    for group in (facts.subnets, facts.listeners, facts.node_groups, facts.workloads, facts.databases, facts.caches):
        for item in group:
            yield item.urn
    yield from facts.nats
    yield from (listener.target_urn for listener in facts.listeners if listener.target_urn)


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, Mapping | list):
        return ""
    return str(value)


def _counts(capture: Capture) -> dict[str, int]:
    packages: dict[str, int] = {}
    for resource in capture.custom:
        packages[resource.package] = packages.get(resource.package, 0) + 1
    components = sum(1 for r in capture.resources if not r.custom) - 1
    return {"resources": len(capture.custom), "components": components, **dict(sorted(packages.items()))}


def _is_private(source: str) -> bool:
    try:
        return ipaddress.ip_network(source, strict=False).is_private
    except ValueError:
        return False


def _first_unit(capture: Capture, token: str, title: str) -> Unit | None:
    found = capture.of_type(token)
    return Unit(found[0].urn, title) if found else None


def _vpc(capture: Capture) -> Unit | None:
    found = capture.of_type("aws:ec2/vpc:Vpc")
    return Unit(found[0].urn, _plain(at(found[0], "cidrBlock"))) if found else None


def _subnet(resource: Resource) -> Subnet:
    tags = at(resource, "tags") or {}
    words = {
        *re.split(r"[^a-z]+", resource.name.lower()),
        *(str(tags.get(key, "")).lower() for key in ("Tier", "tier")),
    }
    public = at(resource, "mapPublicIpOnLaunch") is True
    tier = next((tier for tier in TIERS if tier in words), "public" if public else "private")
    return Subnet(resource.urn, tier, _plain(at(resource, "availabilityZone")), _plain(at(resource, "cidrBlock")))


def _endpoints(capture: Capture) -> tuple[Unit, ...]:
    units = []
    for resource in capture.of_type("aws:ec2/vpcEndpoint:VpcEndpoint"):
        service = re.sub(r"^com\.amazonaws\.[^.]+\.", "", _plain(at(resource, "serviceName"))) or resource.name
        kind = _plain(at(resource, "vpcEndpointType")) or "Gateway"
        units.append(Unit(resource.urn, f"{service} (gateway)" if kind == "Gateway" else service))
    return tuple(sorted(units, key=lambda unit: unit.title))


def _balancer(capture: Capture) -> Unit | None:
    found = capture.of_type("aws:lb/loadBalancer:LoadBalancer")
    if not found:
        return None
    kind = {"network": "Network Load Balancer", "application": "Application Load Balancer"}
    title = kind.get(_plain(at(found[0], "loadBalancerType")), "Load balancer")
    notes = ["internal" if at(found[0], "internal") is True else "internet-facing"]
    notes += ["cross-zone"] if at(found[0], "enableCrossZoneLoadBalancing") is True else []
    notes += ["deletion protection"] if at(found[0], "enableDeletionProtection") is True else []
    return Unit(found[0].urn, title, " · ".join(notes))


def _listeners(capture: Capture) -> Iterable[Listener]:
    for resource in capture.of_type("aws:lb/listener:Listener"):
        references = resource.property_dependencies.get("defaultActions", ())
        target = next(
            (capture.by_urn[urn] for urn in references if "targetGroup" in urn and urn in capture.by_urn), None
        )
        port = at(resource, "port")
        yield Listener(
            urn=resource.urn,
            port=int(port) if isinstance(port, int | float) else 0,
            protocol=_plain(at(resource, "protocol")),
            target=own_name(target, capture) if target else "",
            target_urn=target.urn if target else "",
            health_check=_plain(at(target, "healthCheck.path")) if target else "",
            sources=tuple(sorted(_sources(capture, port))),
        )


def _sources(capture: Capture, port: object) -> Iterable[str]:
    for rule in capture.of_type("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"):
        if port and at(rule, "fromPort") == port and (source := at(rule, "cidrIpv4")):
            yield str(source)


def _cluster(capture: Capture) -> Unit | None:
    found = capture.of_type("aws:eks/cluster:Cluster")
    if not found:
        return None
    cluster = found[0]
    notes = [f"Kubernetes {version}"] if (version := _plain(at(cluster, "version"))) else []
    public, private = at(cluster, "vpcConfig.endpointPublicAccess"), at(cluster, "vpcConfig.endpointPrivateAccess")
    if private is True:
        notes.append("private endpoint" if public is not True else "private endpoint, public one for listed ranges")
    notes += ["secrets encrypted"] if at(cluster, "encryptionConfig") else []
    return Unit(cluster.urn, "EKS cluster", " · ".join(notes))


def _add_ons(capture: Capture) -> tuple[Unit, ...]:
    managed = [Unit(r.urn, _plain(at(r, "addonName")) or r.name) for r in capture.of_type("aws:eks/addon:Addon")]
    charts = [Unit(r.urn, _plain(at(r, "chart")) or r.name) for r in capture.of_type("kubernetes:helm.sh/v3:Release")]
    return tuple(sorted(managed, key=lambda unit: unit.title)) + tuple(sorted(charts, key=lambda unit: unit.title))


def _node_groups(capture: Capture) -> Iterable[NodeGroup]:
    for resource in capture.of_type("aws:eks/nodeGroup:NodeGroup"):
        instances = [str(item) for item in at(resource, "instanceTypes") or [] if isinstance(item, str)]
        gpu = "NVIDIA" in _plain(at(resource, "amiType")) or any(_GPU_INSTANCE.match(item) for item in instances)
        low, high = _plain(at(resource, "scalingConfig.minSize")), _plain(at(resource, "scalingConfig.maxSize"))
        system = _plain(at(resource, "amiType")).partition("_")[0]
        sizes = " · ".join(part for part in (f"{low}-{high} nodes" if low and high else "", system) if part)
        yield NodeGroup(resource.urn, resource.name, gpu, ", ".join(instances), sizes)


_WORKLOADS: Final = {
    "kubernetes:apps/v1:Deployment": "Deployment",
    "kubernetes:apps/v1:StatefulSet": "StatefulSet",
    "kubernetes:apps/v1:DaemonSet": "DaemonSet",
    "kubernetes:batch/v1:CronJob": "CronJob",
    "kubernetes:batch/v1:Job": "Job",
}


def _workloads(capture: Capture) -> Iterable[Workload]:
    autoscaled = {
        _plain(at(r, "spec.scaleTargetRef.name")): r
        for r in capture.of_type("kubernetes:autoscaling/v2:HorizontalPodAutoscaler")
    }
    for resource in capture.of_type(*_WORKLOADS):
        name = _plain(at(resource, "metadata.name")) or resource.name
        scaler = autoscaled.get(name)
        replicas = _plain(at(resource, "spec.replicas"))
        if scaler is not None:
            replicas = f"{_plain(at(scaler, 'spec.minReplicas'))}-{_plain(at(scaler, 'spec.maxReplicas'))}"
        template = at(resource, "spec.template.spec") or at(resource, "spec.jobTemplate.spec.template.spec") or {}
        gpu = "gpu" in str([template.get("tolerations"), template.get("nodeSelector")]).lower()
        yield Workload(
            resource.urn, name, _plain(at(resource, "metadata.namespace")), _WORKLOADS[resource.type], replicas, gpu
        )


def _databases(capture: Capture) -> Iterable[Store]:
    for resource in capture.of_type("aws:rds/instance:Instance"):
        engine = {"postgres": "PostgreSQL"}.get(_plain(at(resource, "engine")), _plain(at(resource, "engine")))
        multi = at(resource, "multiAz") is True
        lines = [_plain(at(resource, "instanceClass"))]
        size, kind = _plain(at(resource, "allocatedStorage")), _plain(at(resource, "storageType"))
        lines.append(
            " · ".join(
                part
                for part in (
                    f"{size} GB {kind}".strip() if size else "",
                    "encrypted" if at(resource, "storageEncrypted") else "",
                )
                if part
            )
        )
        title = f"RDS {engine} {_plain(at(resource, 'engineVersion'))}".strip()
        yield Store(resource.urn, title, tuple(line for line in lines if line), 2 if multi else 1, multi)


def _caches(capture: Capture) -> Iterable[Store]:
    for resource in capture.of_type("aws:elasticache/replicationGroup:ReplicationGroup"):
        engine = _plain(at(resource, "engine")).capitalize() or "Redis"
        copies = at(resource, "numCacheClusters") or (at(resource, "numNodeGroups") or 1) * (
            (at(resource, "replicasPerNodeGroup") or 0) + 1
        )
        notes = [_plain(at(resource, "nodeType")), "TLS" if at(resource, "transitEncryptionEnabled") else ""]
        title = f"ElastiCache {engine} {_plain(at(resource, 'engineVersion'))}".strip()
        yield Store(
            resource.urn,
            title,
            (" · ".join(note for note in notes if note),),
            int(copies),
            at(resource, "multiAzEnabled") is True,
        )
