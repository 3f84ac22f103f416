"""What the docs say about behaviours, tests and folders is true: the tests and the folders that they name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "reference" / "provider-facts.md").read_text(encoding="utf-8")
#: the tables of the page, by heading: a list of cells for each row
TABLES = {
    part.splitlines()[0]: [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")
    ][2:]
    for part in PAGE.split("\n## ")[1:]
}
TABLES_WITH_TESTS = {heading: rows for heading, rows in TABLES.items() if heading != "Without a test, and why"}
TEST_REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def function_names(path: str) -> set[str]:
    """Return the names of the functions in a test file."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(TEST_REFERENCE.findall(PAGE))))
def test_every_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in function_names(path)


@pytest.mark.parametrize("heading", TABLES_WITH_TESTS)
def test_every_row_names_its_test(heading: str) -> None:
    assert TABLES_WITH_TESTS[heading]
    for row in TABLES_WITH_TESTS[heading]:
        assert len(row) == 3, row
        assert TEST_REFERENCE.findall(row[2]), row
        assert TEST_REFERENCE.sub("", row[2]).strip() == "", row


def test_every_row_without_a_test_has_a_reason() -> None:
    for row in TABLES["Without a test, and why"]:
        assert len(row) == 2, row
        assert len(row[1].split()) > 1, row


def test_every_source_is_defined_once_and_cited() -> None:
    sources = re.findall(r"^\[(\w+)\]: https://", PAGE, flags=re.MULTILINE)
    assert sorted(sources) == sorted(set(sources))
    assert set(sources) == set(re.findall(r"\]\[(\w+)\]", PAGE))


def test_the_pages_and_files_that_it_links_to_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (REPOSITORY / "docs" / "reference" / link).is_file(), link
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (REPOSITORY / path).is_file(), path


@pytest.mark.parametrize("package", ["airflow_provider_batch", "airflow_provider_batch/core"])
def test_the_page_on_the_architecture_names_every_folder(package: str) -> None:
    page = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (REPOSITORY / package).glob("*/__init__.py")}

    assert {folder for folder in folders if f"`{folder}/`" not in page} == set()
