"""The tables and the diagram in `docs/explanation/lifecycle.md` are up to date with the rules."""

from __future__ import annotations

from tests.core.lifecycle.render_docs import BLOCK, BLOCKS, PAGE, render


def test_the_page_is_rendered_from_the_rules() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(page), (
        "docs/explanation/lifecycle.md differs from rules.py, phases.py or generation.py in core/lifecycle. Run "
        "`python -m tests.core.lifecycle.render_docs` in the repository's root, and commit the page."
    )


def test_the_page_shows_every_table() -> None:
    assert [name for _, name, _ in BLOCK.findall(PAGE.read_text(encoding="utf-8"))] == list(BLOCKS)
