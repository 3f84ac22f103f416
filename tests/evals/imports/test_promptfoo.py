"""Configurations of promptfoo become cases with graders that agree with its assertions.

The expectations are those of `runAssertions` and the handlers of the assertions in the package promptfoo 0.121.20.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batch.evals.imports import promptfoo
from airflow_provider_batch.evals.imports.drafts import Imported, ImportedCase
from airflow_provider_batch.evals.imports.promptfoo_asserts import split_values
from airflow_provider_batch.evals.imports.promptfoo_csv import parse_expected
from airflow_provider_batch.exceptions import InputError
from tests.evals.imports.conftest import SAMPLES, Write, import_file, is_right, reasons


def import_config(write: Write, text: str, **options: Any) -> Imported:
    return import_file("promptfoo", write("promptfooconfig.yaml", text), **options)


def case_of(write: Write, assertions: str, more: str = "") -> ImportedCase:
    imported = import_config(write, f"prompts: [hello]\ntests:\n- assert: {assertions}\n{more}")
    assert not imported.skipped, reasons(imported)
    (case,) = imported.cases
    return case


def test_what_promptfoo_writes_for_a_beginner_is_imported_as_far_as_graders_exist() -> None:
    imported = import_file("promptfoo", SAMPLES / "promptfoo" / "init" / "promptfooconfig.yaml")
    assert [(case.input, case.expected, case.grader) for case in imported.cases] == [
        ("Write a tweet about new york city", "ensure that the output is funny", "llm-rubric"),
        ("Write a concise, funny tweet about new york city", "ensure that the output is funny", "llm-rubric"),
    ]
    assert reasons(imported) == [
        "promptfooconfig.yaml, test 1: it has no assertion, so every answer would be right",
        "promptfooconfig.yaml, test 2: there is no grader for the assertion 'javascript'",
    ]
    assert [note.partition(" ")[0] for note in imported.notes] == ["Providers", "Some"]


@pytest.mark.parametrize(
    ("assertion", "right", "wrong"),
    [
        ("{type: equals, value: Yes}", ["Yes"], ["yes", "Yes."]),
        ("{type: not-equals, value: Yes}", ["no"], ["Yes"]),
        ("{type: equals, value: 3}", ["3"], ["3.0"]),
        ("{type: equals, value: {a: [1, true]}}", ['{"a":[1,true]}'], ['{"a":[1,1]}', "a"]),
        ("{type: contains, value: 'a b'}", ["x a b"], ["x A b"]),
        ("{type: icontains, value: 'A b'}", ["x a B"], ["ab"]),
        ("{type: not-icontains, value: as an AI}", ["Fine."], ["As an ai, I cannot"]),
        ("{type: contains-any, value: [a, '1, 2', 7]}", ["1, 2", "77", "a"], ["1,2"]),
        ("{type: contains-all, value: 'alpha, \"beta, gamma\"'}", ["beta, gamma alpha"], ["alpha beta gamma"]),
        ("{type: icontains-all, value: [A, B]}", ["b a"], ["a"]),
        ("{type: not-contains-any, value: [a, b]}", ["c"], ["cb"]),
        ("{type: starts-with, value: Ahoy}", ["Ahoy there"], ["I say Ahoy"]),
        ("{type: regex, value: '^\\d{3}$'}", ["123"], ["1234"]),
        ("{type: is-json}", ["{}", " [1] "], ["{", "```json\n{}\n```"]),
        (
            "{type: is-json, value: {type: object, required: [a]}}",
            ['{"a": 1}'],
            ['{"b": 1}', "a"],
        ),
        ("{type: contains-json}", ['So: {"a": 1}.'], ["So: a"]),
    ],
)
def test_an_assertion_calls_the_same_answers_right(
    write: Write, assertion: str, right: list[str], wrong: list[str]
) -> None:
    case = case_of(write, f"[{assertion}]")
    assert [is_right(case, answer) for answer in right] == [True] * len(right)
    assert [is_right(case, answer) for answer in wrong] == [False] * len(wrong)


def test_limits_and_refusals_have_graders_of_their_own(write: Write) -> None:
    case = case_of(write, "[{type: cost, threshold: 0.002}, {type: not-is-refusal}]")
    assert [grader["grader"] for grader in json.loads(case.grader)] == ["max-cost:0.002", "not-refusal"]


def test_all_assertions_of_a_test_have_to_pass(write: Write) -> None:
    case = case_of(write, "[{type: contains, value: a}, {type: not-contains, value: b}]")
    assert case.expected is None
    assert json.loads(case.grader) == [
        {"grader": "contains", "expected": "a"},
        {"grader": "not-contains", "expected": "b"},
    ]
    assert [is_right(case, answer) for answer in ("a", "b", "ab")] == [True, False, False]


def test_weights_and_a_threshold_are_those_of_the_score(write: Write) -> None:
    assertions = "[{type: contains, value: a, weight: 3}, {type: contains, value: b}]"
    case = case_of(write, assertions, "  threshold: 0.75\n")
    assert [is_right(case, answer) for answer in ("a", "b", "ab")] == [True, False, True]


def test_a_set_of_assertions_has_the_weight_that_it_says(write: Write) -> None:
    part = "{type: assert-set, weight: 2, assert: [{type: contains, value: a}, {type: contains, value: b, weight: 3}]}"
    case = case_of(write, f"[{part}, {{type: contains, value: c}}]")
    assert [grader.get("weight", 1) for grader in json.loads(case.grader)] == [0.5, 1.5, 1]


@pytest.mark.parametrize(
    ("assertion", "expected", "grader"),
    [
        ("{type: similar, value: a}", "a", "similar:0.75"),
        ("{type: similar, value: [a, b], threshold: 0.9}", '["a", "b"]', "similar:0.9"),
        ("{type: not-similar, value: a, threshold: 0.5}", "a", "not-similar:0.5"),
        ("{type: llm-rubric, value: a, threshold: 0.7}", "a", "llm-rubric:0.7"),
        ("{type: model-graded-closedqa, value: a}", "a", "llm-rubric"),
        ("{type: factuality, value: a}", "a", "factuality"),
    ],
)
def test_assertions_by_a_model_have_counterparts(write: Write, assertion: str, expected: str, grader: str) -> None:
    case = case_of(write, f"[{assertion}]")
    assert (case.expected, case.grader) == (expected, grader)


def test_a_judge_beside_other_graders_reads_the_expected_value_of_the_case(write: Write) -> None:
    case = case_of(write, "[{type: icontains, value: a}, {type: llm-rubric, value: 'Is it polite?'}]")
    assert case.expected == "Is it polite?"
    assert json.loads(case.grader) == [{"grader": "icontains", "expected": "a"}, {"grader": "llm-rubric"}]


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("assert: [{type: javascript, value: 'true'}]", "there is no grader for the assertion 'javascript'"),
        ("assert: [{type: latency, threshold: 5}]", "there is no grader for the assertion 'latency'"),
        ("assert: [{type: not-llm-rubric, value: a}]", "there is no negation of a judge"),
        (
            "assert: [{type: llm-rubric, value: a}, {type: factuality, value: b}]",
            "it has 2 assertions that a model decides, and a case has one judge",
        ),
        ("assert: [{type: contains, value: ''}]", "the assertion 'contains' has no text as its value"),
        ("assert: [{type: contains, value: a, weight: 0}]", "an assertion has the weight 0"),
        (
            "assert: [{type: contains, value: a, transform: output.x}]",
            "the assertion 'contains' has the option 'transf",
        ),
        ("assert: [{type: contains-json, value: {type: object}}]", "contains-json with a schema has no counterpart"),
        ("assert: [{type: levenshtein, value: a, threshold: 5}]", "levenshtein counts edits in promptfoo"),
        ("assert: [{type: regex, value: '(?=a)b'}]", "`expected` is not a valid regular expression"),
        ("assert: [{type: assert-set, threshold: 0.5, assert: []}]", "a set of assertions with a threshold"),
        ("assert: [{type: contains, value: '{{ x | upper }}'}]", "an expected value has a template expression"),
        ("assert: [{type: contains, value: '{{ x }}'}]", "an expected value uses {{ x }}, for which the test has no"),
        ("assert: [{$ref: '#/nothing'}]", "an assertion has no type: None"),
        ("assert: [{type: cost}]", "the assertion 'cost' has no number as its threshold"),
        ("assert: [{type: is-json, value: '{'}]", "the schema of is-json cannot be read"),
        ("{assert: [{type: is-json}], threshold: 0}", "its threshold is 0, and a threshold is above 0"),
        ("{assert: [{type: is-json}], options: {transform: output.x}}", "it has the option 'transform'"),
        ("{assert: [{type: is-json}], prompts: [b]}", "it has 'prompts', which has no counterpart"),
        ("{vars: {a: file://x.py}, assert: [{type: is-json}]}", "the file x.py is a program or a pattern"),
        ("{vars: [a], assert: [{type: is-json}]}", "its `vars` is not a mapping"),
        ("{vars: {a: '{% if b %}c'}, assert: [{type: is-json}]}", "the variable 'a' has a template expression"),
    ],
)
def test_what_has_no_counterpart_leaves_out_the_test_with_a_reason(write: Write, test: str, reason: str) -> None:
    imported = import_config(write, f"prompts: [hello]\ntests:\n- {test}\n")
    assert imported.cases == []
    assert reasons(imported)[0].startswith(f"promptfooconfig.yaml, test 1: {reason}")


def test_each_prompt_and_each_combination_of_variables_is_a_case(write: Write) -> None:
    text = """
prompts: ['Translate {{ word }} to {{language}}.', file://prompts.txt]
tests:
- vars: {word: [cat, dog], language: [French, German], numbers: [1, 2]}
  assert: [{type: icontains, value: '{{ word }}'}]
"""
    write("prompts.txt", "{{word}}?\n---\n{{language}}!\n")
    imported = import_config(write, text)
    # "cat?" and "dog?" do not depend on the language, but "French!" and "German!" expect one word or the other
    assert len(imported.cases) == 10
    assert {case.input for case in imported.cases} == {
        "Translate cat to French.", "Translate cat to German.", "Translate dog to French.", "Translate dog to German.",
        "cat?", "dog?", "French!", "German!",
    }  # fmt: skip


def test_defaults_are_merged_as_promptfoo_merges_them(write: Write) -> None:
    text = """
prompts: ['{{ greeting }}, {{ name }}']
defaultTest:
  vars: {greeting: Hello}
  assert: [{type: not-contains, value: sorry}]
  options: {suffix: '!'}
tests:
- {description: one, vars: {name: Ann}, assert: [{type: contains, value: '{{name}}'}]}
- {vars: {name: Bob, greeting: Hi}, options: {disableDefaultAsserts: true}, assert: [{$ref: '#/assertionTemplates/x'}]}
assertionTemplates: {x: {type: equals, value: Bob}}
"""
    ann, bob = import_config(write, text).cases
    assert ann.input == "Hello, Ann!"
    assert [grader["grader"] for grader in json.loads(ann.grader)] == ["not-contains", "contains"]
    assert (bob.input, bob.expected, bob.grader) == ("Hi, Bob!", "Bob", "exact")


def test_values_are_written_as_javascript_writes_them(write: Write) -> None:
    values = "{a: yes, b: true, c: 2.0, d: 01:30}"
    text = "prompts: ['{{a}} {{b}} {{c}} {{d}}']\ntests: [{vars: " + values + ", assert: [{type: is-json}]}]"
    assert import_config(write, text).cases[0].input == "yes true 2 01:30"


def test_variables_may_refer_to_each_other_and_may_come_from_files(write: Write) -> None:
    values = "{a: 'Read: {{b}} {{unknown}}', b: file://b.txt}"
    text = "prompts: ['{{a}}']\ntests: [{vars: " + values + ", assert: [{type: is-json}]}]"
    write("b.txt", "\nText\n")
    assert import_config(write, text).cases[0].input == "Read: Text {{unknown}}"


def test_chat_messages_become_one_text(write: Write) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Say "{{x}}"'}]
    text = "prompts: [file://chat.json]\ntests: [{vars: {x: 'a\"b'}, assert: [{type: is-json}]}]"
    write("chat.json", json.dumps(messages))
    assert import_config(write, text).cases[0].input == 'Be brief.\n\nSay "a"b"'


def test_tests_in_a_table_have_assertions_in_their_columns(write: Write) -> None:
    write(
        "tests.csv",
        "q,__expected,__expected2,__threshold,__description,__metadata:topic,__prefix\n"
        "A,contains:x,not-icontains:sorry,0.5,first,letters,Well: \n"
        'B,"contains-all:a, b",,,,,\n'
        "C,Paris,,,,,\n"
        "D,grade: Is it kind?,,,,,\n"
        "E,javascript: output.length < 5,,,,,\n"
        'F,"is-json: {type: object}",,,,,\n',
    )
    imported = import_config(write, "prompts: ['{{q}}?']\ntests: tests.csv", columns={"tags": "topic"})
    assert [(case.input, case.expected, case.tags) for case in imported.cases] == [
        ("Well: A?", None, "letters"),
        ("B?", '["a", "b"]', ""),
        ("C?", "Paris", ""),
        ("D?", "Is it kind?", ""),
        ("F?", '{"type": "object"}', ""),
    ]
    assert json.loads(imported.cases[0].grader)[-1] == {"threshold": 0.5}
    assert [case.grader for case in imported.cases[1:]] == ["contains-all", "exact", "llm-rubric", "json-schema"]
    assert reasons(imported) == ["tests.csv, line 6: there is no grader for the assertion 'javascript'"]


def test_a_small_file_cannot_stand_for_more_text_than_fits_into_memory(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "prompts: ['{{b}}']\ntests: [{vars: {a: AAAAAAAAAA, b: '"
        + "{{a}}" * 210_000
        + "'}, assert: [{type: is-json}]}]"
    )
    (reason,) = reasons(import_config(write, text))
    assert "the variable 'b' is longer than 2,000,000 characters with its variables replaced" in reason

    monkeypatch.setattr(promptfoo, "_MAX_CASES", 100)
    numbers = ", ".join(f"'{number}'" for number in range(11))
    values = f"{{a: [{numbers}], b: [{numbers}]}}"
    text = "prompts: ['{{a}} {{b}}']\ntests: [{vars: " + values + ", assert: [{type: is-json}]}]"
    with pytest.raises(InputError, match="stands for more than 100 cases"):
        import_config(write, text)


def test_a_long_list_of_values_is_split_in_linear_time() -> None:
    assert len(split_values("a," * 200_000 + '"b"')) == 200_001


@pytest.mark.parametrize("name", ["tests.yaml", "tests.json", "tests.jsonl"])
def test_tests_in_other_files_are_read(write: Write, name: str) -> None:
    test = json.dumps({"vars": {"q": "A"}, "assert": [{"type": "equals", "value": "1"}]})
    write(name, test if name.endswith("jsonl") else f"[{test}]")
    imported = import_config(write, f"prompts: ['{{{{q}}}}?']\ntests: [file://{name}]")
    assert [(case.input, case.expected, case.grader) for case in imported.cases] == [("A?", "1", "exact")]


@pytest.mark.parametrize(
    ("text", "assertion"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        ("contains: a b", {"type": "contains", "value": "a b"}),
        ("not-regex:^a$", {"type": "not-regex", "value": "^a$"}),
        ("is-json", {"type": "is-json"}),
        ("similar(0.9):hello", {"type": "similar", "value": "hello", "threshold": 0.9}),
        ("llm-rubric: polite", {"type": "llm-rubric", "value": "polite"}),
        ("fn: a", {"type": "javascript", "value": "a"}),
        ("note: a", {"type": "equals", "value": "note: a"}),
        ('icontains-any:a,"b, ""c"""', {"type": "icontains-any", "value": ["a", 'b, "c"']}),
    ],
)
def test_a_cell_of_expected_is_read_as_promptfoo_reads_it(text: str, assertion: dict[str, Any]) -> None:
    assert parse_expected(text) == assertion


def test_values_separated_by_commas_may_be_quoted() -> None:
    assert split_values(' a , "b, c" ,, "d \\"e\\"" , f') == ["a", "b, c", 'd "e"', "f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests: []", "has no prompts"),
        ("prompts: [prompts.py]\ntests: []", "The prompt prompts.py is not a text or JSON file"),
        ("prompts: [a]\ntests: file://tests.py", "Tests can be imported from CSV, JSON and YAML files"),
        ("prompts: [a]\ntests: file://../../x.csv", "which is not in its folder"),
        ("- a", "is not a configuration of promptfoo"),
        ("prompts: [a]\ntests: []", "has no tests"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_an_error(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_config(write, text)
