"""OpenAI evals become cases with graders that agree with the classes of the evals.

The expectations are those of `evals/elsuite/basic/` and `evals/api.py` in the package evals 3.0.1.post1.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.imports.drafts import Imported, ImportedCase, Skipped, build_cases
from airflow_provider_batch.evals.imports.openai import SampleGrading, draft_of_sample
from airflow_provider_batch.exceptions import InputError
from tests.evals.imports.conftest import SAMPLES, Write, import_file, is_right, reasons

REGISTRY = SAMPLES / "openai" / "evals"


def import_eval(name: str, **options: Any) -> Imported:
    return import_file("openai", REGISTRY / f"{name}.yaml", **options)


def case_of(class_name: str, ideal: Any, **arguments: Any) -> ImportedCase:
    sample = {"input": "Which one?", "ideal": ideal}
    imported = build_cases([draft_of_sample("line 1", sample, "x", SampleGrading(class_name, arguments))])
    assert not imported.skipped, reasons(imported)
    (case,) = imported.cases
    return case


def test_a_match_is_an_answer_that_starts_with_the_ideal() -> None:
    imported = import_eval("shared-borders")
    assert (len(imported.cases), imported.skipped) == (6, [])
    case = imported.cases[0]
    assert case.input.startswith("You are a helpful agent.")
    assert case.input.endswith("\n\nWhich countries share a land border with both Cote d'Ivoire and Benin")
    assert (case.grader, case.expected, case.tags) == ("starts-with", '["Burkina Faso"]', "shared-borders")
    assert is_right(case, '["Burkina Faso"] is the answer.')
    assert not is_right(case, 'The answer is ["Burkina Faso"].')
    assert not is_right(case, "Burkina Faso")


def test_a_match_with_several_ideals_accepts_each_of_them() -> None:
    case = case_of("Match", ["A+B", "C.", "[d]"])
    assert case.grader == "regex"
    assert [is_right(case, answer) for answer in ("A+B!", "C.", "[d] e", "AB", "C", "x A+B")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_includes_can_ignore_the_case() -> None:
    imported = import_eval("game-theory")
    assert {case.grader for case in imported.cases} == {"icontains"}
    assert is_right(imported.cases[0], "I would choose RED.")


def test_includes_of_several_ideals_needs_one_of_them() -> None:
    case = case_of("Includes", ["Season 11", "eleven"])
    assert (case.grader, json.loads(case.expected or "")) == ("contains-any", ["Season 11", "eleven"])
    assert is_right(case, "In season eleven.")
    assert not is_right(case, "In season 11.")


def test_json_is_compared_by_its_values() -> None:
    imported = import_eval("icelandic-inflection-easy")
    case = imported.cases[0]
    assert case.grader == "json"
    reordered = json.dumps(dict(reversed(json.loads(case.expected or "").items())))
    assert is_right(case, reordered)
    assert not is_right(case, "{}")


def test_a_fact_is_left_to_the_judge() -> None:
    imported = import_eval("logic-liar-paradox")
    assert {case.grader for case in imported.cases} == {"factuality"}
    assert imported.cases[0].expected == 'No, "This sentence is true" is not a paradox; it is a tautology.'
    assert "4 cases are graded by the judge" in imported.notes[0]


def test_a_closed_question_is_left_to_the_judge_with_its_criterion() -> None:
    criteria = {"criteria": "relevance: Is it a quote?"}
    case = case_of("ModelBasedClassify", "unused", modelgraded_spec="closedqa", modelgraded_spec_args=criteria)
    assert (case.expected, case.grader) == ("relevance: Is it a quote?", "llm-rubric")


def test_examples_before_a_question_are_left_out_with_a_reason() -> None:
    imported = import_eval("anagrams")
    assert imported.cases == []
    assert len(imported.skipped) == 3
    assert reasons(imported)[0].startswith("anagrams/samples.jsonl, line 1: the input is a conversation: 10 of its 12")


def test_examples_before_a_question_can_become_a_transcript() -> None:
    imported = import_eval("anagrams", transcript=True)
    first = imported.cases[0]
    assert "\nUser: cebyiilsatisc\nAssistant: accessibility\n" in first.input
    assert first.grader == "starts-with"


def test_each_eval_of_a_file_has_its_own_ids_and_reasons() -> None:
    imported = import_eval("test-basic", transcript=True)
    assert {case.tags for case in imported.cases} == {"test-includes", "test-includes-ignore-case"}
    assert len({case.case_id for case in imported.cases}) == len(imported.cases)
    assert reasons(imported) == [
        "test-basic.yaml, test-match.s1.simple-v0: it names no file of samples (samples_jsonl)",
        "eval test-fuzzy-match: there is no grader for the class FuzzyMatch. Choose one of ours with the option "
        "`grader`",
    ]


def test_a_file_of_samples_needs_the_class_of_the_eval() -> None:
    samples = SAMPLES / "openai" / "data" / "game_theory" / "samples.jsonl"
    with pytest.raises(InputError, match=r"Name the class of the eval with the option `scorer` \(Match, Includes"):
        import_file("openai", samples)
    imported = import_file("openai", samples, scorer="Includes", name="game")
    assert {case.grader for case in imported.cases} == {"contains"}
    assert all(case.case_id.startswith("game-") for case in imported.cases)


def test_another_grader_can_replace_the_class() -> None:
    imported = import_eval("logic-statements", grader="one-of:normalised")
    assert len(imported.cases) == 3
    assert {case.grader for case in imported.cases} == {"one-of:normalised"}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"input": "a", "ideal": ""}, "its `ideal` is empty, so every answer would be right"),
        ({"input": "a", "ideal": 3}, "its `ideal` is neither text nor a list of texts: 3"),
        ({"input": "a"}, "its `ideal` is neither text nor a list of texts: None"),
        ({"ideal": "a"}, "the input is neither text nor a list of chat messages"),
        ({"input": [{"role": "tool", "content": "a"}], "ideal": "a"}, "a message of the input has the role 'tool'"),
        (
            {"input": [{"role": "user", "content": [{"type": "image_url"}]}], "ideal": "a"},
            "a message of the input has a part of the type 'image_url', which is not text",
        ),
    ],
)
def test_a_sample_that_cannot_be_imported_has_a_reason(sample: dict[str, Any], reason: str) -> None:
    assert draft_of_sample("line 1", sample, "x", SampleGrading("Match", {})) == Skipped("line 1", reason)


def test_an_argument_without_a_counterpart_leaves_out_the_eval(write: Write) -> None:
    path = write("evals/x.yaml", "x.v0:\n  class: a:Includes\n  args: {samples_jsonl: x.jsonl, threshold: 3}\n")
    write("data/x.jsonl", "")
    assert reasons(import_file("openai", path)) == ["eval x: the argument 'threshold' of Includes cannot be imported"]


def test_samples_outside_of_the_registry_are_not_read(write: Write) -> None:
    path = write("evals/x.yaml", "x.v0:\n  class: a:Match\n  args: {samples_jsonl: ../../../../etc/passwd}\n")
    with pytest.raises(
        InputError, match=r"names the file '\.\./\.\./\.\./\.\./etc/passwd', which is not in its folder"
    ):
        import_file("openai", path)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6).filter(str.strip)


@given(ideals=st.lists(texts, min_size=1, max_size=3), answer=st.text(max_size=12), use_ideal=st.booleans())
def test_match_agrees_with_record_and_check_match(ideals: list[str], answer: str, use_ideal: bool) -> None:
    """White space before an answer is the only difference: our grader ignores it if there is one ideal."""
    answer = ideals[0] + answer if use_ideal else answer
    case = case_of("Match", ideals if len(ideals) > 1 else ideals[0])
    if len(set(ideals)) == 1:
        answer, ideals = answer.strip(), [ideals[0].strip()]
    assert is_right(case, answer) == any(answer.startswith(ideal) for ideal in ideals)


@given(ideals=st.lists(texts, min_size=1, max_size=3), answer=st.text(max_size=12), use_ideal=st.booleans())
def test_includes_agrees_with_get_answer(ideals: list[str], answer: str, use_ideal: bool) -> None:
    answer = f"{answer}{ideals[-1]}." if use_ideal else answer
    assert is_right(case_of("Includes", ideals), answer) == any(answer.rfind(ideal) != -1 for ideal in ideals)
