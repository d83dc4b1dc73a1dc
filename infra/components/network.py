"""VPC: subnets in four tiers over the zones, the ways out, and what may be heard of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Final

import pulumi
import pulumi_aws as aws

from infra.cidr_plan import Tier, plan_subnets, zone_slot
from infra.components.iam import Statement, policy_document
from infra.components.log_group import log_group
from infra.tags import Tags

INTERFACE_ENDPOINTS: Final = (
    "ecr.api",
    "ecr.dkr",
    "sts",
    "secretsmanager",
    "kms",
    "logs",
    "ec2",
    "elasticloadbalancing",
    "eks",
    "eks-auth",
    "s3",
    "sns",
    "monitoring",
)
"""AWS APIs that nodes and pods call without leaving the VPC; ``eks-auth`` serves Pod Identity.

S3 has an interface besides its gateway: a gateway leaves S3 at public addresses, which a NetworkPolicy cannot tell from
the rest of the internet.
"""

_ANYWHERE: Final = "0.0.0.0/0"
_EPHEMERAL_PORTS: Final = (1024, 65535)


class NatGateways(StrEnum):
    """How many NAT gateways: one (cheap) or one in every zone (a zone's failure stays in that zone)."""

    SINGLE = "single"
    PER_ZONE = "per-zone"


@dataclass(frozen=True)
class NetworkArgs:
    """What the network needs to know."""

    region: str
    account_id: str
    vpc_cidr: str
    availability_zones: Sequence[str]
    nat_gateways: NatGateways
    logs_key_arn: pulumi.Input[str]
    log_retention_days: int
    tags: Tags


class Network(pulumi.ComponentResource):
    """VPC with public, private, database and cache subnets in every zone.

    Database and cache subnets have no route out of the VPC, and network ACLs that know the private tier only. The
    default security group and route table are empty. Flow logs of all traffic go to an encrypted log group.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: Mapping[Tier, Sequence[pulumi.Output[str]]]
    """Of each tier, in the order of the configured zones."""
    subnet_cidrs: Mapping[Tier, Sequence[str]]
    endpoint_security_group_id: pulumi.Output[str]
    nat_public_ips: Sequence[pulumi.Output[str]]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("grandmodel:components:Network", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        self._plan = plan_subnets(IPv4Network(args.vpc_cidr), args.availability_zones)
        self._vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.vpc_cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=args.tags.named("vpc"),
            opts=self._child,
        )
        self._close_defaults()
        self._subnets = {tier: self._tier_subnets(tier) for tier in Tier}
        self._gateway = aws.ec2.InternetGateway(
            f"{name}-internet-gateway", vpc_id=self._vpc.id, tags=args.tags.named("internet"), opts=self._child
        )
        nat_gateways = self._nat_gateways()
        private_tables = self._route_tables(nat_gateways)
        for tier in (Tier.DATABASE, Tier.CACHE):
            self._isolate(tier)
        self.endpoint_security_group_id = self._endpoints(private_tables)
        self._flow_logs()

        self.vpc_id = self._vpc.id
        self.subnet_ids = {tier: [s.id for s in subnets.values()] for tier, subnets in self._subnets.items()}
        self.subnet_cidrs = {
            tier: [str(self._plan[tier, zone]) for zone in args.availability_zones] for tier in self._subnets
        }
        self.register_outputs({"vpcId": self.vpc_id})

    def _close_defaults(self) -> None:
        """Empty what AWS puts into every VPC: whoever forgets a security group or a subnet's ACL reaches nothing."""
        aws.ec2.DefaultSecurityGroup(
            f"{self._name}-default-security-group",
            vpc_id=self._vpc.id,
            ingress=[],
            egress=[],
            tags=self._args.tags.named("default-unused"),
            opts=self._child,
        )
        aws.ec2.DefaultRouteTable(
            f"{self._name}-default-route-table",
            default_route_table_id=self._vpc.default_route_table_id,
            routes=[],
            tags=self._args.tags.named("default-unused"),
            opts=self._child,
        )

    def _tier_subnets(self, tier: Tier) -> dict[str, aws.ec2.Subnet]:
        """Subnets of a tier by zone. Logical names carry the zone's letter, which is its slot in the plan."""
        # The AWS Load Balancer Controller finds its subnets by these tags (it registers targets only: the NLB is ours).
        roles = {Tier.PUBLIC: {"kubernetes.io/role/elb": "1"}, Tier.PRIVATE: {"kubernetes.io/role/internal-elb": "1"}}
        return {
            zone: aws.ec2.Subnet(
                f"{self._name}-{tier}-{zone[-1]}",
                vpc_id=self._vpc.id,
                availability_zone=zone,
                cidr_block=str(self._plan[tier, zone]),
                map_public_ip_on_launch=False,
                private_dns_hostname_type_on_launch="resource-name",
                tags=self._args.tags.named(f"{tier}-{zone}", tier=tier, **roles.get(tier, {})),
                opts=self._child,
            )
            for zone in self._args.availability_zones
        }

    def _nat_gateways(self) -> dict[str, aws.ec2.NatGateway]:
        """The NAT gateway of every zone; under ``SINGLE`` all zones share the first one's."""
        zones = self._args.availability_zones
        homes = zones if self._args.nat_gateways is NatGateways.PER_ZONE else zones[:1]
        gateways: dict[str, aws.ec2.NatGateway] = {}
        addresses = []
        for zone in homes:
            address = aws.ec2.Eip(
                f"{self._name}-nat-{zone[-1]}",
                domain="vpc",
                tags=self._args.tags.named(f"nat-{zone}"),
                opts=self._child,
            )
            addresses.append(address.public_ip)
            gateways[zone] = aws.ec2.NatGateway(
                f"{self._name}-nat-{zone[-1]}",
                allocation_id=address.allocation_id,
                subnet_id=self._subnets[Tier.PUBLIC][zone].id,
                tags=self._args.tags.named(f"nat-{zone}"),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self._gateway]),
            )
        self.nat_public_ips = addresses
        return {zone: gateways.get(zone, gateways[homes[0]]) for zone in zones}

    def _route_tables(self, nat_gateways: Mapping[str, aws.ec2.NatGateway]) -> list[aws.ec2.RouteTable]:
        """One table for the public tier, one for each private subnet, one without a way out for each isolated tier."""
        public = self._route_table("public", self._subnets[Tier.PUBLIC])
        aws.ec2.Route(
            f"{self._name}-public-internet",
            route_table_id=public.id,
            destination_cidr_block=_ANYWHERE,
            gateway_id=self._gateway.id,
            opts=self._child,
        )
        private_tables = []
        for zone, subnet in self._subnets[Tier.PRIVATE].items():
            table = self._route_table(f"private-{zone[-1]}", {zone: subnet})
            aws.ec2.Route(
                f"{self._name}-private-{zone[-1]}-nat",
                route_table_id=table.id,
                destination_cidr_block=_ANYWHERE,
                nat_gateway_id=nat_gateways[zone].id,
                opts=self._child,
            )
            private_tables.append(table)
        for tier in (Tier.DATABASE, Tier.CACHE):
            self._route_table(tier, self._subnets[tier])
        return private_tables

    def _route_table(self, label: str, subnets: Mapping[str, aws.ec2.Subnet]) -> aws.ec2.RouteTable:
        table = aws.ec2.RouteTable(
            f"{self._name}-{label}", vpc_id=self._vpc.id, tags=self._args.tags.named(label), opts=self._child
        )
        for zone, subnet in subnets.items():
            aws.ec2.RouteTableAssociation(
                f"{self._name}-{label}-in-{zone[-1]}",
                route_table_id=table.id,
                subnet_id=subnet.id,
                opts=self._child,
            )
        return table

    def _isolate(self, tier: Tier) -> None:
        """A network ACL by which a data tier talks to the private tier and to itself, and to nobody else."""
        acl = aws.ec2.NetworkAcl(
            f"{self._name}-{tier}-acl",
            vpc_id=self._vpc.id,
            subnet_ids=[subnet.id for subnet in self._subnets[tier].values()],
            tags=self._args.tags.named(f"{tier}-acl"),
            opts=self._child,
        )
        port = {Tier.DATABASE: 5432, Tier.CACHE: 6379}[tier]
        # ACLs are stateless: answers to a replica that follows its primary arrive on ephemeral ports.
        inward = {Tier.PRIVATE: (port, port), tier: _EPHEMERAL_PORTS}
        for peer, zone in [(peer, zone) for peer in inward for zone in self._args.availability_zones]:
            for egress in (False, True):
                first, last = _EPHEMERAL_PORTS if egress else inward[peer]
                aws.ec2.NetworkAclRule(
                    f"{self._name}-{tier}-{'to' if egress else 'from'}-{peer}-{zone[-1]}",
                    network_acl_id=acl.id,
                    egress=egress,
                    rule_number=(100 if peer is Tier.PRIVATE else 200) + zone_slot(zone),
                    protocol="tcp",
                    rule_action="allow",
                    cidr_block=str(self._plan[peer, zone]),
                    from_port=first,
                    to_port=last,
                    opts=self._child,
                )

    def _endpoints(self, private_tables: Sequence[aws.ec2.RouteTable]) -> pulumi.Output[str]:
        """Ways to AWS APIs that stay inside the VPC; open to this account's principals only."""
        args = self._args
        policy = policy_document(
            Statement(
                "ThisAccountOnly",
                actions=["*"],
                resources=["*"],
                principals="*",
                conditions={"StringEquals": {"aws:PrincipalAccount": args.account_id}},
            )
        )
        # Layers of images lie in buckets of AWS: the registry's redirect is anonymous to this account's conditions.
        s3_policy = policy_document(
            Statement(
                "ThisAccountOnly",
                actions=["s3:*"],
                resources=["*"],
                principals="*",
                conditions={"StringEquals": {"aws:PrincipalAccount": args.account_id}},
            ),
            Statement(
                "ImageLayers",
                actions=["s3:GetObject"],
                resources=[f"arn:aws:s3:::prod-{args.region}-starport-layer-bucket/*"],
                principals="*",
            ),
        )
        aws.ec2.VpcEndpoint(
            f"{self._name}-endpoint-s3",
            vpc_id=self._vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in private_tables],
            policy=s3_policy,
            tags=args.tags.named("endpoint-s3"),
            opts=self._child,
        )
        group = aws.ec2.SecurityGroup(
            f"{self._name}-endpoints",
            description="Interface endpoints of the VPC",
            vpc_id=self._vpc.id,
            tags=args.tags.named("endpoints"),
            opts=self._child,
        )
        for service in INTERFACE_ENDPOINTS:
            label = f"{service.replace('.', '-')}{'-interface' if service == 's3' else ''}"
            aws.ec2.VpcEndpoint(
                f"{self._name}-endpoint-{label}",
                vpc_id=self._vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[subnet.id for subnet in self._subnets[Tier.PRIVATE].values()],
                security_group_ids=[group.id],
                policy=s3_policy if service == "s3" else policy,
                dns_options=aws.ec2.VpcEndpointDnsOptionsArgs(private_dns_only_for_inbound_resolver_endpoint=False)
                if service == "s3"
                else None,
                tags=args.tags.named(f"endpoint-{service}"),
                opts=self._child,
            )
        return group.id

    def _flow_logs(self) -> None:
        args = self._args
        group = log_group(
            f"{self._name}-flow-logs",
            path=f"/grandmodel/{args.tags.stack}/flow-logs",
            key_arn=args.logs_key_arn,
            retention_days=args.log_retention_days,
            tags=args.tags,
            opts=self._child,
        )
        role = aws.iam.Role(
            f"{self._name}-flow-logs",
            description="Lets VPC flow logs write to their log group",
            assume_role_policy=policy_document(
                Statement(
                    "AssumeByFlowLogs",
                    actions=["sts:AssumeRole"],
                    principals={"Service": ["vpc-flow-logs.amazonaws.com"]},
                    conditions={
                        "StringEquals": {"aws:SourceAccount": args.account_id},
                        "ArnLike": {"aws:SourceArn": f"arn:aws:ec2:{args.region}:{args.account_id}:vpc-flow-log/*"},
                    },
                )
            ),
            tags=args.tags.named("flow-logs"),
            opts=self._child,
        )
        permission = aws.iam.RolePolicy(
            f"{self._name}-flow-logs",
            role=role.id,
            policy=policy_document(
                Statement(
                    "WriteStreams",
                    actions=["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                    resources=[group.arn, pulumi.Output.concat(group.arn, ":*")],
                ),
            ),
            opts=self._child,
        )
        aws.ec2.FlowLog(
            f"{self._name}-flow-log",
            vpc_id=self._vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=60,
            tags=args.tags.named("flow-log"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )
