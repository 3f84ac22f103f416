"""Every kind of broken connection is refused with a clear error before anything is sent, and good ones still work."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.broken_connections import KEY, SERVER, BrokenConnection, broken_connections
from tests.airflow.jobs import run_job

BROKEN = list(broken_connections())
OPENAI = "https://api.openai.com/v1"
EXTRA = {"batch_flex": True, "openai_client_kwargs": {"timeout": 60}}
AZURE = "https://res.openai.azure.com/openai/v1"


class Listener:
    """A socket that accepts no connection, but knows whether anybody tried to open one."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

    def was_called(self) -> bool:
        self._listening.setblocking(False)
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Listener(listening)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def set_connection(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LLM", value)


def test_there_are_many_kinds() -> None:
    assert len({broken.value for broken in BROKEN}) >= 300


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("broken", [pytest.param(broken, id=broken.name) for broken in BROKEN])
def test_a_broken_connection_is_refused_before_anything_is_sent(
    broken: BrokenConnection, listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    set_connection(monkeypatch, broken.value.replace(SERVER, listener.url))

    with pytest.raises(InputError) as error:
        BatchHook("llm").check()
    message = str(error.value)
    assert broken.problem in message
    assert message.startswith("openai_conn_id: ")
    assert "Nothing was sent." in message
    assert not error.value.retry
    assert KEY[:16] not in message + caplog.text
    is_usable, answer = BatchHook("llm").test_connection()
    assert (is_usable, answer) == (False, message)
    assert not listener.was_called()


GOOD: dict[str, tuple[Any, str]] = {
    "OpenAI": ({"password": KEY}, OPENAI),
    "OpenAI with its address": ({"password": KEY, "host": OPENAI}, OPENAI),
    "OpenAI with a slash": ({"password": KEY, "host": f"{OPENAI}/"}, OPENAI),
    "OpenAI in Europe": ({"password": KEY, "host": "https://eu.api.openai.com/v1"}, "https://eu.api.openai.com/v1"),
    "organization and project": (
        {"password": KEY, "extra": {"openai_client_kwargs": {"organization": "org-a1", "project": "proj_a1"}}},
        OPENAI,
    ),
    "settings of the client": (
        {
            "password": KEY,
            "extra": {
                "openai_client_kwargs": {
                    "timeout": 60.5,
                    "max_retries": 0,
                    "default_headers": {"X-Team": "a b"},
                    "default_query": {"tag": "a", "n": 1},
                }
            },
        },
        OPENAI,
    ),
    "settings of batches": (
        {
            "password": KEY,
            "extra": {
                "batch_limits": {"requests": 10, "tokens": None},
                "batch_budget": {"usd": 5, "per": "day"},
                "batch_prices": {"my-deployment": "gpt-4o-mini"},
                "batch_flex": False,
            },
        },
        OPENAI,
    ),
    "empty settings": ({"password": KEY, "extra": {"openai_client_kwargs": None, "batch_budget": None}}, OPENAI),
    "a key of the team": ({"password": KEY, "extra": {"team": "data", "owner": "me"}}, OPENAI),
    "empty fields": ({"password": KEY, "host": "", "login": "", "schema": "", "extra": ""}, OPENAI),
    "key and address of the client": (
        {"extra": {"openai_client_kwargs": {"api_key": KEY, "base_url": "https://gateway.example/v1"}}},
        "https://gateway.example/v1",
    ),
    "Azure": ({"password": "0123456789abcdef0123456789abcdef", "host": AZURE}, AZURE),
    "Azure with a slash": ({"password": "0123456789abcdef0123456789abcdef", "host": f"{AZURE}/"}, AZURE),
    "a project of Azure": (
        {"password": "a" * 84, "host": "https://res.services.ai.azure.com/api/projects/p/openai/v1"},
        "https://res.services.ai.azure.com/api/projects/p/openai/v1",
    ),
    "Groq": (
        {"password": f"gsk_{'a' * 50}", "host": "https://api.groq.com/openai/v1"},
        "https://api.groq.com/openai/v1",
    ),
    "OpenRouter": (
        {"password": f"sk-or-v1-{'a' * 60}", "host": "https://openrouter.ai/api/v1"},
        "https://openrouter.ai/api/v1",
    ),
    "LiteLLM": ({"password": "sk-1234", "host": "http://litellm:4000"}, "http://litellm:4000"),
    "LiteLLM with a path": ({"password": "sk-1234", "host": "http://litellm:4000/v1"}, "http://litellm:4000/v1"),
    "vLLM": ({"password": "EMPTY", "host": "http://localhost:8000/v1"}, "http://localhost:8000/v1"),
    "vLLM in a cluster": (
        {"password": "token-abc123", "host": "http://vllm.models.svc.cluster.local:8000/v1"},
        "http://vllm.models.svc.cluster.local:8000/v1",
    ),
    "a gateway of the company": (
        {"password": "dummy", "host": "http://llm.company.example/openai/v1"},
        "http://llm.company.example/openai/v1",
    ),
    "an address with numbers": ({"password": "none", "host": "http://10.0.0.7:9000/v1"}, "http://10.0.0.7:9000/v1"),
    "IPv6": ({"password": "none", "host": "http://[::1]:9000/v1"}, "http://[::1]:9000/v1"),
    "DashScope": (
        {"password": f"sk-{'a' * 32}", "host": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"},
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    ),
    "URI": (f"openai://:{KEY}@/", OPENAI),
    "URI with an address": (f"openai://:{KEY}@{quote(OPENAI, safe='')}/", OPENAI),
    "URI with a port": (
        f"openai://:{KEY}@{quote('http://localhost:8000/v1', safe='')}/",
        "http://localhost:8000/v1",
    ),
    "URI with the whole extra": (f"openai://:{KEY}@/?__extra__={quote(json.dumps(EXTRA))}", OPENAI),
    "a type of others": ({"conn_type": "generic", "password": KEY}, OPENAI),
}


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(("value", "base_url"), GOOD.values(), ids=GOOD.keys())
def test_a_good_connection_is_accepted(value: Any, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    set_connection(monkeypatch, value if isinstance(value, str) else json.dumps({"conn_type": "openai", **value}))

    hook = BatchHook("llm")
    hook.check()
    assert str(hook.conn.base_url).rstrip("/") == base_url


@pytest.mark.usefixtures("airflow_home")
def test_every_problem_of_a_connection_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    extra = {"openai_client_kwargs": {"timout": 3}, "batch_limit": {}}
    fields = {"conn_type": "openai", "password": "sk-...", "host": "api.openai.com", "extra": extra}
    set_connection(monkeypatch, json.dumps(fields))

    with pytest.raises(InputError) as error:
        BatchHook("llm").check()
    for problem in ("is a placeholder", "has no scheme", "Did you mean 'timeout'?", "Did you mean 'batch_limits'?"):
        assert problem in str(error.value)


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("OPENAI_BASE_URL", "api.openai.com", "(environment variable OPENAI_BASE_URL) has no scheme"),
        ("OPENAI_ORG_ID", "org-1\n", "the environment variable OPENAI_ORG_ID ends with a line feed"),
        ("OPENAI_PROJECT_ID", "pröj", "the environment variable OPENAI_PROJECT_ID contains U+00F6"),
        ("OPENAI_API_KEY", "sk-...", "(environment variable OPENAI_API_KEY) is a placeholder"),
    ],
)
def test_an_environment_variable_of_the_client_is_checked_too(
    variable: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    key = None if variable == "OPENAI_API_KEY" else KEY
    set_connection(monkeypatch, json.dumps({"conn_type": "openai", "password": key}))
    monkeypatch.setenv(variable, value)

    with pytest.raises(InputError) as error:
        BatchHook("llm").check()
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"password": "sk-..."}, "is a placeholder"),
        ({"extra": {"timeout": 60}}, "Move it into the object"),
        ({"extra": {"batch_budget": {"usd": 5}}}, "batch_budget"),
        ({"extra": {"openai_client_kwargs": {"http_client": "x"}}}, "takes a Python object"),
    ],
)
def test_the_task_fails_without_a_retry(
    warehouse: object,
    connect: Any,
    batch_server: LocalServer,
    fields: dict[str, Any],
    problem: str,
) -> None:
    connect("openai_default", **{"conn_type": "openai", "password": "local", "host": batch_server.base_url, **fields})

    result = run_job(canary=2, retries=3)

    assert result.states == {"submit": "failed", "wait": "upstream_failed", "land": "upstream_failed"}
    assert problem in result.error("submit")
