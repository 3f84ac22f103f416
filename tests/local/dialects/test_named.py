"""Every named dialect, and our own reading of it.

The servers that are drop-ins for OpenAI's are driven over real HTTP, by OpenAI's SDK and by the hook of this provider;
the others in this process, as far as the SDK gets with them.
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
from airflow_provider_batch.core.lifecycle.failures import failure_of
from airflow_provider_batch.core.provider.batch import BatchView, Status, read_batch
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.local.api import objects
from airflow_provider_batch.local.dialects import DIALECTS
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer, Options
from tests.local.conftest import make_client
from tests.local.driving import CHAT, DEADLINE, chat, chats, jsonl, upload
from tests.local.in_process import STATE, InProcess, in_process

#: those that OpenAI's SDK drives after a change of its base URL alone
DROP_INS = ("openai", "azure", "dashscope", "doubleword", "groq", "nebius", "novita")
OTHERS = ("milliseconds", "siliconflow", "together", "vllm")
#: one that succeeds, one that is refused for good, one that may succeed if it is asked again
MIXED = [chat("good", "hello"), chat("refused", "[[fail:400]]"), chat("broken", "[[fail:500]]")]


def test_every_dialect_is_driven_here() -> None:
    assert {*DROP_INS, *OTHERS} == DIALECTS.keys()


def window(name: str) -> Any:
    return "48h" if name == "novita" else "24h"


# drop-ins


class DropIn:
    """One server, OpenAI's SDK as its client."""

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
        """The batch as it was read until it ended, while the server's clock moves."""
        seen, deadline = [view], time.monotonic() + DEADLINE
        while not seen[-1].status.ended:
            assert time.monotonic() < deadline, seen[-1]
            self.server.advance(STATE / 2)
            seen.append(read_batch(self.client.batches.retrieve(view.id)))
        return seen

    def rows(self, view: BatchView) -> dict[str, Answer]:
        """Every line of both files, as it is read."""
        files = [file_id for file_id in (view.output_file_id, view.error_file_id) if file_id]
        lines = [line for file in files for line in self.client.files.content(file).content.split(b"\n") if line]
        found = [read_line(line, CHAT, None) for line in lines]
        assert None not in found
        return dict(one for one in found if one is not None)


Servers = dict[str, DropIn]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A server of each dialect that is driven over real HTTP, shared by all tests of this file."""
    times: Options = {"validating": STATE, "in_progress": STATE, "finalizing": STATE, "admin": True}
    spoken = {
        name: LocalServer(tmp_path_factory.mktemp("state"), **times | {"dialects": (name,)})
        for name in (*DROP_INS, "siliconflow")
    }
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        for server in spoken.values():
            stack.callback(server.stop)
        list(pool.map(LocalServer.start, spoken.values()))
        yield {name: DropIn(name, server, stack.enter_context(make_client(server))) for name, server in spoken.items()}
        list(pool.map(LocalServer.stop, spoken.values()))


@pytest.fixture(params=DROP_INS)
def drop_in(request: pytest.FixtureRequest, servers: Servers) -> DropIn:
    return servers[request.param]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[DropIn], Any]:
    """A hook whose connection leads to this server."""

    def lead(to: DropIn) -> Any:
        from airflow_provider_batch.hooks.batch import BatchHook

        host = to.server.base_url.replace("/v1", "/openai/v1" if to.name == "azure" else "/v1")
        connection = {"conn_type": "openai", "password": "local", "host": host}
        monkeypatch.setenv("AIRFLOW_CONN_LOOKALIKE", json.dumps(connection))
        return BatchHook("lookalike")

    return lead


def test_every_state_is_understood_and_every_row_is_read(drop_in: DropIn) -> None:
    seen = drop_in.watch(drop_in.create(jsonl(MIXED), nonce="n-1"))

    assert all(view.has_known_status for view in seen), {view.raw_status for view in seen}
    assert [view.status for view in seen[:-1]] == [Status.RUNNING] * (len(seen) - 1)
    last = seen[-1]
    assert last.status is Status.COMPLETED
    assert last.output_file_id
    assert last.error_file_id
    assert (last.total, last.completed, last.failed) == (3, 1, 2)
    assert last.metadata == {"nonce": "n-1"}
    assert last.created_at == seen[0].created_at > 1_700_000_000
    rows = drop_in.rows(last)
    assert {name: row.outcome for name, row in rows.items()} == {
        "good": Outcome.SUCCEEDED,
        "refused": Outcome.FAILED,
        "broken": Outcome.FAILED,
    }
    assert rows["good"].text
    assert rows["good"].usage.input_tokens > 0
    assert rows["broken"].transient
    assert rows["broken"].error_code == "server_error"
    # Doubleword's failures tell no status, so that what was refused for good cannot be told apart.
    assert rows["refused"].transient == (drop_in.name == "doubleword")
    assert rows["refused"].error_message == "The request was rejected as invalid."


def test_a_batch_without_failures_is_read_whatever_its_error_file_is(drop_in: DropIn) -> None:
    last = drop_in.watch(drop_in.create(jsonl(chats(3))))[-1]

    assert last.status is Status.COMPLETED
    assert {row.outcome for row in drop_in.rows(last).values()} == {Outcome.SUCCEEDED}
    assert len(drop_in.rows(last)) == 3
    assert (drop_in.client.files.content(last.error_file_id).content if last.error_file_id else b"") == b""


def test_why_a_batch_failed_is_understood(drop_in: DropIn) -> None:
    last = drop_in.watch(drop_in.create(jsonl([chat("a", "hello"), chat("b", "hello", stream=True)])))[-1]

    assert last.status is Status.FAILED
    failure, message, lines = failure_of(last)
    assert failure is Failure.LINES
    assert "streaming_unsupported" in message
    # Text tells no lines.
    assert list(lines) == ([] if drop_in.name == "novita" else [1])


def test_a_full_queue_is_told_apart(drop_in: DropIn) -> None:
    drop_in.server.set_faults(Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded"))
    last = drop_in.watch(drop_in.create(jsonl(chats(1))))[-1]
    drop_in.server.set_faults()

    assert last.status is Status.FAILED
    assert failure_of(last)[0] is Failure.CAPACITY


def test_a_cancelled_batch_names_the_rows_that_never_ran(drop_in: DropIn) -> None:
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


def test_the_hook_goes_the_whole_way(drop_in: DropIn, connect: Callable[[DropIn], Any]) -> None:
    hook = connect(drop_in)
    began = datetime.now(UTC) - timedelta(minutes=5)

    file_id = hook.upload(io.BytesIO(jsonl(chats(2))), "s0001.jsonl")
    made = [
        hook.create(file_id, endpoint=CHAT, completion_window=window(drop_in.name), metadata={"nonce": nonce})
        for nonce in ("n-1", "n-2")
    ]
    assert [batch.id for batch in hook.find_batches("n-2", file_id, not_before=began)] == [made[1].id]
    assert {batch.id for batch in hook.find_batches("none", file_id, not_before=began)} == {batch.id for batch in made}
    last = drop_in.watch(hook.retrieve(made[0].id))[-1]
    output = io.BytesIO()
    assert hook.download(last.output_file_id, output)[0] == len(output.getvalue()) > 0
    assert last.error_file_id == "" or hook.download(last.error_file_id, io.BytesIO())[0] == 0
    assert hook.cancel(last.id) is None


# Azure


def test_azures_own_client_goes_the_whole_way(servers: Servers) -> None:
    drop_in = servers["azure"]
    before = drop_in.server.calls().get("create", 0)
    with AzureOpenAI(
        azure_endpoint=drop_in.server.base_url.removesuffix("/v1"),
        api_key="local",
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        lines = [{**line, "url": "/chat/completions"} for line in chats(2)]
        file_id = upload(client, jsonl(lines))
        bare: Any = "/chat/completions"
        batch = client.batches.create(input_file_id=file_id, endpoint=bare, completion_window="24h")
        assert (batch.output_file_id, batch.error_file_id) == ("", "")
        assert drop_in.server.calls()["create"] == before + 1, "faults of calls see OpenAI's paths"
        drop_in.watch(read_batch(batch))
        batch = client.batches.retrieve(batch.id)

        assert batch.status == "completed"
        assert client.files.retrieve(batch.error_file_id or "").bytes == 0
        assert len(client.files.content(batch.output_file_id or "").content.splitlines()) == 2
        assert batch.id in {one.id for one in client.batches.list(limit=2)}
        longer: Any = "48h"
        with pytest.raises(BadRequestError, match="Supported values are: '24h'"):
            client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=longer)
        asked = client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}])
        assert asked.choices[0].message.content


# Groq


def test_the_sdks_own_paging_never_ends_at_groq_and_the_hooks_does(
    servers: Servers, connect: Callable[[DropIn], Any]
) -> None:
    groq = servers["groq"]
    file_id = upload(groq.client, jsonl(chats(1)))
    made = {
        groq.client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id for _ in range(3)
    }

    endless = [batch.id for batch in itertools.islice(groq.client.batches.list(limit=2), 50)]
    assert len(endless) == 50
    assert len(set(endless)) == 2
    found = connect(groq).find_batches("none", file_id, not_before=datetime.now(UTC) - timedelta(minutes=5))
    assert {batch.id for batch in found} == made


# those that the SDK does not get through with


@pytest.fixture
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InProcess]:
    with in_process(tmp_path, request.param) as server:
        yield server


def read_rows(server: InProcess, view: BatchView) -> dict[str, Answer]:
    files = [file_id for file_id in (view.output_file_id, view.error_file_id) if file_id]
    lines = [json.dumps(line).encode() for file in files for line in server.content(file)]
    return dict(found for line in lines if (found := read_line(line, CHAT, None)))


@pytest.mark.parametrize("other", OTHERS, indirect=True)
def test_batches_and_rows_of_the_others_are_read_too(other: InProcess) -> None:
    reply = read_batch(other.create(MIXED))
    assert (reply.status, reply.has_known_status) == (Status.RUNNING, True)
    last = read_batch(other.advance_until(reply.id, objects.Status.COMPLETED))

    assert last.id == reply.id
    assert last.status is Status.COMPLETED
    assert last.created_at == reply.created_at > 1_700_000_000
    rows = read_rows(other, last)
    assert {name: row.outcome for name, row in rows.items()} == {
        "good": Outcome.SUCCEEDED,
        "refused": Outcome.FAILED,
        "broken": Outcome.FAILED,
    }
    assert (rows["refused"].transient, rows["broken"].transient) == (False, True)
    assert rows["refused"].error_message == "The request was rejected as invalid."
    assert "processing your request" in str(rows["broken"].error_message)


@pytest.mark.parametrize("other", ["siliconflow"], indirect=True)
def test_siliconflows_uploads_have_no_id_for_the_sdk_and_its_batches_no_counts(other: InProcess) -> None:
    client = other.sdk()
    file: Any = other.do(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    assert file.id is None
    batch = other.do(
        client.batches.create(
            input_file_id=file.data["id"],
            endpoint=CHAT,
            completion_window="336h",  # type: ignore[arg-type]  # the SDK knows only 24h
            extra_body={"replace": {"model": "m"}},
        )
    )
    assert (batch.status, batch.request_counts) == ("in_queue", None)


@pytest.mark.parametrize("other", ["together"], indirect=True)
def test_togethers_reply_to_create_is_no_batch_for_the_sdk(other: InProcess) -> None:
    client = other.sdk()
    file = other.do(client.files.create(file=("a.jsonl", jsonl(chats(1))), purpose="batch"))
    reply: Any = other.do(client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h"))
    assert reply.id is None
    batch = other.do(client.batches.retrieve(reply.job["id"]))
    assert (batch.status, batch.request_counts, batch.progress) == ("VALIDATING", None, 0)


def test_an_upload_whose_answer_hides_its_id_is_refused_before_anything_is_paid(
    servers: Servers, connect: Callable[[DropIn], Any]
) -> None:
    siliconflow = servers["siliconflow"]
    with pytest.raises(ProviderError, match=r"contains no file id\. No batch was created"):
        connect(siliconflow).upload(io.BytesIO(jsonl(chats(1))), "s0001.jsonl")
    assert siliconflow.server.calls().get("create", 0) == 0
