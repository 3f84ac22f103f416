"""A case may have several graders, with weights, expected values of their own and a threshold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import check_grader, parse_grader
from airflow_provider_batch.evals.graders.subject import Grade
from airflow_provider_batch.exceptions import InputError
from tests.evals.answers import answer, grade

YES, NO = {"grader": "contains", "expected": "x"}, {"grader": "not-contains", "expected": "x"}
WEIGHTS = st.integers(1, 1000)


def test_an_answer_is_right_if_all_graders_say_so() -> None:
    graders = ["is-json", {"grader": "json:city", "expected": "Paris"}]
    assert grade(graders, None, '{"city": "Paris"}') == (1, True, "2 of 2 graders passed")
    assert grade(graders, None, '{"city": "Rome"}') == (
        0.5,
        False,
        "1 of 2 graders passed; json:city: different value: '\"Rome\"'",
    )


def test_graders_without_an_expected_value_use_that_of_the_case() -> None:
    assert grade(["contains", {"grader": "not-contains", "expected": "b"}], "a", "a").passed
    assert not grade(["contains", {"grader": "contains", "expected": None}], "a", "b").passed


@pytest.mark.parametrize("expected", [["a", "b"], '["a", "b"]'])
def test_an_expected_list_may_be_a_list_or_its_text(expected: Any) -> None:
    assert grade([{"grader": "contains-all", "expected": expected}], None, "a b").passed


def test_a_value_that_is_not_text_stands_for_its_json() -> None:
    assert grade([{"grader": "numeric", "expected": 42}], None, "42").passed
    assert grade([{"grader": "json:a", "expected": {"b": [True]}}], None, '{"a": {"b": [true]}}').passed


def test_a_threshold_decides_by_the_score() -> None:
    graders = [YES, NO, {**YES, "weight": 2}, {"threshold": 0.75}]
    assert grade(graders, None, "x") == (
        0.75,
        True,
        "2 of 3 graders passed, score 0.75 with a threshold of 0.75; not-contains: contains 'x'",
    )
    assert not grade([*graders[:3], {"threshold": 0.76}], None, "x").passed


def test_a_sum_of_weights_that_floats_round_reaches_the_threshold() -> None:
    graders = [{**YES, "weight": weight} for weight in (0.1, 0.2, 0.4)] + [{**NO, "weight": 0.3}, {"threshold": 0.7}]
    assert grade(graders, None, "x").passed


def test_a_verdict_counts_like_any_other_grade() -> None:
    verdict = Grade(0.0, False, "judge: rude")
    assert grade(["judge", "not-is-json"], "be kind", "text", verdict) == (
        0.5,
        False,
        "1 of 2 graders passed; judge: rude",
    )
    assert parse_grader('["judge", "is-json"]').judged
    assert not parse_grader('["exact", "is-json"]').judged


def test_an_answer_that_is_not_usable_is_wrong_for_every_grader_even_if_negated() -> None:
    assert grade([NO, "is-json"], None, answer(None, "incomplete")) == (
        0,
        False,
        "0 of 2 graders passed; not-contains: incomplete; is-json: incomplete",
    )


def test_the_same_list_with_other_white_space_is_the_same_grader() -> None:
    graders = [{"weight": 2, "grader": "exact"}, "is-json"]
    texts = (json.dumps(graders), json.dumps(graders, indent=2), '[{"grader":"exact","weight":2},"is-json"]')
    assert len({parse_grader(text).text for text in texts}) == 1


@given(st.lists(st.tuples(WEIGHTS, st.booleans()), min_size=1, max_size=8), WEIGHTS, st.randoms())
def test_the_score_is_the_weighted_mean_whatever_the_order_and_the_unit_of_the_weights(
    weights: list[tuple[int, bool]], factor: int, rng: Any
) -> None:
    graders = [{**(YES if is_right else NO), "weight": weight} for weight, is_right in weights]
    result = grade(graders, None, "x")
    mean = sum(weight for weight, is_right in weights if is_right) / sum(weight for weight, _ in weights)
    assert result.score == pytest.approx(mean)
    assert result.passed == all(is_right for _, is_right in weights)
    scaled = [{**grader, "weight": grader["weight"] * factor} for grader in rng.sample(graders, len(graders))]
    assert grade(scaled, None, "x").score == pytest.approx(mean)


@pytest.mark.parametrize(
    ("graders", "messages"),
    [
        ("[", ["begins like a JSON list, but is not JSON"]),
        ("[" * 100_000, ["begins like a JSON list, but is not JSON"]),
        ([], ["the list in `grader` has no grader"]),
        ([{"threshold": 0.5}], ["the list in `grader` has no grader"]),
        (["is-json", {"threshold": 0.5}, {"threshold": 0.5}], ["more than one threshold"]),
        (["judge", "llm-rubric:0.7"], ["more than one grader by a judge"]),
        ([5, None], ["grader 1 of 2: a grader in a list is a text or an object, not 5", "grader 2 of 2", "not null"]),
        ([{"grader": "is-json", "wieght": 2}, "is-json"], ["grader 1 of 2", "unknown here: 'wieght'"]),
        ([{"grader": "is-json", "threshold": 0.5}], ["unknown here: 'threshold'"]),
        ([{"weight": 2}], ["needs the name of one as text under 'grader'"]),
        ([{"grader": "judge", "expected": "x"}], ["reads the expected value of the case"]),
        ([{"grader": "is-json", "weight": 0}], ["the weight of a grader is a number above 0, not 0"]),
        ([{"grader": "is-json", "weight": True}], ["the weight of a grader is a number above 0, not true"]),
        (["is-json", {"threshold": 1.5}], ["a threshold is a number above 0 and up to 1, not 1.5"]),
        (["exact"], ["needs an expected value, but `expected` is NULL"]),
        (
            ["fuzzy", {"grader": "regex", "expected": "("}, "is-json:x"],
            [
                "grader 1 of 3: there is no grader 'fuzzy'; the graders are exact",
                "; grader 2 of 3: `expected` is not a valid regular expression",
                "; grader 3 of 3: the grader 'is-json' takes no argument",
            ],
        ),
    ],
)
def test_an_error_names_every_element_that_is_wrong(graders: Any, messages: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check_grader(graders if isinstance(graders, str) else json.dumps(graders), None)
    for message in messages:
        assert message in str(error.value)
