"""The grader `similar` compares embeddings, which a batch job made before."""

from __future__ import annotations

from array import array

import pytest

from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.graders import check_grader
from airflow_provider_batch.evals.graders.embeddings import MAX_CHARACTERS, Vectors, text_id
from airflow_provider_batch.evals.grading import Answer, GradedAnswer, grade_answers
from airflow_provider_batch.exceptions import InputError

#: the cosine of north and north-east is 0.707, that of north and south -1
VECTORS = {
    text_id(text): array("f", vector)
    for text, vector in {"north": (0, 1), "north-east": (2, 2), "east": (3, 0), "south": (0, -1)}.items()
}


def grade(output: str, expected: str, grader: str = "similar:0.7", vectors: Vectors | None = VECTORS) -> GradedAnswer:
    case = Case("c", "Where?", expected, check_grader(grader, expected), ())
    answer = Answer("mini", "c", 1, "succeeded", output, None, 1, 1, None)
    (graded,) = grade_answers([case], [answer], judgements=None, vectors=vectors).answers
    return graded


@pytest.mark.parametrize(
    ("output", "expected", "score", "passed"),
    [
        ("north-east", "north", 0.707107, True),
        (" north\n", "north", 1, True),
        ("east", "north", 0, False),
        ("south", "north", 0, False),
        ("north-east", '["south", "east"]', 0.707107, True),  # the best of several accepted answers
        (" ", "north", 0, False),  # nothing was embedded
    ],
)
def test_the_score_is_the_cosine_and_the_minimum_decides(
    output: str, expected: str, score: float, passed: bool
) -> None:
    graded = grade(output, expected)
    assert (graded.score, graded.passed, graded.answered) == (score, passed, True)


def test_the_reason_names_the_most_similar_text() -> None:
    assert grade("north-east", '["south", "east"]').reason == "similarity 0.707 to 'east', at least 0.7 needed"


def test_in_a_list_it_may_have_an_expected_text_and_a_weight_of_its_own() -> None:
    graders = '["contains", {"grader": "similar:0.5", "expected": "east", "weight": 3}]'
    assert grade("north-east", "north", graders).score == pytest.approx((1 + 3 * 0.707107) / 4)
    assert grade("east", "north", "not-similar:0.5").passed


@pytest.mark.parametrize(("output", "expected"), [("west", "north"), ("north", '["north", "west"]')])
def test_an_answer_without_an_embedding_is_unanswered(output: str, expected: str) -> None:
    graded = grade(output, expected)
    assert (graded.score, graded.passed, graded.answered) == (0, False, False)
    assert graded.reason == "there is no embedding of the answer or of an expected text"


def test_embeddings_of_different_models_cannot_be_compared() -> None:
    graded = grade("north", "east", vectors={**VECTORS, text_id("east"): array("f", (1, 0, 0))})
    assert (graded.passed, graded.reason) == (False, "the embeddings have 2 and 3 dimensions")


def test_only_the_beginning_of_a_long_text_counts() -> None:
    text = "a" * MAX_CHARACTERS
    assert text_id(text) == text_id(f"  {text}b")
    assert text_id(text) != text_id(text[1:])


def test_cases_that_need_embeddings_need_a_table_of_them() -> None:
    with pytest.raises(InputError, match="1 case has the grader 'similar', but no table with embeddings was given"):
        grade("north", "north", vectors=None)


@pytest.mark.parametrize(("grader", "expected"), [("similar", "a"), ("similar:2", "a"), ("similar:0.8", "")])
def test_a_minimum_and_an_expected_text_are_needed(grader: str, expected: str) -> None:
    with pytest.raises(InputError):
        check_grader(grader, expected)
