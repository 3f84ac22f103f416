"""Offline text completions with one or several prompts, synchronously and in a batch."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion

from tests.local.driving import COMPLETIONS, answers, failures, run

MODEL = "gpt-3.5-turbo-instruct"


def complete(client: OpenAI, prompt: Any, **body: Any) -> Completion:
    answer = client.completions.create(model=MODEL, prompt=prompt, **body)
    assert isinstance(answer, Completion)
    return answer


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": COMPLETIONS, "body": {"model": MODEL, **body}}


def test_the_answer_states_that_no_model_was_called_and_depends_only_on_the_prompt(client: OpenAI) -> None:
    answer = complete(client, "hello", max_tokens=100)

    assert answer.object == "text_completion"
    assert answer.model == f"offline-responder/{MODEL}"
    assert "no model was called" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].text == complete(client, "hello", max_tokens=100).choices[0].text
    assert answer.choices[0].text != complete(client, "other", max_tokens=100).choices[0].text


def test_an_answer_is_cut_off_at_16_tokens_by_default(client: OpenAI) -> None:
    answer = complete(client, "hello")

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_several_prompts_and_choices_are_returned_in_order_and_counted(client: OpenAI) -> None:
    answer = complete(client, ["first", "second"], n=2, echo=True, max_tokens=100)

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text.partition("Offline")[0] for choice in answer.choices] == ["first", "first", "second", "second"]
    assert answer.usage is not None
    single = complete(client, "first", max_tokens=100).usage
    assert single is not None
    assert answer.usage.completion_tokens == 4 * single.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_token_ids_and_a_null_prompt_are_accepted(client: OpenAI) -> None:
    single, several, null = complete(client, [1, 2, 3]), complete(client, [[1, 2], [3]]), complete(client, None)

    assert (len(single.choices), len(several.choices), len(null.choices)) == (1, 2, 1)
    for answer in (single, several):
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ["a", 7]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 6}, "logprobs"),
        ({"echo": "yes"}, "echo"),
        ({"temperature": 3}, "temperature"),
        ({"stream": True}, "stream"),
        ({"prompt": "word " * 120_000}, None),
    ],
)
def test_an_invalid_body_is_rejected_with_400(client: OpenAI, body: dict[str, Any], param: str | None) -> None:
    request: dict[str, Any] = {"model": MODEL, "prompt": "x", **body}
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(**request)

    assert error.value.param == param


def test_a_request_without_a_prompt_is_rejected_with_400(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'prompt'"):
        client.post("/completions", body={"model": MODEL}, cast_to=object)


def test_a_batch_of_completions_is_answered_and_counted(client: OpenAI) -> None:
    lines = [line("a", prompt="hello"), line("b", prompt=["x", "y"]), line("c", prompt="[[fail:429]]")]
    batch = run(client, lines, COMPLETIONS)

    assert batch.status == "completed"
    assert batch.model == f"offline-responder/{MODEL}"
    bodies = answers(client, batch)
    assert {name: len(Completion.model_validate(body).choices) for name, body in bodies.items()} == {"a": 1, "b": 2}
    assert bodies["a"]["choices"] == [choice.to_dict() for choice in complete(client, "hello").choices]
    assert failures(client, batch)["c"]["response"]["status_code"] == 429
    assert batch.usage is not None
    assert batch.usage.output_tokens == 3 * 16
    assert batch.usage.input_tokens == sum(body["usage"]["prompt_tokens"] for body in bodies.values())


def test_a_marker_corrupts_a_completion_as_it_does_a_chat(client: OpenAI) -> None:
    assert complete(client, "[[filter]]").choices[0].finish_reason == "content_filter"
    assert complete(client, "[[cutoff]]", max_tokens=100).choices[0].finish_reason == "length"
