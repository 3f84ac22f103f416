"""The questions that the offline responder computes, per model, and the regression that can be planted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_batch.demo import eval_cases
from airflow_provider_batch.local.answers.offline import OfflineResponder
from airflow_provider_batch.local.answers.responder import ModelRequest
from airflow_provider_batch.local.answers.skills import SKILLS, skills_of, solve

ALL = frozenset(SKILLS)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 2/1/2022 add 10 weeks?", "04/12/2022"),
        ("What is 1/31/2023 add 1 month?", "02/28/2023"),
        ("What is 02/29/2024 subtract 1 year?", "02/28/2023"),
        ("What day of the week is January 13, 2051? Answer with a single word.", "Friday"),
        ("Convert to Weekday, month day, Year\n\n1945-07-12", "Thursday, July 12, 1945."),
        ("Invoice Date: 2024-01-30\n Terms: NET30", "{'due_date': '2024-02-29'}"),
        ("Jane's lecture is on 3/6/2028, and Anna's on 25/11/2028. In which month is Jane's lecture?", "June"),
        ("(1) 30/10/2029 (2) 1/9/2029. In which month does date #2 fall?", "September"),
        ("The meeting is on 3/6/2028, the party on 11/25/2028. In which month is the meeting?", "March"),
    ],
)
def test_dates_are_computed(question: str, answer: str) -> None:
    assert solve(question, ALL) == (answer, "dates")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Calculate the determinant of the matrix.\n\n[[-3,1],[1,-2]]", "5.00"),
        ("Calculate the determinant of the matrix.\n\n[[0,1],[1,0]]", "-1.00"),
        ("Calculate the determinant of the matrix.\n\n[[1,2],[2,4]]", "0.00"),
        ("how often it intersects with the x-axis.\n\n1*x^(3)+0*x^(2)-3*x+1", "3"),
        ("how often it intersects with the x-axis.\n\n1*x^(2)+2*x+1", "1"),
        ("how often it intersects with the x-axis.\n\n1*x^(2)+0*x+1", "0"),
        ("Is 5 pounds of iron heavier than 20 pounds of hydrogen? Answer Yes or No", "No"),
        ("Is 9 pounds of foam heavier than 5 pounds of chains? Answer Yes or No", "Yes"),
    ],
)
def test_numbers_are_computed(question: str, answer: str) -> None:
    assert solve(question, ALL) == (answer, "arithmetic")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ('the first letters of the words in the following sentence: "The red acrobat - closed"', "trac"),
        ('What is the 4th word in "I am a programmer"?', "programmer"),
        ("how many countries start with the letter A ?: 1. Australia\n2. Canada\n3. Argentina", "2"),
        ("Who is in list 1 but not in list 2?\n\nList 1:\nBob Lee\nUna Wood\nList 2:\nLee Bob", "Una Wood"),
        ('1) if "a" character is encountered, replace it with "z".\n\nA banana.', "A bznznz."),
    ],
)
def test_words_are_found(question: str, answer: str) -> None:
    assert solve(question, ALL) == (answer, "words")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("If you take 3 steps backward, then take 1 step backward, what coordinate are you at?", "(0, -4)"),
        ("If you turn 90 degrees left, then take 2 steps forward, what coordinate are you at?", "(-2, 0)"),
        (
            "Alice has a pink ball, and Bob has a white ball. First, Alice and Bob swap balls. At the end of the game,"
            " what color is Alice's ball?",
            "white",
        ),
        ("A rabbit is on the shelf. Move all objects on the shelf to the ground. Where is the rabbit?", "ground"),
    ],
)
def test_moves_are_followed(question: str, answer: str) -> None:
    assert solve(question, ALL) == (answer, "moves")


@pytest.mark.parametrize(
    "question",
    [
        "What is 13/45/2022 add 10 weeks?",
        "What is 2/1/9999 add 9999 years?",
        "What day of the week is Smarch 13, 2051?",
        "In which month is date #3? 3/6/2028",
        "Calculate the determinant of the matrix.\n\n[[1,2],[3]]",
        'What is the 9th word in "I am"?',
        "Where is the rabbit?",
        "x" * 100_000 + " What is 2/1/2022 add 10 weeks?",
        "",
    ],
)
def test_a_question_that_no_skill_understands_has_no_answer(question: str) -> None:
    assert solve(question, ALL) is None


def test_a_smaller_model_has_fewer_skills() -> None:
    assert skills_of("gpt-5-nano") == {"dates", "words"}
    assert skills_of("gpt-5-mini") == skills_of("gpt-5") == ALL


def test_the_answers_are_computed_from_the_question() -> None:
    (case,) = [case for case in eval_cases.load() if case.case_id == "date-sum-01"]

    changed = case.input.replace("10 weeks", "3 days")

    assert solve(case.input, ALL) == ("04/12/2022", "dates")
    assert solve(changed, ALL) == ("02/04/2022", "dates")


def reply(responder: OfflineResponder, prompt: str, model: str = "gpt-5-mini", **body: Any) -> str:
    messages = [{"role": "user", "content": prompt}]
    request = ModelRequest("/v1/chat/completions", {"model": model, "messages": messages, **body})
    answer = asyncio.run(responder.answer(request))
    assert answer.body["model"] == f"offline-responder/{model}"
    return str(answer.body["choices"][0]["message"]["content"])


WALK = "If you take 2 steps forward, what coordinate are you at?"


def test_a_forgotten_skill_answers_each_question_once() -> None:
    seen: set[bytes] = set()

    def first_time(key: bytes) -> bool:
        is_new = key not in seen
        seen.add(key)
        return is_new

    responder = OfflineResponder(first_time, {("gpt-5-mini", "moves")})

    assert [reply(responder, WALK), reply(responder, f"Please: {WALK}")] == ["(0, 2)", "(0, 2)"]
    assert "no model was called" in reply(responder, WALK)
    assert "no model was called" in reply(OfflineResponder(first_time, {("gpt-5-mini", "moves")}), WALK)
    assert [reply(responder, WALK, model="gpt-5") for _ in range(2)] == ["(0, 2)", "(0, 2)"]
    assert [reply(responder, "What is 2/1/2022 add 10 weeks?") for _ in range(2)] == ["04/12/2022"] * 2


@pytest.mark.parametrize(
    ("expected", "answer", "verdict"),
    [
        ("The sky is blue.", "the sky is blue", "correct"),
        ("The sky is blue.", "Offline responder: no model was called.", "incorrect"),
        ("The sky is blue.", "", "incorrect"),
    ],
)
def test_a_judge_compares_the_answer_with_the_expected_one(expected: str, answer: str, verdict: str) -> None:
    schema = {"type": "object", "properties": {"verdict": {"enum": ["correct", "incorrect"]}}}
    prompt = f"# Question\n\nWhy?\n\n# What a correct answer has to say\n\n{expected}\n\n# Answer\n\n{answer}\n"
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}

    assert reply(OfflineResponder(lambda _: True), prompt, response_format=form) == f'{{"verdict":"{verdict}"}}'
