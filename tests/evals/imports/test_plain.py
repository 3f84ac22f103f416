"""Plain CSV, JSON and JSON lines become cases by the names of their columns."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batch.evals.imports.drafts import ImportedCase
from airflow_provider_batch.exceptions import InputError
from tests.evals.imports.conftest import SAMPLES, Write, import_file, reasons


def test_columns_with_our_names_need_no_mapping(write: Write) -> None:
    path = write("cases.csv", 'case_id,input,expected,grader,tags\na,How many?,3,numeric,"sums,easy"\n')
    assert import_file("csv", path).cases == [ImportedCase("a", "How many?", "3", "numeric", "sums,easy")]


def test_other_names_are_mapped_and_one_grader_can_serve_all_cases() -> None:
    path = SAMPLES / "inspect" / "biology_qa.jsonl"
    imported = import_file("jsonl", path, columns={"input": "question", "expected": "answer"}, grader="normalised")
    assert len(imported.cases) == 20
    assert imported.cases[0] == ImportedCase(
        "q1", "Hansen's disease is more commonly known by which name?", "Leprosy", "normalised", ""
    )


def test_a_json_document_is_a_list_of_cases(write: Write) -> None:
    rows = [{"id": 7, "input": "2.5 * 2?", "expected": 5.0, "grader": "numeric", "tags": ["a,b", "c"]}]
    assert import_file("json", write("cases.json", json.dumps(rows))).cases == [
        ImportedCase("7", "2.5 * 2?", "5", "numeric", "a;b,c")
    ]


def test_a_list_of_accepted_answers_stays_a_list(write: Write) -> None:
    path = write("c.jsonl", '{"input": "Yes or no?", "expected": ["yes", "no"], "grader": "one-of"}')
    assert import_file("jsonl", path).cases[0].expected == '["yes", "no"]'


def test_an_id_without_a_source_depends_only_on_name_and_input(write: Write) -> None:
    first = import_file("csv", write("a/x.csv", "input,expected,grader\nA?,1,exact\nB?,2,exact\n")).cases
    second = import_file("csv", write("b/x.csv", "input,expected,grader\nC?,9,exact\nB?,3,exact\nA?,1,exact\n")).cases
    assert first[0].case_id == second[2].case_id
    assert first[1].case_id == second[1].case_id
    assert first[0].case_id.startswith("x-")


def test_one_input_with_two_expectations_makes_two_cases_whatever_their_order(write: Write) -> None:
    first = import_file("csv", write("a/x.csv", "input,expected,grader\nA?,1,exact\nA?,2,exact\n")).cases
    second = import_file("csv", write("b/x.csv", "input,expected,grader\nA?,2,exact\nA?,1,exact\n")).cases
    assert {case.case_id for case in first} == {case.case_id for case in second}
    assert len(first) == len({case.case_id for case in first}) == 2


def test_the_same_test_twice_is_one_case(write: Write) -> None:
    imported = import_file("csv", write("x.csv", "input,expected,grader\nA?,1,exact\nA?,1,exact\n"))
    assert len(imported.cases) == 1
    assert imported.notes == ["1 test left out, because another one is the same."]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"input": "a", "expected": "b"}', "it has no grader. Name one for such cases with the option `grader`"),
        ('{"input": " ", "expected": "b", "grader": "exact"}', "the input is empty"),
        ('{"input": "a\\u0000", "expected": "b", "grader": "exact"}', "it contains a NUL character"),
        ('{"input": "\\ud800", "expected": "b", "grader": "exact"}', "it contains a NUL character or half"),
        ('{"input": "a", "expected": "b", "grader": "exact", "id": "c~2"}', "the id 'c~2' ends with ~ and a number"),
        ('{"input": "a", "expected": "b", "grader": "excat"}', "there is no grader 'excat'; the graders are exact"),
        ('{"input": "a", "expected": "(", "grader": "regex"}', "`expected` is not a valid regular expression"),
        ('{"input": "a", "grader": "exact"}', "the grader 'exact' needs an expected value"),
    ],
)
def test_a_row_that_cannot_be_a_case_has_a_reason(write: Write, row: str, reason: str) -> None:
    imported = import_file(
        "jsonl", write("x.jsonl", f'{{"input": "ok", "expected": "", "grader": "exact"}}\n\n{row}\n')
    )
    assert len(imported.cases) == 1
    assert reasons(imported)[0].startswith(f"x.jsonl, line 3: {reason}")


def test_an_id_of_two_different_tests_leaves_out_both(write: Write) -> None:
    imported = import_file(
        "csv", write("x.csv", "id,input,expected,grader\na,A?,1,exact\na,B?,2,exact\nb,C?,3,exact\n")
    )
    assert [case.case_id for case in imported.cases] == ["b"]
    assert reasons(imported) == [
        "x.csv, line 2: the id 'a' is used by 2 different tests",
        "x.csv, line 3: the id 'a' is used by 2 different tests",
    ]


def test_a_missing_column_is_an_error_that_names_the_others(write: Write) -> None:
    path = write("x.csv", "question,expected\nA?,1\n")
    with pytest.raises(InputError, match=r"x\.csv has no column 'input'\. It has 'expected', 'question'\. Say which"):
        import_file("csv", path, grader="exact")


def test_a_mapping_of_an_unknown_column_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="columns: There is no column 'question'"):
        import_file("csv", write("x.csv", "input\nA?\n"), columns={"question": "input"})
