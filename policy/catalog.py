"""All rules of the pack."""

from __future__ import annotations

from policy.rule import Rule
from policy.rules import (
    at_rest,
    compute,
    data_stores,
    exposure,
    identity,
    kubernetes_objects,
    kubernetes_pods,
    kubernetes_rbac,
    monitoring,
    network,
    resilience,
    storage,
    supply,
    transport,
)

CONCERNS = {
    "Transport": transport.RULES,
    "At rest": at_rest.RULES,
    "Exposure": exposure.RULES,
    "Network": network.RULES,
    "Identity": identity.RULES,
    "Compute": compute.RULES,
    "Data stores": data_stores.RULES,
    "Storage, images and secrets": storage.RULES,
    "Resilience": resilience.RULES,
    "Monitoring": monitoring.RULES,
    "Kubernetes pods": kubernetes_pods.RULES,
    "Kubernetes objects": kubernetes_objects.RULES,
    "Kubernetes rights": kubernetes_rbac.RULES,
    "Supply and cost": supply.RULES,
}
"""The rules by concern, in the order of the documentation."""

RULES: tuple[Rule, ...] = tuple(rule for rules in CONCERNS.values() for rule in rules)
