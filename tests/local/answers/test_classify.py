"""The values of an enum are ranked by the words that a text shares with their names and descriptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.answers.classify import rank_by_words

TEAMS = ["billing", "feature_request", "login", "other"]
TEXTS = {
    "Please send the invoice again": "billing",
    "I forgot my password": "login",
    "It would be a fine idea to add a dark theme": "feature_request",
}


@pytest.mark.parametrize(
    "instructions",
    [
        "billing: invoices, refunds\nfeature_request: ideas, wishes\nlogin: passwords\n",
        "- billing: invoices; refunds\n- **feature_request**: ideas\n- `login`: passwords",
        "The teams are billing (invoices, refunds), feature request (ideas) and login (passwords).",
        "Choose billing for invoices and feature_request for ideas and login for passwords.",
        "billing = invoices. feature-request = ideas. login = passwords.",
        "billing – invoices\nfeature_request – ideas\nlogin – passwords",
    ],
)
def test_instructions_are_understood_in_many_formats(instructions: str) -> None:
    assert {text: rank_by_words(TEAMS, text, instructions)[0] for text in TEXTS} == TEXTS


def test_the_name_of_a_value_counts_too() -> None:
    assert rank_by_words(TEAMS, "a question about billing", "")[0] == "billing"


def test_the_catch_all_value_is_chosen_if_no_word_is_shared() -> None:
    assert rank_by_words(TEAMS, "Zebras hum", "")[0] == "other"


def test_a_word_of_one_value_outweighs_a_word_of_all_values() -> None:
    instructions = "red: team, fire\nblue: team, water\ngreen: team, grass"
    assert rank_by_words(["red", "blue", "green"], "the team saw water", instructions)[0] == "blue"


def test_letters_that_differ_in_lower_case_are_tolerated() -> None:
    assert rank_by_words(["billing", "login"], "x", "b\u0130lling: invoices")[0] in ("billing", "login")


@given(st.lists(st.text(), min_size=1, unique=True), st.text(), st.text())
def test_every_value_is_ranked_exactly_once(values: list[str], text: str, instructions: str) -> None:
    ranking = rank_by_words(values, text, instructions)

    assert sorted(ranking) == sorted(values)
    assert rank_by_words(values, text, instructions) == ranking
