"""A connection that cannot work is named before anything is sent, whichever way its client is built."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_batch.exceptions import InputError, ProviderError
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import run_job

if TYPE_CHECKING:
    import openai

KEY = "sk-proj-0123456789abcdef"


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"password": f"{KEY}\n"}, "the API key (field API Key) ends with a line feed"),
        ({"password": f"“{KEY}”"}, "starts with U+201C (LEFT DOUBLE QUOTATION MARK)"),
        ({"password": ""}, "the API key (field API Key) is empty"),
        ({}, "the API key (field API Key) is empty"),
        ({"password": KEY, "host": "api.openai.com/v1"}, "Did you mean https://api.openai.com/v1?"),
        ({"password": KEY, "host": "https://api.openai.com", "port": 443}, "its port and its schema have no effect"),
        ({"password": KEY, "extra": {"openai_client_kwargs": {"timout": 3}}}, "Did you mean 'timeout'?"),
        ({"password": KEY, "extra": {"openai_client_kwargs": {"organization": "“o”"}}}, "'organization'"),
        ({"password": KEY, "extra": {"openai_client_kwargs": {"api_key": f" {KEY}"}}}, "starts with a space"),
        ({"password": KEY, "extra": {"openai_client_kwargs": {"base_url": "localhost:1/v1"}}}, "has no scheme"),
        ({"password": KEY, "extra": {"openai_client_kwargs": {"http_client": "x"}}}, "takes a Python object"),
        ({"password": KEY, "extra": {"auth_type": "key"}}, "Unsupported auth_type"),
        ({"password": KEY, "extra": {"timeout": 60}}, 'Move it into the object "openai_client_kwargs"'),
    ],
)
def test_a_connection_that_cannot_work_is_named(
    connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], problem: str
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    connect("llm", conn_type="openai", **fields)

    with pytest.raises(InputError) as error:
        BatchHook("llm").check()
    assert str(error.value).startswith("openai_conn_id: Connection 'llm' cannot be used: ")
    assert problem in str(error.value)
    assert "Nothing was sent." in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.usefixtures("airflow_home")
def test_a_test_of_the_connection_names_the_problem(connect: Callable[..., None]) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("llm", conn_type="openai", password=f"{KEY}\n")

    is_usable, message = BatchHook("llm").test_connection()
    assert not is_usable
    assert "the API key (field API Key) ends with a line feed" in message


@pytest.mark.usefixtures("airflow_home")
def test_the_client_of_the_triggerer_is_checked_too(connect: Callable[..., None]) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("llm", conn_type="openai", password=f"{KEY}\n")

    with pytest.raises(InputError, match="ends with a line feed"):
        asyncio.run(BatchHook("llm").aget_conn())


@pytest.mark.usefixtures("airflow_home")
def test_a_key_in_the_environment_is_checked_too(connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("llm", conn_type="openai")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\u200b")
    with pytest.raises(InputError, match="ZERO WIDTH SPACE"):
        BatchHook("llm").check()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    BatchHook("llm").check()


@pytest.mark.usefixtures("airflow_home")
def test_a_server_that_is_not_there_is_named(connect: Callable[..., None]) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    # nothing listens on this port
    extra = {"openai_client_kwargs": {"max_retries": 0}}
    connect("llm", conn_type="openai", password=KEY, host="http://127.0.0.1:9/v1", extra=extra)
    hook = BatchHook("llm")

    with pytest.raises(ProviderError, match=r"Uploading x failed: Cannot connect to 127\.0\.0\.1:9: "):
        hook.upload(BytesIO(b"{}\n"), "x")
    assert b"Cannot connect to 127.0.0.1:9: " in hook.send_request("/v1/chat/completions", {}).body


def test_submit_sends_nothing_with_such_a_connection(
    warehouse: Path, connect: Callable[..., None], batch_server: LocalServer, client: openai.OpenAI
) -> None:
    connect("openai_default", conn_type="openai", password=f"{KEY}\n", host=batch_server.base_url)
    files = len(list(client.files.list()))

    result = run_job(canary=2, retries=3)

    assert result.states == {"submit": "failed", "wait": "upstream_failed", "land": "upstream_failed"}
    assert "the API key (field API Key) ends with a line feed" in result.error("submit")
    assert len(list(client.files.list())) == files
