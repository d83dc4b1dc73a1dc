"""Who may speak to whom in the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

from infra.preview.model import Capture

KUBERNETES_API = "172.20.0.1/32"
"""First address of ``serviceCidr``: the Service of the API server."""
NAMESPACES = {"grandmodel", "monitoring", "cert-manager", "node-agents"}


def policies(estate: Capture) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {
        (r.inputs["metadata"]["namespace"], r.inputs["metadata"]["name"]): r.inputs["spec"]
        for r in estate.custom
        if r.type.endswith(":NetworkPolicy")
    }


def addresses(rules: list[Mapping[str, Any]], side: str) -> Iterator[tuple[str, Mapping[str, Any], list[int]]]:
    for rule in rules:
        for peer in rule[side]:
            if "ipBlock" in peer:
                yield peer["ipBlock"]["cidr"], peer["ipBlock"], [port["port"] for port in rule["ports"]]


def test_every_namespace_starts_from_silence(estate: Capture) -> None:
    found = policies(estate)
    for namespace in NAMESPACES:
        spec = found[namespace, "deny-all"]
        assert spec["podSelector"] == {}
        assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
        assert "ingress" not in spec
        assert "egress" not in spec


def test_no_pod_reaches_beyond_the_vpc(estate: Capture) -> None:
    vpc = IPv4Network(str(estate.config["grandmodel:vpcCidr"]))
    for key, spec in policies(estate).items():
        for cidr, _, ports in addresses(spec.get("egress", []), "to"):
            inside = IPv4Network(cidr).subnet_of(vpc)
            pod_identity = cidr == "169.254.170.23/32" and ports == [80]
            api_server = cidr == KUBERNETES_API and ports == [443]
            assert inside or pod_identity or api_server, f"{key} may reach {cidr}"


def test_only_those_that_ask_the_api_server_reach_it_by_its_service(estate: Capture) -> None:
    """Its Service's address is no pod's and lies outside the VPC: without this, discovery and certificates stop."""
    allowed = {
        key
        for key, spec in policies(estate).items()
        for cidr, _, _ in addresses(spec.get("egress", []), "to")
        if cidr == KUBERNETES_API
    }
    assert allowed == {
        ("cert-manager", "cert-manager"),
        ("monitoring", "prometheus-scrapes"),
        ("monitoring", "prometheus-adapter"),
    }


def test_prometheus_has_a_token_to_discover_pods_with(estate: Capture) -> None:
    [account] = [
        r.inputs
        for r in estate.custom
        if r.type.endswith(":ServiceAccount") and r.inputs["metadata"]["name"] == "prometheus"
    ]
    [release] = [r.inputs for r in estate.custom if r.type.endswith(":Release") and r.name == "prometheus"]
    assert account["automountServiceAccountToken"] is False
    assert release["values"]["server"]["automountServiceAccountToken"] is True


def test_only_jobs_and_services_reach_the_database(estate: Capture) -> None:
    allowed = {
        key
        for key, spec in policies(estate).items()
        for _, _, ports in addresses(spec.get("egress", []), "to")
        if 5432 in ports
    }
    assert allowed == {
        ("grandmodel", "strategic"),
        ("grandmodel", "tactical"),
        ("grandmodel", "migration"),
        ("grandmodel", "maintenance"),
        ("monitoring", "postgres-exporter"),
    }


def test_the_gateway_reaches_services_and_no_data_store(estate: Capture) -> None:
    egress = policies(estate)["grandmodel", "gateway"]["egress"]
    assert list(addresses(egress, "to")) == []
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 8000, 8001}


def test_an_address_inside_the_cluster_opens_no_door(estate: Capture) -> None:
    """Clients come by address; pods have addresses of the private subnets and must come by name."""
    private = [
        IPv4Network(r.inputs["cidrBlock"])
        for r in estate.custom
        if r.type == "aws:ec2/subnet:Subnet" and "private" in r.name
    ]
    assert private
    for name in ("strategic", "tactical", "gateway"):
        for cidr, block, _ in addresses(policies(estate)["grandmodel", name]["ingress"], "from"):
            for subnet in private:
                excluded = any(subnet == IPv4Network(gap) for gap in block.get("except", []))
                assert excluded or not subnet.subnet_of(IPv4Network(cidr)), f"{name} admits {subnet} by {cidr}"


def test_the_load_balancers_health_checks_come_in(estate: Capture) -> None:
    public = [
        IPv4Network(r.inputs["cidrBlock"])
        for r in estate.custom
        if r.type == "aws:ec2/subnet:Subnet" and "public" in r.name
    ]
    for name in ("strategic", "tactical", "gateway"):
        admitted = [IPv4Network(c) for c, _, _ in addresses(policies(estate)["grandmodel", name]["ingress"], "from")]
        for subnet in public:
            assert any(subnet.subnet_of(network) for network in admitted)


def test_metrics_of_the_gateway_are_for_prometheus_alone(estate: Capture) -> None:
    rules = [
        rule
        for rule in policies(estate)["grandmodel", "gateway"]["ingress"]
        if 9443 in [port["port"] for port in rule["ports"]]
    ]
    assert [peer["podSelector"]["matchLabels"] for rule in rules for peer in rule["from"]] == [
        {"app.kubernetes.io/name": "prometheus"}
    ]


def test_charts_carry_the_labels_and_accounts_that_policies_and_roles_name(estate: Capture) -> None:
    """What the preview cannot see: the pods of charts. The names below are the charts' own (their ``_helpers.tpl``)."""
    releases = {r.name: r.inputs for r in estate.custom if r.type.endswith(":Release")}
    for name in ("prometheus", "prometheus-adapter", "prometheus-postgres-exporter", "grafana"):
        assert releases[name]["namespace"] == "monitoring"
        assert "nameOverride" not in releases[name]["values"]
    values = {name: release["values"] for name, release in releases.items()}
    assert values["prometheus"]["alertmanager"]["serviceAccount"]["name"] == "alertmanager"
    assert values["prometheus-postgres-exporter"]["serviceAccount"]["name"] == "postgres-exporter"
    assert values["cloudwatch-exporter"]["serviceAccount"]["name"] == "cloudwatch-exporter"
    assert values["aws-load-balancer-controller"]["serviceAccount"]["name"] == "aws-load-balancer-controller"
    assert values["cluster-autoscaler"]["rbac"]["serviceAccount"]["name"] == "cluster-autoscaler"
