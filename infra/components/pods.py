"""What every pod of ours has in common: it is nobody, writes nowhere, and gets exactly what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_kubernetes.core import v1 as core

from infra.capacity import Amount
from infra.components.network_policies import NAME_LABEL

USER_ID: Final = 10001
"""User and group of every container of ours; the images are built for it."""
TMP: Final = "/tmp"  # noqa: S108 -- a volume of the pod's own
_TERMINATION_SLACK_SECONDS: Final = 10


@dataclass(frozen=True)
class FileMount:
    """A directory in the container: from a Secret, a ConfigMap, a SecretProviderClass, or of the pod's own."""

    name: str
    path: str
    secret: str | None = None
    config_map: pulumi.Input[str] | None = None
    secret_provider: str | None = None
    size_limit: str | None = None
    in_memory: bool = False

    def volume(self) -> core.VolumeArgs:
        """The pod's volume."""
        if self.secret is not None:
            source = core.SecretVolumeSourceArgs(secret_name=self.secret, default_mode=0o440)
            return core.VolumeArgs(name=self.name, secret=source)
        if self.config_map is not None:
            return core.VolumeArgs(name=self.name, config_map=core.ConfigMapVolumeSourceArgs(name=self.config_map))
        if self.secret_provider is not None:
            csi = core.CSIVolumeSourceArgs(
                driver="secrets-store.csi.k8s.io",
                read_only=True,
                volume_attributes={"secretProviderClass": self.secret_provider},
            )
            return core.VolumeArgs(name=self.name, csi=csi)
        own = core.EmptyDirVolumeSourceArgs(size_limit=self.size_limit, medium="Memory" if self.in_memory else None)
        return core.VolumeArgs(name=self.name, empty_dir=own)

    def mount(self) -> core.VolumeMountArgs:
        """The container's mount; only the pod's own directories can be written."""
        own = self.secret is None and self.config_map is None and self.secret_provider is None
        return core.VolumeMountArgs(name=self.name, mount_path=self.path, read_only=not own)


@dataclass(frozen=True)
class ContainerSpec:
    """One container. Requests equal limits, so that the kubelet gives whole cores for keeps (Guaranteed QoS)."""

    name: str
    image: pulumi.Input[str]
    resources: Amount
    command: Sequence[str] | None = None
    args: Sequence[str] | None = None
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: Sequence[FileMount] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    probes: Probes | None = None
    pre_stop_seconds: int = 0


@dataclass(frozen=True)
class Probes:
    """HTTPS probes on one port. The start-up probe alone may be slow: it holds the other two back."""

    port: int
    live_path: str
    ready_path: str
    startup_seconds: int = 120
    live_delay_seconds: int = 30
    live_period_seconds: int = 10
    ready_delay_seconds: int = 5
    ready_period_seconds: int = 5


def container(spec: ContainerSpec) -> core.ContainerArgs:
    """The container, hardened as Pod Security ``restricted`` demands, and then some."""
    probes = spec.probes
    return core.ContainerArgs(
        name=spec.name,
        image=spec.image,
        # By digest "Always" costs one manifest look-up and proves that the puller may still read the image.
        image_pull_policy="Always",
        command=list(spec.command) if spec.command else None,
        args=list(spec.args) if spec.args else None,
        env=[core.EnvVarArgs(name=key, value=value) for key, value in sorted(spec.environment.items())],
        ports=[core.ContainerPortArgs(name=name, container_port=port) for name, port in spec.ports.items()] or None,
        resources=core.ResourceRequirementsArgs(requests=quantities(spec.resources), limits=quantities(spec.resources)),
        startup_probe=_probe(probes.port, probes.live_path, 0, 2, probes.startup_seconds // 2) if probes else None,
        liveness_probe=_probe(probes.port, probes.live_path, probes.live_delay_seconds, probes.live_period_seconds, 3)
        if probes
        else None,
        readiness_probe=_probe(
            probes.port, probes.ready_path, probes.ready_delay_seconds, probes.ready_period_seconds, 2
        )
        if probes
        else None,
        lifecycle=core.LifecycleArgs(
            pre_stop=core.LifecycleHandlerArgs(sleep=core.SleepActionArgs(seconds=spec.pre_stop_seconds))
        )
        if spec.pre_stop_seconds
        else None,
        volume_mounts=[mount.mount() for mount in spec.files] or None,
        termination_message_policy="FallbackToLogsOnError",
        security_context=core.SecurityContextArgs(
            allow_privilege_escalation=False,
            privileged=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            run_as_user=USER_ID,
            run_as_group=USER_ID,
            capabilities=core.CapabilitiesArgs(drop=["ALL"]),
            seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
        ),
    )


def _probe(port: int, path: str, delay: int, period: int, failures: int) -> core.ProbeArgs:
    return core.ProbeArgs(
        http_get=core.HTTPGetActionArgs(path=path, port=port, scheme="HTTPS"),
        initial_delay_seconds=delay or None,
        period_seconds=period,
        timeout_seconds=5,
        failure_threshold=failures,
    )


def quantities(amount: Amount) -> dict[str, str]:
    """Kubernetes quantities of ``amount``: whole cores as such, so that the static CPU manager pins them."""
    cores, rest = divmod(amount.millicores, 1000)
    gibibytes, odd = divmod(amount.mebibytes, 1024)
    return {
        "cpu": f"{amount.millicores}m" if rest else str(cores),
        "memory": f"{amount.mebibytes}Mi" if odd else f"{gibibytes}Gi",
        **({"nvidia.com/gpu": str(amount.gpus)} if amount.gpus else {}),
    }


@dataclass(frozen=True)
class PodSpec:
    """One pod of one container: where it may run, as whom, and how long it takes to leave."""

    container: ContainerSpec
    service_account: str
    priority_class: str
    node_selector: Mapping[str, str]
    tolerations: Sequence[core.TolerationArgs] = ()
    spread: bool = True
    """Over zones and nodes; pods that run alone have nothing to spread."""
    drain_seconds: int = 0
    restart_policy: str | None = None


def pod_template(
    labels: Mapping[str, str], selector: Mapping[str, str], spec: PodSpec, annotations: Mapping[str, str] | None = None
) -> core.PodTemplateSpecArgs:
    """The pod template; ``selector`` is the part of ``labels`` that tells these pods from all others."""
    return core.PodTemplateSpecArgs(
        metadata=kubernetes.meta.v1.ObjectMetaArgs(labels=dict(labels), annotations=annotations),
        spec=core.PodSpecArgs(
            service_account_name=spec.service_account,
            automount_service_account_token=False,
            enable_service_links=False,
            priority_class_name=spec.priority_class,
            node_selector=dict(spec.node_selector),
            tolerations=list(spec.tolerations) or None,
            topology_spread_constraints=[_spread(key, selector) for key in _SPREAD] if spec.spread else None,
            restart_policy=spec.restart_policy,
            termination_grace_period_seconds=(
                spec.container.pre_stop_seconds + spec.drain_seconds + _TERMINATION_SLACK_SECONDS
            ),
            host_network=False,
            host_pid=False,
            host_ipc=False,
            security_context=core.PodSecurityContextArgs(
                run_as_non_root=True,
                run_as_user=USER_ID,
                run_as_group=USER_ID,
                fs_group=USER_ID,
                fs_group_change_policy="OnRootMismatch",
                seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
            ),
            containers=[container(spec.container)],
            volumes=[mount.volume() for mount in spec.container.files] or None,
        ),
    )


_SPREAD: Final = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")


def _spread(key: str, selector: Mapping[str, str]) -> core.TopologySpreadConstraintArgs:
    return core.TopologySpreadConstraintArgs(
        max_skew=1,
        topology_key=key,
        when_unsatisfiable="ScheduleAnyway",
        label_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels=dict(selector)),
        match_label_keys=["pod-template-hash"],
    )


def labels_of(name: str, component: str, common: Mapping[str, str]) -> dict[str, str]:
    """The recommended labels (Kubernetes documentation, "Recommended Labels")."""
    return {**common, NAME_LABEL: name, "app.kubernetes.io/component": component}


def selector_of(name: str) -> dict[str, str]:
    """What selects the pods of ``name`` and no others."""
    return {NAME_LABEL: name}
