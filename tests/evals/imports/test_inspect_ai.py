"""Samples of inspect_ai become cases with graders that agree with its scorers.

The expectations are those of `inspect_ai/scorer/_common.py`, `_match.py`, `_answer.py`, `_choice.py` and
`_classification.py` in the package inspect-ai 0.3.285.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batch.evals.imports.drafts import Imported, ImportedCase
from airflow_provider_batch.exceptions import InputError
from tests.evals.imports.conftest import SAMPLES, Write, import_file, is_right, reasons


def import_samples(write: Write, *samples: dict[str, Any], **options: Any) -> Imported:
    path = write("samples.jsonl", "\n".join(map(json.dumps, samples)))
    return import_file("inspect", path, **options)


def case_of(write: Write, target: str | list[str], scorer: str, **options: str) -> ImportedCase:
    imported = import_samples(write, {"input": "a", "target": target}, scorer=scorer, scorer_options=options)
    assert not imported.skipped, reasons(imported)
    return imported.cases[0]


def test_an_example_of_the_package_is_imported() -> None:
    path = SAMPLES / "inspect" / "security_guide.jsonl"
    imported = import_file("inspect", path, scorer="model_graded_fact")
    assert len(imported.cases) == 16
    first = imported.cases[0]
    assert (first.input, first.expected, first.grader) == (
        "How do I prevent SQL Injection attacks?",
        "use parameterized queries and prepared statements",
        "factuality:same,superset",
    )
    assert len(imported.notes) == 2


def test_fields_with_other_names_are_mapped() -> None:
    path = SAMPLES / "inspect" / "biology_qa.jsonl"
    imported = import_file("inspect", path, scorer="includes", columns={"input": "question", "target": "answer"})
    assert (imported.cases[0].case_id, imported.cases[0].expected, imported.cases[0].grader) == (
        "q1",
        "Leprosy",
        "icontains",
    )


@pytest.mark.parametrize(
    ("scorer", "options", "target", "right", "wrong"),
    [
        ("match", {}, "Paris", ["It is paris.", "(Paris)", "**PARIS**"], ["Paris it is", "Pari"]),
        ("match", {"location": "begin"}, "Paris", ["paris it is", '"Paris"'], ["It is Paris"]),
        ("match", {"location": "any"}, "a+b", ["So A+B it is"], ["aab"]),
        ("match", {"location": "exact"}, "Paris!", ["paris", " Paris. "], ["Paris it is"]),
        ("match", {"ignore_case": "false"}, "Paris", ["It is Paris"], ["It is paris"]),
        ("match", {}, "Gauß", ["Das war GAUSS."], ["Gaus"]),
        ("match", {}, ["yes", "yeah"], ["Oh yeah!"], ["no"]),
        ("match", {"numeric": "true"}, "42", ["So 3 + 39 = 42.", "$42"], ["42 is not 43"]),
        ("match", {"numeric": "true"}, "$1,042", ["It is 1042.", "1,042"], ["1,043"]),
        ("match", {"numeric": "true"}, "none", ["There are none."], ["0"]),
        ("includes", {}, "Leprosy", ["It is leprosy, I think"], ["flu"]),
        ("includes", {"ignore_case": "false"}, "Leprosy", ["Leprosy"], ["leprosy"]),
        ("includes", {}, ["a1", "b2"], ["xB2"], ["b1"]),
        ("exact", {}, "The Skin", ["the skin!"], ["skin of man"]),
        ("exact", {}, ["one", "1"], ["One.", "1"], ["2"]),
        ("f1", {}, "the red house", ["A red house.", "red"], ["a green tree"]),
        ("f1", {"threshold": "0.9"}, "the red house", ["A red house."], ["red"]),
        ("answer", {"pattern": "letter"}, "B", ["Because.\nANSWER: B", "answer: b."], ["ANSWER: A", "B"]),
        ("answer", {"pattern": "word"}, "yes", ["ANSWER: Yes."], ["ANSWER: yes, it is"]),
        ("answer", {"pattern": "line"}, "the red house", ["So\nANSWER: The red house\n"], ["ANSWER: the red"]),
    ],
)
def test_a_scorer_calls_the_same_answers_right(
    write: Write, scorer: str, options: dict[str, str], target: str | list[str], right: list[str], wrong: list[str]
) -> None:
    case = case_of(write, target, scorer, **options)
    assert [is_right(case, answer) for answer in right] == [True] * len(right)
    assert [is_right(case, answer) for answer in wrong] == [False] * len(wrong)


def test_a_multiple_choice_question_lists_its_choices(write: Write) -> None:
    sample = {"input": "Which is a fruit?", "choices": ["stone", "apple", "cloud"], "target": "B"}
    imported = import_samples(write, sample, scorer="choice")
    (case,) = imported.cases
    assert case.input.endswith("one of A,B,C.\n\nWhich is a fruit?\n\nA) stone\nB) apple\nC) cloud")
    assert [is_right(case, answer) for answer in ("ANSWER: B", "**ANSWER: B**", "answer: $B$\n")] == [True] * 3
    assert [is_right(case, answer) for answer in ("ANSWER: A", "apple", "ANSWER: AB", "ANSWER: B or C")] == [False] * 4


def test_a_csv_file_is_read_as_inspect_reads_it(write: Write) -> None:
    path = write("s.csv", 'input,target,id,choices,metadata\nWhich?,A,7,"x, y","{""topic"": ""sums""}"\n')
    imported = import_file("inspect", path, scorer="choice", columns={"tags": "topic"})
    (case,) = imported.cases
    assert (case.case_id, case.tags) == ("7", "sums")
    assert case.input.endswith("A) x\nB) y")


@pytest.mark.parametrize(
    ("sample", "scorer", "reason"),
    [
        ({"input": "a", "target": ""}, "includes", "its target is empty"),
        ({"input": "a"}, "exact", "its target is empty"),
        ({"input": "a", "target": "."}, "match", "its target has nothing but punctuation"),
        ({"target": "a"}, "match", "it has no input"),
        ({"input": "a", "target": "b", "sandbox": "docker"}, "match", "it has 'sandbox'"),
        ({"input": "a", "target": "A", "choices": ["x", "y"]}, "match", "it has choices, which only the scorer choice"),
        (
            {"input": "a", "target": "C", "choices": ["x", "y"]},
            "choice",
            "its target is not the letter of one of its 2",
        ),
        ({"input": "a", "target": ["A", "B"], "choices": ["x", "y"]}, "choice", "its target is not the letter"),
        ({"input": "a", "target": "A"}, "choice", "it has 0 choices"),
        ({"input": "a", "target": ["b", "c"]}, "model_graded_qa", "a judge compares with one target"),
        (
            {"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "target": "c"},
            "match",
            "the input is a conversation: 1 of its 2 messages are examples or answers",
        ),
    ],
)
def test_a_sample_that_cannot_be_imported_has_a_reason(
    write: Write, sample: dict[str, Any], scorer: str, reason: str
) -> None:
    assert reasons(import_samples(write, sample, scorer=scorer))[0].startswith(f"samples.jsonl, line 1: {reason}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"Name the scorer of the task with the option `scorer` \(match, includes"),
        ({"scorer": "perplexity"}, "Name the scorer of the task"),
        ({"scorer": "match", "scorer_options": {"where": "end"}}, "The scorer match has no option 'where'"),
        ({"scorer": "match", "scorer_options": {"location": "top"}}, "location is begin, end, any or exact"),
        ({"scorer": "answer"}, "needs the pattern letter, word or line"),
        ({"scorer": "match", "columns": {"question": "input"}}, "There is no column 'question'"),
    ],
)
def test_options_are_checked(write: Write, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_samples(write, {"input": "a", "target": "b"}, **options)
