"""Which answers each grader calls right, and which it calls wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import check_grader, normalise, parse_grader, parse_verdict
from airflow_provider_batch.exceptions import InputError
from tests.evals.answers import grade

NUMBERS = st.integers(-(10**12), 10**12)
#: graders that take the expected value "1"
GRADERS = [
    "exact",
    "normalised",
    "one-of",
    "one-of:normalised",
    "contains",
    "icontains",
    "contains-any",
    "icontains-any",
    "contains-all",
    "icontains-all",
    "starts-with",
    "regex",
    "json",
    "json:a.0",
    "numeric",
    "numeric:1%",
    "is-json",
    "contains-json",
]
FENCED = 'Here it is:\n```json\n{"a": 1}\n```\nAnything else?'


def score(grader: str, expected: str, answer: str) -> float:
    return grade(grader, expected, answer).score


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
        ("json:a", "1", FENCED),
        ("json", '{"a": 1}', '~~~\n{"a":\n1}\n~~~'),
        ("json", "[1]", "```json[1]```"),
        ("json:a", "1", FENCED + FENCED),
        ("json:a", "1", "```python\nprint(1)\n```\n" + FENCED),
        ("json", "1", "\ufeff1"),
        ("is-json", "", '{"a": [1, null]}\n'),
        ("is-json", "", '"text"'),
        ("contains-json", "", FENCED),
        ("contains-json", "", 'He said {not this} but {"a": {"b": []}}, [sic].'),
        ("contains-json", "", "numbers: [1, 2]"),
        ("json-schema", '{"required": ["a"]}', FENCED),
        ("json-schema", '{"type": "string", "pattern": "^a+$"}', '"aaa"'),
        ("contains", "a.b", "xa.bx"),
        ("contains", '["a"]', 'the list ["a"]'),
        ("icontains", "STRASSE", "Die Straße"),
        ("contains-any", '["x", "Paris"]', "It is Paris."),
        ("contains-any", "Paris", "It is Paris."),
        ("contains-any", "[1, 2]", "21"),
        ("icontains-any", '["X", "PARIS"]', "It is Paris."),
        ("contains-all", '["is", "Paris"]', "It is Paris."),
        ("icontains-all", '["IS", "paris"]', "It is Paris."),
        ("starts-with", "Yes", "\n Yes, of course"),
        ("one-of", '["Bonn", "Berlin"]', " Berlin\n"),
        ("one-of", "[sic", "[sic"),
        ("one-of", "[1, true]", "true"),
        ("one-of:exact", '["Bonn", "Berlin"]', "Bonn"),
        ("one-of:normalised", '["Bonn", "Berlin"]', "**BERLIN**."),
        ("not-contains", "sorry", "Here you are."),
        ("not-is-json", "", "text"),
        ("not-regex", "^no", "yes, no"),
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
        (
            "json:a",
            "1",
            FENCED + FENCED.replace("1", "2"),
            "several fenced blocks with different JSON: "
            "'Here it is: ```json {\"a\": 1} ``` Anything else?Here it is: …'",
        ),
        ("json", "1", "```\n1", "not JSON: '``` 1'"),
        ("json", "1", "NaN", "not JSON: 'NaN'"),
        ("is-json", "", "```json\n1\n```", "not JSON: '```json 1 ```'"),
        ("contains-json", "", "See [1] and [ ], {x}.", "contains no JSON: 'See [1] and [ ], {x}.'"),
        ("contains-json", "", "[" * 1_000_000, "no JSON found among too many brackets: '" + "[" * 59 + "…'"),
        (
            "contains-json",
            "",
            '{"a":' * 200_000,
            "no JSON found among too many brackets: '" + ('{"a":' * 12)[:59] + "…'",
        ),
        ("contains-json", "", "[1]" * 300_000, "no JSON found among too many brackets: '" + ("[1]" * 20)[:59] + "…'"),
        (
            "json-schema",
            '{"required": ["a"]}',
            "{}",
            "not valid against the schema at 'the root': '\"a\" is a required property'",
        ),
        (
            "json-schema",
            '{"items": {"type": "string"}}',
            "[1]",
            "not valid against the schema at '0': '1 is not of type \"string\"'",
        ),
        ("json-schema", "true", "text", "not JSON: 'text'"),
        ("contains", "Paris", "paris", "does not contain 'Paris': 'paris'"),
        ("contains-any", '["a", "b"]', "x", "does not contain 'a', 'b': 'x'"),
        ("contains-all", '["a", "b", "c", "d", "e"]', "a", "does not contain 'b', 'c', 'd' and 1 more: 'a'"),
        ("starts-with", "Yes", "No, yes", "does not begin with 'Yes': 'No, yes'"),
        ("starts-with", "Yes", "yes", "does not begin with 'Yes': 'yes'"),
        ("one-of", '["Bonn", "Berlin"]', "berlin", "different text: 'berlin'"),
        ("not-contains", "sorry", "I am sorry.", "contains 'sorry'"),
        ("numeric", "42", "forty-two", "no number: 'forty-two'"),
        ("numeric", "42", "42, or rather 43", "different number: '43'"),
        ("numeric:0.01", "3.14", "3.16", "different number: '3.16'"),
        ("numeric:1%", "200", "197.9", "different number: '197.9'"),
        ("numeric:1%", "0", "0.001", "different number: '0.001'"),
        ("numeric", "1", "1e999999999999", "different number: '1e999999999999'"),
    ],
)
def test_these_answers_are_wrong_for_the_given_reason(grader: str, expected: str, answer: str, reason: str) -> None:
    assert grade(grader, expected, answer) == (0, False, reason)


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        (
            "",
            "there is no grader ''; the graders are exact, normalised, regex, json, numeric, .*, all of them also",
        ),
        ("not-judge", "there is no grader 'not-judge'"),
        ("not-not-exact", "there is no grader 'not-not-exact'"),
        ("contains:x", "takes no argument after a colon"),
        ("one-of:regex", "needs exact or normalised after its colon"),
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


@pytest.mark.parametrize(
    ("grader", "expected", "message"),
    [
        ("contains", None, "the grader 'contains' needs an expected value, but `expected` is NULL"),
        ("not-contains", " ", "every answer contains an empty text"),
        ("contains-any", '["a", ""]', "every answer contains an empty text"),
        ("one-of", "[]", "`expected` is an empty list"),
        ("one-of", '["a", ["b"]]', "a list whose elements are not all texts or numbers"),
        ("json-schema", "{", "`expected` is not JSON"),
        ("json-schema", "5", "`expected` is not a JSON Schema: it must be an object"),
        ("json-schema", '{"type": "nonsense"}', "not a JSON Schema that can be checked"),
        ("json-schema", '{"$ref": "https://example.com/x.json"}', "not a JSON Schema that can be checked"),
        ("json-schema", '{"pattern": "(?=a)b"}', "not a JSON Schema that can be checked"),
    ],
)
def test_an_invalid_expected_value_is_rejected(grader: str, expected: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_grader(grader, expected)


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
        check_grader("regex", expression)


@pytest.mark.parametrize("expression", ["(", "a**", "[z-a]", "(" * 100_000])
def test_an_expression_that_is_invalid_everywhere_is_refused_without_advice(expression: str) -> None:
    with pytest.raises(InputError, match=r"not a valid regular expression: [^.]*\.\Z"):
        check_grader("regex", expression)


@pytest.mark.parametrize("expression", [r"\bÉcole", r"école\b|passé\b", r"\Bß"])
def test_a_word_boundary_beside_a_letter_that_is_not_ascii_is_refused(expression: str) -> None:
    with pytest.raises(InputError, match="know only ASCII"):
        check_grader("regex", expression)


def test_an_expression_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(InputError, match="not a valid regular expression"):
        check_grader("regex", "((a{100}){100}){100}")


def test_json_nested_too_deeply_to_be_compared_is_wrong() -> None:
    answer = "[" * 900 + "]" * 900
    assert score("json", answer, answer) in (0, 1)


@given(st.text())
def test_an_exact_answer_is_also_right_when_normalised_and_normalising_is_idempotent(text: str) -> None:
    assert score("exact", text, text) == 1
    assert score("normalised", text, text) == 1
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.sampled_from(GRADERS))
def test_every_answer_gets_a_grade(answer: str, grader: str) -> None:
    result = grade(grader, "1", answer)
    assert 0 <= result.score <= 1
    assert result.reason
    assert parse_grader(grader).text == grader


@given(st.text(), st.sampled_from(GRADERS), st.text(min_size=1))
def test_a_negated_grader_gives_the_opposite_grade(answer: str, grader: str, expected: str) -> None:
    try:
        result = grade(grader, expected, answer)
    except InputError:
        return
    assert grade(f"not-{grader}", expected, answer) == (1 - result.score, not result.passed, result.reason)


@pytest.mark.parametrize("text", ["correct", " Pass ", "YES", True, 1])
def test_a_positive_verdict_is_true(text: object) -> None:
    assert parse_verdict(text) is True


@pytest.mark.parametrize("text", ["incorrect", "Fail", "no", False, 0])
def test_a_negative_verdict_is_false(text: object) -> None:
    assert parse_verdict(text) is False


@pytest.mark.parametrize("text", [None, "", "partly", "not correct"])
def test_any_other_verdict_is_none(text: object) -> None:
    assert parse_verdict(text) is None
