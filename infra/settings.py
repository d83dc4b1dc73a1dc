"""What a stack may configure: typed, closed, and checked as a whole before the first resource is registered.

The keys live under ``grandmodel:`` in ``Pulumi.<stack>.yaml`` and are declared, with defaults, in ``Pulumi.yaml``.
What differs between stacks by nature (NAT, retention, protection) is data in :mod:`infra.stacks`, not configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated, Any

import pulumi
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from infra.sizing import GPU_FAMILIES, Profile, instance_family

PROJECT = "grandmodel"
REGION_KEY = "aws:region"
PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_SHOWN_VALUE_LENGTH = 80


class SettingsError(pulumi.RunError):
    """The configuration is wrong; one line for every mistake. The Pulumi CLI prints it without a traceback."""


class DataClass(StrEnum):
    """Classification that every resource carries as a tag."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        rule = "must be an IPv4 network such as 10.20.0.0/16 ({reason})"
        raise PydanticCustomError("network", rule, {"reason": str(error)}) from None
    if ":" in text:
        raise PydanticCustomError("network", "must be an IPv4 network, not IPv6")
    return text


def _gpu_instance(name: str) -> str:
    if instance_family(name) not in GPU_FAMILIES:
        families = ", ".join(sorted(GPU_FAMILIES))
        raise PydanticCustomError(
            "gpu", "must be an instance type with NVIDIA GPUs (families {families})", {"families": families}
        )
    return name


Network = Annotated[str, AfterValidator(_network)]
RoleArn = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$")]
AddonVersion = Annotated[str, StringConstraints(pattern=r"^v\d+\.\d+\.\d+-eksbuild\.\d+$")]
ImageDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\w .:/=+@-]+$")]


class Settings(BaseModel):
    """One stack's configuration. Field names are the snake_case of the configuration keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_default=True)

    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    account_id: Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
    owner: TagValue
    cost_centre: TagValue
    data_class: DataClass = DataClass.CONFIDENTIAL
    profile: Profile = Profile.RECOMMENDED

    domain: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$", max_length=64)]
    """Name under which the load balancer is reached, such as ``trading.example.com``."""
    hosted_zone_id: Annotated[str, StringConstraints(pattern=r"^Z[A-Z0-9]{4,31}$")]
    """Public Route 53 zone that holds ``domain``."""

    vpc_cidr: Network
    availability_zones: Annotated[tuple[str, ...], Field(min_length=3, max_length=8)]
    service_cidr: Network = "172.20.0.0/16"
    """Addresses of Kubernetes Services; seen only inside the cluster."""
    reserved_cidrs: tuple[Network, ...] = ()
    """Networks elsewhere (offices, peers) that the VPC must never overlap."""
    public_source_ranges: Annotated[tuple[Network, ...], Field(min_length=1)] = ("0.0.0.0/0",)
    """Who may reach port 443."""
    trusted_source_ranges: Annotated[tuple[Network, ...], Field(min_length=1)] = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
    )
    """Who may reach the services' own ports 8000 and 8001."""

    cluster_admin_role_arns: Annotated[tuple[RoleArn, ...], Field(min_length=1)]
    cluster_viewer_role_arns: tuple[RoleArn, ...] = ()
    cluster_public_access_cidrs: tuple[Network, ...] = ()
    """Empty keeps the Kubernetes API private."""
    github_repository: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Repository whose pull requests may preview this stack, as ``owner/name``."""

    gpu_nodes: bool = True
    gpu_instance_type: Annotated[str, AfterValidator(_gpu_instance)] | None = None
    cpu_instance_type: str | None = None
    scale_to_zero_outside_hours: bool = False
    working_hours_time_zone: str = "Etc/UTC"

    alarm_emails: Annotated[tuple[Email, ...], Field(min_length=1)]
    monthly_budget_usd: Annotated[int, Field(ge=100, le=1_000_000)]

    strategic_image_digest: ImageDigest | None = None
    tactical_image_digest: ImageDigest | None = None
    gateway_image_digest: ImageDigest | None = None
    """Images that exist already, deployed instead of building: a rollback, or what staging has proven."""

    kubernetes_version: Annotated[str, StringConstraints(pattern=r"^1\.\d{2}$")]
    cpu_ami_release: Annotated[str, StringConstraints(pattern=r"^1\.\d{2}\.\d+-\d{8}$")]
    gpu_ami_release: Annotated[str, StringConstraints(pattern=r"^1\.\d{2}\.\d+-\d{8}$")]
    addon_vpc_cni: AddonVersion
    addon_coredns: AddonVersion
    addon_kube_proxy: AddonVersion
    addon_ebs_csi: AddonVersion
    addon_pod_identity_agent: AddonVersion
    addon_metrics_server: AddonVersion
    addon_cloudwatch_observability: AddonVersion


Problem = tuple[str, object, str]
"""Configuration key, its value, and the rule that it breaks."""


def _zones_in_region(settings: Settings) -> list[Problem]:
    zones = settings.availability_zones
    problems: list[Problem] = [
        ("availabilityZones", zone, f"must be a zone of {settings.region}, such as {settings.region}a")
        for zone in zones
        if zone[:-1] != settings.region or not "a" <= zone[-1:] <= "h"
    ]
    if len(set(zones)) != len(zones):
        problems.append(("availabilityZones", list(zones), "must not name a zone twice"))
    return problems


def _vpc_size(settings: Settings) -> list[Problem]:
    prefix = ip_network(settings.vpc_cidr).prefixlen
    if 16 <= prefix <= 20:
        return []
    return [
        (
            "vpcCidr",
            settings.vpc_cidr,
            "must be a /16 to /20: smaller leaves no room for pods, larger is refused by AWS",
        )
    ]


def _no_overlap_with_vpc(settings: Settings) -> list[Problem]:
    vpc = ip_network(settings.vpc_cidr)
    others = {"serviceCidr": (settings.service_cidr,), "reservedCidrs": settings.reserved_cidrs}
    return [
        (key, other, f"must not overlap vpcCidr {settings.vpc_cidr}")
        for key, networks in others.items()
        for other in networks
        if vpc.overlaps(ip_network(other))
    ]


def _no_overlap_within(settings: Settings) -> list[Problem]:
    lists = {
        "publicSourceRanges": settings.public_source_ranges,
        "trustedSourceRanges": settings.trusted_source_ranges,
        "clusterPublicAccessCidrs": settings.cluster_public_access_cidrs,
    }
    return [
        (key, second, f"must not overlap {first}, which is listed too")
        for key, networks in lists.items()
        for index, first in enumerate(networks)
        for second in networks[index + 1 :]
        if ip_network(first).overlaps(ip_network(second))
    ]


def _trusted_means_trusted(settings: Settings) -> list[Problem]:
    return [
        (key, network, "must not be open to the world: list the networks that need it")
        for key, networks in {
            "trustedSourceRanges": settings.trusted_source_ranges,
            "clusterPublicAccessCidrs": settings.cluster_public_access_cidrs,
        }.items()
        for network in networks
        if ip_network(network).prefixlen < 8
    ]


def _profile_has_its_gpu(settings: Settings) -> list[Problem]:
    if settings.gpu_nodes or settings.profile == Profile.MINIMUM:
        return []
    return [
        (
            "gpuNodes",
            False,
            f"must be true: profile {settings.profile} trains on a GPU (only profile minimum may go without)",
        )
    ]


def _gpu_type_needs_gpu_nodes(settings: Settings) -> list[Problem]:
    if settings.gpu_instance_type is None or settings.gpu_nodes:
        return []
    return [("gpuInstanceType", settings.gpu_instance_type, "must be absent when gpuNodes is false")]


def _releases_match_kubernetes(settings: Settings) -> list[Problem]:
    releases = {"cpuAmiRelease": settings.cpu_ami_release, "gpuAmiRelease": settings.gpu_ami_release}
    return [
        (key, release, f"must be a release for kubernetesVersion {settings.kubernetes_version} (run: make pins)")
        for key, release in releases.items()
        if not release.startswith(f"{settings.kubernetes_version}.")
    ]


_RULES: tuple[Callable[[Settings], list[Problem]], ...] = (
    _zones_in_region,
    _vpc_size,
    _no_overlap_with_vpc,
    _no_overlap_within,
    _trusted_means_trusted,
    _profile_has_its_gpu,
    _gpu_type_needs_gpu_nodes,
    _releases_match_kubernetes,
)


def parse_settings(configuration: Mapping[str, str]) -> Settings:
    """Settings out of a stack's flat configuration.

    Args:
        configuration: fully qualified keys (``grandmodel:vpcCidr``, ``aws:region``) to text; lists are JSON, as Pulumi
            hands them over.

    Raises:
        SettingsError: with one line for every wrong key.
    """
    prefix = f"{PROJECT}:"
    values = {key.removeprefix(prefix): _decode(text) for key, text in configuration.items() if key.startswith(prefix)}
    lines = {_line(f"{prefix}region", values.pop("region"), f"is set by {REGION_KEY}")} if "region" in values else set()
    if REGION_KEY in configuration:
        values["region"] = configuration[REGION_KEY]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        lines.update(_line(_key(detail), detail.get("input"), _rule(detail)) for detail in error.errors())
        settings = _valid_part(values)
    for rule in _RULES:
        # A rule whose keys are themselves missing or wrong has nothing to say: those keys have their own line.
        with suppress(AttributeError):
            lines.update(_line(_qualified(key), value, text) for key, value, text in rule(settings))
    if lines:
        raise SettingsError("\n".join(sorted(lines)))
    return settings


def _valid_part(values: Mapping[str, Any]) -> Settings:
    """The fields that are valid by themselves; reading another one raises AttributeError."""
    valid: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        value = values.get(field.alias or name, field.default)
        annotation: Any = field.annotation
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        with suppress(ValidationError):
            valid[name] = TypeAdapter(annotation).validate_python(value)
    partial = Settings.model_construct(**valid)
    for name in Settings.model_fields.keys() - valid.keys():
        partial.__dict__.pop(name, None)
    return partial


def _decode(text: str) -> Any:  # noqa: ANN401 -- configuration is text of any shape until it is validated
    if text[:1] in "[{" and text:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _key(detail: ErrorDetails) -> str:
    return _qualified(str(detail["loc"][0]))


def _qualified(key: str) -> str:
    return REGION_KEY if key == "region" else f"{PROJECT}:{key}"


def _rule(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known key (Pulumi.yaml lists them)"
        case _:
            return detail["msg"]


def _line(key: str, value: object, rule: str) -> str:
    shown = (
        "" if value is None or rule == "is required" else f" = {json.dumps(value, default=str)[:_SHOWN_VALUE_LENGTH]}"
    )
    return f"{key}{shown}: {rule}"
