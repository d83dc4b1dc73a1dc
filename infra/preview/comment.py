"""The preview as one comment of a pull request, in GitHub's Markdown.

It starts with a hidden marker by which the workflow finds the comment of the same stack and keeps that one up to date.
GitHub cuts a comment at 65,536 characters, so details are dropped, the longest first, until it fits; the counts and
every data loss always stay.
"""

from __future__ import annotations

import html
import re
from typing import Final

from infra.preview.changes import KINDS, Changes
from infra.preview.model import Capture, Resource, count_types, short_type
from infra.preview.policies import Judgement
from infra.preview.tree import descendants, show

LIMIT: Final = 65_536
_SIGNS: Final = {"added": "+", "changed": "~", "replaced": "±", "removed": "-"}


def marker(stack: str) -> str:
    """The hidden first line of the comment for ``stack``."""
    return f"<!-- preview:{stack} -->"


def render_comment(capture: Capture, judgement: Judgement | None, changes: Changes | None, limit: int = LIMIT) -> str:
    """The whole comment, at most ``limit`` characters."""
    required = "\n\n".join(
        part
        for part in (
            marker(capture.stack),
            f"## Preview of `{capture.stack}`",
            _summary(capture, judgement, changes),
            _losses(changes) if changes else "",
            _violations(judgement) if judgement else "",
        )
        if part
    )
    optional = [
        _details("Components", f"```mermaid\n{mermaid(capture)}\n```\n\n{_component_table(capture)}", opened=True),
        _details("Changes", _change_list(changes)) if changes and changes.changes else "",
        _details("Policy verdicts", _rule_table(judgement)) if judgement else "",
        _details("Outputs", _outputs(capture)) if capture.outputs else "",
        _details("Resources by type", _type_table(capture)),
    ]
    footer = "\n\n<sub>Offline preview: computed values are unknown until the update; secrets are never shown.</sub>\n"
    return _fit(required, [part for part in optional if part], footer, limit)


def _fit(required: str, optional: list[str], footer: str, limit: int) -> str:
    dropped = "\n\n_Some details were left out to stay below GitHub's limit; they are in the workflow's artifact._"
    room = limit - len(footer) - len(dropped)
    body = required if len(required) <= room else required[:room]
    kept = list(optional)
    while kept and len(body) + sum(len(part) + 2 for part in kept) > room:
        kept.remove(max(kept, key=len))
    text = "\n\n".join([body, *kept])
    return text + (dropped if len(kept) < len(optional) or body != required else "") + footer


def _summary(capture: Capture, judgement: Judgement | None, changes: Changes | None) -> str:
    components = sum(1 for r in capture.resources if not r.custom) - 1
    rows = ["| | |", "|---|---|", f"| Estate | **{len(capture.custom)}** resources in **{components}** components |"]
    if changes is not None:
        kinds = ", ".join(f"**{len(changes.of(kind))}** {kind}" for kind in reversed(KINDS))
        rows.append(f"| Changes | {kinds} |")
    else:
        rows.append("| Changes | no baseline to compare with |")
    if judgement is not None:
        counts = judgement.counts()
        state = "🔴" if judgement.violated else "🟡" if counts["undecided"] or judgement.advisories else "🟢"
        words = ", ".join(f"**{count}** {status}" for status, count in counts.items())
        rows.append(f"| Policies | {state} {words} |")
    else:
        rows.append("| Policies | not judged |")
    if capture.secret_config:
        rows.append(f"| Secret configuration | {len(capture.secret_config)} values, not decrypted |")
    return "\n".join(rows)


def _losses(changes: Changes) -> str:
    if not changes.losses:
        return ""
    lines = [
        "> [!CAUTION]",
        "> **This replaces or removes what holds state.** The label `allow-stateful-replacement` is needed to merge.",
    ]
    for change in changes.losses[:100]:
        because = ", ".join(f"`{_code(item.path)}`" for item in change.properties if item.replaces)
        reason = f" because of {because}" if because else ""
        what = f"`{_code(short_type(change.resource.type))}` `{_code(change.resource.name)}`"
        lines.append(f"> - {what} is **{change.kind}**{reason}: {change.loses}")
    return "\n".join(lines)


def _violations(judgement: Judgement) -> str:
    lines = []
    for rule in (*judgement.violated, *judgement.advisories):
        lines.append(f"- **{rule.level}** `{_code(rule.name)}`: {_text(rule.description.splitlines()[0])}")
        said = dict.fromkeys(
            (f.urn, f.message) for f in judgement.findings if f.rule == rule.name and f.status == "violated"
        )
        lines.extend(
            f"  - `{_code(urn.rpartition('::')[2] or 'stack')}`: {_text(' '.join(message.split())[:300])}"
            for urn, message in list(said)[:10]
        )
        if len(said) > 10:
            lines.append(f"  - … {len(said) - 10} more")
    return "### Violations\n\n" + "\n".join(lines) if lines else ""


def mermaid(capture: Capture) -> str:
    """The components and what they use of each other, as a Mermaid flowchart."""
    components = [child for child in capture.children(capture.root.urn) if not child.custom]
    identifiers = {component.urn: f"c{index}" for index, component in enumerate(components)}
    owner = {component.urn: component.urn for component in components}
    for component in components:
        owner.update(dict.fromkeys((r.urn for r in _all_below(capture, component)), component.urn))
    edges = set()
    for resource in capture.resources:
        source = owner.get(resource.urn)
        for dependency in resource.dependencies:
            target = owner.get(dependency)
            if source and target and source != target:
                edges.add((identifiers[source], identifiers[target]))
    lines = ["flowchart LR"]
    for component in components:
        count = len(descendants(capture, component.urn))
        label = re.sub(r"[^\w .-]", " ", component.name)
        lines.append(f'  {identifiers[component.urn]}["{label}<br/>{count} resources"]')
    lines.extend(f"  {source} --> {target}" for source, target in sorted(_reduced(edges)))
    return "\n".join(lines)


def _reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """``edges`` without those that a longer way implies, where there is no cycle on it."""
    following: dict[str, set[str]] = {}
    for source, target in edges:
        following.setdefault(source, set()).add(target)

    def reaches(start: str, goal: str, skip: tuple[str, str]) -> bool:
        seen, pending = {start}, [start]
        while pending:
            node = pending.pop()
            for step in following.get(node, ()):
                if (node, step) == skip or step in seen:
                    continue
                if step == goal:
                    return True
                seen.add(step)
                pending.append(step)
        return False

    kept = set(edges)
    for edge in sorted(edges):
        if reaches(edge[0], edge[1], edge):
            kept.discard(edge)
            following[edge[0]].discard(edge[1])
    return kept


def _all_below(capture: Capture, parent: Resource) -> list[Resource]:
    return [below for child in capture.children(parent.urn) for below in (child, *_all_below(capture, child))]


def _component_table(capture: Capture) -> str:
    rows = ["| component | resources | of which |", "|---|---:|---|"]
    for component in (child for child in capture.children(capture.root.urn) if not child.custom):
        below = descendants(capture, component.urn)
        kinds = ", ".join(f"{count} {short_type(kind)}" for kind, count in list(count_types(below).items())[:4])
        rows.append(f"| {_text(component.name)} | {len(below)} | {_text(kinds)} |")
    return "\n".join(rows)


def _change_list(changes: Changes) -> str:
    lines = ["```diff"]
    for change in changes.changes:
        sign = _SIGNS[change.kind]
        prefix = {"+": "+", "-": "-"}.get(sign, "!")
        follows = f", follows {change.follows.rpartition('::')[2]}" if change.follows else ""
        lines.append(
            f"{prefix} {sign} {short_type(change.resource.type)} {change.resource.name} ({change.kind}{follows})"
        )
        for item in change.properties[:6]:
            mark = "  (replaces)" if item.replaces else ""
            lines.append(f"    {item.path}: {_fence(show(item.before))} -> {_fence(show(item.after))}{mark}")
        if len(change.properties) > 6:
            lines.append(f"    … {len(change.properties) - 6} more")
    lines.extend(
        f"! ~ output {item.path}: {_fence(show(item.before))} -> {_fence(show(item.after))}" for item in changes.outputs
    )
    return "\n".join([*lines, "```"])


def _rule_table(judgement: Judgement) -> str:
    rows = ["| rule | level | first preview | resolved |", "|---|---|---|---|"]
    for rule in judgement.rules:
        first, resolved = rule.verdicts.get("preview", ""), rule.verdicts.get("resolved", "")
        rows.append(f"| `{_code(rule.name)}` | {rule.level} | {first} | {resolved} |")
    return "\n".join(rows)


def _outputs(capture: Capture) -> str:
    rows = ["| output | value |", "|---|---|"]
    rows.extend(f"| `{_code(name)}` | `{_code(show(value)[:200])}` |" for name, value in capture.outputs.items())
    return "\n".join(rows)


def _type_table(capture: Capture) -> str:
    rows = ["| type | count |", "|---|---:|"]
    rows.extend(f"| `{_code(kind)}` | {count} |" for kind, count in count_types(capture.custom).items())
    return "\n".join(rows)


def _details(title: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{title}</summary>\n\n{body}\n\n</details>"


def _text(text: str) -> str:
    """Text that cannot break a table, mention a person or become markup."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("@", "@\u200b").replace("\n", " ")


def _code(text: str) -> str:
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")


def _fence(text: str) -> str:
    return text.replace("```", "'''").replace("\n", " ")
