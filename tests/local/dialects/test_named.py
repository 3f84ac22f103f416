"""Every named dialect, and how this provider reads it.

Servers that can replace OpenAI's are tested over real HTTP, with OpenAI's SDK and with the hook of this provider. The
others run in this process and are tested as far as the SDK works with them.
"""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openai import AzureOpenAI, BadRequestError, OpenAI

from airflow_provider_batch.core.answers.outcome import Answer, Outcome, read_line
from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import ShardState
from airflow_provider_batch.core.lifecycle.failures import classify_batch_failure
from airflow_provider_batch.core.provider.batch import BatchView, Status, read_batch
from airflow_provider_batch.local.api import objects
from airflow_provider_batch.local.dialects import DIALECTS
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer, Options
from tests.core.building import plain_shard
from tests.local.conftest import make_client
from tests.local.driving import CHAT, DEADLINE, chat, chats, jsonl, upload
from tests.local.in_process import STATE, InProcess, in_process

#: dialects that work with OpenAI's SDK when only the base URL is changed
DROP_INS = ("openai", "azure", "dashscope", "doubleword", "groq", "nebius", "novita")
OTHER_DIALECTS = ("milliseconds", "ogx", "siliconflow", "together", "vllm")
#: one request that succeeds, one that fails permanently, and one that may succeed if it is retried
MIXED_LINES = [chat("good", "hello"), chat("refused", "[[fail:400]]"), chat("broken", "[[fail:500]]")]


def test_every_dialect_is_tested_here() -> None:
    assert {*DROP_INS, *OTHER_DIALECTS} == DIALECTS.keys()


def window(name: str) -> Any:
    return "48h" if name == "novita" else "24h"


# drop-ins


class DropIn:
    """A server with OpenAI's SDK as its client."""

    def __init__(self, name: str, server: LocalServer, client: OpenAI) -> None:
        self.name, self.server, self.client = name, server, client

    def create(self, content: bytes, **metadata: str) -> BatchView:
        file_id = upload(self.client, content)
        return read_batch(
            self.client.batches.create(
                input_file_id=file_id, endpoint=CHAT, completion_window=window(self.name), metadata=metadata
            )
        )

    def watch(self, view: BatchView) -> list[BatchView]:
        """Advance the clock of the server until the batch has ended. Return every view of it."""
        views, deadline = [view], time.monotonic() + DEADLINE
        while not views[-1].status.ended:
            assert time.monotonic() < deadline, views[-1]
            self.server.advance(STATE / 2)
            views.append(read_batch(self.client.batches.retrieve(view.id)))
        return views

    def rows(self, view: BatchView) -> dict[str, Answer]:
        """Read every line of both result files."""
        files = [file_id for file_id in (view.output_file_id, view.error_file_id) if file_id]
        lines = [line for file in files for line in self.client.files.content(file).content.split(b"\n") if line]
        rows = [read_line(line, CHAT, None) for line in lines]
        assert None not in rows
        return dict(row for row in rows if row is not None)


Servers = dict[str, DropIn]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server for each dialect that is tested over real HTTP, shared by all tests of this file."""
    times: Options = {"validating": STATE, "in_progress": STATE, "finalizing": STATE, "admin": True}
    local_servers = {
        name: LocalServer(tmp_path_factory.mktemp("state"), **times | {"dialects": (name,)})
        for name in (*DROP_INS, "siliconflow")
    }
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        for server in local_servers.values():
            stack.callback(server.stop)
        list(pool.map(LocalServer.start, local_servers.values()))
        yield {
            name: DropIn(name, server, stack.enter_context(make_client(server)))
            for name, server in local_servers.items()
        }
        list(pool.map(LocalServer.stop, local_servers.values()))


@pytest.fixture(params=DROP_INS)
def drop_in(request: pytest.FixtureRequest, servers: Servers) -> DropIn:
    return servers[request.param]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[DropIn], Any]:
    """Return a hook whose connection points to the given server."""

    def connect_hook(drop_in: DropIn) -> Any:
        from airflow_provider_batch.hooks.batch import BatchHook

        host = drop_in.server.base_url.replace("/v1", "/openai/v1" if drop_in.name == "azure" else "/v1")
        connection = {"conn_type": "openai", "password": "local", "host": host}
        monkeypatch.setenv("AIRFLOW_CONN_LOOKALIKE", json.dumps(connection))
        return BatchHook("lookalike")

    return connect_hook


def test_every_state_and_every_row_can_be_read(drop_in: DropIn) -> None:
    views = drop_in.watch(drop_in.create(jsonl(MIXED_LINES), nonce="n-1"))

    assert all(view.has_known_status for view in views), {view.raw_status for view in views}
    assert [view.status for view in views[:-1]] == [Status.RUNNING] * (len(views) - 1)
    last = views[-1]
    assert last.status is Status.COMPLETED
    assert last.output_file_id
    assert last.error_file_id
    assert (last.total, last.completed, last.failed) == (3, 1, 2)
    assert last.metadata == {"nonce": "n-1"}
    assert last.created_at == views[0].created_at > 1_700_000_000
    rows = drop_in.rows(last)
    assert {name: row.outcome for name, row in rows.items()} == {
        "good": Outcome.SUCCEEDED,
        "refused": Outcome.FAILED,
        "broken": Outcome.FAILED,
    }
    assert rows["good"].text
    assert (rows["good"].usage.input_tokens or 0) > 0
    assert rows["broken"].transient
    assert rows["broken"].error_code == "server_error"
    # Doubleword's failures have no status, so a permanent failure cannot be distinguished from a transient one.
    assert rows["refused"].transient == (drop_in.name == "doubleword")
    assert rows["refused"].error_message == "The request was rejected as invalid."


def test_a_batch_without_failures_can_be_read_with_or_without_an_error_file(drop_in: DropIn) -> None:
    last = drop_in.watch(drop_in.create(jsonl(chats(3))))[-1]

    assert last.status is Status.COMPLETED
    assert {row.outcome for row in drop_in.rows(last).values()} == {Outcome.SUCCEEDED}
    assert len(drop_in.rows(last)) == 3
    assert (drop_in.client.files.content(last.error_file_id).content if last.error_file_id else b"") == b""


def test_the_reason_of_a_failed_batch_can_be_read(drop_in: DropIn) -> None:
    last = drop_in.watch(drop_in.create(jsonl([chat("a", "hello"), chat("b", "hello", stream=True)])))[-1]

    assert last.status is Status.FAILED
    failure, message, lines = classify_batch_failure(last, ShardState(plain_shard("s0001", requests=2)))
    assert failure is Failure.LINES
    assert "streaming_unsupported" in message
    # A text has no line numbers.
    assert list(lines) == ([] if drop_in.name == "novita" else [1])


def test_a_full_queue_is_recognized(drop_in: DropIn) -> None:
    drop_in.server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded"))
    last = drop_in.watch(drop_in.create(jsonl(chats(1))))[-1]
    drop_in.server.set_faults()

    assert last.status is Status.FAILED
    assert classify_batch_failure(last, ShardState(plain_shard("s0001")))[0] is Failure.CAPACITY


def test_a_cancelled_batch_lists_the_rows_that_never_ran(drop_in: DropIn) -> None:
    view = drop_in.create(jsonl(chats(4)))
    while read_batch(drop_in.client.batches.retrieve(view.id)).total == 0:
        drop_in.server.advance(STATE / 4)
    cancelling = read_batch(drop_in.client.batches.cancel(view.id))
    assert (cancelling.status, cancelling.has_known_status) == (Status.CANCELLING, True)

    last = drop_in.watch(cancelling)[-1]
    assert last.status is Status.CANCELLED
    rows = drop_in.rows(last)
    assert set(rows) == {f"row-{number}" for number in range(4)}
    assert {row.outcome for row in rows.values()} <= {Outcome.SUCCEEDED, Outcome.CANCELLED}
    assert Outcome.CANCELLED in {row.outcome for row in rows.values()}


def test_the_hook_can_run_a_batch_from_upload_to_cancel(drop_in: DropIn, connect: Callable[[DropIn], Any]) -> None:
    hook = connect(drop_in)
    start = datetime.now(UTC) - timedelta(minutes=5)

    file_id = hook.upload(io.BytesIO(jsonl(chats(2))), "s0001.jsonl")
    batches = [
        hook.create(file_id, endpoint=CHAT, completion_window=window(drop_in.name), metadata={"nonce": nonce})
        for nonce in ("n-1", "n-2")
    ]
    assert [batch.id for batch in hook.find_batches("n-2", file_id, not_before=start)] == [batches[1].id]
    assert {batch.id for batch in hook.find_batches("none", file_id, not_before=start)} == {
        batch.id for batch in batches
    }
    last = drop_in.watch(hook.retrieve(batches[0].id))[-1]
    output = io.BytesIO()
    assert hook.download(last.output_file_id, output)[0] == len(output.getvalue()) > 0
    assert last.error_file_id == "" or hook.download(last.error_file_id, io.BytesIO())[0] == 0
    assert hook.cancel(last.id) is None


# Azure


def test_azures_client_can_run_a_batch(servers: Servers) -> None:
    drop_in = servers["azure"]
    creates = drop_in.server.calls().get("create", 0)
    with AzureOpenAI(
        azure_endpoint=drop_in.server.base_url.removesuffix("/v1"),
        api_key="local",
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        lines = [{**line, "url": "/chat/completions"} for line in chats(2)]
        file_id = upload(client, jsonl(lines))
        endpoint: Any = "/chat/completions"
        batch = client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")
        assert (batch.output_file_id, batch.error_file_id) == ("", "")
        assert drop_in.server.calls()["create"] == creates + 1, "the call is counted under OpenAI's path"
        drop_in.watch(read_batch(batch))
        batch = client.batches.retrieve(batch.id)

        assert batch.status == "completed"
        assert client.files.retrieve(batch.error_file_id or "").bytes == 0
        assert len(client.files.content(batch.output_file_id or "").content.splitlines()) == 2
        assert batch.id in {item.id for item in client.batches.list(limit=2)}
        other_window: Any = "48h"
        with pytest.raises(BadRequestError, match="Supported values are: '24h'"):
            client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=other_window)
        completion = client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}])
        assert completion.choices[0].message.content


# Groq


def test_with_groq_the_sdks_paging_is_endless_and_the_hooks_is_not(
    servers: Servers, connect: Callable[[DropIn], Any]
) -> None:
    groq = servers["groq"]
    file_id = upload(groq.client, jsonl(chats(1)))
    batch_ids = {
        groq.client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id for _ in range(3)
    }

    endless = [batch.id for batch in itertools.islice(groq.client.batches.list(limit=2), 50)]
    assert len(endless) == 50
    assert len(set(endless)) == 2
    batches = connect(groq).find_batches("none", file_id, not_before=datetime.now(UTC) - timedelta(minutes=5))
    assert {batch.id for batch in batches} == batch_ids


# dialects that the SDK cannot use completely


@pytest.fixture
def in_process_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InProcess]:
    with in_process(tmp_path, request.param) as running:
        yield running


def read_rows(server: InProcess, view: BatchView) -> dict[str, Answer]:
    files = [file_id for file_id in (view.output_file_id, view.error_file_id) if file_id]
    lines = [json.dumps(line).encode() for file in files for line in server.content(file)]
    return dict(row for line in lines if (row := read_line(line, CHAT, None)))


@pytest.mark.parametrize("in_process_server", OTHER_DIALECTS, indirect=True)
def test_batches_and_rows_of_the_other_dialects_can_be_read(in_process_server: InProcess) -> None:
    reply = read_batch(in_process_server.create(MIXED_LINES))
    assert (reply.status, reply.has_known_status) == (Status.RUNNING, True)
    last = read_batch(in_process_server.advance_until(reply.id, objects.Status.COMPLETED))

    assert last.id == reply.id
    assert last.status is Status.COMPLETED
    assert last.created_at == reply.created_at > 1_700_000_000
    rows = read_rows(in_process_server, last)
    assert {name: row.outcome for name, row in rows.items()} == {
        "good": Outcome.SUCCEEDED,
        "refused": Outcome.FAILED,
        "broken": Outcome.FAILED,
    }
    # OGX's failures have no status, so a permanent failure cannot be distinguished from a transient one.
    assert rows["refused"].transient == ("ogx-lines" in in_process_server.server.settings.dialect)
    assert rows["broken"].transient
    assert rows["refused"].error_message == "The request was rejected as invalid."
    assert "processing your request" in str(rows["broken"].error_message)


@pytest.mark.parametrize("in_process_server", ["siliconflow"], indirect=True)
def test_with_siliconflow_the_sdk_gets_no_file_id_and_no_counts(in_process_server: InProcess) -> None:
    client = in_process_server.sdk()
    file: Any = in_process_server.do(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    assert file.id is None
    batch = in_process_server.do(
        client.batches.create(
            input_file_id=file.data["id"],
            endpoint=CHAT,
            completion_window="336h",  # type: ignore[arg-type]  # the SDK knows only 24h
            extra_body={"replace": {"model": "m"}},
        )
    )
    assert (batch.status, batch.request_counts) == ("in_queue", None)


@pytest.mark.parametrize("in_process_server", ["together"], indirect=True)
def test_with_together_the_sdk_gets_no_batch_id_from_create(in_process_server: InProcess) -> None:
    client = in_process_server.sdk()
    file = in_process_server.do(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    reply: Any = in_process_server.do(
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    )
    assert reply.id is None
    batch = in_process_server.do(client.batches.retrieve(reply.job["id"]))
    assert (batch.status, batch.request_counts, batch.progress) == ("VALIDATING", None, 0)


def test_the_hook_reads_the_file_id_in_siliconflows_reply_to_an_upload(
    servers: Servers, connect: Callable[[DropIn], Any]
) -> None:
    hook = connect(servers["siliconflow"])
    file_id = hook.upload(io.BytesIO(jsonl(chats(1))), "s0001.jsonl")
    batch = hook.create(file_id, endpoint=CHAT, completion_window="24h", metadata={"nonce": "n-1"})
    assert (batch.raw_status, batch.input_file_id) == ("in_queue", file_id)
