"""The cluster and its nodes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

from policy.checks import includes, is_given, is_one_of, is_true
from policy.rule import Case, Check, Finding, Level, NotApplicable, Rule, Severity, Violation
from policy.rules.traffic import is_world
from policy.rules.types import ADDON, CLUSTER, INSTANCE, LAUNCH_TEMPLATE, NODE_GROUP

_LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
_VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"]
_GPU_FAMILIES: Final = re.compile(r"^(g\d|gr\d|p\d)")
# Shapes that are credentials and nothing else: AWS keys, private keys, tokens of GitHub and Slack, passwords in
# assignments.
SECRET_SHAPES: Final = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|(?i:\b(?:password|passwd|secret|api_?key|access_?token)\b['\"]?\s*[:=]\s*['\"]?[^\s'\"${<]{8,})"
    r"|\w+://[^/\s:@]+:[^/\s:@${]{3,}@"
)


def _public_access(case: Case) -> Iterator[Finding]:
    access = case.node.node("vpcConfig")
    public = access.flag("endpointPublicAccess")
    if public is False:
        return
    ranges = access.texts("publicAccessCidrs")
    if not ranges:
        yield Violation("vpcConfig.publicAccessCidrs is not set: the API answers the whole internet")
    elif any(is_world(cidr) for cidr in ranges):
        yield Violation("vpcConfig.publicAccessCidrs contains the internet")


def _remote_access(case: Case) -> Iterator[Finding]:
    remote = case.node.node("remoteAccess")
    if remote.has("ec2SshKey") and not remote.has("sourceSecurityGroupIds"):
        yield Violation("remoteAccess.ec2SshKey without sourceSecurityGroupIds opens SSH to the internet")


def _authentication(case: Case) -> Iterator[Finding]:
    access = case.node.node("accessConfig")
    if access.text("authenticationMode") != "API":
        yield Violation(f"accessConfig.authenticationMode is {access.text('authenticationMode') or 'not set'}, not API")
    elif access.flag("bootstrapClusterCreatorAdminPermissions") is not False:
        yield Violation(
            "accessConfig.bootstrapClusterCreatorAdminPermissions is not false: the creator stays administrator"
        )


def _network_policy(case: Case) -> Iterator[Finding]:
    addons = [a for a in case.estate.referrers(case.resource, ADDON) if a.node.text("addonName") == "vpc-cni"]
    if not addons:
        yield Violation("the vpc-cni add-on is not declared, so nothing enforces NetworkPolicies")
    for addon in addons:
        if str(addon.node.document("configurationValues").raw("enableNetworkPolicy")).lower() != "true":
            yield Violation("enableNetworkPolicy is not true: NetworkPolicies are not enforced", addon.urn)


def _launch_template_pinned(case: Case) -> Iterator[Finding]:
    template = case.node.node("launchTemplate")
    if template.has("id") or template.has("name"):
        if str(template.read("version")).startswith("$"):
            yield Violation("launchTemplate.version follows a moving version: nodes change without an update")
    elif not template.value and template.raw("version") is None:
        yield Violation("launchTemplate is not set: EKS then chooses metadata options and volumes")


def _image_fits(case: Case) -> Iterator[Finding]:
    kinds = case.node.texts("instanceTypes")
    image = case.node.text("amiType")
    if image is None:
        yield Violation("amiType is not set")
        return
    gpu = any(_GPU_FAMILIES.match(kind) for kind in kinds)
    if gpu and "NVIDIA" not in image and "GPU" not in image:
        yield Violation(f"amiType {image} has no driver for {', '.join(kinds)}")
    if kinds and not gpu and ("NVIDIA" in image or "GPU" in image):
        yield Violation(f"amiType {image} is for GPU nodes; {', '.join(kinds)} has none")


def _gpu_tainted(case: Case) -> Iterator[Finding]:
    if not any(_GPU_FAMILIES.match(kind) for kind in case.node.texts("instanceTypes")):
        yield NotApplicable("no GPU nodes")
    elif not any((taint.text("effect") or "") in {"NO_SCHEDULE", "NO_EXECUTE"} for taint in case.node.nodes("taints")):
        yield Violation("taints does not keep pods without a GPU away")


def _metadata(path: str, wanted: str) -> Check:
    def check(case: Case) -> Iterator[Finding]:
        value = case.node.node("metadataOptions").read(path)
        if value is None:
            yield Violation(f"metadataOptions.{path} is not set")
        elif str(value).removesuffix(".0") != wanted:
            yield Violation(f"metadataOptions.{path} is {value}, not {wanted}")

    return check


def _no_public_address(case: Case) -> Iterator[Finding]:
    if case.resource.type == INSTANCE:
        if case.node.flag("associatePublicIpAddress"):
            yield Violation("associatePublicIpAddress is true")
        return
    for interface in case.node.nodes("networkInterfaces"):
        if interface.flag("associatePublicIpAddress"):
            yield Violation(f"{interface.path}.associatePublicIpAddress is true")


def _user_data(case: Case) -> Iterator[Finding]:
    for path in ("userData", "userDataBase64"):
        text = case.node.text(path)
        if text and SECRET_SHAPES.search(_decoded(text)):
            yield Violation(f"{path} holds what looks like a credential; it is readable to every process on the node")


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return text


def _lockstep(case: Case) -> Iterator[Finding]:
    for cluster in case.estate.links(case.resource, "clusterName", CLUSTER):
        version, wanted = case.node.text("version"), cluster.node.text("version")
        if version is not None and version != wanted:
            yield Violation(f"version {version} differs from the cluster's {wanted}")


_MEDIUM, _HIGH, _LOW = Severity.MEDIUM, Severity.HIGH, Severity.LOW

RULES = (
    Rule(
        id="eks-endpoint-not-world",
        title="The Kubernetes API does not answer the whole internet",
        reason="A leaked token or a hole in the API server is then enough from anywhere.",
        remedy="Set endpointPublicAccess to false, or list publicAccessCidrs.",
        types=(CLUSTER,),
        check=_public_access,
        severity=Severity.CRITICAL,
        controls=("EKS.1", "CKV_AWS_38", "C-0227", "CIS-EKS 5.4.1"),
    ),
    Rule(
        id="eks-endpoint-private",
        title="Nodes reach the Kubernetes API inside the VPC",
        reason="Otherwise their traffic leaves the VPC, and stops when the public endpoint is closed.",
        remedy="Set vpcConfig.endpointPrivateAccess to true.",
        types=(CLUSTER,),
        check=is_true("vpcConfig.endpointPrivateAccess"),
        severity=_HIGH,
        controls=("CKV_AWS_39", "C-0228", "CIS-EKS 5.4.2"),
    ),
    Rule(
        id="eks-control-plane-logs",
        title="All logs of the control plane are kept",
        reason="Without the audit log, nobody can tell who changed what in the cluster.",
        remedy="Name all five types in enabledClusterLogTypes.",
        types=(CLUSTER,),
        check=includes("enabledClusterLogTypes", _LOG_TYPES),
        severity=_MEDIUM,
        controls=("EKS.8", "CKV_AWS_37", "C-0067", "CIS-EKS 2.1.1", "NSA/CISA audit logging"),
    ),
    Rule(
        id="eks-version-supported",
        title="The cluster runs a supported Kubernetes version",
        reason="Unsupported versions get no security fixes, and extended support costs six times as much.",
        remedy="Set version to one of the supported ones.",
        types=(CLUSTER,),
        check=lambda case: is_one_of("version", case.parameters["versions"])(case),
        severity=_HIGH,
        controls=("EKS.2", "CKV_AWS_339", "C-0273"),
        parameters={
            "versions": {
                "type": "array",
                "items": {"type": "string"},
                "default": _VERSIONS,
                "description": "supported versions",
            }
        },
    ),
    Rule(
        id="eks-nodes-no-open-ssh",
        title="Nodes do not offer SSH to the internet",
        reason="Node SSH bypasses Kubernetes and its audit log.",
        remedy="Drop remoteAccess (Session Manager needs no port), or name sourceSecurityGroupIds.",
        types=(NODE_GROUP,),
        check=_remote_access,
        severity=_HIGH,
        controls=("CKV_AWS_100",),
    ),
    Rule(
        id="eks-authentication-api",
        title="Cluster access is granted by access entries only",
        reason="Edits of aws-auth lock people out or let them in without a trace, and the creator stays administrator.",
        remedy='Set accessConfig.authenticationMode to "API" and bootstrapClusterCreatorAdminPermissions to false.',
        types=(CLUSTER,),
        check=_authentication,
        severity=_MEDIUM,
        controls=("C-0285", "C-0232", "CIS-EKS 5.5.1"),
    ),
    Rule(
        id="eks-network-policies-enforced",
        title="The cluster enforces NetworkPolicies",
        reason="Without an engine they are comments.",
        remedy="Set enableNetworkPolicy in the vpc-cni add-on's configurationValues.",
        types=(CLUSTER,),
        check=_network_policy,
        severity=_MEDIUM,
        scope="stack",
        controls=("C-0205", "C-0230", "NSA/CISA network separation"),
    ),
    Rule(
        id="eks-addons-pinned",
        title="Add-ons are pinned to a version",
        reason="Otherwise two updates of the same program make two different clusters.",
        remedy="Set addonVersion.",
        types=(ADDON,),
        check=is_given("addonVersion"),
        severity=_MEDIUM,
    ),
    Rule(
        id="eks-nodes-pinned",
        title="Nodes take a launch template at a numbered version",
        reason="$Latest changes nodes without an update, and EKS's own template allows IMDSv1 hops and plain volumes.",
        remedy="Set launchTemplate with the numeric latestVersion of the estate's template.",
        types=(NODE_GROUP,),
        check=_launch_template_pinned,
        severity=_MEDIUM,
    ),
    Rule(
        id="eks-node-image-fits",
        title="Node images fit the instances: NVIDIA's for GPU types, the plain one for others",
        reason="Without the driver no GPU is advertised and its pods wait for ever.",
        remedy="Set amiType to AL2023_x86_64_NVIDIA for GPU types and AL2023_x86_64_STANDARD for others.",
        types=(NODE_GROUP,),
        check=_image_fits,
        severity=_MEDIUM,
    ),
    Rule(
        id="eks-gpu-nodes-tainted",
        title="GPU nodes are kept for GPU work",
        reason="Other pods would fill the dearest nodes.",
        remedy="Add a NO_SCHEDULE taint to the node group.",
        types=(NODE_GROUP,),
        check=_gpu_tainted,
        severity=_LOW,
    ),
    Rule(
        id="eks-node-version",
        title="Nodes have the cluster's version",
        reason="Kubelets may not be newer than the API server, and are supported for few versions behind it.",
        remedy="Set the node group's version from the cluster's.",
        types=(NODE_GROUP,),
        check=_lockstep,
        severity=_MEDIUM,
        scope="stack",
    ),
    Rule(
        id="lt-imdsv2",
        title="Instances answer metadata requests with a session token only",
        reason="With IMDSv1, one forged request from a server reads the instance's credentials.",
        remedy="Set metadataOptions.httpTokens to required.",
        types=(LAUNCH_TEMPLATE, INSTANCE),
        check=_metadata("httpTokens", "required"),
        severity=_HIGH,
        controls=("EC2.170", "EC2.8", "CKV_AWS_79"),
    ),
    Rule(
        id="lt-metadata-hop-limit",
        title="Pods cannot reach the node's metadata",
        reason="With two hops, every pod takes the node's role.",
        remedy="Set metadataOptions.httpPutResponseHopLimit to 1.",
        types=(LAUNCH_TEMPLATE, INSTANCE),
        check=_metadata("httpPutResponseHopLimit", "1"),
        severity=_MEDIUM,
        controls=("AutoScaling.4", "CKV_AWS_341"),
    ),
    Rule(
        id="lt-no-public-address",
        title="Instances get no public address",
        reason="A node with a public address is reachable as soon as one rule is wrong.",
        remedy="Set associatePublicIpAddress to false.",
        types=(LAUNCH_TEMPLATE, INSTANCE),
        check=_no_public_address,
        severity=_HIGH,
        controls=("EC2.25", "EC2.9", "CKV_AWS_88"),
    ),
    Rule(
        id="lt-no-secrets-in-user-data",
        title="User data holds no credentials",
        reason="It is clear text in the state, in the console and on the node.",
        remedy="Read secrets at run time from Secrets Manager by the instance's role.",
        types=(LAUNCH_TEMPLATE, INSTANCE),
        check=_user_data,
        severity=Severity.CRITICAL,
        controls=("CKV_AWS_46", "C-0012"),
    ),
    Rule(
        id="lt-detailed-monitoring",
        title="Instances report every minute",
        reason="Five minutes are long for an autoscaler or an alarm.",
        remedy="Set monitoring.enabled to true.",
        types=(LAUNCH_TEMPLATE,),
        check=is_true("monitoring.enabled"),
        severity=_LOW,
        level=Level.ADVISORY,
        controls=("CKV_AWS_126",),
    ),
)
