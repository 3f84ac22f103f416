"""Importing a file again updates the table of the cases, and never doubles them."""

from __future__ import annotations

import pytest

from airflow_provider_batch.evals.case_table import CaseTable
from airflow_provider_batch.evals.imports.drafts import ImportedCase
from airflow_provider_batch.exceptions import ResultsTableError
from tests.evals.conftest import Evals

A = ImportedCase("a", "A?", "1", "exact", "sums")
B = ImportedCase("b", "B? 100 % 'quoted'", None, "judge", "")
CHANGED = ImportedCase("a", "A?", "2", "exact", "sums")


def write(evals: Evals, *cases: ImportedCase) -> tuple[int, int, int]:
    """Write cases as an import does. Return how many are new, changed and unchanged."""
    table = CaseTable(evals.warehouse.hook, "eval_cases")
    changes = table.compare(cases)
    table.write(changes)
    return len(changes.new), len(changes.changed), changes.unchanged


def test_cases_are_added_changed_or_left_alone(evals_anywhere: Evals) -> None:
    evals = evals_anywhere
    assert write(evals, A, B) == (2, 0, 0)
    assert write(evals, A, B) == (0, 0, 2)
    assert write(evals, CHANGED, B) == (0, 1, 1)
    assert evals.table("eval_cases", "case_id, input, expected, grader, tags") == [
        ("a", "A?", "2", "exact", "sums"),
        ("b", "B? 100 % 'quoted'", None, "judge", ""),
    ]


def test_other_columns_and_other_cases_keep_their_values(evals: Evals) -> None:
    evals.cases(("a", "1", "exact", ""), ("mine", "x", "exact", ""))
    evals.warehouse.execute("ALTER TABLE eval_cases ADD COLUMN owner text")
    evals.warehouse.execute("UPDATE eval_cases SET owner = 'me'")
    assert write(evals, A, B) == (1, 1, 0)
    assert evals.table("eval_cases", "case_id, owner", order="1") == [("a", "me"), ("b", None), ("mine", "me")]


def test_nothing_is_written_if_the_database_refuses_one_case(evals: Evals) -> None:
    evals.warehouse.execute(
        "CREATE TABLE eval_cases (case_id text, input text, expected text NOT NULL, grader text, tags text)"
    )
    with pytest.raises(Exception, match="Nothing was written"):
        write(evals, A, B)
    assert evals.table("eval_cases") == []


def test_a_table_without_one_of_the_columns_is_refused(evals: Evals) -> None:
    evals.warehouse.execute("CREATE TABLE eval_cases (case_id text, input text, expected text, grader text)")
    with pytest.raises(ResultsTableError, match="lacks columns"):
        CaseTable(evals.warehouse.hook, "eval_cases").compare([A])
