"""The pull request's comment: found again, within the limit, redacted, and harmless as markup."""

from __future__ import annotations

import re
from dataclasses import replace

from infra.preview.changes import compare
from infra.preview.comment import LIMIT, marker, mermaid, render_comment
from infra.preview.model import Capture, Resource
from infra.preview.policies import Finding, Judgement, Rule


def estate(count: int, name: str = "bucket") -> Capture:
    root = Resource("urn:pulumi:s::p::pulumi:pulumi:Stack::p-s", "pulumi:pulumi:Stack", "p-s", "", custom=False)
    component = Resource("urn:pulumi:s::p::a:b:C::part", "a:b:C", "part", root.urn, custom=False)
    prefix = "urn:pulumi:s::p::a:b:C$aws:s3/bucket:Bucket"
    names = [f"{name}-{n:05}" for n in range(count)]
    tags = {"tags": {"n": "x" * 200}}
    buckets = [
        Resource(f"{prefix}::{n}", "aws:s3/bucket:Bucket", n, component.urn, custom=True, inputs=tags) for n in names
    ]
    return Capture("p", "s", "preview", (root, component, *buckets))


def test_it_begins_with_the_marker_by_which_it_is_found_again() -> None:
    assert render_comment(estate(1), None, None).startswith(marker("s"))
    assert marker("staging") != marker("production")


def test_however_much_changes_it_stays_below_githubs_limit_and_keeps_every_count() -> None:
    changes = compare(estate(5000), estate(5000, "other"))
    rules = tuple(Rule(f"rule-{n}", "mandatory", "d" * 300, {"preview": "violated"}) for n in range(100))
    findings = tuple(
        Finding(f"rule-{n}", "urn::x", "violated", "m" * 400, "preview") for n in range(100) for _ in range(20)
    )
    text = render_comment(estate(5000, "other"), Judgement("pack", rules, findings), changes)
    assert len(text) <= LIMIT
    assert "**5000** added" in text
    assert "**5000** removed" in text
    assert "**100** violated" in text
    assert "left out" in text


def test_a_name_cannot_break_out_of_the_table_mention_anyone_or_become_markup() -> None:
    capture = estate(1)
    hostile = replace(capture.resources[1], name="@team | <script>alert(1)</script> `code`")
    text = render_comment(
        replace(capture, resources=(capture.resources[0], hostile, *capture.resources[2:])), None, None
    )
    assert "<script>" not in text
    assert not re.search(r"@team", text)


def test_components_and_their_use_of_each_other_are_a_flowchart() -> None:
    capture = estate(1)
    other = Resource("urn:pulumi:s::p::a:b:D::reader", "a:b:D", "reader", capture.root.urn, custom=False)
    reader = Resource("urn:pulumi:s::p::a:b:D$aws:iam/role:Role::r", "aws:iam/role:Role", "r", other.urn, custom=True,
                      dependencies=(capture.resources[-1].urn,))  # fmt: skip
    chart = mermaid(replace(capture, resources=(*capture.resources, other, reader)))
    assert chart.splitlines() == [
        "flowchart LR",
        '  c0["part<br/>1 resources"]',
        '  c1["reader<br/>1 resources"]',
        "  c1 --> c0",
    ]


def test_a_violation_is_shown_once_though_both_modes_find_it() -> None:
    rule = Rule("tls", "mandatory", "TLS only", {"preview": "violated", "resolved": "violated"})
    findings = tuple(Finding("tls", "urn::bucket", "violated", "plain", mode) for mode in ("preview", "resolved"))
    assert render_comment(estate(1), Judgement("pack", (rule,), findings), None).count("`bucket`: plain") == 1
