"""Cases are checked before any request is sent, and one error lists all problems."""

from __future__ import annotations

import pytest

from airflow_provider_batch.evals.cases import count_tags, read_cases
from airflow_provider_batch.exceptions import InputError

COLUMNS = ("case_id", "input", "expected", "grader", "tags")
VALID_ROW = ("a", "What is 1 + 1?", "2", "numeric", "sums, easy,,sums")


def test_cases_are_sorted_by_id_and_tags_are_not_repeated() -> None:
    cases = read_cases(COLUMNS, [("b", "?", "x", "exact", None), VALID_ROW, (3, "?", 7, "numeric:1%", "easy")])
    assert [case.case_id for case in cases] == ["3", "a", "b"]
    assert [case.tags for case in cases] == [("easy",), ("sums", "easy"), ()]
    assert count_tags(cases) == {"easy": 2, "sums": 1}


def test_columns_may_come_in_any_order_and_letter_case_among_others() -> None:
    (case,) = read_cases(("TAGS", "Grader", "note", "EXPECTED", "Input", "Case_Id"), [("t", "exact", 1, "x", "?", "a")])
    assert (case.case_id, case.input, case.expected, case.grader.text, case.tags) == ("a", "?", "x", "exact", ("t",))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "?", "x", "fuzzy", ""), "case 'a': there is no grader 'fuzzy'"),
        (("a", "?", "(", "regex", ""), "case 'a': `expected` is not a valid regular expression: missing"),
        (("a", "?", "two", "numeric", ""), "case 'a': `expected` is not a number"),
        (("a", "?", "inf", "numeric", ""), "case 'a': `expected` is not a number"),
        (("a", "?", None, "exact", ""), "case 'a': the grader 'exact' needs an expected value, but `expected` is NULL"),
        (("a", "?", "x", None, ""), "case 'a': there is no grader ''"),
        (("a", None, "x", "exact", ""), "case 'a': the input is empty"),
        (("a", "  ", "x", "exact", ""), "case 'a': the input is empty"),
        ((None, "?", "x", "exact", ""), "row 1: the case_id is empty"),
        (("a~2", "?", "x", "exact", ""), "row 1: the case_id 'a~2' ends with ~ and a number, which marks repeats"),
    ],
)
def test_an_error_names_the_case_that_cannot_be_graded(row: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError) as error:
        read_cases(COLUMNS, [row])
    assert f"1 of 1 cases cannot be graded:\n  {message}" in str(error.value)
    assert "Nothing was sent" in str(error.value)


def test_an_error_names_a_repeated_case_id() -> None:
    with pytest.raises(InputError, match="case 'a': this case_id appears more than once"):
        read_cases(COLUMNS, [VALID_ROW, ("b", "?", "x", "exact", ""), VALID_ROW])


def test_an_error_lists_ten_problems_and_counts_the_others() -> None:
    with pytest.raises(InputError) as error:
        read_cases(COLUMNS, [(f"case-{number}", "?", "x", "fuzzy", "") for number in range(25)] + [VALID_ROW])
    assert "25 of 26 cases" in str(error.value)
    assert str(error.value).count("fuzzy") == 10
    assert "and 15 more" in str(error.value)


def test_an_error_names_the_columns_that_the_query_lacks() -> None:
    with pytest.raises(InputError, match="does not return the columns grader, tags"):
        read_cases(COLUMNS[:3], [VALID_ROW[:3]])


def test_a_query_without_rows_raises_an_error() -> None:
    with pytest.raises(InputError, match="There are no cases"):
        read_cases(COLUMNS, [])


def test_a_judge_needs_no_expected_value() -> None:
    (case,) = read_cases(COLUMNS, [("a", "Write a poem.", None, "judge", "")])
    assert case.grader.judged


def test_a_new_question_changes_both_hashes_and_a_new_expected_value_only_one() -> None:
    def hashes(question: str, expected: str, grader: str) -> tuple[str, str]:
        (case,) = read_cases(COLUMNS, [("a", question, expected, grader, "any")])
        return case.input_sha256, case.case_sha256

    input_sha256, case_sha256 = hashes("?", "1", "exact")
    assert hashes("??", "1", "exact")[0] != input_sha256
    for changed in (hashes("?", "2", "exact"), hashes("?", "1", "normalised")):
        assert changed[0] == input_sha256
        assert changed[1] != case_sha256
