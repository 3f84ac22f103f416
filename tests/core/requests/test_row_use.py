"""A template without its braces is refused while the DAG is parsed, because every row would send the same request."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_batch.core.requests.render import RequestSpec, check, compile_renderer
from airflow_provider_batch.exceptions import CustomIdError, InputError, TemplateError


def spec(**arguments: Any) -> RequestSpec:
    return RequestSpec(**{"custom_id": "{{ row.id }}", "model": "m", "prompt": "{{ row.body }}", **arguments})


def message_of(*, deduplicate: bool = True, **arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        check(spec(**arguments), deduplicate=deduplicate)
    return str(error.value)


@pytest.mark.parametrize(
    ("prompt", "template"),
    [
        ("row.body", "{{ row.body }}"),
        (" row.body\n", "{{ row.body }}"),
        ("row['body']", "{{ row.body }}"),
        ('row["my body"]', "{{ row['my body'] }}"),
        ("{row.body}", "{{ row.body }}"),
        ("{ row.body }", "{{ row.body }}"),
        ("${row.body}", "{{ row.body }}"),
        ("$row.body", "{{ row.body }}"),
        ("{body}", "{{ row.body }}"),
        ("${body}", "{{ row.body }}"),
        ("$body", "{{ row.body }}"),
        ("%(body)s", "{{ row.body }}"),
        ("Summarize: {row.body}", "{{ row.body }}"),
        ("Summarize: {body}", "{{ row.body }}"),
        ("Summarize: %(body)s", "{{ row.body }}"),
        ("Summarize the text.", "{{ row.body }}"),
        ("{# {{ row.body }} #}Summarize", "{{ row.body }}"),
        ("{% raw %}{{ row.text }}{% endraw %}", "{{ row.body }}"),
        ("Summarize {{ params.topic }}", "{{ row.body }}"),
        ("{{ 'row.body' }}", "{{ row.body }}"),
    ],
)
def test_a_prompt_that_does_not_mention_the_row_is_refused(prompt: str, template: str) -> None:
    message = message_of(prompt=prompt)

    assert message.startswith("prompt")
    assert repr(template) in message or template in message


@pytest.mark.parametrize("prompt", ["row.body", "{row.body}", "{body}", "$body", "%(body)s"])
def test_forgotten_braces_are_refused_even_if_another_argument_mentions_the_row(prompt: str) -> None:
    assert "plain text, not a template" in message_of(prompt=prompt, system="Title: {{ row.title }}")
    assert "plain text, not a template" in message_of(prompt=prompt, deduplicate=False)


def test_single_braces_beside_a_template_are_refused() -> None:
    message = message_of(prompt="{{ row.title }}\n\n{row.body}")

    assert message.startswith("prompt: '{row.body}' is plain text")
    check(spec(prompt="{{ row.title }}\n\n{{ '{row.body}' }}"))


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"prompt": None, "body": {"messages": [{"role": "user", "content": "row.body"}]}}, "body"),
        ({"prompt": None, "body": {"messages": [{"role": "user", "content": "Hello"}]}}, "body.messages"),
        ({"prompt": [{"type": "text", "text": "row.body"}]}, "prompt"),
        ({"prompt": [{"type": "text", "text": "Describe"}]}, "prompt"),
        ({"system": "row.system"}, "system"),
        ({"model": "row.model"}, "model"),
        ({"body": {"metadata": {"team": "row.team"}}}, "body"),
        ({"endpoint": "/v1/embeddings", "prompt": "row.text"}, "prompt"),
        ({"endpoint": "/v1/embeddings", "prompt": ["text", "title"]}, "prompt"),
        ({"endpoint": "/v1/responses", "prompt": None, "body": {"input": "text"}}, "body.input"),
    ],
)
def test_forgotten_braces_are_refused_wherever_they_are(arguments: dict[str, Any], argument: str) -> None:
    assert message_of(**arguments).startswith(f"{argument}: ")


@pytest.mark.parametrize("name", ["prompt", "system", "custom_id", "model"])
def test_a_column_without_row_is_refused_while_the_dag_is_parsed(name: str) -> None:
    arguments: dict[str, Any] = {name: "{{ body }}"}

    message = message_of(**arguments)

    assert message.startswith(f"{name}: The name 'body' is not defined.")
    assert "write row.body" in message


@pytest.mark.parametrize(
    ("custom_id", "template"),
    [
        ("review_id", "{{ row.review_id }}"),
        ("row.review_id", "{{ row.review_id }}"),
        ("{review_id}", "{{ row.review_id }}"),
        ("$review_id", "{{ row.review_id }}"),
        ("%(review_id)s", "{{ row.review_id }}"),
        ("<review_id>", "{{ row.review_id }}"),
        ("T-{row.review_id}", "{{ row.review_id }}"),
        ("T-1 / x", "{{ row.id }}"),
    ],
)
def test_a_custom_id_that_is_the_same_for_every_row_is_refused(custom_id: str, template: str) -> None:
    message = message_of(custom_id=custom_id, deduplicate=False)

    assert message.startswith("custom_id: ")
    assert f"Did you mean {template!r}?" in message


@pytest.mark.parametrize("custom_id", ["{{ run_id }}", "{{ params.id }}", "T-{{ ds }}", "{{ 'row.id' }}"])
def test_a_custom_id_that_does_not_mention_the_row_is_refused(custom_id: str) -> None:
    message = message_of(custom_id=custom_id, deduplicate=False)

    assert "is the same for every row, because it does not mention the row" in message


@pytest.mark.parametrize("model", ["params.model", "{params.model}", "${params.model}", " { params.model } "])
def test_a_model_without_the_braces_of_its_parameter_is_refused(model: str) -> None:
    assert "Did you mean '{{ params.model }}'?" in message_of(model=model)


@pytest.mark.parametrize("name", ["rows", "Row", "record", "item"])
def test_another_name_for_the_row_is_refused_with_the_right_one(name: str) -> None:
    assert "Did you mean row, as in '{{ row.id }}'?" in message_of(prompt=f"{{{{ {name}.body }}}}")
    assert f"write row.{name}." in message_of(prompt=f"{{{{ {name} }}}}")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{title}", {"prompt": "{{ row.body }} and {title}"}),
        ("{title}", {"system": "You translate ({title})."}),
        ("${title}", {"prompt": "{{ row.body }}: ${title}"}),
        ("%(title)s", {"prompt": "{{ row.body }}: %(title)s"}),
        ("{title}", {"prompt": None, "body": {"messages": [{"role": "user", "content": "{{ row.body }}, {title}"}]}}),
    ],
)
def test_a_placeholder_with_the_name_of_a_column_is_refused(text: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(TemplateError, match=re.escape(f"{text!r} is plain text")) as error:
        compile_renderer(spec(**arguments), ["id", "body", "title"], {})
    assert "Did you mean '{{ row.title }}'?" in str(error.value)


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ row.body }} Answer as {label}.",
        "{{ row.body }} \\frac{title}{body}, x_{title}, {{ '{title}' }}",
        '{{ row.body }} {"title": "x"} {title: 1} [title] <title> $title',
    ],
)
def test_other_braces_are_part_of_the_text(prompt: str) -> None:
    compile_renderer(spec(prompt=prompt), ["id", "body", "title"], {})


def takes_nothing() -> dict[str, Any]:
    return {}


def not_a_builder(row: Any, other: Any) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("request_function", [not_a_builder, takes_nothing])
def test_a_request_function_with_other_arguments_is_refused(request_function: Any) -> None:
    assert message_of(prompt=None, request=request_function).startswith(
        "request: Expected a function that takes the row"
    )


def test_a_constant_custom_id_is_an_error_of_its_kind() -> None:
    with pytest.raises(CustomIdError):
        check(spec(custom_id="review_id"))
    with pytest.raises(TemplateError):
        check(spec(prompt="row.body"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": "Summarize the text.", "system": "{{ row.body }}"},
        {"prompt": "Say hello.", "model": "{{ row.model }}"},
        {"prompt": "Say hello.", "body": {"temperature": "{{ row.temperature }}"}},
        {"prompt": "{% for word in row.words %}{{ word }}{% endfor %}"},
        {"prompt": "{{ row }}"},
        {"prompt": "{% set r = row %}{{ r.body }}"},
        {"prompt": '{{ row.body }} Answer as {"label": "x"}, for $5 or 5 %, {see} <b>.'},
        {"prompt": None, "request": "package.module:function"},
        {"prompt": "{{ row.body }} on {{ ds }} for {{ dag_run.conf.team | default('') }}"},
        {"prompt": "{{ row.body }} {{ extra | default('') }}"},
    ],
)
def test_requests_that_depend_on_the_row_anywhere_are_accepted(arguments: dict[str, Any]) -> None:
    check(spec(**arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": "Invent a ticket."},
        {"prompt": "Invent a ticket about {{ params.topic }}."},
        {"prompt": None, "body": {"messages": [{"role": "user", "content": "Invent a ticket."}]}},
    ],
)
def test_the_same_request_may_be_sent_for_every_row_on_purpose(arguments: dict[str, Any]) -> None:
    assert "set deduplicate=False" in message_of(**arguments)
    check(spec(**arguments), deduplicate=False)
