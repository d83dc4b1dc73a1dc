"""The few things that the commands do in Kubernetes: read, scale and re-image Deployments."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from app.contract import NAMESPACE, SERVICES, Service
from ops.errors import OpsError

PATCH_TYPE: Final = "application/strategic-merge-patch+json"
"""Merges the containers of a pod by name; any other kind of patch would replace them all."""
REPLICAS_ANNOTATION: Final = "grandmodel/replicas-before-shutdown"
_REVISION_ANNOTATION: Final = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Revision:
    """One rolled-out version of a workload."""

    number: int
    image: str


@dataclass(frozen=True)
class Workload:
    """A Deployment as it stands."""

    service: Service
    namespace: str
    replicas: int
    ready: int
    image: str
    waits_for: str | None
    """What its rollout still waits for; None when every pod runs what the Deployment says."""
    stuck: bool = False
    """Whether Kubernetes gave the rollout up."""


class Cluster:
    """A cluster, by a context of the kubeconfig.

    Deployments carry their service's name, in the namespace of the contract.
    """

    def __init__(self, context: str | None) -> None:
        """Read the kubeconfig.

        Raises:
            OpsError: when there is no kubeconfig, or no such context in it.
        """
        try:
            api = config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
            named = context or config.list_kube_config_contexts()[1]["name"]  # type: ignore[no-untyped-call]
        except (ConfigException, OSError, TypeError) as error:
            raise OpsError(f"kubeconfig: {str(error).splitlines()[0]}") from None
        self._apps = client.AppsV1Api(api)
        self.context = str(named)
        """What the kubeconfig calls the cluster."""

    def workload(self, service: Service) -> Workload:
        """A service's Deployment."""
        deployment = self._call(f"read {service}", self._apps.read_namespaced_deployment, service, NAMESPACE)
        return Workload(
            service=service,
            namespace=deployment.metadata.namespace,
            replicas=deployment.spec.replicas or 0,
            ready=deployment.status.ready_replicas or 0,
            image=_image(deployment.spec.template.spec, service),
            waits_for=_waits_for(deployment),
            stuck=any(
                condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded"
                for condition in deployment.status.conditions or ()
            ),
        )

    def revisions(self, service: Service) -> list[Revision]:
        """What was rolled out, oldest first, as far as Kubernetes keeps it."""
        selector = f"app.kubernetes.io/name={service}"
        sets = self._call(
            f"list the revisions of {service}",
            self._apps.list_namespaced_replica_set,
            NAMESPACE,
            label_selector=selector,
        )
        revisions = {
            int(item.metadata.annotations[_REVISION_ANNOTATION]): _image(item.spec.template.spec, service)
            for item in sets.items
            if _REVISION_ANNOTATION in (item.metadata.annotations or {})
        }
        return [Revision(number, revisions[number]) for number in sorted(revisions)]

    def set_image(self, service: Service, image: str) -> None:
        """Roll a Deployment over to ``image``, by digest."""
        container = {"name": service.value, "image": image}
        self._patch(service, {"spec": {"template": {"spec": {"containers": [container]}}}})

    def scale_to_zero(self, service: Service) -> int:
        """Stop a Deployment, noting on it how many replicas it had; returns that number."""
        replicas = self.workload(service).replicas
        if replicas:
            annotations = {REPLICAS_ANNOTATION: str(replicas)}
            self._patch(service, {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}})
        return replicas

    def scale_back(self, service: Service) -> int:
        """Start a Deployment with the replicas that were noted on it, or one; its autoscaler takes over from there."""
        deployment = self._call(f"read {service}", self._apps.read_namespaced_deployment, service, NAMESPACE)
        noted = (deployment.metadata.annotations or {}).get(REPLICAS_ANNOTATION, "1")
        self._patch(
            service, {"metadata": {"annotations": {REPLICAS_ANNOTATION: None}}, "spec": {"replicas": int(noted)}}
        )
        return int(noted)

    def wait_rolled_out(self, service: Service, *, timeout: float = 300.0, pause: float = 2.0) -> Workload:
        """Wait until every pod runs what the Deployment says, and is ready.

        Raises:
            OpsError: when they are not within ``timeout`` seconds, or Kubernetes gives up.
        """
        deadline = time.monotonic() + timeout
        while True:
            workload = self.workload(service)
            if workload.waits_for is None:
                return workload
            if workload.stuck or time.monotonic() > deadline:
                when = "Kubernetes gave up" if workload.stuck else f"not there after {timeout:g} s"
                raise OpsError(f"{service}: {when}: {workload.waits_for}")
            time.sleep(pause)

    def _patch(self, service: Service, body: dict[str, Any]) -> None:
        self._call(
            f"change {service}",
            self._apps.patch_namespaced_deployment,
            service,
            NAMESPACE,
            body,
            _content_type=PATCH_TYPE,
        )

    @staticmethod
    def _call(what: str, method: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- generated client
        try:
            return method(*arguments, **options, _request_timeout=30)
        except ApiException as error:
            raise OpsError(f"cannot {what}: Kubernetes answers {error.status} {error.reason}") from None
        except HTTPError as error:
            raise OpsError(f"cannot {what}: the cluster cannot be reached: {type(error).__name__}") from None


def _image(pod: Any, service: Service) -> str:  # noqa: ANN401 -- generated client
    """Image of the service's own container, which is called as the service."""
    return next(str(container.image) for container in pod.containers if container.name == service)


def _waits_for(deployment: Any) -> str | None:  # noqa: ANN401 -- generated client
    """As ``kubectl rollout status`` judges: pods that are ready may be the old ones."""
    wanted, status = deployment.spec.replicas or 0, deployment.status
    updated, total = status.updated_replicas or 0, status.replicas or 0
    available = status.available_replicas or 0
    if (status.observed_generation or 0) < (deployment.metadata.generation or 0):
        return "the change is not yet seen"
    if updated < wanted:
        return f"{updated} of {wanted} pods are new"
    if total > updated:
        return f"{total - updated} old pods still run"
    return f"{available} of {updated} pods are ready" if available < updated else None


def all_services() -> tuple[Service, ...]:
    """Both services, in the order in which they are stopped."""
    return tuple(contract.service for contract in SERVICES)
