"""Who may speak to whom: the load balancer, the firewall, the control plane, the roles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from infra.components.cluster import Cluster, ClusterArgs
from infra.components.delivery import Delivery, DeliveryArgs
from infra.components.firewall import Firewall, FirewallArgs, Group
from infra.components.load_balancer import LoadBalancer, LoadBalancerArgs
from infra.components.pod_identity import PodIdentity, PodIdentityArgs
from infra.settings import DataClass
from infra.tags import Tags

TAGS = Tags("grandmodel", "test", "team", "cc-1", DataClass.INTERNAL)
PORTS = (8443, 8000, 8001)
Build = Callable[[Callable[[], object]], Any]


@pytest.fixture
def firewall(build: Build) -> Any:
    groups = {group: f"sg-{group}" for group in Group}
    return build(lambda: Firewall("firewall", FirewallArgs(groups=groups, target_ports=PORTS, tags=TAGS)))


@pytest.fixture
def entry(build: Build) -> Any:
    return build(
        lambda: LoadBalancer(
            "entry",
            LoadBalancerArgs(
                vpc_id="vpc",
                subnet_ids=["a", "b", "c"],
                domain="trading.example.com",
                hosted_zone_id="ZONE",
                public_source_ranges=["0.0.0.0/0"],
                trusted_source_ranges=["10.0.0.0/8", "192.168.0.0/16"],
                access_log_bucket="logs",
                access_log_ready=[],
                deletion_protection=True,
                topic_arn="arn:topic",
                tags=TAGS,
            ),
        )
    )


def test_targets_admit_only_the_load_balancer_on_their_ports(firewall: Any) -> None:
    admitted = {
        rule["fromPort"]: rule["referencedSecurityGroupId"]
        for name, rule in firewall.of("securityGroupIngressRule:SecurityGroupIngressRule").items()
        if name.startswith("firewall-load-balancer-to-nodes")
    }
    assert admitted == dict.fromkeys(PORTS, "sg-load-balancer")


@pytest.mark.parametrize(("group", "port"), [("database", 5432), ("cache", 6379)])
def test_data_stores_admit_only_nodes_and_never_a_range(firewall: Any, group: str, port: int) -> None:
    rules = [
        rule
        for rule in firewall.of("securityGroupIngressRule:SecurityGroupIngressRule").values()
        if rule["securityGroupId"] == f"sg-{group}"
    ]
    assert [(r["referencedSecurityGroupId"], r["fromPort"], r["toPort"]) for r in rules] == [("sg-nodes", port, port)]
    assert not any("cidrIpv4" in rule for rule in rules)


def test_every_passage_is_open_at_both_ends(firewall: Any) -> None:
    inward = {
        (r["referencedSecurityGroupId"], r["securityGroupId"], r["ipProtocol"], r["fromPort"], r["toPort"])
        for r in firewall.of("securityGroupIngressRule:SecurityGroupIngressRule").values()
    }
    outward = {
        (r["securityGroupId"], r["referencedSecurityGroupId"], r["ipProtocol"], r["fromPort"], r["toPort"])
        for r in firewall.of("securityGroupEgressRule:SecurityGroupEgressRule").values()
        if "referencedSecurityGroupId" in r
    }
    assert inward == outward


def test_data_stores_begin_no_traffic(firewall: Any) -> None:
    outward = firewall.of("securityGroupEgressRule:SecurityGroupEgressRule").values()
    assert not {r["securityGroupId"] for r in outward} & {"sg-database", "sg-cache", "sg-endpoints"}


def test_each_trusted_range_is_a_rule_of_its_own(entry: Any) -> None:
    rules = entry.of("securityGroupIngressRule:SecurityGroupIngressRule").values()
    assert sorted((r["fromPort"], r["cidrIpv4"]) for r in rules) == [
        (443, "0.0.0.0/0"),
        (8000, "10.0.0.0/8"),
        (8000, "192.168.0.0/16"),
        (8001, "10.0.0.0/8"),
        (8001, "192.168.0.0/16"),
    ]


def test_every_listener_speaks_tls_1_3_only(entry: Any) -> None:
    listeners = entry.of("lb/listener:Listener").values()
    assert {(listener["port"], listener["protocol"]) for listener in listeners} == {
        (p, "TLS") for p in (443, 8000, 8001)
    }
    assert {listener["sslPolicy"] for listener in listeners} == {"ELBSecurityPolicy-TLS13-1-3-2021-06"}


def test_only_ready_pods_get_requests_and_over_tls(entry: Any) -> None:
    for target_group in entry.of("lb/targetGroup:TargetGroup").values():
        assert target_group["protocol"] == "TLS"
        assert (target_group["healthCheck"]["protocol"], target_group["healthCheck"]["path"]) == ("HTTPS", "/ready")


def test_the_balancer_is_born_with_its_security_group(entry: Any) -> None:
    balancer = entry.one("lb/loadBalancer:LoadBalancer")
    assert balancer["securityGroups"] == ["entry-entry-id"]
    assert balancer["accessLogs"]["enabled"] is True
    assert balancer["enableDeletionProtection"] is True


def cluster_with(build: Build, public: tuple[str, ...]) -> Any:
    args = ClusterArgs(
        account_id="111111111111",
        vpc_id="vpc",
        private_subnet_ids=["a", "b", "c"],
        service_cidr="172.20.0.0/16",
        kubernetes_version="1.34",
        addon_versions=dict.fromkeys(("vpc-cni", "kube-proxy", "eks-pod-identity-agent"), "v1.0.0-eksbuild.1"),
        admin_role_arns=["arn:aws:iam::111111111111:role/ops/deploy"],
        viewer_role_arns=["arn:aws:iam::111111111111:role/on-call"],
        public_access_cidrs=public,
        secrets_key_arn="arn:key",
        logs_key_arn="arn:logs",
        log_retention_days=365,
        deletion_protection=True,
        protect=True,
        tags=TAGS,
    )
    return build(lambda: Cluster("cluster", args))


def test_the_kubernetes_api_is_private_unless_a_range_is_listed(build: Build) -> None:
    private = cluster_with(build, ()).one("eks/cluster:Cluster")["vpcConfig"]
    assert private["endpointPrivateAccess"] is True
    assert private["endpointPublicAccess"] is False
    listed = cluster_with(build, ("203.0.113.0/24",)).one("eks/cluster:Cluster")["vpcConfig"]
    assert listed["publicAccessCidrs"] == ["203.0.113.0/24"]


def test_nobody_administers_kubernetes_by_having_created_it(build: Build) -> None:
    cluster = cluster_with(build, ())
    access = cluster.one("eks/cluster:Cluster")["accessConfig"]
    assert access == {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    grants = cluster.of("accessPolicyAssociation:AccessPolicyAssociation").values()
    assert {g["principalArn"].rsplit("/", 1)[1]: g["policyArn"].rsplit("/", 1)[1] for g in grants} == {
        "deploy": "AmazonEKSClusterAdminPolicy",
        "on-call": "AmazonEKSAdminViewPolicy",
    }


def test_a_role_for_pods_serves_one_service_account_only(build: Build) -> None:
    args = PodIdentityArgs("111111111111", "cluster", "strategic", "strategic", tags=TAGS)
    role = build(lambda: PodIdentity("strategic", args)).one("iam/role:Role")
    (statement,) = json.loads(role["assumeRolePolicy"])["Statement"]
    assert statement["Principal"] == {"Service": ["pods.eks.amazonaws.com"]}
    assert statement["Condition"]["StringEquals"] == {
        "aws:SourceAccount": "111111111111",
        "aws:RequestTag/kubernetes-namespace": "strategic",
        "aws:RequestTag/kubernetes-service-account": "strategic",
    }


def test_only_the_preview_environment_of_our_repository_may_preview(build: Build) -> None:
    delivery = build(lambda: Delivery("delivery", DeliveryArgs("acme/estate", TAGS)))
    (trust,) = json.loads(delivery.one("iam/role:Role")["assumeRolePolicy"])["Statement"]
    subject = trust["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subject == "repo:acme/estate:environment:preview-test"
    (denial,) = json.loads(delivery.one("iam/rolePolicy:RolePolicy")["policy"])["Statement"]
    assert denial["Effect"] == "Deny"
    assert "secretsmanager:GetSecretValue" in denial["Action"]
