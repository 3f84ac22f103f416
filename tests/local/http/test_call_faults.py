"""Faults of calls: how the real SDK experiences them, and over plain HTTP where the SDK hides details."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.http.app import create_app
from airflow_provider_batch.local.http.body_faults import damaged_body
from airflow_provider_batch.local.http.call_faults import identify_call
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.local.settings import Settings
from tests.local.conftest import Serve, make_client
from tests.local.driving import CHAT, DEADLINE, chats, jsonl, run, submit, upload
from tests.local.schemas import assert_fits


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("faulty"), admin=True) as server:
        yield server


@pytest.fixture
def server(faulty: LocalServer) -> Iterator[LocalServer]:
    """The shared server without any faults."""
    faulty.set_faults()
    yield faulty
    faulty.set_faults()


@pytest.fixture
def client(server: LocalServer) -> Iterator[OpenAI]:
    with make_client(server) as client:
        yield client


@pytest.fixture
def retrying_client(server: LocalServer) -> Iterator[OpenAI]:
    """A client with the SDK's default retries."""
    with OpenAI(base_url=server.base_url, api_key="local") as client:
        yield client


def calls_of(*calls: Call) -> frozenset[Call]:
    return frozenset(calls)


def count_batches(client: OpenAI, file_id: str) -> int:
    return sum(batch.input_file_id == file_id for batch in client.batches.list())


def create(client: OpenAI, file_id: str, **options: Any) -> Any:
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h", **options)


def stream(client: OpenAI, file_id: str, buffer: bytearray) -> None:
    """Download a file in chunks into `buffer`, so that the content before an error is available."""
    with client.files.with_streaming_response.content(file_id) as response:
        for chunk in response.iter_bytes():
            buffer += chunk


def wait_for_hits(server: LocalServer) -> None:
    """Wait until every fault has hit."""
    deadline = time.monotonic() + DEADLINE
    with plain_client() as http_client:
        while not all(
            entry["hits"] for entry in http_client.get(f"{server.base_url.removesuffix('/v1')}/admin/faults").json()
        ):
            assert time.monotonic() < deadline, "a fault has not hit"
            time.sleep(0.01)


def plain_client() -> httpx2.Client:
    """Return an HTTP client without retries, proxies or any logic of the SDK."""
    return httpx2.Client(trust_env=False, headers={"Authorization": "Bearer local"})


class RawRequest:
    """One request over a plain connection, to see exactly what arrives and when the connection ends."""

    def __init__(self, server: LocalServer, method: str, path: str) -> None:
        address = urlsplit(server.base_url)
        self.connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=DEADLINE)
        self.connection.request(method, f"{address.path}{path}", headers={"Authorization": "Bearer local"})
        self.response = self.connection.getresponse()

    def __enter__(self) -> http.client.HTTPResponse:
        return self.response

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def test_every_call_is_recognised() -> None:
    requests = {
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

    assert set(requests) == set(Call)
    assert {call: identify_call(*request) for call, request in requests.items()} == {call: call for call in requests}


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
def test_other_routes_are_not_calls(request_line: tuple[str, str]) -> None:
    assert identify_call(*request_line) is None


# an error instead of the response


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
def test_an_injected_status_has_openais_error_shape(
    server: LocalServer, client: OpenAI, status: int, type: str, code: str | None
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=status, times=1))

    with pytest.raises(openai.APIStatusError) as error_info:
        client.batches.list()
    body = error_info.value.response.json()
    assert_fits(body, "ErrorResponse")
    assert (error_info.value.status_code, body["error"]["type"], body["error"]["code"]) == (status, type, code)
    assert "retry-after" not in error_info.value.response.headers
    client.batches.list()


def test_an_injected_status_prevents_the_call_from_being_executed(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.STATUS, calls=calls_of(Call.CREATE)))

    with pytest.raises(openai.InternalServerError):
        create(client, file)
    assert count_batches(client, file) == 0


def test_the_sdk_waits_for_a_short_retry_after(server: LocalServer, retrying_client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=429, retry_after=0.05, times=2))
    count = server.calls()["list"]

    retrying_client.batches.list()
    assert server.calls()["list"] - count == 3


def test_the_sdk_does_not_wait_for_a_long_retry_after(server: LocalServer, retrying_client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=429, retry_after=300, times=1))
    count = server.calls()["list"]

    with pytest.raises(openai.RateLimitError) as error_info:
        retrying_client.batches.list()
    assert error_info.value.response.headers["retry-after"] == "300"
    assert server.calls()["list"] - count == 1


def test_a_fault_can_imitate_a_fresh_file_that_cannot_be_found(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    message = f"Cannot find file {file} or project proj_local does not have access to it."
    server.set_faults(
        Fault(
            kind=Kind.STATUS, calls=calls_of(Call.CREATE), status=400, message=message, code="invalid_request", times=1
        )
    )

    with pytest.raises(openai.BadRequestError) as error_info:
        create(client, file)
    assert error_info.value.body == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_request",
    }
    assert create(client, file).status == "validating"


@pytest.mark.parametrize("status", [404, 410])
def test_a_fault_can_imitate_a_deleted_result_file(server: LocalServer, client: OpenAI, status: int) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(
        Fault(kind=Kind.STATUS, calls=calls_of(Call.DOWNLOAD), status=status, message=f"No such File: {file}")
    )

    with pytest.raises(openai.APIStatusError, match=f"No such File: {file}") as error_info:
        client.files.content(file)
    assert error_info.value.status_code == status
    assert client.files.retrieve(file).id == file, "only downloads are hit"


def test_a_connection_is_usable_after_an_upload_that_was_refused_unread(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(20_000))
    server.set_faults(Fault(kind=Kind.STATUS, calls=calls_of(Call.UPLOAD), status=503, times=1))

    with pytest.raises(openai.InternalServerError):
        upload(client, content)
    assert client.files.retrieve(upload(client, content)).bytes == len(content)


def test_a_call_without_a_key_can_be_hit(server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=503))

    with httpx2.Client(trust_env=False) as keyless:
        assert keyless.get(f"{server.base_url}/batches").status_code == 503
        assert keyless.get(f"{server.base_url}/models").status_code == 401


# calls that are executed although the response is an error: they lead to duplicate batches


def test_a_retrying_sdk_makes_two_batches_if_create_commits_and_then_fails(
    server: LocalServer, retrying_client: OpenAI
) -> None:
    file = upload(retrying_client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_STATUS, calls=calls_of(Call.CREATE), status=500, times=1))
    count = server.calls()["create"]

    create(retrying_client, file)
    assert server.calls()["create"] - count == 2
    assert count_batches(retrying_client, file) == 2


def test_a_create_that_commits_and_then_fails_leaves_a_batch(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_STATUS, calls=calls_of(Call.CREATE), status=502))

    with pytest.raises(openai.InternalServerError) as error_info:
        create(client, file, metadata={"nonce": "a-b-c"})
    assert error_info.value.status_code == 502
    (batch,) = [batch for batch in client.batches.list() if batch.input_file_id == file]
    assert batch.metadata == {"nonce": "a-b-c"}


@pytest.mark.parametrize(("kind", "expected_batches"), [(Kind.COMMIT_THEN_HANG, 1), (Kind.HANG, 0)])
def test_a_create_that_times_out_makes_a_batch_only_if_it_committed(
    server: LocalServer, client: OpenAI, kind: Kind, expected_batches: int
) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=kind, calls=calls_of(Call.CREATE), seconds=600))

    with pytest.raises(openai.APITimeoutError):
        create(client, file, timeout=openai.Timeout(DEADLINE, read=0.2))
    wait_for_hits(server)
    deadline = time.monotonic() + DEADLINE
    while count_batches(client, file) != expected_batches:
        assert time.monotonic() < deadline, "the call was not executed"


def test_an_upload_that_commits_and_then_hangs_leaves_a_file(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.COMMIT_THEN_HANG, calls=calls_of(Call.UPLOAD), seconds=0.05))
    count = {file.id for file in client.files.list()}

    with pytest.raises(openai.APIConnectionError):
        upload(client, jsonl(chats(3)))
    (new_file,) = [file for file in client.files.list() if file.id not in count]
    assert client.files.content(new_file.id).content == jsonl(chats(3))


# no response


def test_a_hang_ends_with_a_closed_connection(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.HANG, seconds=0.05))

    with pytest.raises(openai.APIConnectionError) as error_info:
        client.batches.list()
    assert not isinstance(error_info.value, openai.APITimeoutError)


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_dropped_upload_leaves_no_file(server: LocalServer, client: OpenAI, lines: int) -> None:
    server.set_faults(Fault(kind=Kind.DROP, calls=calls_of(Call.UPLOAD)))
    count = len(list(client.files.list()))

    with pytest.raises(openai.APIConnectionError):
        upload(client, jsonl(chats(lines)))
    assert len(list(client.files.list())) == count


def test_a_dropped_call_ends_without_a_byte(server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.DROP))

    with pytest.raises(http.client.RemoteDisconnected):
        RawRequest(server, "GET", "/batches")


def test_the_sdk_retries_a_dropped_call(server: LocalServer, retrying_client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.DROP, times=1))
    count = server.calls()["list"]

    retrying_client.batches.list()
    assert server.calls()["list"] - count == 2


def test_a_hang_ends_when_the_client_disconnects(tmp_path: Path) -> None:
    async def go() -> None:
        app = create_app(tmp_path, Settings(faults=(Fault(kind=Kind.HANG, seconds=1e6),)))
        local_socket, remote_socket = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=local_socket)
        messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
        sent_messages: list[Any] = []

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent_messages.append(message)

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
        assert sent_messages == []
        assert transport.is_closing()
        remote_socket.close()
        app.state.server.store.close()

    asyncio.run(go())


def test_stopping_the_server_ends_every_silence(serve: Serve) -> None:
    server, client = serve(admin=True)
    file = upload(client, jsonl(chats(1)))
    server.set_faults(
        Fault(kind=Kind.HANG, calls=calls_of(Call.LIST), seconds=1e6),
        Fault(kind=Kind.COMMIT_THEN_HANG, calls=calls_of(Call.FILES), seconds=1e6),
        Fault(kind=Kind.STALL, calls=calls_of(Call.DOWNLOAD), seconds=1e6),
    )
    with ThreadPoolExecutor() as pool:
        calls: list[Future[Any]] = [
            pool.submit(client.batches.list),
            pool.submit(client.files.list),
            pool.submit(client.files.content, file),
        ]
        wait_for_hits(server)

        assert server.stop() == 0
        for call in calls:
            assert isinstance(call.exception(DEADLINE), openai.APIConnectionError)
    log = (server.state / "server.log").read_text()
    assert "graceful shutdown exceeded" not in log
    assert "Traceback" not in log


# a response that is invalid or incomplete


def test_an_html_page_with_200_reaches_the_sdk_as_text(server: LocalServer, client: OpenAI) -> None:
    batch = run(client, chats(1))
    server.set_faults(Fault(kind=Kind.HTML, calls=calls_of(Call.RETRIEVE)))

    page: object = client.batches.retrieve(batch.id)
    assert isinstance(page, str), "the SDK returns text that is not JSON"
    assert "<html>" in page
    with RawRequest(server, "GET", f"/batches/{batch.id}") as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("lines", [1, 2_000])
def test_a_truncated_download_announces_its_full_length_and_ends_at_half(
    server: LocalServer, client: OpenAI, lines: int
) -> None:
    content = jsonl(chats(lines))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=calls_of(Call.DOWNLOAD)))

    with RawRequest(server, "GET", f"/files/{file}/content") as response:
        assert int(response.headers["content-length"]) == len(content)
        with pytest.raises(http.client.IncompleteRead) as error_info:
            response.read()
    assert error_info.value.partial == content[: len(content) // 2]


def test_a_truncated_streaming_download_raises_after_half_of_the_content(
    server: LocalServer, retrying_client: OpenAI
) -> None:
    content = jsonl(chats(2_000))
    file = upload(retrying_client, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=calls_of(Call.DOWNLOAD)))
    count = server.calls()["download"]
    buffer = bytearray()

    with pytest.raises(httpx2.RemoteProtocolError):
        stream(retrying_client, file, buffer)
    assert buffer == content[: len(content) // 2]
    assert server.calls()["download"] - count == 1, "the SDK does not retry it"


def test_the_sdk_retries_a_truncated_download_that_is_not_streamed(
    server: LocalServer, retrying_client: OpenAI
) -> None:
    content = jsonl(chats(5))
    file = upload(retrying_client, content)
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=calls_of(Call.DOWNLOAD), times=1))

    assert retrying_client.files.content(file).content == content


def test_a_truncated_create_was_executed(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=calls_of(Call.CREATE)))

    with pytest.raises(openai.APIConnectionError):
        create(client, file)
    assert count_batches(client, file) == 1


def test_a_stalled_download_is_silent_after_half_of_the_content(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(2_000))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.STALL, calls=calls_of(Call.DOWNLOAD), seconds=600))
    middle = len(content) // 2

    raw = RawRequest(server, "GET", f"/files/{file}/content")
    with raw as response:
        assert response.read(middle) == content[:middle]
        raw.connection.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            response.read(1)


def test_a_stalled_download_continues_after_the_silence(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(2_000))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.STALL, calls=calls_of(Call.DOWNLOAD), seconds=0.1))

    assert client.files.content(file).content == content


# redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirected_call_is_not_executed(server: LocalServer, client: OpenAI, status: int) -> None:
    file = upload(client, jsonl(chats(1)))
    location = "http://127.0.0.1:1/v1/batches"
    server.set_faults(Fault(kind=Kind.REDIRECT, calls=calls_of(Call.CREATE), status=status, location=location))

    with plain_client() as http_client:
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        response = http_client.post(f"{server.base_url}/batches", json=body)
    assert (response.status_code, response.headers["location"]) == (status, location)
    server.set_faults()
    assert count_batches(client, file) == 0


def test_the_sdk_follows_a_redirect(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.REDIRECT, calls=calls_of(Call.FILES), status=307, location="/v1/models", times=1))

    assert [item.object for item in client.files.list().data][:1] == ["model"]


# a response that looks complete, but has the wrong body


def test_an_error_with_200_is_the_injected_error(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(
        Fault(kind=Kind.ERROR_BODY, calls=calls_of(Call.DOWNLOAD), status=404, message="No such file."),
        Fault(kind=Kind.ERROR_BODY, calls=calls_of(Call.CREATE), status=429),
    )

    body = json.loads(client.files.content(file).content)
    assert_fits(body, "ErrorResponse")
    assert body["error"]["message"] == "No such file."
    create(client, file)
    server.set_faults()
    assert count_batches(client, file) == 0, "the create was not executed"


def test_an_empty_body_is_empty(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.EMPTY_BODY, calls=calls_of(Call.DOWNLOAD)))

    with RawRequest(server, "GET", f"/files/{file}/content") as response:
        assert (response.status, response.headers["content-length"], response.read()) == (200, "0", b"")


LINES = [f"{line}\n".encode() for line in ("one", "two", "three", "four", "five")]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.CUT, b"one\ntwo\nthre"),
        (Kind.CUT_AT_LINE, b"one\ntwo\n"),
        (Kind.REPEATED_HALF, b"one\ntwo\none\ntwo\n"),
        (Kind.BANNER, b"<!-- served by cache-7 -->\none\ntwo\nthree\nfour\nfive\n"),
    ],
)
def test_a_damaged_body_looks_complete_to_http(
    server: LocalServer, client: OpenAI, kind: Kind, expected: bytes
) -> None:
    file = client.files.create(file=("lines.txt", b"".join(LINES)), purpose="user_data").id

    for chunked in (False, True):
        server.set_faults(Fault(kind=kind, calls=calls_of(Call.DOWNLOAD), chunked=chunked))
        with RawRequest(server, "GET", f"/files/{file}/content") as response:
            length = response.headers["content-length"]
            assert response.read() == expected
        assert length == (None if chunked else str(len(expected)))
        assert client.files.content(file).content == expected


def test_a_cut_never_falls_on_a_line_end() -> None:
    assert damaged_body(Kind.CUT, b"one\ntwo\n") == b"one\nt"
    assert damaged_body(Kind.CUT, b"one\nfour\n") == b"one\nf"


def test_a_compressed_body_has_no_content_encoding(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(3))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.COMPRESSED, calls=calls_of(Call.DOWNLOAD)))

    with RawRequest(server, "GET", f"/files/{file}/content") as response:
        assert response.headers["content-encoding"] is None
        assert gzip.decompress(response.read()) == content


def test_garbage_has_the_size_of_the_body(server: LocalServer, client: OpenAI) -> None:
    content = jsonl(chats(3))
    file = upload(client, content)
    server.set_faults(Fault(kind=Kind.GARBAGE, calls=calls_of(Call.DOWNLOAD)))

    garbage = client.files.content(file).content
    assert len(garbage) == len(content)
    assert garbage != content


def test_another_file_is_preferably_one_with_the_same_purpose(server: LocalServer, client: OpenAI) -> None:
    other, batch = run(client, chats(3)), run(client, chats(5))
    upload(client, jsonl(chats(7)))
    other_content = client.files.content(other.output_file_id or "").content
    server.set_faults(Fault(kind=Kind.OTHER_FILE, calls=calls_of(Call.DOWNLOAD)))

    assert client.files.content(batch.output_file_id or "").content == other_content


@pytest.mark.parametrize("call", [Call.CREATE, Call.RETRIEVE, Call.LIST])
def test_a_batch_object_can_be_nested_deeply(server: LocalServer, client: OpenAI, call: Call) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    file, batch = upload(client, jsonl(chats(1))), run(client, chats(1))
    path = "data.*.metadata" if call is Call.LIST else "metadata"
    server.set_faults(Fault(kind=Kind.RESPONSE_FIELD, calls=calls_of(call), path=path, json=deep))

    with plain_client() as http_client:
        url = f"{server.base_url}/batches"
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        response = {
            Call.CREATE: lambda: http_client.post(url, json=body),
            Call.RETRIEVE: lambda: http_client.get(f"{url}/{batch.id}"),
            Call.LIST: lambda: http_client.get(url, params={"limit": 2}),
        }[call]()
    assert response.status_code == 200
    assert response.text.count(f'"metadata":{deep}') == (2 if call is Call.LIST else 1)


def test_a_field_of_a_synchronous_response_can_be_replaced(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(
        Fault(kind=Kind.RESPONSE_FIELD, calls=calls_of(Call.SYNCHRONOUS), path="usage.total_tokens", json="null")
    )

    completion = client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "Hello"}])
    usage = completion.model_dump()["usage"]
    assert usage["total_tokens"] is None
    assert usage["prompt_tokens"] > 0


def test_only_the_body_of_a_successful_call_is_replaced(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.CUT), Fault(kind=Kind.OTHER_FILE))

    with pytest.raises(openai.NotFoundError) as error_info:
        client.files.content("file-1")
    assert_fits(error_info.value.response.json(), "ErrorResponse")


def test_a_create_whose_response_is_damaged_was_executed(server: LocalServer, client: OpenAI) -> None:
    file = upload(client, jsonl(chats(1)))
    server.set_faults(Fault(kind=Kind.GARBAGE, calls=calls_of(Call.CREATE)))

    with suppress(openai.OpenAIError, ValueError):
        create(client, file)
    assert count_batches(client, file) == 1


# which calls are hit


def test_skip_and_times_limit_the_calls_that_are_hit(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=calls_of(Call.LIST), skip=2, times=1))
    successes: list[bool] = []
    for _ in range(5):
        try:
            client.batches.list()
        except openai.InternalServerError:
            successes.append(False)
        else:
            successes.append(True)
        client.models.list()
        client.files.list()

    assert successes == [True, True, False, True, True]


def test_the_same_faults_always_hit_the_same_calls(server: LocalServer) -> None:
    def outcomes() -> list[bool]:
        server.set_faults(Fault(kind=Kind.STATUS, rate=0.5))
        with plain_client() as http_client:
            return [http_client.get(f"{server.base_url}/batches").is_success for _ in range(40)]

    first = outcomes()
    assert first == outcomes()
    assert {True, False} == set(first)


def test_synchronous_requests_can_be_hit(server: LocalServer, client: OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=calls_of(Call.SYNCHRONOUS), status=429))

    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="text-embedding-3-small", input="Hello")
    assert submit(client, chats(1)).status == "validating"
