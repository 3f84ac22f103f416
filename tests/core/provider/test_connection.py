"""Mistakes in a connection are named with their field, before a client is built, and no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.connection import (
    api_key_problem,
    base_url_problem,
    connection_problem,
    extra_problem,
    ignored_field_problem,
)

KEY = "sk-proj-0123456789abcdefABCDEF"
ARGUMENTS = ("api_key", "base_url", "organization", "project", "timeout", "max_retries", "default_headers")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (f"{KEY}\n", "ends with a line feed"),
        (f"{KEY}\r\n", "ends with a carriage return"),
        (f"{KEY} ", "ends with a space"),
        (f"\t{KEY}", "starts with a tab"),
        (f" {KEY}", "starts with a space"),
        (f"“{KEY}”", "starts with U+201C (LEFT DOUBLE QUOTATION MARK)"),
        (f"{KEY}’", "ends with U+2019 (RIGHT SINGLE QUOTATION MARK)"),
        (f"{KEY}\u200b", "ends with U+200B (ZERO WIDTH SPACE)"),
        (f"\ufeff{KEY}", "starts with U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        (f"{KEY}\u00a0", "ends with U+00A0 (NO-BREAK SPACE)"),
        ("sk-proj–0123456789", "contains U+2013 (EN DASH) as character 8 of 18"),
        ("sk-pröj-0123456789", "contains U+00F6"),
        ("sk-proj-01\x0023456789", "contains U+0000 (a control character)"),
        ("sk-proj-01 23456789", "contains a space"),
        (f'"{KEY}"', "is between quotes"),
        (f"'{KEY}'", "is between quotes"),
        (f"Bearer {KEY}", 'starts with "Bearer"'),
        (f"bearer {KEY}\n", 'starts with "Bearer"'),
        (f"Authorization: Bearer {KEY}", 'starts with "Bearer"'),
        ("", "is empty"),
        ("  \n", "is empty"),
        ("YOUR_API_KEY", "is a placeholder"),
        ("sk-your-key-here", "is a placeholder"),
        ("<your-key>", "is a placeholder"),
        ("sk-...", "is a placeholder"),
        ("sk-xxxxxxxx", "is a placeholder"),
        ("********", "is a placeholder"),
        ("changeme", "is a placeholder"),
        ("$OPENAI_API_KEY", "is a placeholder"),
        ("${OPENAI_API_KEY}", "is a placeholder"),
        ("{{var.value.key}}", "is a placeholder"),
        ("OPENAI_API_KEY", "is a placeholder"),
        (5, "must be text"),
    ],
)
def test_a_key_that_cannot_be_right_is_named(key: Any, problem: str) -> None:
    message = api_key_problem(key)

    assert message is not None
    assert message.startswith("the API key (field API Key) ")
    assert problem in message
    assert str(key).strip() == "" or "0123456789" not in message


@pytest.mark.parametrize(
    "key", [KEY, None, "local", "EMPTY", "dummy", "none", "ollama", "password", "gsk_x", "a.b-c_d~e+f/g==", "k" * 400]
)
def test_other_keys_are_accepted(key: str | None) -> None:
    assert api_key_problem(key) is None


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20), st.integers(0, 19), st.characters())
def test_a_key_is_accepted_only_if_a_header_can_hold_it_and_is_never_shown(key: str, at: int, character: str) -> None:
    changed = key[:at] + character + key[at:]
    message = api_key_problem(changed)

    if message is None:
        assert changed == changed.strip()
        changed.encode("ascii")
    else:
        assert key not in message


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("api.openai.com", "has no scheme. Did you mean https://api.openai.com/v1?"),
        ("api.openai.com/v1", "has no scheme. Did you mean https://api.openai.com/v1?"),
        ("//api.openai.com/v1", "Did you mean https://api.openai.com/v1?"),
        ("https//api.openai.com/v1", "Did you mean https://api.openai.com/v1?"),
        ("https:/api.openai.com/v1", "Did you mean https://api.openai.com/v1?"),
        ("localhost:8000/v1", "Did you mean http://localhost:8000/v1?"),
        ("127.0.0.1:8000/v1", "Did you mean http://127.0.0.1:8000/v1?"),
        ("gateway.example/v1", "Did you mean https://gateway.example/v1?"),
        ("me:secret@gateway.example/v1", "Did you mean https://gateway.example/v1?"),
        ("htps://api.openai.com/v1", "starts with htps://"),
        ("ftp://api.openai.com/v1", "starts with ftp://"),
        (" https://api.openai.com/v1", "starts with a space"),
        ("https://api.openai.com/v1\n", "ends with a line feed"),
        ("https://api.openai.com/ v1", "contains a space"),
        ("https://api.openai.com/v1\u200b", "ends with U+200B"),
        ("https://api.openai.com:99999/v1", "has an invalid port"),
        ("https://api.openai.com:abc/v1", "has an invalid port"),
        ("http://localhost:0/v1", "has the port 0"),
        ("http://[::1/v1", "has an invalid port or address"),
        ("https:///v1", "names no host"),
        ("https://", "names no host"),
        ("https://api.openai.com", "has the path '/', but the API of OpenAI is at https://api.openai.com/v1"),
        ("https://api.openai.com/", "is at https://api.openai.com/v1"),
        ("https://eu.api.openai.com", "is at https://eu.api.openai.com/v1"),
        ("https://api.openai.com/v1/v1", "has the path '/v1/v1'"),
        ("https://api.openai.com/v2", "has the path '/v2'"),
        (
            "https://api.openai.com/v1/chat/completions",
            "Remove '/chat/completions' at its end: https://api.openai.com/v1",
        ),
        ("https://gateway.example/v1/responses/", "at its end: https://gateway.example/v1"),
        ("https://gateway.example/v1/batches", "is the address of one endpoint"),
        ("https://gateway.example/v1?api-version=preview", "default_query"),
        ("https://platform.openai.com/api-keys", "is the address of a website"),
        ("https://YOUR-RESOURCE.openai.azure.com/openai/v1", "contains a placeholder"),
        ("https://<resource>.openai.azure.com/openai/v1", "contains a placeholder"),
        (5, "must be text, not int"),
    ],
)
def test_a_base_url_that_cannot_be_right_is_named(url: Any, problem: str) -> None:
    message = base_url_problem(url)

    assert message is not None
    assert message.startswith("the base URL (field Host) ")
    assert problem in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://api.openai.com/v1",
        "https://api.openai.com/v1/",
        "https://eu.api.openai.com/v1",
        "http://localhost:8000",
        "http://127.0.0.1:8080/v1/",
        "http://[::1]:8000/v1",
        "https://res.openai.azure.com/openai/v1/",
        "https://api.groq.com/openai/v1",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "https://user:secret@gateway.example/llm/v1",
        "http://vllm.models.svc.cluster.local/v1",
        "http://llm_gateway:8000/v1",
    ],
)
def test_other_base_urls_are_accepted(url: str | None) -> None:
    assert base_url_problem(url) is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"organization": "org-1\n"}, "'organization' in openai_client_kwargs ends with a line feed"),
        ({"organization": "“org-1”"}, "starts with U+201C"),
        ({"organization": ""}, "is empty"),
        ({"organization": 5}, "must be text, not int"),
        ({"organization": "proj_1"}, "'organization' in openai_client_kwargs is the id of a project"),
        ({"organization": "My Company"}, "Enter the id, not the name"),
        ({"project": "org-1"}, "'project' in openai_client_kwargs is the id of an organization"),
        ({"project": "proj_1 "}, "ends with a space"),
        ({"timeout": "60"}, "'timeout' in openai_client_kwargs must be a number of seconds"),
        ({"timeout": 0}, "must be a number of seconds greater than 0"),
        ({"timeout": {"connect": 5}}, "must be a number of seconds"),
        ({"max_retries": "2"}, "must be a whole number of at least 0"),
        ({"max_retries": -1}, "must be a whole number of at least 0"),
        ({"max_retries": True}, "must be a whole number of at least 0"),
        ({"default_headers": ["x"]}, "must be an object, not list"),
        (
            {"default_headers": {"X-Team": "Zürich"}},
            "'X-Team' in 'default_headers' in openai_client_kwargs contains",
        ),
        ({"default_headers": {"X-Team": 5}}, "must be text, not int"),
        ({"default_headers": {"X Team": "a"}}, "'X Team', which is not a valid name"),
        ({"timout": 60}, "'timout' in openai_client_kwargs is unknown. Did you mean 'timeout'?"),
        ({"azure_endpoint": "x"}, "'azure_endpoint' in openai_client_kwargs is unknown"),
    ],
)
def test_an_argument_of_the_client_that_cannot_be_right_is_named(arguments: dict[str, Any], problem: str) -> None:
    message = connection_problem(api_key=KEY, base_url=None, client_arguments=arguments, known_arguments=ARGUMENTS)

    assert message is not None
    assert problem in message


def test_the_usual_arguments_of_the_client_are_accepted() -> None:
    arguments = {
        "organization": "org-1",
        "project": "proj_1",
        "timeout": 20.5,
        "max_retries": 0,
        "default_headers": {"X-Team": "a b"},
    }

    assert connection_problem(api_key=KEY, base_url=None, client_arguments=arguments, known_arguments=ARGUMENTS) is None


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"openai_client_kwarg": {}}, "Did you mean 'openai_client_kwargs'?"),
        ({"batch_limit": {}}, "Did you mean 'batch_limits'?"),
        ({"batch_price": {}}, "Did you mean 'batch_prices'?"),
        ({"organization": "org-1"}, 'Move it into the object "openai_client_kwargs"'),
        ({"base_url": "x"}, 'Move it into the object "openai_client_kwargs"'),
        ({"openai_client_kwargs": "x"}, "must be an object"),
        ([1], "must be a JSON object"),
    ],
)
def test_a_key_of_the_extra_that_has_no_effect_is_named(extra: Any, problem: str) -> None:
    message = extra_problem("{}", extra, ARGUMENTS)

    assert message is not None
    assert problem in message


@pytest.mark.parametrize("extra", [{}, {"openai_client_kwargs": None}, {"batch_limits": {}}, {"team": "data"}])
def test_other_extras_are_accepted(extra: dict[str, Any]) -> None:
    assert extra_problem(None, extra, ARGUMENTS) is None


def test_an_extra_that_is_not_json_is_named() -> None:
    assert extra_problem("{'a': 1}", {}, ARGUMENTS) == "the extra must be a JSON object"


def test_fields_that_have_no_effect_are_named() -> None:
    assert "Host: http://localhost:8000/v1" in str(ignored_field_problem("http://localhost", 8000, "v1"))
    assert "Host: https://api.openai.com/v1" in str(ignored_field_problem("https://api.openai.com", None, "v1"))
    assert ignored_field_problem("http://localhost:8000/v1", 8000, "v1") is None
    assert ignored_field_problem(None, None, "") is None
