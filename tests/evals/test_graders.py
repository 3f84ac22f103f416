"""What each grader calls right, and what it calls wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import normalised, parse_grader, verdict
from airflow_provider_batch.exceptions import InputError

NUMBERS = st.integers(-(10**12), 10**12)


def score(grader: str, expected: str, answer: str) -> int:
    return parse_grader(grader).grade(expected, answer).score


@pytest.mark.parametrize(
    ("grader", "expected", "answer"),
    [
        ("exact", "Paris", "Paris"),
        ("exact", "Paris", " Paris\n"),
        ("normalised", "Paris", "**PARIS**."),
        ("normalised", "don't", "Don’t"),
        ("normalised", "well-known", "well known"),
        ("normalised", "straße", "STRASSE"),
        ("normalised", "é", "e\u0301"),
        ("normalised", "ﬁve", "five"),
        ("normalised", "-5", "\u22125"),
        ("normalised", "3.5", "(3.5)"),
        ("regex", r"^(Bonn|Berlin)\b", "Berlin, since 1990"),
        ("regex", r"(?i)yes\W*\Z", "So the answer is: YES."),
        ("json", '["a", "b"]', '[ "a","b" ]'),
        ("json:city.name", "Paris", '{"city": {"name": "Paris"}}'),
        ("json:rows.1.n", "2", '{"rows": [{"n": 1}, {"n": 2.0}]}'),
        ("json:ok", "true", '{"ok": true}'),
        ("json:n", "null", '{"n": null}'),
        ("json:id", "007", '{"id": "007"}'),
        ("numeric", "42", "42"),
        ("numeric", "42", "The answer is 42."),
        ("numeric", "1234.5", "1,234.50 kg"),
        ("numeric", "3000", "3 km are 3000 m"),
        ("numeric", "-7", "x = \u22127"),
        ("numeric", "7", "between A-7"),
        ("numeric", "0.1", "0.10"),
        ("numeric", "1.5e3", "1500"),
        ("numeric", "886", "८८६"),
        ("numeric:0.01", "3.14159", "3.15"),
        ("numeric:1%", "200", "198"),
        ("numeric:1%", "-200", "-202"),
    ],
)
def test_right(grader: str, expected: str, answer: str) -> None:
    assert score(grader, expected, answer) == 1


@pytest.mark.parametrize(
    ("grader", "expected", "answer", "reason"),
    [
        ("exact", "Paris", "paris", "another text: 'paris'"),
        ("exact", "Paris", "", "another text: ''"),
        ("normalised", "5", "-5", "another text: '-5'"),
        ("normalised", "35", "3.5", "another text: '3.5'"),
        ("normalised", "5", ".5", "another text: '.5'"),
        ("normalised", "C", "C#", "another text: 'C#'"),
        ("regex", "^yes", "no, yes", "does not match: 'no, yes'"),
        ("json", "1", "```json\n1\n```", "no JSON: '```json 1 ```'"),
        ("json:a.b", "1", '{"a": {"c": 1}}', "there is no 'b' in the JSON"),
        ("json:a.0", "1", '{"a": "1"}', "there is no '0' in the JSON"),
        ("json:ok", "1", '{"ok": true}', "another value: 'true'"),
        ("json:ok", "true", '{"ok": 1}', "another value: '1'"),
        ("json:n", "2", '{"n": "two"}', "another value: '\"two\"'"),
        ("json", "1", "[" * 100_000, "no JSON: '" + "[" * 59 + "…'"),
        ("numeric", "42", "forty-two", "no number: 'forty-two'"),
        ("numeric", "42", "42, or rather 43", "another number: '43'"),
        ("numeric:0.01", "3.14", "3.16", "another number: '3.16'"),
        ("numeric:1%", "200", "197.9", "another number: '197.9'"),
        ("numeric:1%", "0", "0.001", "another number: '0.001'"),
        ("numeric", "1", "1e999999999999", "another number: '1e999999999999'"),
    ],
)
def test_wrong_and_why(grader: str, expected: str, answer: str, reason: str) -> None:
    assert parse_grader(grader).grade(expected, answer) == (0, reason)


@pytest.mark.parametrize(
    ("grader", "told"),
    [
        ("", "there is no grader ''; there are exact, normalised, regex, json, numeric, judge"),
        ("fuzzy", "there is no grader 'fuzzy'"),
        ("Exact", "there is no grader 'Exact'"),
        ("exact:x", "takes nothing after a colon"),
        ("json:", "has nothing after its colon"),
        ("json:a..b", "has an empty part in its path"),
        ("numeric:near", "needs a number or a percentage after its colon"),
        ("numeric:-1", "needs a number or a percentage after its colon"),
        ("numeric:nan", "needs a number or a percentage after its colon"),
        ("numeric:%x", "needs a number or a percentage after its colon"),
    ],
)
def test_a_grader_that_is_none_is_told(grader: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_grader(grader)


@given(NUMBERS)
def test_a_number_is_right_however_its_thousands_are_written(number: int) -> None:
    for written in (str(number), f"{number:,}", f"{number}.0", f"It is {number:,}."):
        assert score("numeric", str(number), written) == 1
    assert score("numeric", str(number + 1), str(number)) == 0


@given(st.text())
def test_what_is_exact_is_also_right_when_normalised_and_normalising_again_changes_nothing(text: str) -> None:
    assert score("exact", text, text) == 1
    assert score("normalised", text, text) == 1
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(), st.sampled_from(["exact", "normalised", "regex", "json", "json:a.0", "numeric", "numeric:1%"]))
def test_every_answer_gets_a_grade(answer: str, grader: str) -> None:
    grade = parse_grader(grader).grade("1", answer)
    assert grade.score in (0, 1)
    assert grade.reason
    assert parse_grader(grader).text == grader


@pytest.mark.parametrize("text", ["correct", " Pass ", "YES", True, 1])
def test_a_verdict_that_lets_pass(text: object) -> None:
    assert verdict(text) is True


@pytest.mark.parametrize("text", ["incorrect", "Fail", "no", False, 0])
def test_a_verdict_that_does_not(text: object) -> None:
    assert verdict(text) is False


@pytest.mark.parametrize("text", [None, "", "partly", "not correct"])
def test_what_is_no_verdict(text: object) -> None:
    assert verdict(text) is None
