"""Which answers each grader calls right, and which it calls wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import normalise, parse_grader, parse_verdict
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
        ("regex", r"^yes$", "yes\n"),
        ("regex", r"\\Z", r"a \Z b"),
        ("regex", r"(?i)\bmünchen\b", "In München."),
        ("regex", r"(a+)+$", "b" + "a" * 100_000),
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
def test_these_answers_are_right(grader: str, expected: str, answer: str) -> None:
    assert score(grader, expected, answer) == 1


@pytest.mark.parametrize(
    ("grader", "expected", "answer", "reason"),
    [
        ("exact", "Paris", "paris", "different text: 'paris'"),
        ("exact", "Paris", "", "different text: ''"),
        ("normalised", "5", "-5", "different text: '-5'"),
        ("normalised", "35", "3.5", "different text: '3.5'"),
        ("normalised", "5", ".5", "different text: '.5'"),
        ("normalised", "C", "C#", "different text: 'C#'"),
        ("regex", "^yes", "no, yes", "does not match: 'no, yes'"),
        ("json", "1", "```json\n1\n```", "not JSON: '```json 1 ```'"),
        ("json:a.b", "1", '{"a": {"c": 1}}', "the JSON has no 'a.b'"),
        ("json:a.0", "1", '{"a": "1"}', "the JSON has no 'a.0'"),
        ("json:v1.1", "1", '{"v1.0": 1}', "the JSON has no 'v1.1'"),
        (
            "json:a.b.c",
            "1",
            '{"a.b": {"c": 1}, "a": {"b.c": 1}}',
            'names in the JSON contain dots, so the path could be ["a.b", "c"] or ["a", "b.c"]; write it as a list',
        ),
        ("json:ok", "1", '{"ok": true}', "different value: 'true'"),
        ("json:ok", "true", '{"ok": 1}', "different value: '1'"),
        ("json:n", "2", '{"n": "two"}', "different value: '\"two\"'"),
        ("regex", "(a+)+$", "a" * 100_000 + "b", "does not match: '" + "a" * 59 + "…'"),
        ("regex", "^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 100_000, "does not match: '" + "a" * 59 + "…'"),
        ("json", "1", "[" * 100_000, "not JSON: '" + "[" * 59 + "…'"),
        ("numeric", "42", "forty-two", "no number: 'forty-two'"),
        ("numeric", "42", "42, or rather 43", "different number: '43'"),
        ("numeric:0.01", "3.14", "3.16", "different number: '3.16'"),
        ("numeric:1%", "200", "197.9", "different number: '197.9'"),
        ("numeric:1%", "0", "0.001", "different number: '0.001'"),
        ("numeric", "1", "1e999999999999", "different number: '1e999999999999'"),
    ],
)
def test_these_answers_are_wrong_for_the_given_reason(grader: str, expected: str, answer: str, reason: str) -> None:
    assert parse_grader(grader).grade(expected, answer) == (0, reason)


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ("", "there is no grader ''; the graders are exact, normalised, regex, json, numeric, judge"),
        ("fuzzy", "there is no grader 'fuzzy'"),
        ("Exact", "there is no grader 'Exact'"),
        ("exact:x", "takes no argument after a colon"),
        ("json:", "has nothing after its colon"),
        ('json:["a"', "is not a JSON list of names and list indexes"),
        ('json:["a", true]', "is not a JSON list of names and list indexes"),
        ("numeric:near", "needs a number or a percentage after its colon"),
        ("numeric:-1", "needs a number or a percentage after its colon"),
        ("numeric:nan", "needs a number or a percentage after its colon"),
        ("numeric:%x", "needs a number or a percentage after its colon"),
    ],
)
def test_an_invalid_grader_is_rejected(grader: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_grader(grader)


@given(NUMBERS)
def test_a_number_is_right_with_and_without_separators(number: int) -> None:
    for answer in (str(number), f"{number:,}", f"{number}.0", f"It is {number:,}."):
        assert score("numeric", str(number), answer) == 1
    assert score("numeric", str(number + 1), str(number)) == 0


@pytest.mark.parametrize(
    "expression",
    ["(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)", "(a)?(?(1)b|c)", r"\u00e9", "x{1001}"],
)
def test_an_expression_that_only_python_takes_is_refused_with_what_to_do(expression: str) -> None:
    with pytest.raises(InputError, match=r"not a valid regular expression: .* RE2, which has no look.* Rewrite it"):
        parse_grader("regex").check(expression)


@pytest.mark.parametrize("expression", ["(", "a**", "[z-a]", "(" * 100_000])
def test_an_expression_that_is_invalid_everywhere_is_refused_without_advice(expression: str) -> None:
    with pytest.raises(InputError, match=r"not a valid regular expression: [^.]*\.\Z"):
        parse_grader("regex").check(expression)


@pytest.mark.parametrize("expression", [r"\bÉcole", r"école\b|passé\b", r"\Bß"])
def test_a_word_boundary_beside_a_letter_that_is_not_ascii_is_refused(expression: str) -> None:
    with pytest.raises(InputError, match="know only ASCII"):
        parse_grader("regex").check(expression)


def test_an_expression_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(InputError, match="not a valid regular expression"):
        parse_grader("regex").check("((a{100}){100}){100}")


def test_json_nested_too_deeply_to_be_compared_is_wrong() -> None:
    answer = "[" * 900 + "]" * 900
    assert parse_grader("json").grade(answer, answer).score in (0, 1)


@given(st.text())
def test_an_exact_answer_is_also_right_when_normalised_and_normalising_is_idempotent(text: str) -> None:
    assert score("exact", text, text) == 1
    assert score("normalised", text, text) == 1
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.sampled_from(["exact", "normalised", "regex", "json", "json:a.0", "numeric", "numeric:1%"]))
def test_every_answer_gets_a_grade(answer: str, grader: str) -> None:
    grade = parse_grader(grader).grade("1", answer)
    assert grade.score in (0, 1)
    assert grade.reason
    assert parse_grader(grader).text == grader


@pytest.mark.parametrize("text", ["correct", " Pass ", "YES", True, 1])
def test_a_positive_verdict_is_true(text: object) -> None:
    assert parse_verdict(text) is True


@pytest.mark.parametrize("text", ["incorrect", "Fail", "no", False, 0])
def test_a_negative_verdict_is_false(text: object) -> None:
    assert parse_verdict(text) is False


@pytest.mark.parametrize("text", [None, "", "partly", "not correct"])
def test_any_other_verdict_is_none(text: object) -> None:
    assert parse_verdict(text) is None
