"""Renders the parts of `docs/explanation/lifecycle.md` that come from the rules.

Run `python -m tests.core.lifecycle.render_docs`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.core.lifecycle import generation, rules
from airflow_provider_batch.core.lifecycle.phases import TRANSITIONS
from airflow_provider_batch.core.lifecycle.rule import Rule

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "lifecycle.md"
BLOCK = re.compile(r"(<!-- rendered: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

AnyRule = Rule[Any, Any, Any]


def diagram() -> str:
    """Return the phases of a shard and their transitions as a Mermaid diagram."""
    arrows = [f"    {t.before} --> {t.after}: {t.text}" for t in TRANSITIONS]
    ends = [f"    {phase} --> [*]" for phase in (Phase.SETTLED, Phase.RESEALED)]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.SEALED}", *arrows, *ends, "```"])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def with_scope(name: str, table_rules: Iterable[AnyRule]) -> str:
    """Return a table of rules with their phases or stages. Each scope is named only in its first row."""
    rows, last = [], ""
    for rule in table_rules:
        scope = ", ".join(rule.scope)
        rows.append(("" if scope == last else scope, rule.condition_text, rule.consequence_text))
        last = scope
    return table((name, "if", "then"), rows)


def without_scope(table_rules: Iterable[AnyRule]) -> str:
    """Return a table of rules that apply in every phase and stage."""
    return table(("if", "then"), ((rule.condition_text, rule.consequence_text) for rule in table_rules))


def stages(table_rules: Iterable[AnyRule]) -> str:
    """Return a table of the stages of a job."""
    rows = [(rule.consequence(None, None), rule.condition_text, rule.consequence_text) for rule in table_rules]
    return table(("stage", "if", "meaning"), rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "phases": diagram,
    "shards": lambda: with_scope("phase", rules.SHARD_RULES),
    "stages": lambda: stages(rules.STAGES),
    "job": lambda: with_scope("stage", rules.JOB_RULES),
    "sending": lambda: without_scope(rules.SEND_RULES),
    "final pass": lambda: without_scope(rules.FINAL_PASS_RULES),
    "pauses": lambda: without_scope(rules.PAUSES),
    "generations": lambda: table(
        ("if", "then"), ((rule.condition_text, rule.consequence_text) for rule in generation.RULES)
    ),
}


def render(page: str) -> str:
    """Return the page with all blocks replaced by what the rules render to."""
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
