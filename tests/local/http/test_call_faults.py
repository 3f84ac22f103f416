"""Faults of calls, as the real SDK meets them, and over bare HTTP where the SDK hides things."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.http.call_faults import call_of
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.local.settings import Settings
from tests.local.conftest import Serve, make_client
from tests.local.driving import CHAT, DEADLINE, chats, jsonl, run, submit, upload
from tests.local.schemas import assert_fits


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("faulty"), admin=True) as running:
        yield running


@pytest.fixture
def server(faulty: LocalServer) -> Iterator[LocalServer]:
    """A server on which nothing goes wrong yet."""
    faulty.set_faults()
    yield faulty
    faulty.set_faults()


@pytest.fixture
def client(server: LocalServer) -> Iterator[OpenAI]:
    with make_client(server) as opened:
        yield opened


@pytest.fixture
def usual(server: LocalServer) -> Iterator[OpenAI]:
    """A client that retries as the SDK does by default."""
    with OpenAI(base_url=server.base_url, api_key="local") as opened:
        yield opened


def on(*calls: Call) -> frozenset[Call]:
    return frozenset(calls)


def batches_of(client: OpenAI, file_id: str) -> int:
    return sum(batch.input_file_id == file_id for batch in client.batches.list())


def create(client: OpenAI, file_id: str, **options: Any) -> Any:
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", **options)


def stream(client: OpenAI, file_id: str, into: bytearray) -> None:
    """Download piece by piece, so that what came before an error is known."""
    with client.files.with_streaming_response.content(file_id) as answer:
        for piece in answer.iter_bytes():
            into += piece


def await_hits(server: LocalServer) -> None:
    """Wait until every fault has hit."""
    deadline = time.monotonic() + DEADLINE
    with bare() as plain:
        while not all(seen["hits"] for seen in plain.get(f"{server.base_url.removesuffix('/v1')}/admin/faults").json()):
            assert time.monotonic() < deadline, "a fault has not hit"
            time.sleep(0.01)


def bare() -> httpx2.Client:
    """A client that does nothing of its own."""
    return httpx2.Client(trust_env=False, headers={"Authorization": "Bearer local"})


class Raw:
    """One request over a bare connection, to see what comes and when it ends."""

    def __init__(self, server: LocalServer, method: str, path: str) -> None:
        address = urlsplit(server.base_url)
        self.connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=DEADLINE)
        self.connection.request(method, f"{address.path}{path}", headers={"Authorization": "Bearer local"})
        self.answer = self.connection.getresponse()

    def __enter__(self) -> http.client.HTTPResponse:
        return self.answer

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_every_call_has_its_name() -> None:
    named = {
        Call.UPLOAD: ("POST", "/v1/files"),
        Call.FILES: ("GET", "/v1/files"),
        Call.FILE: ("GET", "/v1/files/file-1"),
        Call.DELETE: ("DELETE", "/v1/files/file-1"),
        Call.DOWNLOAD: ("GET", "/v1/files/file-1/content"),
        Call.CREATE: ("POST", "/v1/batches"),
        Call.LIST: ("GET", "/v1/batches"),
        Call.RETRIEVE: ("GET", "/v1/batches/batch_1"),
        Call.CANCEL: ("POST", "/v1/batches/batch_1/cancel"),
        Call.SYNCHRONOUS: ("POST", CHAT),
    }

    assert set(named) == set(Call)
    assert {call: call_of(*request) for call, request in named.items()} == {call: call for call in named}


@pytest.mark.parametrize(
    "request_line",
    [
        ("GET", "/v1/models"),
        ("GET", "/admin/faults"),
        ("POST", "/v1/webhook_endpoints"),
        ("POST", "/v1/webhook_endpoints/we_1/rotate_secret"),
        ("GET", "/files"),
        ("PATCH", "/v1/files"),
    ],
)
def test_nothing_else_is_a_call(request_line: tuple[str, str]) -> None:
    assert call_of(*request_line) is None


# an error in place of the answer


@pytest.mark.parametrize(
    ("status", "type", "code"),
    [
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (502, "server_error", None),
        (503, "server_error", None),
        (504, "server_error", None),
    ],
)
def test_a_status_comes_in_openais_shape(
    server: LocalServer, client: OpenAI, status: int, type: str, code: str | None
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=status, times=1))

    with pytest.raises(openai.APIStatusError) as caught:
        client.batches.list()
    body = caught.value.response.json()
    assert_fits(body, "ErrorResponse")
    assert (caught.value.status_code, body["error"]["type"], body["error"]["code"]) == (status, type, code)
    assert "retry-after" not in caught.value.response.headers
    client.batches.list()


def test_nothing_was_done_when_a_status_came_instead(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.STATUS, calls=on(Call.CREATE)))

    with pytest.raises(openai.InternalServerError):
        create(client, file)
    assert batches_of(client, file) == 0


def test_a_short_retry_after_is_waited_for(server: LocalServer, usual: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=429, retry_after=0.05, times=2))
    before = server.calls()["list"]

    usual.batches.list()
    assert server.calls()["list"] - before == 3


def test_a_long_retry_after_is_not_waited_for(server: LocalServer, usual: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=429, retry_after=300, times=1))
    before = server.calls()["list"]

    with pytest.raises(openai.RateLimitError) as caught:
        usual.batches.list()
    assert caught.value.response.headers["retry-after"] == "300"
    assert server.calls()["list"] - before == 1


def test_a_fresh_file_may_not_be_found_at_once(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    words = f"Cannot find file {file} or project proj_local does not have access to it."
    server.set_faults(
        Fault(kind=Kind.STATUS, calls=on(Call.CREATE), status=400, message=words, code="invalid_request", times=1)
    )

    with pytest.raises(openai.BadRequestError) as caught:
        create(client, file)
    assert caught.value.body == {
        "message": words,
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_request",
    }
    assert create(client, file).status == "validating"


@pytest.mark.parametrize("status", [404, 410])
def test_a_result_file_may_be_gone(server: LocalServer, client: OpenAI, status: int) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.STATUS, calls=on(Call.DOWNLOAD), status=status, message=f"No such File: {file}"))

    with pytest.raises(openai.APIStatusError, match=f"No such File: {file}") as caught:
        client.files.content(file)
    assert caught.value.status_code == status
    assert client.files.retrieve(file).id == file, "only downloads are hit"


def test_an_upload_that_is_refused_unread_leaves_the_connection_as_it_was(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(20_000))
    server.set_faults(Fault(kind=Kind.STATUS, calls=on(Call.UPLOAD), status=503, times=1))

    with pytest.raises(openai.InternalServerError):
        upload(client, content)
    assert client.files.retrieve(upload(client, content)).bytes == len(content)


def test_a_call_without_a_key_is_hit_as_by_a_gateway(server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=503))

    with httpx2.Client(trust_env=False) as keyless:
        assert keyless.get(f"{server.base_url}/batches").status_code == 503
        assert keyless.get(f"{server.base_url}/models").status_code == 401


# the duplicate trap: carried out, but not answered


def test_a_create_that_commits_and_then_fails_makes_two_batches_of_an_sdk_that_retries(
    server: LocalServer, usual: OpenAI
) -> None:
    file = upload(usual, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_STATUS, calls=on(Call.CREATE), status=500, times=1))
    before = server.calls()["create"]

    create(usual, file)
    assert server.calls()["create"] - before == 2
    assert batches_of(usual, file) == 2


def test_a_create_that_commits_and_then_fails_leaves_its_batch_to_be_found(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_STATUS, calls=on(Call.CREATE), status=502))

    with pytest.raises(openai.InternalServerError) as caught:
        create(client, file, metadata={"nonce": "a-b-c"})
    assert caught.value.status_code == 502
    (found,) = [batch for batch in client.batches.list() if batch.input_file_id == file]
    assert found.metadata == {"nonce": "a-b-c"}


@pytest.mark.parametrize(("kind", "made"), [(Kind.COMMIT_THEN_HANG, 1), (Kind.HANG, 0)])
def test_a_create_that_times_out_may_have_made_a_batch_or_not(
    server: LocalServer, client: OpenAI, kind: Kind, made: int
) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=kind, calls=on(Call.CREATE), seconds=600))

    with pytest.raises(openai.APITimeoutError):
        create(client, file, timeout=openai.Timeout(DEADLINE, read=0.2))
    await_hits(server)
    deadline = time.monotonic() + DEADLINE
    while batches_of(client, file) != made:
        assert time.monotonic() < deadline, "the call was not carried out"


def test_an_upload_that_commits_and_then_hangs_leaves_its_file(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_HANG, calls=on(Call.UPLOAD), seconds=0.05))
    before = {file.id for file in client.files.list()}

    with pytest.raises(openai.APIConnectionError):
        upload(client, jsonl(chats(3)))
    (left,) = [file for file in client.files.list() if file.id not in before]
    assert client.files.content(left.id).content == jsonl(chats(3))


# no answer


def test_a_hang_ends_with_a_closed_connection(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.HANG, seconds=0.05))

    with pytest.raises(openai.APIConnectionError) as caught:
        client.batches.list()
    assert not isinstance(caught.value, openai.APITimeoutError)


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_dropped_upload_leaves_nothing(server: LocalServer, client: OpenAI, lines: int) -> None:
    server.set_faults(Fault(kind=Kind.DROP, calls=on(Call.UPLOAD)))
    before = len(list(client.files.list()))

    with pytest.raises(openai.APIConnectionError):
        upload(client, jsonl(chats(lines)))
    assert len(list(client.files.list())) == before


def test_a_dropped_call_is_closed_without_a_byte(server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.DROP))

    with pytest.raises(http.client.RemoteDisconnected):
        Raw(server, "GET", "/batches")


def test_a_dropped_call_is_made_again_by_the_sdk(server: LocalServer, usual: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.DROP, times=1))
    before = server.calls()["list"]

    usual.batches.list()
    assert server.calls()["list"] - before == 2


def test_a_hang_ends_when_the_client_leaves(tmp_path: Path) -> None:
    async def go() -> None:
        app = create_app(tmp_path, Settings(faults=(Fault(kind=Kind.HANG, seconds=1e6),)))
        here, there = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        arriving = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(arriving, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/batches",
            "headers": [],
            "query_string": b"",
            "state": {"transport": transport},
        }
        async with asyncio.timeout(DEADLINE):
            await app(scope, receive, send)
        assert sent == []
        assert transport.is_closing()
        there.close()
        app.state.server.store.close()

    asyncio.run(go())


def test_every_silence_ends_at_once_when_the_server_is_stopped(serve: Serve) -> None:
    server, client = serve(admin=True)
    file = upload(client, jsonl(chats(1)))
    server.set_faults(
        Fault(kind=Kind.HANG, calls=on(Call.LIST), seconds=1e6),
        Fault(kind=Kind.COMMIT_THEN_HANG, calls=on(Call.FILES), seconds=1e6),
        Fault(kind=Kind.STALL, calls=on(Call.DOWNLOAD), seconds=1e6),
    )
    with ThreadPoolExecutor() as pool:
        waiting: list[Future[Any]] = [
            pool.submit(client.batches.list),
            pool.submit(client.files.list),
            pool.submit(client.files.content, file),
        ]
        await_hits(server)

        assert server.stop() == 0
        for call in waiting:
            assert isinstance(call.exception(DEADLINE), openai.APIConnectionError)
    log = (server.state / "server.log").read_text()
    assert "graceful shutdown exceeded" not in log
    assert "Traceback" not in log


# an answer that is none, or not whole


def test_an_html_page_with_200_is_no_batch(server: LocalServer, client: OpenAI) -> None:
    batch = run(client, chats(1))
    server.set_faults(Fault(kind=Kind.HTML, calls=on(Call.RETRIEVE)))

    page: object = client.batches.retrieve(batch.id)
    assert isinstance(page, str), "the SDK hands on what is not JSON"
    assert "<html>" in page
    with Raw(server, "GET", f"/batches/{batch.id}") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("lines", [1, 2_000])
def test_a_truncated_download_names_its_whole_length_and_ends_at_half(
    server: LocalServer, client: OpenAI, lines: int
) -> None:
    content = jsonl(chats(lines))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=on(Call.DOWNLOAD)))

    with Raw(server, "GET", f"/files/{file}/content") as answer:
        assert int(answer.headers["content-length"]) == len(content)
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    assert caught.value.partial == content[: len(content) // 2]


def test_a_truncated_streaming_download_raises_after_what_came(server: LocalServer, usual: OpenAI) -> None:
    content = jsonl(chats(2_000))
    file = upload(usual, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=on(Call.DOWNLOAD)))
    before = server.calls()["download"]
    came = bytearray()

    with pytest.raises(httpx2.RemoteProtocolError):
        stream(usual, file, came)
    assert came == content[: len(content) // 2]
    assert server.calls()["download"] - before == 1, "the SDK does not make it again"


def test_a_truncated_plain_download_is_made_again_by_the_sdk(server: LocalServer, usual: OpenAI) -> None:
    content = jsonl(chats(5))
    file = upload(usual, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=on(Call.DOWNLOAD), times=1))

    assert usual.files.content(file).content == content


def test_a_truncated_create_was_carried_out(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=on(Call.CREATE)))

    with pytest.raises(openai.APIConnectionError):
        create(client, file)
    assert batches_of(client, file) == 1


def test_a_stalled_download_is_silent_at_half(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(2_000))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.STALL, calls=on(Call.DOWNLOAD), seconds=600))
    half = len(content) // 2

    raw = Raw(server, "GET", f"/files/{file}/content")
    with raw as answer:
        assert answer.read(half) == content[:half]
        raw.connection.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            answer.read(1)


def test_after_the_silence_a_stalled_download_goes_on(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(2_000))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.STALL, calls=on(Call.DOWNLOAD), seconds=0.1))

    assert client.files.content(file).content == content


# who is hit


def test_so_many_calls_pass_first_and_so_many_are_hit(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=on(Call.LIST), skip=2, times=1))
    answered: list[bool] = []
    for _ in range(5):
        try:
            client.batches.list()
        except openai.InternalServerError:
            answered.append(False)
        else:
            answered.append(True)
        client.models.list()
        client.files.list()

    assert answered == [True, True, False, True, True]


def test_the_same_faults_hit_the_same_calls_again(server: LocalServer) -> None:
    def outcomes() -> list[bool]:
        server.set_faults(Fault(kind=Kind.STATUS, rate=0.5))
        with bare() as plain:
            return [plain.get(f"{server.base_url}/batches").is_success for _ in range(40)]

    first = outcomes()
    assert first == outcomes()
    assert {True, False} == set(first)


def test_synchronous_asks_are_hit_too(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=on(Call.SYNCHRONOUS), status=429))

    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="text-embedding-3-small", input="Hello")
    assert submit(client, chats(1)).status == "validating"
