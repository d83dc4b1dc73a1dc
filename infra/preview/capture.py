"""Run the program against the in-process monitor and hold on to what it declares.

The program runs as the CLI's language host runs it: ``runpy`` over the project's ``main``, inside a fresh stack
resource, with configuration, project and stack set. Nothing in it can tell the difference, and nothing in it may ask.
"""

from __future__ import annotations

import asyncio
import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import mocks, rpc_manager, settings
from pulumi.runtime import resource as runtime_resource
from pulumi.runtime import stack as runtime_stack
from pulumi.runtime.proto import source_pb2

from infra.preview import wire
from infra.preview.configuration import Configuration, load_configuration
from infra.preview.errors import WrongInput
from infra.preview.model import STACK_TYPE, Capture, Mode, Resource, Value
from infra.preview.monitor import EstateMonitor, Invoke, Registration

REDACTABLE_LENGTH = 6  # shorter texts ("true", "5432") would blank out half a report


@dataclass(frozen=True)
class Run:
    """A finished run: the estate for everybody, and the protocol's own form, secrets and all, for the policies.

    ``secrets`` are the texts that stood inside secrets; ``redact`` removes them from anything that is about to be
    written.
    """

    capture: Capture
    configuration: Configuration
    registrations: tuple[Registration, ...] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)

    def redact(self, text: str) -> str:
        """``text`` without any secret in it, whatever way it got there."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return text


def capture(
    stack: str,
    *,
    resolved: bool = False,
    config_dir: Path | None = None,
    program: Path | None = None,
    invokes: Mapping[str, Invoke | Mapping[str, Any]] | None = None,
) -> Capture:
    """The estate that the program declares for ``stack``.

    Args:
        stack: the stack's name; its file is ``Pulumi.<stack>.yaml``.
        resolved: False for a first preview, in which computed outputs are unknown; True for the estate as after an
            update, in which
            each computed output is a typed placeholder.
        config_dir: where ``Pulumi.yaml`` and the stack's file are; the repository's root by default.
        program: the program's folder or file; the project's ``main`` by default.
        invokes: answers to provider functions by token.

    Raises:
        WrongInput: the configuration is wrong, or the program needs what an offline preview cannot give.
        pulumi.RunError: the program refused its settings.
    """
    configuration = load_configuration(stack, config_dir or repository_root(), program=program)
    return run(configuration, resolved=resolved, invokes=invokes).capture


def repository_root() -> Path:
    """The folder of ``Pulumi.yaml``, found from this file."""
    return Path(__file__).resolve().parents[2]


def run(
    configuration: Configuration, *, resolved: bool, invokes: Mapping[str, Invoke | Mapping[str, Any]] | None = None
) -> Run:
    """Run the program once. Raises what ``capture`` raises."""
    monitor = EstateMonitor(
        project=configuration.project,
        stack=configuration.stack,
        region=configuration.region,
        resolved=resolved,
        invokes=invokes,
    )
    notices: list[str] = []
    # The SDK keeps its state in context variables: a copied context leaves no trace in the caller's.
    copy_context().run(_run_program, configuration, monitor, resolved, notices)
    registrations = tuple(monitor.registrations[urn] for urn in sorted(monitor.registrations))
    secrets = frozenset(
        text for text in _secret_texts(registrations) if len(text) >= REDACTABLE_LENGTH and text != "[secret]"
    )
    mode: Mode = "resolved" if resolved else "preview"
    stack_outputs = next(r.registered_outputs for r in registrations if r.request.type == STACK_TYPE)
    captured = Capture(
        project=configuration.project,
        stack=configuration.stack,
        mode=mode,
        resources=tuple(_resource(registration, configuration) for registration in registrations),
        outputs=wire.to_model(stack_outputs),
        config=configuration.shown,
        secret_config=configuration.secret_keys,
        notices=tuple(sorted(set(notices))),
    )
    return Run(captured, configuration, registrations, secrets)


class _InlineExecutor(ThreadPoolExecutor):
    """Answers in the caller's thread: the monitor never waits, and a thread hop costs more than its answer.

    Once the program has registered a transform this runs in a thread after all, since the callback needs the program's
    event loop.
    """

    def __init__(self, monitor: EstateMonitor) -> None:
        super().__init__(max_workers=4)
        self._monitor = monitor

    def submit(self, fn: Callable[..., Any], /, *args: object, **kwargs: object) -> Future[Any]:
        if self._monitor.runs_callbacks:
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future carries it to whoever awaits it
            future.set_exception(error)
        return future


def _run_program(configuration: Configuration, monitor: EstateMonitor, resolved: bool, notices: list[str]) -> None:  # noqa: FBT001
    log = logging.getLogger("infra.preview.program")
    log.propagate = False
    handler = _Notices(notices)
    log.handlers = [handler]
    settings.set_root_resource(None)  # type: ignore[arg-type]
    settings.configure(
        mocks.MockSettings(  # type: ignore[no-untyped-call]
            monitor=monitor,
            monitor_features=set(),
            engine=mocks.MockEngine(log),
            project=configuration.project,
            stack=configuration.stack,
            root_directory=str(configuration.root),
            dry_run=not resolved,
            organization="organization",
            callbacks=None,
            package_refs={},
            base_providers_by_ref={},
            legacy_apply_enabled=False,
        )
    )
    settings.SETTINGS.rpc_manager = rpc_manager.RPCManager()  # type: ignore[no-untyped-call]
    settings.SETTINGS.outputs = set()
    pulumi.runtime.set_all_config(dict(configuration.values), list(configuration.secret_keys))
    loop = asyncio.new_event_loop()
    executor = _InlineExecutor(monitor)
    loop.set_default_executor(executor)
    # After the first error many futures fail with it; that one is raised, the rest would only repeat it.
    loop.set_exception_handler(lambda _loop, _context: None)
    with _program_environment(configuration):
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(runtime_stack.run_in_stack(lambda: _execute(configuration.program)))
        finally:
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            asyncio.set_event_loop(None)
            loop.close()
            executor.shutdown()


def _execute(program: Path) -> None:
    # What the program prints is for a person; standard output may be read by a machine (--json).
    with redirect_stdout(sys.stderr):
        runpy.run_path(str(program), run_name="__main__")


async def _quiesce(await_all_outstanding_tasks: bool = True) -> None:  # noqa: FBT001, FBT002 - the SDK's signature
    """Wait until no request and no output is outstanding: what the SDK's ``wait_for_rpcs`` does, in linear time.

    That one waits for the first of all outputs again and again, which for 300 resources is a fifth of the run.
    """
    manager = settings.SETTINGS.rpc_manager
    outputs = settings.SETTINGS.outputs
    while manager.rpcs or (await_all_outstanding_tasks and outputs):
        while manager.rpcs:
            await asyncio.sleep(0)
            if manager.rpcs:
                await manager.rpcs.pop()
        if manager.unhandled_exception is not None:
            raise manager.unhandled_exception.with_traceback(manager.exception_traceback)
        pending = list(outputs)
        outputs.clear()
        for task in pending:
            await task


@contextmanager
def _program_environment(configuration: Configuration) -> Iterator[None]:
    """What the CLI's language host gives a program: its root on the path, and errors for formatted outputs."""
    root = str(configuration.root.resolve())
    added = root not in sys.path
    stack_trace = runtime_resource._get_stack_trace  # noqa: SLF001
    wait_for_rpcs = runtime_stack.wait_for_rpcs
    error_output_string = os.environ.get("PULUMI_ERROR_OUTPUT_STRING")
    if added:
        sys.path.insert(0, root)
    # Only a debugger reads it, and reading every source line of every frame takes a third of the run.
    runtime_resource._get_stack_trace = source_pb2.StackTrace  # noqa: SLF001
    runtime_stack.wait_for_rpcs = _quiesce
    os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "true"
    try:
        yield
    finally:
        runtime_resource._get_stack_trace = stack_trace  # noqa: SLF001
        runtime_stack.wait_for_rpcs = wait_for_rpcs
        if added:
            sys.path.remove(root)
        if error_output_string is None:
            del os.environ["PULUMI_ERROR_OUTPUT_STRING"]
        else:
            os.environ["PULUMI_ERROR_OUTPUT_STRING"] = error_output_string


class _Notices(logging.Handler):
    """Keeps the program's own log messages."""

    def __init__(self, notices: list[str]) -> None:
        super().__init__()
        self._notices = notices

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.INFO:
            self._notices.append(record.getMessage().strip())


def _secret_texts(registrations: Iterable[Registration]) -> Iterator[str]:
    for registration in registrations:
        for struct in (registration.request.object, registration.outputs, registration.registered_outputs):
            yield from wire.secret_texts(struct)


def _resource(registration: Registration, configuration: Configuration) -> Resource:
    request = registration.request
    outputs = registration.outputs if request.custom else registration.registered_outputs
    return Resource(
        urn=registration.urn,
        type=request.type,
        name=request.name,
        parent=request.parent,
        custom=request.custom,
        inputs=_relative(wire.to_model(request.object), str(configuration.root.resolve())),
        outputs={}
        if request.type == STACK_TYPE
        else _relative(wire.to_model(outputs), str(configuration.root.resolve())),
        id=registration.id,
        dependencies=tuple(sorted(request.dependencies)),
        property_dependencies={
            key: tuple(sorted(value.urns)) for key, value in sorted(request.propertyDependencies.items()) if value.urns
        },
        provider=request.provider.rpartition("::")[0],
        protect=request.protect,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        aliases=_aliases(registration, configuration),
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        retain_on_delete=request.retainOnDelete,
        deleted_with=request.deletedWith,
        additional_secret_outputs=tuple(sorted(request.additionalSecretOutputs)),
        import_id=request.importId,
        read=registration.read,
    )


def _aliases(registration: Registration, configuration: Configuration) -> tuple[str, ...]:
    """The former URNs; an alias given in parts is completed with what did not change."""
    request = registration.request
    urns = set()
    for alias in request.aliases:
        if alias.urn:
            urns.add(alias.urn)
            continue
        spec = alias.spec
        parent = "" if spec.noParent else spec.parentUrn or request.parent
        qualified = parent.split("::")[2] if parent else ""
        kind = spec.type or request.type
        chain = f"{qualified}${kind}" if qualified and qualified != STACK_TYPE else kind
        stack, project = spec.stack or configuration.stack, spec.project or configuration.project
        urns.add(f"urn:pulumi:{stack}::{project}::{chain}::{spec.name or request.name}")
    return tuple(sorted(urns))


def _relative(value: Value, root: str) -> Value:
    """``value`` with paths below the repository written from its root, so that two clones give the same file."""
    if isinstance(value, dict):
        return {key: _relative(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, root) for item in value]
    if isinstance(value, str) and value.startswith(root):
        return value[len(root) :].lstrip("/") or "."
    return value


__all__ = ["Run", "WrongInput", "capture", "repository_root", "run"]
