"""Cases are checked before anything is asked, and every problem is told at once."""

from __future__ import annotations

import pytest

from airflow_provider_batch.evals.cases import read_cases, tags_of
from airflow_provider_batch.exceptions import InputError

COLUMNS = ("case_id", "input", "expected", "grader", "tags")
GOOD = ("a", "What is 1 + 1?", "2", "numeric", "sums, easy,,sums")


def test_cases_come_in_the_order_of_their_ids_with_each_tag_once() -> None:
    cases = read_cases(COLUMNS, [("b", "?", "x", "exact", None), GOOD, (3, "?", 7, "numeric:1%", "easy")])
    assert [case.case_id for case in cases] == ["3", "a", "b"]
    assert [case.tags for case in cases] == [("easy",), ("sums", "easy"), ()]
    assert tags_of(cases) == {"easy": 2, "sums": 1}


def test_columns_are_found_in_any_order_and_case_beside_others() -> None:
    (case,) = read_cases(("TAGS", "Grader", "note", "EXPECTED", "Input", "Case_Id"), [("t", "exact", 1, "x", "?", "a")])
    assert (case.case_id, case.input, case.expected, case.grader.kind, case.tags) == ("a", "?", "x", "exact", ("t",))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("a", "?", "x", "fuzzy", ""), "case 'a': there is no grader 'fuzzy'"),
        (("a", "?", "(", "regex", ""), "case 'a': expected is no regular expression: missing"),
        (("a", "?", "two", "numeric", ""), "case 'a': expected is no number"),
        (("a", "?", "inf", "numeric", ""), "case 'a': expected is no number"),
        (("a", "?", None, "exact", ""), "case 'a': the grader 'exact' needs an expected value, and it is NULL"),
        (("a", "?", "x", None, ""), "case 'a': there is no grader ''"),
        (("a", None, "x", "exact", ""), "case 'a': the input is empty"),
        (("a", "  ", "x", "exact", ""), "case 'a': the input is empty"),
        ((None, "?", "x", "exact", ""), "row 1: the case_id is empty"),
        (("a~2", "?", "x", "exact", ""), "row 1: the case_id 'a~2' ends like that of a repeat"),
    ],
)
def test_a_case_that_cannot_be_graded_is_named(row: tuple[object, ...], told: str) -> None:
    with pytest.raises(InputError) as error:
        read_cases(COLUMNS, [row])
    assert f"1 of 1 cases cannot be graded:\n  {told}" in str(error.value)
    assert "Nothing was asked" in str(error.value)


def test_a_case_id_that_is_given_twice_is_named() -> None:
    with pytest.raises(InputError, match="case 'a': this case_id is given more than once"):
        read_cases(COLUMNS, [GOOD, ("b", "?", "x", "exact", ""), GOOD])


def test_ten_problems_are_told_and_the_others_counted() -> None:
    with pytest.raises(InputError) as error:
        read_cases(COLUMNS, [(f"case-{number}", "?", "x", "fuzzy", "") for number in range(25)] + [GOOD])
    assert "25 of 26 cases" in str(error.value)
    assert str(error.value).count("fuzzy") == 10
    assert "and 15 more" in str(error.value)


def test_a_query_without_a_column_is_told() -> None:
    with pytest.raises(InputError, match="The cases have no column grader, tags"):
        read_cases(COLUMNS[:3], [GOOD[:3]])


def test_no_cases_are_told() -> None:
    with pytest.raises(InputError, match="There are no cases"):
        read_cases(COLUMNS, [])


def test_a_judge_needs_no_expected_value() -> None:
    (case,) = read_cases(COLUMNS, [("a", "Write a poem.", None, "judge", "")])
    assert case.grader.is_judge


def test_a_changed_question_changes_both_hashes_and_a_changed_expectation_one() -> None:
    def hashes(question: str, expected: str, grader: str) -> tuple[str, str]:
        (case,) = read_cases(COLUMNS, [("a", question, expected, grader, "any")])
        return case.input_sha256, case.case_sha256

    input_sha256, case_sha256 = hashes("?", "1", "exact")
    assert hashes("??", "1", "exact")[0] != input_sha256
    for changed in (hashes("?", "2", "exact"), hashes("?", "1", "normalised")):
        assert changed[0] == input_sha256
        assert changed[1] != case_sha256
