"""A base URL that cannot be right is named before anything is sent to it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batch.core.provider.base_url import base_url_problem, is_unencrypted


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
    ("url", "expected"),
    [
        ("https://gateway.example/v1", False),
        ("http://gateway.example/v1", True),
        ("http://vllm:8000/v1", False),
        ("http://vllm.models.svc.cluster.local/v1", False),
        ("http://10.1.2.3/v1", False),
        ("http://[::1]/v1", False),
    ],
)
def test_an_unencrypted_address_outside_of_a_private_network_is_recognized(url: str, expected: bool) -> None:
    assert is_unencrypted(url) is expected
