"""docs/provider-facts.md names tests that are there, and has one, or a reason, in every row."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "provider-facts.md").read_text(encoding="utf-8")
#: heading -> the rows of the table below it, each split into its cells
TABLES = {
    part.splitlines()[0]: [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
    ][2:]
    for part in PAGE.split("\n## ")[1:]
}
TESTED = {heading: rows for heading, rows in TABLES.items() if heading != "Without a test, and why"}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def named_in(path: str) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(TEST.findall(PAGE))))
def test_every_test_that_the_page_names_is_there(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in named_in(path)


@pytest.mark.parametrize("heading", TESTED)
def test_every_row_names_its_test(heading: str) -> None:
    assert TESTED[heading]
    for row in TESTED[heading]:
        assert len(row) == 3, row
        assert TEST.findall(row[2]), row
        assert TEST.sub("", row[2]).strip() == "", row


def test_every_row_without_a_test_has_a_reason() -> None:
    for row in TABLES["Without a test, and why"]:
        assert len(row) == 2, row
        assert len(row[1].split()) > 1, row


def test_every_source_is_given_once_and_used() -> None:
    given = re.findall(r"^\[(\w+)\]: https://", PAGE, flags=re.MULTILINE)
    assert sorted(given) == sorted(set(given))
    assert set(given) == set(re.findall(r"\]\[(\w+)\]", PAGE))


def test_the_pages_and_files_that_it_links_to_are_there() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (REPOSITORY / "docs" / link).is_file(), link
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (REPOSITORY / path).is_file(), path
