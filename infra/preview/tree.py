"""The preview on a terminal: the estate by component with counts, outputs, verdicts and changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from infra.preview.model import SECRET, UNKNOWN, Capture, Resource, count_types, dump, is_secret, is_unknown, short_type

if TYPE_CHECKING:
    from infra.preview.changes import Changes
    from infra.preview.policies import Judgement

_SYMBOLS: Final = {
    "added": ("+", "green"),
    "changed": ("~", "yellow"),
    "replaced": ("±", "magenta"),
    "removed": ("-", "red"),
}
_SHOWN_FINDINGS: Final = 12
_SHOWN_PROPERTIES: Final = 4


def show(value: object) -> str:
    """A property's value on one line: unknown and secret by name."""
    if is_unknown(value):
        return "[unknown until the update]"
    if is_secret(value):
        return "[secret]"
    if isinstance(value, str):
        return value
    text = " ".join(dump(value).split())
    for marker, word in ((UNKNOWN, "[unknown]"), (SECRET, "[secret]")):
        text = text.replace(" ".join(dump(dict(marker)).split()), word)
    return text if len(text) <= 100 else f"{text[:97]}..."


def descendants(capture: Capture, urn: str) -> list[Resource]:
    """The real resources below ``urn``, however deep."""
    found: list[Resource] = []
    for child in capture.children(urn):
        if child.custom and not child.is_provider and not child.read:
            found.append(child)
        found.extend(descendants(capture, child.urn))
    return found


def render(capture: Capture, judgement: Judgement | None, changes: Changes | None, console: Console) -> None:
    """Print the whole preview."""
    console.print(estate_tree(capture))
    console.print()
    console.print(_outputs(capture))
    if judgement is not None:
        console.print()
        console.print(_verdicts(judgement))
    if changes is not None:
        console.print()
        console.print(_changes(changes))
    for notice in capture.notices:
        console.print(Text(f"notice: {notice}", style="yellow"))
    if capture.secret_config:
        console.print(
            Text(f"secret configuration (not decrypted, not shown): {', '.join(capture.secret_config)}", style="dim")
        )


def estate_tree(capture: Capture) -> Tree:
    """Stack, components and, in the innermost ones, how many resources of each type."""
    components = sum(1 for r in capture.resources if not r.custom) - 1
    title = Text.assemble(
        (f"{capture.project} · {capture.stack}", "bold"),
        f"  {len(capture.custom)} resources in {components} components",
        style="default",
    )
    tree = Tree(title, guide_style="dim")
    _grow(tree, capture, capture.root)
    return tree


def _grow(tree: Tree, capture: Capture, parent: Resource) -> None:
    own = [child for child in capture.children(parent.urn) if child.custom]
    for component in (child for child in capture.children(parent.urn) if not child.custom):
        count = len(descendants(capture, component.urn))
        label = Text.assemble((component.name, "bold cyan"), (f"  {short_type(component.type)}", "dim"), f"  {count}")
        _grow(tree.add(label), capture, component)
    nested = [grandchild for child in own for grandchild in descendants(capture, child.urn)]
    real = [r for r in own if not r.is_provider and not r.read] + nested
    for kind, count in count_types(real).items():
        names = [resource.name for resource in real if resource.type == kind]
        listed = ", ".join(names[:4]) + (f", … {len(names) - 4} more" if len(names) > 4 else "")
        tree.add(Text.assemble((f"{count:>3} ", "bold"), short_type(kind), (f"  {listed}", "dim")))
    for resource in own:
        if resource.is_provider or resource.read:
            tree.add(
                Text.assemble(
                    f"    {short_type(resource.type)}",
                    (f"  {resource.name} ({'read' if resource.read else 'provider'})", "dim"),
                )
            )


def _outputs(capture: Capture) -> RenderableType:
    table = Table(
        title="Outputs", title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in capture.outputs.items():
        table.add_row(escape(name), escape(show(value)))
    return table if capture.outputs else Text("Outputs: none", style="dim")


def _verdicts(judgement: Judgement) -> RenderableType:
    counts = judgement.counts()
    preview = judgement.counts("preview")
    head = Text.assemble(
        ("Policies", "bold"),
        f"  {judgement.pack}: {len(judgement.rules)} rules: ",
        (f"{counts['passed']} passed", "green"),
        ", ",
        (f"{counts['violated']} violated", "bold red" if counts["violated"] else "dim"),
        ", ",
        (f"{counts['undecided']} undecided", "yellow" if counts["undecided"] else "dim"),
        ", ",
        (f"{counts['not applicable']} not applicable", "dim"),
    )
    lines: list[RenderableType] = [head]
    for mode, checks in judgement.checks.items():
        told = ", ".join(f"{number} {outcome.replace('_', ' ')}" for outcome, number in checks.items() if number)
        lines.append(Text(f"  checks of single resources, {mode}: {told}", style="dim"))
    if preview["undecided"]:
        lines.append(
            Text(f"  {preview['undecided']} met an unknown in the first preview: undecided there, then judged resolved")
        )
    for rule in judgement.rules:
        if rule.verdict in ("violated", "undecided"):
            style = "bold red" if rule.verdict == "violated" and rule.level == "mandatory" else "yellow"
            lines.append(
                Text.assemble(
                    "  ",
                    (f"{rule.verdict} ({rule.level})", style),
                    f"  {rule.name}: {rule.description.splitlines()[0]}",
                )
            )
            said = dict.fromkeys(
                (f.urn, f.message) for f in judgement.findings if f.rule == rule.name and f.status == rule.verdict
            )
            lines.extend(
                Text(f"      {urn.rpartition('::')[2] or 'stack'}: {' '.join(text.split())}", style="dim")
                for urn, text in list(said)[:_SHOWN_FINDINGS]
            )
    return Group(*lines)


def _changes(changes: Changes) -> RenderableType:
    counts = ", ".join(f"{len(changes.of(kind))} {kind}" for kind in ("added", "changed", "replaced", "removed"))
    lines: list[RenderableType] = [Text.assemble(("Changes against the baseline", "bold"), f"  {counts}")]
    lines.extend(loss_lines(changes))
    for change in changes.changes:
        symbol, style = _SYMBOLS[change.kind]
        resource = change.resource
        lines.append(Text.assemble("  ", (symbol, style), f" {short_type(resource.type)} ", (resource.name, "bold")))
        if change.follows:
            lines.append(Text(f"      follows the replacement of {change.follows.rpartition('::')[2]}", style="dim"))
        for item in change.properties[:_SHOWN_PROPERTIES]:
            mark = "  (replaces)" if item.replaces else ""
            lines.append(Text(f"      {item.path}: {show(item.before)} -> {show(item.after)}{mark}", style="dim"))
        if len(change.properties) > _SHOWN_PROPERTIES:
            lines.append(Text(f"      … {len(change.properties) - _SHOWN_PROPERTIES} more", style="dim"))
    lines.extend(Text(f"  ~ output {item.path}: {show(item.before)} -> {show(item.after)}") for item in changes.outputs)
    return Group(*lines)


def loss_lines(changes: Changes) -> Iterable[Text]:
    """What would be lost, loudly."""
    for change in changes.losses:
        note = " (protected: the update will refuse)" if change.resource.protect else ""
        what = f"{short_type(change.resource.type)} {change.resource.name} is {change.kind}: it holds {change.loses}"
        yield Text(f"  DATA LOSS: {what}{note}", style="bold white on red")
