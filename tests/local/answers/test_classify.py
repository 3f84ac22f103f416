"""Choosing among the values of an enum by the words that a text shares with what is said of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.answers.classify import rank

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
def test_instructions_are_understood_however_they_are_written(instructions: str) -> None:
    assert {text: rank(TEAMS, text, instructions)[0] for text in TEXTS} == TEXTS


def test_a_value_s_own_name_counts_too() -> None:
    assert rank(TEAMS, "a question about billing", "")[0] == "billing"


def test_without_any_shared_word_the_rest_is_chosen() -> None:
    assert rank(TEAMS, "Zebras hum", "")[0] == "other"


def test_a_word_that_speaks_for_one_value_beats_a_word_that_speaks_for_all() -> None:
    said = "red: team, fire\nblue: team, water\ngreen: team, grass"
    assert rank(["red", "blue", "green"], "the team saw water", said)[0] == "blue"


def test_letters_that_match_only_regardless_of_case_do_no_harm() -> None:
    assert rank(["billing", "login"], "x", "b\u0130lling: invoices")[0] in ("billing", "login")


@given(st.lists(st.text(), min_size=1, unique=True), st.text(), st.text())
def test_every_value_is_ranked_once_whatever_the_texts(values: list[str], text: str, instructions: str) -> None:
    ranked = rank(values, text, instructions)

    assert sorted(ranked) == sorted(values)
    assert rank(values, text, instructions) == ranked
