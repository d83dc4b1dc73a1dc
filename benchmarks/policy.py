"""What the policy pack costs: time after start, memory, and growth with the estate.

The pack runs as the engine runs it, in its own process; each resource is sent for analysis, then the stack as a
whole. Its peer is pulumi-policy's own servicer with as many policies that do nothing, on the same messages: what the
engine's protocol costs without a word of judgement.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from benchmarks.figures import Figure, summarise
from infra.preview.capture import capture
from infra.preview.model import STACK_TYPE, Resource, Value
from infra.preview.wire import to_wire
from policy.catalog import RULES

PACK: Final = Path(__file__).resolve().parents[1] / "policy"
SIZES: Final = (250, 1000, 4000)
RUNS: Final = 5
_LIMIT: Final = 400 * 2**20
_PEER: Final = f"""
from pulumi_policy import PolicyPack, ResourceValidationPolicy, StackValidationPolicy
kinds = {[rule.scope for rule in RULES]!r}
def nothing(args, report_violation):
    pass
PolicyPack("peer", [
    (ResourceValidationPolicy if kind == "resource" else StackValidationPolicy)(f"rule-{{i}}", "nothing", nothing)
    for i, kind in enumerate(kinds)
])
"""


@contextmanager
def running(pack: Path) -> Iterator[tuple[subprocess.Popen[str], analyzer_pb2_grpc.AnalyzerStub, float]]:
    """A started pack: its process, a client, and the seconds until it told its port."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [str(PACK / ".venv" / "bin" / "python"), "-u", "-m", "pulumi.policy", "127.0.0.1:0", str(pack)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None:
        raise RuntimeError("the pack has no standard output")
    port = process.stdout.readline().strip()
    seconds = time.perf_counter() - begun
    options = [("grpc.max_receive_message_length", _LIMIT), ("grpc.max_send_message_length", _LIMIT)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = analyzer_pb2_grpc.AnalyzerStub(channel)
            configuration = analyzer_pb2.ConfigureAnalyzerRequest()
            configuration.policyConfig["estate-report"].properties.update({"format": "json"})
            stub.Configure(configuration)
            yield process, stub, seconds
    finally:
        process.terminate()
        process.wait(timeout=10)


def peak_mebibytes(process: subprocess.Popen[str]) -> float:
    """The most memory that a process ever held, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def enlarged(resources: tuple[Resource, ...], size: int) -> list[Resource]:
    """``size`` resources: the estate again and again, each time with names, URNs and identities of its own."""
    known = {text for r in resources for text in (r.urn, r.id, r.outputs.get("arn"), r.inputs.get("name")) if text}

    def renamed(value: Value, mark: str) -> Value:
        if isinstance(value, str):
            return f"{value}{mark}" if value in known else value
        if isinstance(value, dict):
            return {key: renamed(inner, mark) for key, inner in value.items()}
        return [renamed(item, mark) for item in value] if isinstance(value, list | tuple) else value

    def again(r: Resource, mark: str) -> Resource:
        return replace(
            r,
            urn=r.urn + mark,
            name=r.name + mark,
            parent=r.parent + mark if r.parent else "",
            inputs=renamed(dict(r.inputs), mark),
            outputs=renamed(dict(r.outputs), mark),
            dependencies=tuple(urn + mark for urn in r.dependencies),
            property_dependencies={
                key: tuple(urn + mark for urn in urns) for key, urns in r.property_dependencies.items()
            },
        )

    marks = ["", *(f"-{turn}" for turn in range(1, -(-size // len(resources))))]
    return [again(r, mark) for mark in marks for r in resources][:size]


def requests(
    resources: list[Resource],
) -> tuple[list[analyzer_pb2.AnalyzeRequest], analyzer_pb2.AnalyzeStackRequest]:
    """What the engine sends for ``resources``."""
    single = [
        analyzer_pb2.AnalyzeRequest(
            type=r.type,
            urn=r.urn,
            name=r.name,
            properties=to_wire(dict(r.inputs)).struct_value,
            options=analyzer_pb2.AnalyzerResourceOptions(protect=r.protect, parent=r.parent),
        )
        for r in resources
        if r.type != STACK_TYPE
    ]
    whole = analyzer_pb2.AnalyzeStackRequest(
        resources=[
            analyzer_pb2.AnalyzerResource(
                type=r.type,
                urn=r.urn,
                name=r.name,
                properties=to_wire(dict(r.outputs)).struct_value,
                options=analyzer_pb2.AnalyzerResourceOptions(protect=r.protect, parent=r.parent),
                parent=r.parent,
                dependencies=r.dependencies,
                propertyDependencies={
                    key: analyzer_pb2.AnalyzerPropertyDependencies(urns=urns)
                    for key, urns in r.property_dependencies.items()
                },
            )
            for r in resources
        ]
    )
    return single, whole


def judged(
    stub: analyzer_pb2_grpc.AnalyzerStub,
    single: list[analyzer_pb2.AnalyzeRequest],
    whole: analyzer_pb2.AnalyzeStackRequest,
) -> float:
    """Seconds to have each resource and then the stack judged."""
    begun = time.perf_counter()
    for request in single:
        stub.Analyze(request)
    stub.AnalyzeStack(whole)
    return time.perf_counter() - begun


def measure() -> list[Figure]:
    """The figures, on the real production estate with every output resolved."""
    resources = tuple(r for r in capture("production", resolved=True).resources if not r.read)
    figures: list[Figure] = []
    single, whole = requests(list(resources))
    starts, runs, peaks = [], [], []
    for _ in range(RUNS):
        with running(PACK) as (process, stub, seconds):
            starts.append(seconds)
            runs.append(judged(stub, single, whole))
            peaks.append(peak_mebibytes(process))
    note = f"{len(RULES)} rules, {len(resources)} resources, cold process"
    value, spread = summarise(runs)
    figures.append(Figure(name="policy: production judged", value=value, unit="s", spread=spread, bar=2.0, note=note))
    value, spread = summarise(peaks)
    figures.append(Figure(name="policy: peak memory", value=value, unit="MiB", spread=spread, bar=300.0, note=note))
    value, spread = summarise(starts)
    figures.append(Figure(name="policy: start", value=value, unit="s", spread=spread, note="until the port is told"))
    figures.append(_peer(single, whole))
    return [*figures, *_growth(resources)]


def _peer(single: list[analyzer_pb2.AnalyzeRequest], whole: analyzer_pb2.AnalyzeStackRequest) -> Figure:
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder)
        (pack / "__main__.py").write_text(_PEER, encoding="utf-8")
        with running(pack) as (_, stub, _seconds):
            seconds = judged(stub, single, whole)
    note = f"pulumi-policy 1.21.0's own servicer, {len(RULES)} policies that do nothing, one run"
    return Figure(name="policy: peer, production", value=seconds, unit="s", note=note)


def _growth(resources: tuple[Resource, ...]) -> list[Figure]:
    figures, per_resource = [], {}
    for size in SIZES:
        single, whole = requests(enlarged(resources, size))
        with running(PACK) as (process, stub, _):
            value, spread = summarise([judged(stub, single, whole) for _ in range(3)])
            peak = peak_mebibytes(process)
        per_resource[size] = value / size
        note = f"peak {peak:.0f} MiB"
        figures.append(Figure(name=f"policy: {size} resources", value=value, unit="s", spread=spread, note=note))
    ratio = per_resource[SIZES[-1]] / per_resource[SIZES[0]]
    return [
        *figures,
        Figure(
            name="policy: cost of a resource, 4,000 against 250",
            value=ratio,
            unit="x",
            bar=1.5,
            note="1 is exactly linear",
        ),
    ]
