"""A strict stand-in for the API server: the part of ``apps/v1`` that the commands use, over HTTP.

No package ships an API server, so this one refuses whatever a real one would: unknown paths and query parameters,
patches of the wrong media type, objects that its version's schema does not take, verbs that were not granted. Its
Deployments are those of the captured estate. A rollout takes several reads, and old pods count as ready while it lasts,
as they do in a cluster.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

from app.contract import NAMESPACE

STRATEGIC_MERGE: Final = "application/strategic-merge-patch+json"
_BASE: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}"
_DEPLOYMENT: Final = re.compile(rf"^{_BASE}/deployments/([a-z0-9-]+)$")
_REPLICA_SETS: Final = f"{_BASE}/replicasets"
_MERGE_KEYS: Final = {"containers": "name", "volumes": "name", "env": "name"}
_STEPS: Final = 3
"""Reads that a rollout takes: it is seen, new pods come, old pods go."""


@dataclass
class Rollout:
    """A Deployment, what is left of its rollout, and the images that it had."""

    deployment: dict[str, Any]
    steps_left: int = 0
    before: int = 0
    revisions: list[str] = field(default_factory=list)


class KubernetesApi(HTTPServer):
    """Deployments by name; ``verbs`` are what the caller may do."""

    def __init__(self, deployments: Mapping[str, Mapping[str, Any]], version: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version = version
        self.verbs = {"get", "list", "patch"}
        self.never_ready = False
        """Whether new pods crash: Kubernetes then gives the rollout up."""
        self.requests: list[tuple[str, str]] = []
        self.patches: list[tuple[str, Any]] = []
        self.refusals: list[str] = []
        """What a real server would have answered with 400, 404, 415 or 422: always a mistake of the commands."""
        self.rollouts = {name: Rollout(copy.deepcopy(dict(found))) for name, found in deployments.items()}

    def replicas(self) -> dict[str, int]:
        return {name: rollout.deployment["spec"]["replicas"] for name, rollout in self.rollouts.items()}

    def image(self, name: str) -> str:
        [container] = self.rollouts[name].deployment["spec"]["template"]["spec"]["containers"]
        return str(container["image"])

    def read(self, name: str) -> dict[str, Any]:
        """The Deployment now; a rollout goes on by one step."""
        rollout = self.rollouts[name]
        document = copy.deepcopy(rollout.deployment)
        document["status"] = self._status(rollout)
        if rollout.steps_left and not (self.never_ready and rollout.steps_left < _STEPS):
            rollout.steps_left -= 1
        return document

    def _status(self, rollout: Rollout) -> dict[str, Any]:
        generation, wanted = rollout.deployment["metadata"]["generation"], rollout.deployment["spec"]["replicas"]
        done, seen = rollout.steps_left == 0, rollout.steps_left < _STEPS
        given_up = seen and not done and self.never_ready
        reason = "ProgressDeadlineExceeded" if given_up else "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
        return {
            "observedGeneration": generation if seen else generation - 1,
            "replicas": wanted if done else rollout.before + 1,
            # The old pods are ready all along.
            "readyReplicas": wanted if done else rollout.before,
            "availableReplicas": wanted if done else rollout.before,
            "updatedReplicas": wanted if done else 1 if seen else 0,
            "conditions": [
                {"type": "Progressing", "status": "False" if given_up else "True", "reason": reason, "message": ""}
            ],
        }

    def patch(self, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge strategically, judge, and begin a rollout.

        Raises:
            kubernetes_validate.ValidationError: the result is no Deployment of this version.
        """
        rollout = self.rollouts[name]
        changed = merged(rollout.deployment, change)
        kubernetes_validate.validate(changed, self.version, strict=True)
        rollout.revisions.append(self.image(name))
        rollout.before = rollout.deployment["spec"]["replicas"]
        changed["metadata"]["generation"] += 1
        rollout.deployment, rollout.steps_left = changed, _STEPS
        self.patches.append((name, change))
        return self.read(name)

    def replica_sets(self, name: str) -> list[dict[str, Any]]:
        rollout = self.rollouts[name]
        sets = []
        for number, image in enumerate([*rollout.revisions, self.image(name)], start=1):
            template = copy.deepcopy(rollout.deployment["spec"]["template"])
            template["spec"]["containers"][0]["image"] = image
            metadata = {
                "name": f"{name}-{number}",
                "namespace": NAMESPACE,
                "annotations": {"deployment.kubernetes.io/revision": str(number)},
            }
            selector = rollout.deployment["spec"]["selector"]
            sets.append({"metadata": metadata, "spec": {"selector": selector, "template": template}})
        return sets


def merged(before: Any, change: Any, key: str = "") -> Any:
    """A strategic merge: mappings by key, null removes, lists of named things by name, other lists as a whole."""
    if isinstance(change, Mapping) and isinstance(before, Mapping):
        result = dict(before)
        for name, value in change.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = merged(before.get(name), value, name)
        return result
    if isinstance(change, list) and isinstance(before, list) and key in _MERGE_KEYS:
        merge_key = _MERGE_KEYS[key]
        named = {item[merge_key]: item for item in before}
        for item in change:
            named[item[merge_key]] = merged(named.get(item[merge_key], {}), item)
        return list(named.values())
    return copy.deepcopy(change)


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesApi

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        self.server.requests.append(("GET", self.path))
        if match := _DEPLOYMENT.match(address.path):
            if self._permitted("get") and self._known(match[1]) and self._no_more(set(query)):
                self._answer(200, self.server.read(match[1]))
        elif address.path == _REPLICA_SETS:
            if self._permitted("list") and self._no_more(set(query) - {"labelSelector"}):
                self._list(query.get("labelSelector", [""])[0])
        else:
            self._refuse(404, f"the server could not find {address.path}")

    def _list(self, selector: str) -> None:
        label, _, name = selector.partition("=")
        if label != "app.kubernetes.io/name" or name not in self.server.rollouts:
            self._refuse(400, f"the selector {selector!r} matches nothing of the estate")
            return
        kind = {"apiVersion": "apps/v1", "kind": "ReplicaSetList", "metadata": {"resourceVersion": "1"}}
        self._answer(200, {**kind, "items": self.server.replica_sets(name)})

    def do_PATCH(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(("PATCH", self.path))
        match = _DEPLOYMENT.match(address.path)
        if match is None:
            self._refuse(404, f"the server could not find {address.path}")
        elif self.headers["Content-Type"] != STRATEGIC_MERGE:
            self._refuse(415, f"the body was sent as {self.headers['Content-Type']}")
        elif self._permitted("patch") and self._known(match[1]) and self._no_more(set(parse_qs(address.query))):
            try:
                self._answer(200, self.server.patch(match[1], json.loads(body)))
            except kubernetes_validate.ValidationError as error:
                self._refuse(422, error.message)

    def _permitted(self, verb: str) -> bool:
        if verb not in self.server.verbs:
            self._status(403, "Forbidden", f'User "on-call" cannot {verb} this resource')
            return False
        return True

    def _known(self, name: str) -> bool:
        if name not in self.server.rollouts:
            self._refuse(404, f'deployments.apps "{name}" not found')
            return False
        return True

    def _no_more(self, parameters: set[str]) -> bool:
        if parameters:
            self._refuse(400, f"unknown query parameters {sorted(parameters)}")
            return False
        return True

    def _refuse(self, status: int, message: str) -> None:
        self.server.refusals.append(message)
        self._status(status, "Invalid", message)

    def _status(self, status: int, reason: str, message: str) -> None:
        kind = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
        self._answer(status, {**kind, "code": status, "reason": reason, "message": message})

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
