"""A provider that echoes the secrets of the connection. They appear in nothing that is stored, logged or raised."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.exceptions import InputError, ProviderError
from airflow_provider_batch.testing import Fault, Kind, LocalServer
from tests.airflow.jobs import run_job
from tests.airflow.scripted import Request, Script, ScriptedServer, reply, serve_script

KEY = "sk-proj-0123456789-abcdef"
TOKEN = "gw-9876543210/token=="
ECHO = f"Incorrect API key provided: {KEY}, token {TOKEN}, Bearer {KEY}"
HEADERS = {"X-Gateway-Token": TOKEN, "X-Team": "billing-7-team"}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

Serve = Callable[..., AbstractContextManager[tuple[ScriptedServer, Any]]]


def error(status: int, **headers: Any) -> bytes:
    body = {"error": {"message": ECHO, "code": f"invalid {KEY}", "type": TOKEN}}
    return reply(body, status=status, **headers)


@pytest.fixture
def scripted(airflow_home: Path, connect: Callable[..., None]) -> Serve:
    """Return a context manager that starts a scripted server and yields it with a hook."""

    @contextmanager
    def start(script: Script | bytes) -> Iterator[tuple[ScriptedServer, Any]]:
        from airflow_provider_batch.hooks.batch import BatchHook

        with serve_script(script if callable(script) else lambda _: script) as server:
            extra = {"openai_client_kwargs": {"max_retries": 0, "timeout": 20, "default_headers": HEADERS}}
            connect("openai_default", conn_type="openai", password=KEY, host=server.base_url, extra=extra)
            yield server, BatchHook()

    return start


def create(hook: Any) -> Any:
    return hook.create("file-1", endpoint="/v1/chat/completions", completion_window="24h", metadata={"nonce": "n1"})


CALLS: dict[str, Callable[[Any], Any]] = {
    "upload": lambda hook: hook.upload(io.BytesIO(b"{}\n"), "s0001.jsonl"),
    "create": create,
    "retrieve": lambda hook: hook.retrieve("batch_1"),
    "cancel": lambda hook: hook.cancel("batch_1"),
    "delete": lambda hook: hook.delete("file-1"),
    "list": lambda hook: hook.list_job_batches("j1", not_before=LONG_AGO),
    "download": lambda hook: hook.download("file-1", io.BytesIO()),
}
ANSWERS = {
    "401": error(401),
    "400 in gzip": reply(
        gzip.compress(json.dumps({"error": {"message": ECHO}}).encode()), status=400, Content_Encoding="gzip"
    ),
    "500": error(500),
    "429 with headers": error(429, x_request_id=f"req-{KEY}", x_echo=TOKEN),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_error_shows_a_secret(scripted: Serve, call: Callable[[Any], Any], answer: bytes) -> None:
    from airflow_provider_batch.hooks.calls import CreateRefusedError, CreateUnconfirmedError

    with (
        scripted(answer) as (server, hook),
        pytest.raises((ProviderError, CreateRefusedError, CreateUnconfirmedError)) as raised,
    ):
        call(hook)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    # with the errors of the SDK that caused it
    shown = "".join(traceback.format_exception(raised.value))
    assert KEY not in shown
    assert TOKEN not in shown
    assert "*" * len(KEY) in shown


@pytest.mark.parametrize("status", [200, 401])
def test_the_answer_to_a_synchronous_request_contains_no_secret(scripted: Serve, status: int) -> None:
    with scripted(error(status, x_request_id=f"req-{KEY}")) as (_, hook):
        response = hook.send_request("/v1/chat/completions", {"messages": []})
    assert response.status == status
    assert KEY not in str(response)
    assert TOKEN not in str(response)
    assert json.loads(response.body)["error"]["message"].startswith("Incorrect API key provided: ***")


def test_the_errors_of_a_batch_contain_no_secret(scripted: Serve) -> None:
    batch = {"id": "batch_1", "status": "failed", "errors": {"data": [{"code": KEY, "message": ECHO}]}}
    with scripted(reply(batch)) as (_, hook):
        assert KEY not in str(hook.retrieve("batch_1"))
    with scripted(reply({"data": [batch], "has_more": False})) as (_, hook):
        assert KEY not in str(hook._page({}))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_result_file_contains_no_secret_and_keeps_its_length(scripted: Serve, compressed: bool) -> None:
    line = json.dumps({"custom_id": "a", "error": {"code": "invalid_api_key", "message": ECHO}}).encode() + b"\n"
    content = line * 40_000
    answer = reply(gzip.compress(content), Content_Encoding="gzip") if compressed else reply(content)
    target = io.BytesIO()
    with scripted(answer) as (_, hook):
        assert hook.download("file-1", target)[0] == len(content)
    stored = target.getvalue()
    assert len(stored) == len(content)
    assert KEY.encode() not in stored
    assert TOKEN.encode() not in stored
    assert json.loads(stored.splitlines()[-1])["error"]["code"] == "invalid_api_key"


def test_an_answer_without_a_secret_is_not_changed(scripted: Serve) -> None:
    content = json.dumps({"text": "placeholder, Bearer, billing-7-team, sk-proj-0123456789"}).encode()
    target = io.BytesIO()
    with scripted(reply(content)) as (_, hook):
        hook.download("file-1", target)
    assert target.getvalue() == content


def test_the_password_in_a_base_url_is_a_secret(
    scripted: Serve, connect: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    def echo(request: Request) -> bytes:
        return reply({"error": {"message": f"denied: {request.headers['authorization']} {password}"}}, status=401)

    password = "pass-word-1"
    with scripted(echo) as (server, _), caplog.at_level(logging.INFO):
        host = server.base_url.replace("://", f"://user:{password}@")
        connect("openai_default", conn_type="openai", password=KEY, host=host)
        response = BatchHook().send_request("/v1/chat/completions", {})
    assert base64.b64encode(f"user:{password}".encode()).decode() in server.requests[0].headers["authorization"]
    assert json.loads(response.body)["error"]["message"].startswith("denied: Basic ***")
    assert password not in str(response)
    assert password not in caplog.text


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_the_triggerer_reports_no_secret(scripted: Serve, status: int) -> None:
    from airflow_provider_batch.triggers.clients import shared_client
    from airflow_provider_batch.triggers.list_trust import ListTrust
    from airflow_provider_batch.triggers.reading import Reader

    results: list[Any] = []

    async def read() -> Any:
        async with shared_client("openai_default") as shared:
            return await Reader(shared, ListTrust()).read(
                ["batch_1", "batch_2", "batch_3"], lambda _, result: results.append(result)
            )

    with scripted(error(status)):
        failure = asyncio.run(read())
    assert results
    assert KEY not in str((results, failure))
    assert TOKEN not in str((results, failure))


@pytest.mark.parametrize(
    "key", [f"{KEY}\n", f" {KEY}", "sk-proj 0123456789", f"“{KEY}”", f"{KEY}\u200b", f'"{KEY}"', f"Bearer {KEY}"]
)
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_show_it(
    airflow_home: Path, connect: Callable[..., None], key: str
) -> None:
    from airflow_provider_batch.hooks.batch import BatchHook

    connect("openai_default", conn_type="openai", password=key, host="http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match=r"the API key \(field API Key\) ") as raised:
        BatchHook().check()
    assert key.strip() not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("canary", [0, 2])
def test_a_job_stores_and_logs_no_secret(
    server: LocalServer,
    connect: Callable[..., None],
    warehouse: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    canary: int,
) -> None:
    connect("openai_default", conn_type="openai", password=KEY, host=server.base_url)
    server.set_faults(
        Fault(kind=Kind.ERROR, status=400, code=KEY, message=ECHO, custom_ids=frozenset({"T-2", "T-4"})),
        Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", message=ECHO, times=1),
        Fault(kind=Kind.STATUS, status=500, message=ECHO, times=2),
    )
    with caplog.at_level(logging.DEBUG):
        result = run_job(canary=canary, ignore_canary=True)
    assert result.state == "success"
    with closing(sqlite3.connect(warehouse)) as connection:
        rows = connection.execute("SELECT * FROM answers").fetchall()
    assert len(rows) == 5
    assert "Incorrect API key provided: ***" in str(rows)
    shown = [str(rows), str(result.return_values), caplog.text]
    # staging and its ledger; the server keeps its own state elsewhere
    stored = [
        path.read_text(errors="replace")
        for path in tmp_path.rglob("*")
        if path.is_file() and (tmp_path / "server") not in path.parents
    ]
    assert any("Incorrect API key provided: ***" in text for text in stored)
    assert not [text[:1000] for text in (*shown, *stored) if KEY in text]
