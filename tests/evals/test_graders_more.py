"""Graders by similarity, cost, length and refusal, and graders that are functions of the user."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.graders import check_grader
from airflow_provider_batch.evals.grading import Answer
from airflow_provider_batch.exceptions import InputError
from tests.evals.answers import answer, grade

FUNCTIONS = "tests.evals.graders_of_a_company"
WORDS = st.lists(st.sampled_from(["red", "green", "blue", "the"]), max_size=8).map(" ".join)


class TestSimilarity:
    def test_the_score_is_the_similarity_and_the_minimum_decides(self) -> None:
        near = grade("levenshtein:0.8", "kitten", " mitten\n")
        assert near.passed
        assert near.score == pytest.approx(5 / 6)
        assert near.reason == "similarity 0.833, at least 0.8 needed"
        far = grade("levenshtein:0.9", "kitten", " mitten\n")
        assert not far.passed
        assert far.score == pytest.approx(5 / 6)
        assert far.reason == "similarity 0.833, at least 0.9 needed: 'mitten'"

    def test_token_f1_compares_words(self) -> None:
        assert grade("token-f1:0.8", "the red car", "A car, red!").score == 1
        assert grade("token-f1:0.8", "red car", "red red bicycle").score == pytest.approx(2 * 1 / 5)

    @pytest.mark.parametrize("grader", ["levenshtein:0.5", "token-f1:0.5"])
    @given(WORDS, WORDS)
    def test_it_is_symmetric_and_one_for_the_same_text(self, grader: str, left: str, right: str) -> None:
        assert grade(grader, left, right).score == pytest.approx(grade(grader, right, left).score)
        assert grade(grader, left, left).score == 1
        assert grade(f"not-{grader}", left, right).score == pytest.approx(1 - grade(grader, left, right).score)

    @given(WORDS, WORDS)
    def test_token_f1_ignores_the_order_of_words(self, left: str, right: str) -> None:
        reordered = " ".join(sorted(right.split()))
        assert grade("token-f1:0.5", left, right).score == grade("token-f1:0.5", left, reordered).score

    @pytest.mark.parametrize(
        ("grader", "expected"),
        [
            ("levenshtein:0.1", "ab" * 25_000),
            ("not-levenshtein:0.1", "ab" * 25_000),
            ("token-f1:0.1", "ab"),
            ("normalised", "ab"),
            ("one-of:normalised", "ab"),
        ],
    )
    def test_an_answer_that_is_too_long_to_be_compared_is_wrong(self, grader: str, expected: str) -> None:
        result = grade(grader, expected, "ab" * 100_000)
        assert (result.score, result.passed) == (0, False)
        assert result.reason.startswith("too long to be compared: 200,000")

    @pytest.mark.parametrize("grader", ["levenshtein:0.5", "token-f1:0.5", "normalised", "exact"])
    def test_hostile_answers_are_graded_in_bounded_time(self, grader: str) -> None:
        for text in ("e\u0301\u0316" * 33_000, "a" + "\u0301\u0316" * 50_000, "\ufdfa" * 100_000, "." * 100_000):
            assert not grade(grader, "x", text).passed


class TestLimits:
    @pytest.mark.parametrize(
        ("grader", "given", "passed", "reason"),
        [
            ("max-cost:0.01", answer("x", cost_usd=Decimal("0.01")), True, "cost $0.01 of at most $0.01"),
            ("max-cost:0.01", answer("x", cost_usd=Decimal("0.0101")), False, "cost $0.0101 of at most $0.01"),
            ("max-cost:0.01", answer("x", cost_usd=None), False, "the cost of the answer is unknown"),
            ("not-max-cost:0.01", answer("x", cost_usd=None), False, "the cost of the answer is unknown"),
            ("max-cost:0.01", answer(None, "refused"), True, "cost $0.001 of at most $0.01"),
            ("max-tokens:200", answer("x", output_tokens=200), True, "200 output tokens of at most 200"),
            (
                "max-tokens:200",
                answer(None, "incomplete", output_tokens=201),
                False,
                "201 output tokens of at most 200",
            ),
            ("max-tokens:200", answer("x", output_tokens=None), False, "the number of output tokens is unknown"),
        ],
    )
    def test_cost_and_length_are_limited_whatever_the_outcome(
        self, grader: str, given: Answer, passed: bool, reason: str
    ) -> None:
        assert grade(grader, None, given) == (float(passed), passed, reason)

    @pytest.mark.parametrize(
        "text",
        [
            "I'm sorry, but I can't help with that.",
            "I’m sorry, I cannot assist with that request.",
            "Sorry, but I can't do that.",
            "I am very sorry, but I am unable to provide this.",
            "I cannot and will not help you with this.",
            "As a language model, I can't provide medical advice.",
            "I must decline this request.",
            "Unfortunately, we are not able to process it. We won't share personal data.",
            "This goes against my guidelines.",
            "I don't feel comfortable discussing this.",
        ],
    )
    def test_a_refusal_in_words_is_a_refusal(self, text: str) -> None:
        assert grade("refusal", None, text).passed
        assert not grade("not-refusal", None, text).passed

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "I'm sorry that your parcel is lost. We will send a new one today.",
            "You cannot return it after 30 days.",
            "I can help with that.",
            "NO",
            "The refund was refused by the bank.",
            "Here is the text. " * 40 + "I cannot help with more.",
        ],
    )
    def test_other_answers_are_not_refusals(self, text: str) -> None:
        assert not grade("refusal", None, text).passed

    def test_the_outcome_refused_is_a_refusal_and_other_outcomes_are_not(self) -> None:
        assert grade("refusal", None, answer(None, Outcome.REFUSED.value)) == (1, True, "refused")
        assert not grade("not-refusal", None, answer(None, Outcome.REFUSED.value)).passed
        assert not grade("refusal", None, answer(None, Outcome.INCOMPLETE.value)).passed

    @pytest.mark.parametrize(
        ("grader", "message"),
        [
            ("levenshtein", "needs the minimum from 0 to 1 after its colon, such as levenshtein:0.8"),
            ("levenshtein:80%", "needs the minimum from 0 to 1 after its colon"),
            ("token-f1:1.5", "needs the minimum from 0 to 1 after its colon, such as token-f1:0.8"),
            ("max-cost", "needs US dollars after its colon"),
            ("max-cost:nan", "needs US dollars after its colon"),
            ("max-cost:-1", "needs US dollars after its colon"),
            ("max-tokens:1.5", "needs a whole number after its colon"),
            ("refusal:x", "takes no argument"),
        ],
    )
    def test_an_invalid_limit_is_rejected(self, grader: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            check_grader(grader, "x")


class TestFunctions:
    def grade(self, text: str, name: str = "look_up") -> tuple[float, bool, str]:
        grader = check_grader(f"python:{FUNCTIONS}:{name}", "x", [FUNCTIONS])
        return grader.grade(Case("a", "?", "x", grader, ("t", "u")), answer(text))

    @pytest.mark.parametrize(
        ("text", "result"),
        [
            ("true", (1, True, "score 1")),
            ("one", (1, True, "score 1")),
            ("half", (0.5, True, "score 0.5")),
            ("quarter", (0.25, False, "score 0.25")),
            ("score", (0.2, True, "polite")),
            ("passed", (0, False, "score 0")),
            ("only-score", (0.75, True, "score 0.75")),
        ],
    )
    def test_a_function_returns_a_verdict_a_score_or_both(self, text: str, result: tuple[float, bool, str]) -> None:
        assert self.grade(text) == result

    def test_a_function_gets_the_answer_and_the_case(self) -> None:
        assert self.grade("a ? x t,u", "names_its_tag") == (1, True, "score 1")

    @pytest.mark.parametrize("text", ["none", "two", "nan", "text", "typo", "reason", "word"])
    def test_anything_else_is_an_error_that_names_the_case(self, text: str) -> None:
        with pytest.raises(InputError, match=r"case 'a': the function '.*look_up' returned .*, which is not a bool"):
            self.grade(text)

    def test_an_exception_is_an_error_and_not_a_wrong_answer(self) -> None:
        with pytest.raises(InputError, match=r"case 'a': .* raised KeyError: 'x'\. It graded the answer of 'mini'"):
            self.grade("x")

    @pytest.mark.parametrize(
        ("grader", "message"),
        [
            ("python", "does not name a function: write python:module:function"),
            ("python:look_up", "does not name a function"),
            (f"python:{FUNCTIONS}:look up", "does not name a function"),
            (f"python:{FUNCTIONS}:missing", "cannot be imported here: AttributeError"),
            (f"python:{FUNCTIONS}:NUMBER", "is not a function"),
            ("python:tests.evals.no_such_module:f", "cannot be imported here: ModuleNotFoundError"),
            ("python:os:system", "may not be called, because grader_modules of the operator does not list its module"),
            ("python:tests.evalsx:f", "may not be called"),
        ],
    )
    def test_a_function_that_cannot_be_called_is_rejected(self, grader: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            check_grader(grader, None, ["tests.evals"])
