"""Proofs of the rules on transport, exposure, the network and compute."""

from __future__ import annotations

import base64
from typing import Final

from policy.model import UNKNOWN, Resource
from policy.mutation import Mutation, Proof, add, anyone, both, called, change, drop, having, remove, unknown
from policy.proofs.common import TAGS
from policy.rules.types import (
    ADDON,
    BUCKET,
    BUCKET_POLICY,
    CACHE,
    CACHE_SUBNETS,
    CERTIFICATE,
    CLUSTER,
    DATABASE,
    DATABASE_PARAMETERS,
    DATABASE_SUBNETS,
    DEFAULT_SECURITY_GROUP,
    DEFAULT_VPC,
    EGRESS_RULE,
    ELASTIC_IP,
    FLOW_LOG,
    INGRESS_RULE,
    LAUNCH_TEMPLATE,
    LISTENER,
    LOAD_BALANCER,
    NAT_GATEWAY,
    NETWORK_ACL,
    NETWORK_ACL_RULE,
    NODE_GROUP,
    QUEUE,
    REPOSITORY_POLICY,
    ROUTE,
    ROUTE_TABLE_ASSOCIATION,
    SECRET_POLICY,
    SECURITY_GROUP,
    SUBNET,
    TARGET_GROUP,
    TOPIC,
    TOPIC_POLICY,
    VPC,
    VPC_ENDPOINT,
    VPC_ENDPOINT_SERVICE,
)

WORLD: Final = "0.0.0.0/0"
NO_STATEMENTS: Final = '{"Version":"2012-10-17","Statement":[]}'
EVERYTHING: Final = '{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}]}'
_TO_NODES = called("to-nodes-")
_INWARD = called("from-private")
_PUBLIC_ROUTE = called("public-internet")


def _api_range(rule: Resource) -> bool:
    """Rules that admit a range to an API port."""
    return rule.node.raw("fromPort") == 8000 and rule.node.raw("cidrIpv4") is not None


def _force_ssl_off(parameters: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**p, "value": "0"} if p["name"] == "rds.force_ssl" else p for p in parameters]


def _opened(group: str, port: int) -> Mutation:
    """An ingress rule from the internet on a security group."""
    return add(
        INGRESS_RULE,
        {"ipProtocol": "tcp", "fromPort": port, "toPort": port, "cidrIpv4": WORLD, "description": "x"},
        refers={"securityGroupId": (SECURITY_GROUP, called(group))},
    )


PROOFS: dict[str, Proof] = {
    # Transport
    "lb-listener-encrypted": Proof(
        (change(LISTENER, "protocol", "TCP"), drop(LISTENER, "protocol")), (unknown(LISTENER, "protocol"),)
    ),
    "lb-listener-tls-policy": Proof(
        (
            change(LISTENER, "sslPolicy", "ELBSecurityPolicy-2016-08"),
            change(LISTENER, "sslPolicy", "ELBSecurityPolicy-TLS13-1-0-2021-06"),
            drop(LISTENER, "sslPolicy"),
        ),
        (unknown(LISTENER, "sslPolicy"),),
    ),
    "lb-listener-certificate": Proof(
        (
            change(LISTENER, "certificateArn", "arn:aws:acm:eu-west-1:000000000000:certificate/elsewhere"),
            drop(LISTENER, "certificateArn"),
        ),
        (unknown(LISTENER, "certificateArn"),),
    ),
    "lb-target-group-used": Proof(
        (remove(LISTENER, blame=TARGET_GROUP),), always_known="that a listener forwards is recorded as a dependency"
    ),
    "alb-refuses-bad-requests": Proof(
        (change(LOAD_BALANCER, "loadBalancerType", "application"),), (unknown(LOAD_BALANCER, "loadBalancerType"),)
    ),
    "acm-key-algorithm": Proof(
        (change(CERTIFICATE, "keyAlgorithm", "RSA_1024"),), (unknown(CERTIFICATE, "keyAlgorithm"),)
    ),
    "acm-no-wildcard": Proof(
        (change(CERTIFICATE, "domainName", "*.grandmodel.example"),), (unknown(CERTIFICATE, "domainName"),)
    ),
    "acm-transparency": Proof(
        (change(CERTIFICATE, "options.certificateTransparencyLoggingPreference", "DISABLED"),),
        (unknown(CERTIFICATE, "options"),),
    ),
    "rds-force-ssl": Proof(
        (
            change(DATABASE_PARAMETERS, "parameters", _force_ssl_off),
            drop(DATABASE, "parameterGroupName"),
        ),
        (unknown(DATABASE, "parameterGroupName"), unknown(DATABASE_PARAMETERS, "parameters", blame=DATABASE)),
        also=frozenset({"rds-query-logging"}),
    ),
    "elasticache-in-transit": Proof(
        (
            change(CACHE, "transitEncryptionEnabled", new=False),
            change(CACHE, "transitEncryptionMode", "preferred"),
        ),
        (unknown(CACHE, "transitEncryptionEnabled"),),
    ),
    "s3-tls-only": Proof(
        (change(BUCKET_POLICY, "policy", NO_STATEMENTS), remove(BUCKET_POLICY, blame=BUCKET)),
        (unknown(BUCKET_POLICY, "policy", blame=BUCKET),),
    ),
    "sns-tls-only": Proof(
        (change(TOPIC_POLICY, "policy", NO_STATEMENTS), remove(TOPIC_POLICY, blame=TOPIC)),
        (unknown(TOPIC_POLICY, "policy", blame=TOPIC),),
    ),
    "sqs-tls-only": Proof(
        (
            add(QUEUE, {"policy": NO_STATEMENTS}, refers={"kmsMasterKeyId": ("aws:kms/key:Key", anyone)}),
            add(QUEUE, {}, refers={"kmsMasterKeyId": ("aws:kms/key:Key", anyone)}),
        ),
        (add(QUEUE, {"policy": UNKNOWN}, refers={"kmsMasterKeyId": ("aws:kms/key:Key", anyone)}),),
    ),
    "secret-tls-only": Proof((change(SECRET_POLICY, "policy", NO_STATEMENTS),), (unknown(SECRET_POLICY, "policy"),)),
    "ecr-tls-only": Proof(
        (change(REPOSITORY_POLICY, "policy", NO_STATEMENTS),), (unknown(REPOSITORY_POLICY, "policy"),)
    ),
    # Exposure
    "sg-no-world-ingress": Proof(
        (
            change(INGRESS_RULE, "fromPort", 22, having("cidrIpv4", WORLD)),
            _opened("entry-entry", 5432),
        ),
        (unknown(INGRESS_RULE, "cidrIpv4", having("cidrIpv4", WORLD)),),
    ),
    "sg-world-only-at-load-balancer": Proof(
        (_opened("cluster-control-plane", 443),),
        (
            add(
                INGRESS_RULE,
                {"ipProtocol": "tcp", "fromPort": 443, "toPort": 443, "cidrIpv4": UNKNOWN, "description": "x"},
                refers={"securityGroupId": (SECURITY_GROUP, called("cluster-control-plane"))},
                blame=SECURITY_GROUP,
            ),
        ),
    ),
    "lb-api-ports-trusted": Proof(
        (change(INGRESS_RULE, "cidrIpv4", "203.0.113.0/24", _api_range),),
        (unknown(INGRESS_RULE, "cidrIpv4", _api_range),),
    ),
    "sg-egress-restricted": Proof(
        (change(EGRESS_RULE, "ipProtocol", "-1", having("cidrIpv4", WORLD)),),
        (unknown(EGRESS_RULE, "cidrIpv4", having("cidrIpv4", WORLD)),),
    ),
    "sg-described": Proof(
        (drop(SECURITY_GROUP, "description"), drop(INGRESS_RULE, "description"), drop(EGRESS_RULE, "description")),
        (unknown(SECURITY_GROUP, "description"),),
    ),
    "sg-used": Proof(
        (add(SECURITY_GROUP, {"description": "nobody's", "tags": TAGS}),),
        always_known="what uses a group is recorded as a dependency",
    ),
    "sg-rules-not-mixed": Proof(
        (
            change(
                SECURITY_GROUP,
                "egress",
                [{"protocol": "tcp", "fromPort": 1, "toPort": 2, "securityGroups": ["sg-1"], "description": "x"}],
            ),
        ),
        always_known="whether inline rules are given shows without their values",
    ),
    "nacl-closed-to-admin-ports": Proof(
        (
            both(
                change(NETWORK_ACL_RULE, "cidrBlock", WORLD, _INWARD), change(NETWORK_ACL_RULE, "fromPort", 22, _INWARD)
            ),
        ),
        (unknown(NETWORK_ACL_RULE, "cidrBlock", _INWARD),),
    ),
    "nacl-attached": Proof(
        (drop(NETWORK_ACL, "subnetIds"),), always_known="whether subnets are named shows without their ids"
    ),
    "nodes-admit-groups-only": Proof(
        (change(INGRESS_RULE, "cidrIpv4", "10.9.0.0/16", _TO_NODES),),
        (unknown(INGRESS_RULE, "securityGroupId", _TO_NODES),),
    ),
    "lb-targets-admit-it": Proof((drop(LOAD_BALANCER, "securityGroups"),), (unknown(LOAD_BALANCER, "securityGroups"),)),
    "endpoint-admits-callers-only": Proof(
        (
            change(INGRESS_RULE, "cidrIpv4", "10.9.0.0/16", called("to-endpoints")),
            change(INGRESS_RULE, "fromPort", 80, called("to-endpoints")),
        ),
        (unknown(VPC_ENDPOINT, "securityGroupIds", having("vpcEndpointType", "Interface")),),
    ),
    "endpoint-service-acceptance": Proof(
        (add(VPC_ENDPOINT_SERVICE, {"acceptanceRequired": False}),),
        (add(VPC_ENDPOINT_SERVICE, {"acceptanceRequired": UNKNOWN}),),
    ),
    "subnet-no-public-addresses": Proof(
        (change(SUBNET, "mapPublicIpOnLaunch", new=True, where=called("public")),),
        (unknown(SUBNET, "mapPublicIpOnLaunch"),),
    ),
    # Network
    "vpc-flow-logs": Proof(
        (remove(FLOW_LOG, blame=VPC), change(FLOW_LOG, "trafficType", "ACCEPT", blame=VPC)),
        (unknown(FLOW_LOG, "trafficType", blame=VPC),),
    ),
    "vpc-default-group-empty": Proof(
        (
            remove(DEFAULT_SECURITY_GROUP, blame=VPC),
            change(DEFAULT_SECURITY_GROUP, "ingress", [{"protocol": "-1", "self": True}]),
        ),
        (unknown(DEFAULT_SECURITY_GROUP, "ingress", blame=VPC),),
    ),
    "vpc-no-default": Proof((add(DEFAULT_VPC, {}),), always_known="that it is declared is enough"),
    "route-default-to-gateway": Proof(
        (change(ROUTE, "networkInterfaceId", "eni-1", _PUBLIC_ROUTE),), (unknown(ROUTE, "destinationCidrBlock"),)
    ),
    "subnet-has-route-table": Proof(
        (remove(ROUTE_TABLE_ASSOCIATION, called("network-public-in"), blame=SUBNET),),
        (unknown(ROUTE_TABLE_ASSOCIATION, "routeTableId", blame=SUBNET),),
    ),
    "nat-in-own-zone": Proof(
        (change(SUBNET, "availabilityZone", "eu-west-1x", called("network-private-a")),),
        (unknown(SUBNET, "availabilityZone", called("network-private-a")),),
    ),
    "eip-attached": Proof(
        (remove(NAT_GATEWAY, called("nat-a"), blame=ELASTIC_IP),),
        always_known="what uses an address is recorded as a dependency",
    ),
    "vpc-endpoints-present": Proof(
        (remove(VPC_ENDPOINT, called("kms"), blame=VPC),), (unknown(VPC_ENDPOINT, "serviceName", blame=VPC),)
    ),
    "endpoint-policy-narrow": Proof(
        (
            drop(VPC_ENDPOINT, "policy"),
            change(
                VPC_ENDPOINT, "policy", '{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}]}'
            ),
        ),
        (unknown(VPC_ENDPOINT, "policy"),),
    ),
    "lb-two-zones": Proof(
        (change(LOAD_BALANCER, "subnets", lambda old: list(old)[:1]),), (unknown(LOAD_BALANCER, "subnets"),)
    ),
    "data-subnets-two-zones": Proof(
        (
            change(DATABASE_SUBNETS, "subnetIds", lambda old: list(old)[:1]),
            change(CACHE_SUBNETS, "subnetIds", lambda old: list(old)[:1]),
        ),
        (unknown(DATABASE_SUBNETS, "subnetIds"),),
    ),
    # Compute
    "eks-endpoint-not-world": Proof(
        (
            change(
                CLUSTER, "vpcConfig", lambda old: {**old, "endpointPublicAccess": True, "publicAccessCidrs": [WORLD]}
            ),
            change(
                CLUSTER,
                "vpcConfig",
                lambda old: {k: v for k, v in old.items() if k != "publicAccessCidrs"} | {"endpointPublicAccess": True},
            ),
        ),
        (unknown(CLUSTER, "vpcConfig"),),
    ),
    "eks-endpoint-private": Proof(
        (change(CLUSTER, "vpcConfig.endpointPrivateAccess", new=False),),
        (unknown(CLUSTER, "vpcConfig.endpointPrivateAccess"),),
    ),
    "eks-control-plane-logs": Proof(
        (change(CLUSTER, "enabledClusterLogTypes", ["api"]),), (unknown(CLUSTER, "enabledClusterLogTypes"),)
    ),
    "eks-version-supported": Proof(
        (change(CLUSTER, "version", "1.24"),), (unknown(CLUSTER, "version"),), also=frozenset({"eks-node-version"})
    ),
    "eks-nodes-no-open-ssh": Proof(
        (change(NODE_GROUP, "remoteAccess", {"ec2SshKey": "key"}),), (unknown(NODE_GROUP, "remoteAccess"),)
    ),
    "eks-authentication-api": Proof(
        (
            change(CLUSTER, "accessConfig.authenticationMode", "CONFIG_MAP"),
            drop(CLUSTER, "accessConfig.bootstrapClusterCreatorAdminPermissions"),
        ),
        (unknown(CLUSTER, "accessConfig"),),
    ),
    "eks-network-policies-enforced": Proof(
        (
            remove(ADDON, called("vpc-cni"), blame=CLUSTER),
            change(ADDON, "configurationValues", '{"enableNetworkPolicy":"false"}', called("vpc-cni")),
        ),
        (unknown(ADDON, "configurationValues", called("vpc-cni"), blame=CLUSTER),),
    ),
    "eks-addons-pinned": Proof((drop(ADDON, "addonVersion"),), (unknown(ADDON, "addonVersion"),)),
    "eks-nodes-pinned": Proof(
        (change(NODE_GROUP, "launchTemplate.version", "$Latest"), drop(NODE_GROUP, "launchTemplate")),
        (unknown(NODE_GROUP, "launchTemplate.version"),),
    ),
    "eks-node-image-fits": Proof(
        (
            change(NODE_GROUP, "amiType", "AL2023_x86_64_NVIDIA", called("strategic")),
            change(NODE_GROUP, "amiType", "AL2023_x86_64_STANDARD", called("tactical")),
        ),
        (unknown(NODE_GROUP, "amiType"),),
    ),
    "eks-gpu-nodes-tainted": Proof(
        (change(NODE_GROUP, "taints", [], called("tactical")),), (unknown(NODE_GROUP, "taints", called("tactical")),)
    ),
    "eks-node-version": Proof((change(NODE_GROUP, "version", "1.31"),), (unknown(NODE_GROUP, "version"),)),
    "lt-imdsv2": Proof(
        (
            change(LAUNCH_TEMPLATE, "metadataOptions.httpTokens", "optional"),
            drop(LAUNCH_TEMPLATE, "metadataOptions.httpTokens"),
        ),
        (unknown(LAUNCH_TEMPLATE, "metadataOptions.httpTokens"),),
    ),
    "lt-metadata-hop-limit": Proof(
        (change(LAUNCH_TEMPLATE, "metadataOptions.httpPutResponseHopLimit", 2),),
        (unknown(LAUNCH_TEMPLATE, "metadataOptions.httpPutResponseHopLimit"),),
    ),
    "lt-no-public-address": Proof(
        (change(LAUNCH_TEMPLATE, "networkInterfaces", [{"associatePublicIpAddress": "true"}]),),
        (unknown(LAUNCH_TEMPLATE, "networkInterfaces"),),
    ),
    "lt-no-secrets-in-user-data": Proof(
        (change(LAUNCH_TEMPLATE, "userData", base64.b64encode(b"export PASSWORD=correct-horse-battery").decode()),),
        (unknown(LAUNCH_TEMPLATE, "userData"),),
    ),
    "lt-detailed-monitoring": Proof(
        (change(LAUNCH_TEMPLATE, "monitoring.enabled", new=False),), (unknown(LAUNCH_TEMPLATE, "monitoring"),)
    ),
    "rds-subnets-private": Proof(
        (change(SUBNET, "mapPublicIpOnLaunch", new=True, where=called("network-database-a"), blame=DATABASE_SUBNETS),),
        (unknown(DATABASE_SUBNETS, "subnetIds"),),
        also=frozenset({"subnet-no-public-addresses"}),
    ),
    "elasticache-subnets-private": Proof(
        (change(SUBNET, "mapPublicIpOnLaunch", new=True, where=called("network-cache-a"), blame=CACHE_SUBNETS),),
        (unknown(CACHE_SUBNETS, "subnetIds"),),
        also=frozenset({"subnet-no-public-addresses"}),
    ),
    "eks-nodes-private": Proof(
        (change(SUBNET, "mapPublicIpOnLaunch", new=True, where=called("network-private-a"), blame=NODE_GROUP),),
        (unknown(NODE_GROUP, "subnetIds"),),
        also=frozenset({"subnet-no-public-addresses"}),
    ),
}
