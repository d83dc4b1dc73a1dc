"""Write ``docs/policies.md``: every rule, what it answers, what is left out and why, and how the pack is used.

``python -m policy.document`` writes the file; ``--check`` says whether it is current (exit code 1 where it is not).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from policy.catalog import CONCERNS, RULES
from policy.proofs import PROOFS
from policy.rule import Level, Rule
from policy.settings import pack_schema

OUT: Final = Path(__file__).resolve().parent.parent / "docs" / "policies.md"

NOT_COVERED: Final = (
    (
        "VPC Block Public Access (EC2.172)",
        "the load balancer is public on purpose; `sg-world-only-at-load-balancer` says that nothing else is",
    ),
    (
        "endpoints for SSM and its incident manager (EC2.57, EC2.58, EC2.60)",
        "no node runs the SSM agent's incident manager; add `ssm` to `vpc-endpoints-present.services` where one does",
    ),
    (
        (
            "HTTP to HTTPS redirect and WAF of application load balancers (ELB.1, ELB.16, CKV2_AWS_20, CKV2_AWS_28, "
            "CKV2_AWS_76)"
        ),
        "there is no application load balancer; `alb-refuses-bad-requests` holds for one that is added",
    ),
    (
        "renewal of certificates before they expire (ACM.1)",
        "seen only at run time; DNS validation renews them, and a lapsed validation is CloudWatch's to tell",
    ),
    (
        "database on another port than 5432 (RDS.23)",
        "hides nothing from whoever reaches the subnet; every client would need it",
    ),
    (
        "event subscriptions for parameter groups and security groups (RDS.21, RDS.22)",
        "both change by this program only, where a reviewer sees them; `rds-events` asks for the instance's own",
    ),
    (
        "encrypted snapshots (RDS.4)",
        "snapshots of an encrypted instance are encrypted; `rds-storage-encrypted` decides",
    ),
    (
        "replication of buckets to another region (S3.7, CKV_AWS_144)",
        "AWS Backup keeps the copies; the models can be trained anew",
    ),
    ("event notifications of buckets (S3.11, CKV2_AWS_62)", "nothing here reacts to an object; it would be noise"),
    (
        "object lock and MFA delete (S3.15, S3.20, CKV_AWS_143, CIS-AWS 2.1.2)",
        "the locked backup vault keeps what must not be deleted; MFA delete needs the root user",
    ),
    (
        "CPU limits of containers (CKV_K8S_11)",
        "a limit throttles a pod while cores are idle; `pod-cpu-requests` reserves what it needs",
    ),
    (
        "that a role cannot both be reached from an open pod and read secrets",
        (
            "told by its parts: `network-policy-egress-narrow`, `pod-isolated`, `pod-identity-narrow` and "
            "`secret-single-reader`"
        ),
    ),
    (
        "that pods' requests at full scale fit the nodes in every dimension",
        "the scheduler's own work; `hpa-fits-nodes` decides the case that pods must stand apart",
    ),
    (
        "that the pgvector extension supports the engine's version",
        "AWS decides it by version; `rds-engine-version` asks for a major version that has it",
    ),
    (
        "pods and rights that charts bring",
        "a chart is one resource to this pack; what it renders is judged by the cluster's own Pod Security",
    ),
)
"""Controls that no rule answers, and why."""


def document() -> str:
    """The whole file."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    mutations = sum(len(proof.fires) for proof in PROOFS.values())
    unknowns = sum(len(proof.unknown) for proof in PROOFS.values())
    advisory = sum(rule.level is Level.ADVISORY for rule in RULES)
    yield from _head(mutations, unknowns, advisory)
    yield "## The rules"
    yield ""
    for concern, rules in CONCERNS.items():
        yield f"### {concern}"
        yield ""
        yield "| rule | what must hold | severity | level | decided by | stacks | answers |"
        yield "|---|---|---|---|---|---|---|"
        for rule in rules:
            yield _row(rule)
        yield ""
    yield "## Why, and how to mend"
    yield ""
    for rule in RULES:
        yield from _detail(rule)
    yield "## What no rule covers"
    yield ""
    yield "| control | why not |"
    yield "|---|---|"
    for control, why in NOT_COVERED:
        yield f"| {control} | {why} |"
    yield ""


def _head(mutations: int, unknowns: int, advisory: int) -> Iterator[str]:
    yield "# Policies"
    yield ""
    yield "<!-- written by `python -m policy.document`: change the rules, not this file -->"
    yield ""
    yield (
        f"{len(RULES)} rules, {len(RULES) - advisory} of them mandatory. Each is proven on the real estate: "
        f"{mutations} changes, each of which fires its rule, and {unknowns} unknown values, after each of which the "
        "rule says that it is undecided."
    )
    yield ""
    yield Path(__file__).with_name("guide.md").read_text(encoding="utf-8")


def _row(rule: Rule) -> str:
    decided = "one resource" if rule.scope == "resource" else "the stack"
    stacks = "all" if rule.stacks == ("*",) else ", ".join(rule.stacks)
    cells = (
        f"[`{rule.id}`](#{rule.id})",
        rule.title,
        rule.severity,
        rule.level,
        decided,
        stacks,
        ", ".join(rule.controls) or "-",
    )
    return f"| {' | '.join(cells)} |"


def _detail(rule: Rule) -> Iterator[str]:
    yield f"### {rule.id}"
    yield ""
    yield f"{rule.title}. {rule.reason} **Mend:** {rule.remedy}"
    for name, schema in rule.parameters.items():
        default = schema["default"]
        shown = json.dumps(default) if len(json.dumps(default)) < 80 else f"{len(default)} entries"
        yield f"Parameter `{name}` ({schema.get('description', schema['type'])}): {shown}."
    if PROOFS[rule.id].always_known:
        yield f"Never undecided: {PROOFS[rule.id].always_known}."
    yield ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, check or print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m policy.document", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the configuration instead")
    options = parser.parse_args(arguments)
    if options.schema:
        sys.stdout.write(json.dumps(pack_schema(RULES), indent=2) + "\n")
        return 0
    if options.check:
        current = OUT.exists() and OUT.read_text(encoding="utf-8") == document()
        if not current:
            sys.stderr.write(f"error: {OUT.name} is stale: run `python -m policy.document`\n")
        return 0 if current else 1
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"wrote {OUT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
