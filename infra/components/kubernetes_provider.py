"""The one way to the cluster: everything inside it is declared through this provider and no other."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from infra.components.cluster import Cluster


def kubernetes_provider(
    name: str, cluster: Cluster, *, region: str, opts: pulumi.ResourceOptions
) -> kubernetes.Provider:
    """Provider for ``cluster``, signed in by a short-lived token of whoever runs Pulumi.

    ``cluster_identifier`` keeps a change of endpoint or certificate from replacing every object (pulumi-eks#764,
    pulumi-kubernetes#4019); the kubeconfig is given, so nothing ever lands on an ambient one. Objects that exist
    already are an error, never taken over.
    """
    return kubernetes.Provider(
        name,
        cluster_identifier=cluster.arn,
        kubeconfig=pulumi.Output.json_dumps(kubeconfig(cluster, region)),
        enable_server_side_apply=True,
        enable_patch_force=False,
        # Ours that roll pods are immutable and named anew; the others are read again by who mounts them.
        enable_config_map_mutable=True,
        upsert_existing_objects=False,
        # An unreachable cluster is an error to look at, not a reason to forget what is in it.
        delete_unreachable=False,
        skip_update_unreachable=False,
        suppress_helm_hook_warnings=False,
        opts=opts,
    )


def kubeconfig(cluster: Cluster, region: str) -> dict[str, Any]:
    """A kubeconfig without a credential in it: ``aws eks get-token`` makes one for fifteen minutes."""
    name = "grandmodel"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": cluster.endpoint,
                    "certificate-authority-data": cluster.certificate_authority,
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [
            {
                "name": name,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": "aws",
                        "args": [
                            *("eks", "get-token", "--output", "json", "--region", region),
                            *("--cluster-name", cluster.name),
                        ],
                        "interactiveMode": "Never",
                        "provideClusterInfo": False,
                    }
                },
            }
        ],
    }
