"""Faults of answers: errors that replace an answer, and corrupted answers, in the format of every endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.local.driving import CHAT, EMBEDDINGS, RESPONSES, answers, chat, chats, failures, results, run

COMPLETIONS = "/v1/completions"
MODERATIONS = "/v1/moderations"
Faulty = tuple[LocalServer, OpenAI]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "login"]},
        "summary": {"type": "string"},
        "words": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["category", "summary", "words"],
    "additionalProperties": False,
}
#: kinds that corrupt an answer without replacing it
CORRUPTING = (
    Kind.REFUSAL,
    Kind.CONTENT_FILTER,
    Kind.LENGTH,
    Kind.EMPTY,
    Kind.INVALID_JSON,
    Kind.MULTI_TEXT,
    Kind.SEPARATORS,
    Kind.NUL,
    Kind.NESTED,
)


def line(endpoint: str, custom_id: str, **body: Any) -> dict[str, Any]:
    """Return a request line for any endpoint."""
    return {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": {"model": "gpt-5-mini", **body}}


def chat_form() -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA}}


def text_form() -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "ticket", "schema": SCHEMA}}


def corrupted_chat(faulty: Faulty, kind: Kind, **body: Any) -> ChatCompletion:
    server, client = faulty
    server.set_faults(Fault(kind=kind))
    batch = run(client, [chat("a", "I was charged twice, please refund it", **body)])
    return ChatCompletion.model_validate(answers(client, batch)["a"])


def corrupted_response(faulty: Faulty, kind: Kind, **body: Any) -> Response:
    server, client = faulty
    server.set_faults(Fault(kind=kind))
    batch = run(client, [line(RESPONSES, "a", input="I was charged twice, please refund it", **body)], RESPONSES)
    return Response.model_validate(answers(client, batch)["a"])


def texts(response: Response) -> list[str]:
    """Return the texts of a response, one per message."""
    return [
        "".join(part.text for part in item.content if part.type == "output_text")
        for item in response.output
        if item.type == "message"
    ]


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(inner) for key, inner in value.items() if key != "id"}
    return [without_ids(inner) for inner in value] if isinstance(value, list) else value


# errors instead of an answer


def test_an_error_of_any_status_is_in_the_error_file_with_openais_body(faulty: Faulty) -> None:
    server, client = faulty
    statuses = (400, 404, 408, 409, 429, 500, 503, 504)
    server.set_faults(
        *(
            Fault(kind=Kind.ERROR, status=status, custom_ids=frozenset({f"row-{n}"}))
            for n, status in enumerate(statuses)
        )
    )
    batch = run(client, chats(10))

    assert batch.status == "completed"
    assert set(answers(client, batch)) == {"row-8", "row-9"}
    failed = failures(client, batch)
    assert [failed[f"row-{n}"]["response"]["status_code"] for n in range(8)] == list(statuses)
    for failure in failed.values():
        assert failure["error"] is None
        assert set(failure["response"]["body"]["error"]) == {"message", "type", "param", "code"}
        assert failure["response"]["body"]["error"]["message"]
    assert failed["row-4"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert failed["row-7"]["response"]["body"]["error"]["message"] == (
        "Timed out generating response. Please try again with a shorter prompt or with `max_tokens` set to a lower"
        " value."
    )
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 8)


def test_an_error_has_the_code_and_message_of_its_fault(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR, status=400, code="context_length_exceeded", message="Too long."))

    error = failures(client, run(client, chats(1)))["row-0"]["response"]["body"]["error"]
    assert (error["code"], error["message"]) == ("context_length_exceeded", "Too long.")


def test_a_status_of_0_counts_as_completed_and_has_no_body(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.STATUS_0, custom_ids=frozenset({"row-1"})))
    batch = run(client, chats(3))

    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 0)
    assert batch.error_file_id is None
    (row,) = (row for row in results(client, batch.output_file_id) if row["custom_id"] == "row-1")
    assert row["error"] is None
    assert (row["response"]["status_code"], row["response"]["body"]) == (0, None)


def test_a_request_that_timed_out_has_no_response_and_counts_as_failed(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.REQUEST_TIMEOUT, custom_ids=frozenset({"row-1"})))
    batch = run(client, chats(3))

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
    failure = failures(client, batch)["row-1"]
    assert failure["response"] is None
    assert failure["error"] == {"code": "request_timeout", "message": "The underlying call to the model timed out."}


# corrupted chats


def test_a_refused_chat_has_a_refusal_instead_of_content(faulty: Faulty) -> None:
    (choice,) = corrupted_chat(faulty, Kind.REFUSAL).choices

    assert choice.message.content is None
    assert choice.message.refusal
    assert choice.finish_reason == "stop"


def test_a_filtered_chat_has_no_text_and_the_finish_reason_content_filter(faulty: Faulty) -> None:
    (choice,) = corrupted_chat(faulty, Kind.CONTENT_FILTER).choices

    assert not choice.message.content
    assert choice.finish_reason == "content_filter"


def test_a_chat_that_is_cut_off_has_the_first_half_of_its_text(faulty: Faulty) -> None:
    full_text = corrupted_chat(faulty, Kind.MULTI_TEXT).choices[0].message.content or ""
    (choice,) = corrupted_chat(faulty, Kind.LENGTH).choices

    assert choice.message.content == full_text[: len(full_text) // 2]
    assert choice.finish_reason == "length"


def test_an_empty_chat_has_the_finish_reason_stop(faulty: Faulty) -> None:
    (choice,) = corrupted_chat(faulty, Kind.EMPTY).choices

    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == ("", None, "stop")


def test_an_answer_to_a_schema_can_be_invalid_json(faulty: Faulty) -> None:
    (choice,) = corrupted_chat(faulty, Kind.INVALID_JSON, response_format=chat_form()).choices

    with pytest.raises(json.JSONDecodeError):
        json.loads(choice.message.content or "")
    assert choice.finish_reason == "stop"


def test_every_choice_of_a_chat_is_corrupted_and_counted(faulty: Faulty) -> None:
    single, triple = (corrupted_chat(faulty, Kind.REFUSAL, n=n) for n in (1, 3))

    assert len(triple.choices) == 3
    assert all(choice.message.refusal for choice in triple.choices)
    assert single.usage is not None
    assert triple.usage is not None
    assert triple.usage.completion_tokens == 3 * single.usage.completion_tokens > 0


# corrupted responses


def test_a_refused_response_has_a_refusal_part(faulty: Faulty) -> None:
    response = corrupted_response(faulty, Kind.REFUSAL)

    (item,) = response.output
    assert item.type == "message"
    assert [part.type for part in item.content] == ["refusal"]
    assert response.status == "completed"


@pytest.mark.parametrize(
    ("kind", "reason"), [(Kind.CONTENT_FILTER, "content_filter"), (Kind.LENGTH, "max_output_tokens")]
)
def test_a_response_that_was_cut_short_is_incomplete_and_has_a_reason(faulty: Faulty, kind: Kind, reason: str) -> None:
    response = corrupted_response(faulty, kind)

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == reason
    assert bool(response.output_text) == (kind is Kind.LENGTH)


def test_an_empty_response_is_completed_but_has_no_message(faulty: Faulty) -> None:
    response = corrupted_response(faulty, Kind.EMPTY)

    assert response.status == "completed"
    assert texts(response) == []


def test_a_response_to_a_schema_can_be_invalid_json(faulty: Faulty) -> None:
    response = corrupted_response(faulty, Kind.INVALID_JSON, text=text_form())

    with pytest.raises(json.JSONDecodeError):
        json.loads(response.output_text)


def test_of_two_texts_the_first_is_cut_off_and_the_second_complete(faulty: Faulty) -> None:
    response = corrupted_response(faulty, Kind.MULTI_TEXT, text=text_form())

    assert [item.type for item in response.output] == ["reasoning", "message", "message"]
    first, second = texts(response)
    assert second.startswith(first)
    with pytest.raises(json.JSONDecodeError):
        json.loads(first)
    assert set(json.loads(second)) == set(SCHEMA["required"])
    assert response.status == "completed"


# line separators


@pytest.mark.parametrize("form", [None, chat_form()])
def test_separators_are_unescaped_in_the_file_and_do_not_break_the_line(
    faulty: Faulty, form: dict[str, Any] | None
) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.SEPARATORS))
    body = {} if form is None else {"response_format": form}
    batch = run(client, [chat(f"row-{n}", "I was charged twice", **body) for n in range(3)])

    content = client.files.content(batch.output_file_id or "").content
    for separator in ("\u2028", "\u2029", "\u0085"):
        assert content.count(separator.encode()) >= 3
    assert len(content.splitlines()) == 3
    assert len(content.decode().splitlines()) > 3
    text = answers(client, batch)["row-0"]["choices"][0]["message"]["content"]
    assert "\u2028" in text
    if form is not None:
        value = json.loads(text)
        assert value["category"] in ("billing", "login"), "the value of an enum is not changed"
        assert "\u2028" in value["summary"]


def test_separators_are_inserted_into_responses_too(faulty: Faulty) -> None:
    response = corrupted_response(faulty, Kind.SEPARATORS, text=text_form())

    assert "\u2029" in json.loads(response.output_text)["summary"]
    assert response.status == "completed"


# characters and depth that a reader may not support


@pytest.mark.parametrize("form", [None, chat_form()])
def test_a_nul_is_in_every_text_that_may_contain_it(faulty: Faulty, form: dict[str, Any] | None) -> None:
    completion = corrupted_chat(faulty, Kind.NUL, **({} if form is None else {"response_format": form}))

    text = completion.choices[0].message.content or ""
    assert "\0" in (text if form is None else json.loads(text)["summary"])


def test_a_nested_text_is_as_deep_as_the_fault_says(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.NESTED, depth=100_000))
    body = answers(client, run(client, [chat("a", "hello")]))["a"]

    text = body["choices"][0]["message"]["content"]
    assert text.count('{"a":') == text.count("}") == 100_000
    response = corrupted_response(faulty, Kind.NESTED)
    assert response.output_text == '{"a":' * 256 + "1" + "}" * 256


# the other endpoints


@pytest.mark.parametrize(
    ("kind", "finish_reason", "expected_text"),
    [
        (Kind.CONTENT_FILTER, "content_filter", lambda text: ""),
        (Kind.LENGTH, "length", lambda text: text[: len(text) // 2]),
        (Kind.EMPTY, "stop", lambda text: ""),
        (Kind.REFUSAL, "stop", lambda text: text),
        (Kind.MULTI_TEXT, "stop", lambda text: text),
    ],
)
def test_a_text_completion_is_corrupted_where_the_kind_applies(
    faulty: Faulty, kind: Kind, finish_reason: str, expected_text: Callable[[str], str]
) -> None:
    server, client = faulty
    lines = [line(COMPLETIONS, "a", prompt="Once upon a time", max_tokens=200)]
    server.set_faults()
    original = answers(client, run(client, lines, COMPLETIONS))["a"]["choices"][0]["text"]
    server.set_faults(Fault(kind=kind))
    completion = Completion.model_validate(answers(client, run(client, lines, COMPLETIONS))["a"])

    (choice,) = completion.choices
    assert choice.finish_reason == finish_reason
    assert choice.text == expected_text(original)


@pytest.mark.parametrize(
    ("endpoint", "model"), [(EMBEDDINGS, "text-embedding-3-small"), (MODERATIONS, "omni-moderation-latest")]
)
def test_embeddings_and_moderations_are_never_corrupted_but_can_fail(faulty: Faulty, endpoint: str, model: str) -> None:
    server, client = faulty
    server.set_faults(
        *(Fault(kind=kind, custom_ids=frozenset({kind})) for kind in CORRUPTING),
        Fault(kind=Kind.ERROR, custom_ids=frozenset({"bad"})),
    )
    names = [*map(str, CORRUPTING), "good", "bad"]
    batch = run(client, [line(endpoint, name, input="red pump", model=model) for name in names], endpoint)

    bodies = answers(client, batch)
    assert set(bodies) == {*map(str, CORRUPTING), "good"}
    for body in bodies.values():
        assert without_ids(body) == without_ids(bodies["good"])
    assert set(failures(client, batch)) == {"bad"}


# which rows are hit


def test_a_fault_hits_the_same_rows_in_every_batch(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR, rate=0.3))

    first, second = (set(failures(client, run(client, chats(100)))) for _ in range(2))
    assert first == second
    assert 10 < len(first) < 50


def test_a_row_that_a_fault_hit_once_is_answered_the_next_time(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR, status=429, times=1))

    assert set(failures(client, run(client, chats(3)))) == {"row-0", "row-1", "row-2"}
    assert set(answers(client, run(client, chats(3)))) == {"row-0", "row-1", "row-2"}


def test_a_failed_answer_is_not_corrupted(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.EMPTY))

    failed = failures(client, run(client, [chat("a", "[[fail:404]]")]))
    assert failed["a"]["response"]["status_code"] == 404


def test_the_usage_of_a_batch_counts_its_corrupted_answers(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(*(Fault(kind=kind, custom_ids=frozenset({f"row-{n}"})) for n, kind in enumerate(CORRUPTING)))
    batch = run(client, chats(10))

    bodies = answers(client, batch)
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in bodies.values())
    for body in bodies.values():
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert bodies["row-3"]["usage"]["completion_tokens"] == 0, "an empty answer"


# synchronous requests


def test_synchronous_requests_are_hit_too_and_drawn_by_their_body(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.ERROR, status=429, rate=0.5))

    def is_rate_limited(prompt: str) -> bool:
        try:
            client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": prompt}])
        except openai.RateLimitError:
            return True
        return False

    first = [is_rate_limited(f"Question {number}") for number in range(20)]
    assert len(set(first)) == 2
    assert [is_rate_limited(f"Question {number}") for number in range(20)] == first


def test_a_synchronous_timeout_is_a_408_and_status_0_never_occurs(faulty: Faulty) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=Kind.REQUEST_TIMEOUT, times=1), Fault(kind=Kind.STATUS_0))
    with pytest.raises(openai.APIStatusError) as error:
        client.responses.create(model="gpt-5-mini", input="hello")

    assert (error.value.status_code, error.value.code) == (408, "request_timeout")
    assert client.responses.create(model="gpt-5-mini", input="hello").output_text


# markers of the offline responder


@pytest.mark.parametrize(
    ("marker", "kind"),
    [
        ("refuse", Kind.REFUSAL),
        ("filter", Kind.CONTENT_FILTER),
        ("cutoff", Kind.LENGTH),
        ("empty", Kind.EMPTY),
        ("invalid-json", Kind.INVALID_JSON),
        ("multi-text", Kind.MULTI_TEXT),
        ("separators", Kind.SEPARATORS),
        ("nul", Kind.NUL),
        ("nested", Kind.NESTED),
    ],
)
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_a_marker_has_the_same_effect_as_its_fault(faulty: Faulty, marker: str, kind: Kind, endpoint: str) -> None:
    server, client = faulty
    server.set_faults(Fault(kind=kind, custom_ids=frozenset({"fault"})))

    def request_line(custom_id: str, prompt: str) -> dict[str, Any]:
        return chat(custom_id, prompt) if endpoint == CHAT else line(RESPONSES, custom_id, input=prompt)

    batch = run(client, [request_line("fault", "Hello"), request_line("marker", f"Hello [[{marker}]]")], endpoint)
    bodies = answers(client, batch)
    for name in ("choices", "output", "status", "incomplete_details"):
        assert without_ids(bodies["marker"].get(name)) == without_ids(bodies["fault"].get(name))


def test_markers_produce_a_timeout_and_the_status_0(client: OpenAI) -> None:
    batch = run(client, [chat("late", "[[request-timeout]]"), chat("zero", "[[status-0]]"), chat("good", "hello")])

    assert failures(client, batch)["late"]["error"]["code"] == "request_timeout"
    statuses = {line["custom_id"]: line["response"]["status_code"] for line in results(client, batch.output_file_id)}
    assert statuses == {"zero": 0, "good": 200}
