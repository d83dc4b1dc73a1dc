"""The engine's side of the conversation with a Pulumi program, in process and without a cloud.

It extends the SDK's mock monitor in what that leaves out: URNs with the whole chain of parent types, duplicate URNs as
errors, unknown outputs down to the last nested field, transforms, Kubernetes auto-naming, and invokes that fail loudly
where nobody can answer them.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.message import Message
from pulumi.runtime._callbacks import _CallbackServicer
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import callback_pb2, resource_pb2

from infra.preview import wire
from infra.preview.errors import WrongInput
from infra.preview.invokes import Answer, answer
from infra.preview.model import STACK_TYPE
from infra.preview.outputs import Identity, auto_name, plan

_Response = TypeVar("_Response", bound=Message)
Invoke = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Registration:
    """One resource as the program registered it, in the protocol's own form; secrets are still in it."""

    urn: str
    request: resource_pb2.RegisterResourceRequest
    outputs: struct_pb2.Struct
    id: str = ""
    read: bool = False
    registered_outputs: struct_pb2.Struct = field(default_factory=struct_pb2.Struct)


class EstateMonitor(MockMonitor):
    """Records what a program registers.

    Args:
        project: the project's name, for URNs.
        stack: the stack's name, for URNs.
        region: the default AWS region, for placeholders and invokes.
        resolved: whether outputs are placeholders (as after an update) or unknown (as in a first preview).
        invokes: answers to invokes that need the cloud, by token: the answer itself, or a function of the arguments.
    """

    def __init__(
        self,
        *,
        project: str,
        stack: str,
        region: str,
        resolved: bool,
        invokes: Mapping[str, Invoke | Mapping[str, Any]] | None = None,
    ) -> None:
        self.project, self.stack, self.region, self.resolved = project, stack, region, resolved
        self.invokes = dict(invokes or {})
        self.registrations: dict[str, Registration] = {}
        self._stack_callbacks: list[str] = []
        self._invoke_callbacks: list[str] = []
        self._lock = threading.Lock()

    @property
    def runs_callbacks(self) -> bool:
        """Whether the program has registered anything that is called back on its event loop."""
        return bool(_CallbackServicer._servicers)  # noqa: SLF001 - the SDK offers no other way to ask

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """The URN of a resource; unlike the mock monitor's it keeps the types of all its ancestors."""
        qualified = parent.split("::")[2] if parent else ""
        chain = f"{qualified}${type_}" if qualified and qualified != STACK_TYPE else type_
        return f"urn:pulumi:{self.stack}::{self.project}::{chain}::{name}"

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:  # noqa: N802
        """Record a resource and answer with what is known of it."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.remote:
            raise WrongInput(
                f"{urn}: a component of another language cannot be previewed offline: declare its resources natively"
            )
        request = self._transformed(request)
        if not request.custom:
            self._record(Registration(urn, request, struct_pb2.Struct()))
            return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)
        identity = Identity(urn, request.type, request.name, self.region, self.resolved)
        auto_name(identity, request.object)
        planned = plan(
            identity,
            request.object,
            secret_outputs=tuple(request.additionalSecretOutputs),
            default_tags=self._default_tags(request.provider),
        )
        resource_id = request.importId or (identity.physical_id if self.resolved else "")
        self._record(Registration(urn, request, planned.judged, resource_id))
        return resource_pb2.RegisterResourceResponse(urn=urn, id=resource_id, object=planned.program)

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:  # noqa: N802
        """Record a looked-up resource. Its state is in the cloud, so every property of it is unknown."""
        urn = self.make_urn(request.parent, request.type, request.name)
        identity = Identity(urn, request.type, request.name, self.region, self.resolved)
        planned = plan(identity, request.properties, secret_outputs=tuple(request.additionalSecretOutputs))
        registered = resource_pb2.RegisterResourceRequest(
            type=request.type,
            name=request.name,
            parent=request.parent,
            custom=True,
            object=request.properties,
            provider=request.provider,
        )
        registered.dependencies.extend(request.dependencies)
        self._record(Registration(urn, registered, planned.judged, request.id, read=True))
        return resource_pb2.ReadResourceResponse(urn=urn, properties=planned.program)

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:  # noqa: N802
        """Record what a component, or the stack, exports."""
        with self._lock:
            self.registrations[request.urn].registered_outputs.CopyFrom(request.outputs)
        return empty_pb2.Empty()

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:  # noqa: N802
        """Answer a provider function, or fail with its token and arguments.

        Raises:
            WrongInput: nobody can answer without asking a cloud.
        """
        arguments = request.args
        for token in self._invoke_callbacks:
            transform = resource_pb2.TransformInvokeRequest(token=request.tok, args=arguments)
            arguments = self._call_back(token, transform, resource_pb2.TransformInvokeResponse).args
        response = resource_pb2.ResourceInvokeResponse()
        if request.tok == "pulumi:pulumi:getResource":
            registration = self.registrations[str(arguments["urn"])]
            state = {"urn": registration.urn, "id": registration.id, "state": wire.to_model(registration.outputs)}
            getattr(response, "return").CopyFrom(wire.to_wire(state).struct_value)
            return response
        given = wire.to_model(arguments)
        fixture = self.invokes.get(request.tok)
        result = fixture(given) if callable(fixture) else fixture
        if result is None:
            found = answer(request.tok, given, self.region)
            result = found.value if isinstance(found, Answer) else None
        if result is None:
            raise WrongInput(
                f"the program asks the cloud: {request.tok}({json.dumps(given, sort_keys=True)}): "
                "an offline preview cannot answer; pin the answer in the stack's configuration"
            )
        getattr(response, "return").CopyFrom(wire.to_wire(result).struct_value)
        return response

    def RegisterStackTransform(self, request: callback_pb2.Callback) -> empty_pb2.Empty:  # noqa: N802
        """Remember a transform for every resource of the stack."""
        self._stack_callbacks.append(request.token)
        return empty_pb2.Empty()

    def RegisterStackInvokeTransform(self, request: callback_pb2.Callback) -> empty_pb2.Empty:  # noqa: N802
        """Remember a transform for every invoke of the stack."""
        self._invoke_callbacks.append(request.token)
        return empty_pb2.Empty()

    def _record(self, registration: Registration) -> None:
        with self._lock:
            if registration.urn in self.registrations:
                raise WrongInput(f"duplicate resource URN {registration.urn}: give one of the two another name")
            self.registrations[registration.urn] = registration

    def _default_tags(self, provider: str) -> Mapping[str, str]:
        """The tags that an explicit provider puts on every resource; a provider's inputs are JSON texts."""
        registration = self.registrations.get(provider.rpartition("::")[0])
        if registration is None or "defaultTags" not in registration.request.object.fields:
            return {}
        try:
            tags = json.loads(registration.request.object.fields["defaultTags"].string_value)["tags"]
        except (ValueError, KeyError, TypeError):
            return {}
        return {str(key): str(value) for key, value in tags.items()}

    def _transformed(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceRequest:
        """``request`` after its own transforms, those of its ancestors from the nearest, and the stack's."""
        tokens = [callback.token for callback in request.transforms]
        parent = request.parent
        while parent and (ancestor := self.registrations.get(parent)):
            tokens.extend(callback.token for callback in ancestor.request.transforms)
            parent = ancestor.request.parent
        tokens.extend(self._stack_callbacks)
        if not tokens or request.type == STACK_TYPE:
            return request
        result = resource_pb2.RegisterResourceRequest()
        result.CopyFrom(request)
        for token in tokens:
            transform = resource_pb2.TransformRequest(
                type=result.type,
                name=result.name,
                custom=result.custom,
                parent=result.parent,
                properties=result.object,
                options=_options(result),
            )
            response = self._call_back(token, transform, resource_pb2.TransformResponse)
            result.object.CopyFrom(response.properties)
            if response.HasField("options"):
                _apply_options(result, response.options)
        return result

    def _call_back(self, token: str, request: Message, response: type[_Response]) -> _Response:
        """Run one of the program's callbacks on its own event loop and wait for it; called from another thread only."""
        for servicer in list(_CallbackServicer._servicers):  # noqa: SLF001
            if (callback := servicer._callbacks.get(token)) is not None:  # noqa: SLF001
                pending = callback(request.SerializeToString())
                return asyncio.run_coroutine_threadsafe(pending, servicer._loop).result()  # type: ignore[arg-type]  # noqa: SLF001
        raise WrongInput(f"the program registered a callback {token} for {response.__name__} that it does not serve")


_SHARED_OPTIONS = {
    "protect": "protect",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "version": "version",
    "aliases": "aliases",
    "provider": "provider",
    "custom_timeouts": "customTimeouts",
    "plugin_download_url": "pluginDownloadURL",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "additional_secret_outputs": "additionalSecretOutputs",
    "providers": "providers",
    "depends_on": "dependencies",
}


def _options(request: resource_pb2.RegisterResourceRequest) -> resource_pb2.TransformResourceOptions:
    options = resource_pb2.TransformResourceOptions()
    for theirs, ours in _SHARED_OPTIONS.items():
        _copy(request, ours, options, theirs)
    if request.deleteBeforeReplaceDefined:
        options.delete_before_replace = request.deleteBeforeReplace
    return options


def _apply_options(
    request: resource_pb2.RegisterResourceRequest, options: resource_pb2.TransformResourceOptions
) -> None:
    for theirs, ours in _SHARED_OPTIONS.items():
        request.ClearField(ours)  # type: ignore[arg-type]
        _copy(options, theirs, request, ours)
    request.deleteBeforeReplaceDefined = options.HasField("delete_before_replace")
    request.deleteBeforeReplace = options.delete_before_replace


def _copy(source: Message, source_field: str, target: Message, target_field: str) -> None:
    if any(descriptor.name == source_field for descriptor, _ in source.ListFields()):
        value = getattr(source, source_field)
        if isinstance(value, str | bool):
            setattr(target, target_field, value)
        else:
            getattr(target, target_field).MergeFrom(value)
