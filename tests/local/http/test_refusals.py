"""Calls that the server rejects immediately, with OpenAI's messages and statuses."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import CHAT, chats, jsonl, run, upload
from tests.local.schemas import assert_fits


def expect_error(call: Callable[[], object]) -> tuple[int, dict[str, Any]]:
    """Make a call that must fail, and return its status and error."""
    with pytest.raises(openai.APIStatusError) as error_info:
        call()
    body = error_info.value.response.json()
    assert_fits(body, "ErrorResponse")
    return error_info.value.status_code, body["error"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("input.json", b"{}\n", "Invalid file format for Batch API. Must be .jsonl"),
        ("input.jsonl", b"", "Invalid file format for Batch API. Must be .jsonl"),
        ("input.jsonl", b"no json\n{}\n", "Invalid file format for Batch API. Must be .jsonl"),
        ("input.jsonl", b"[1, 2]\n", "Invalid file format for Batch API. Must be .jsonl"),
    ],
)
def test_an_invalid_batch_input_file_is_rejected_at_upload(
    client: OpenAI, name: str, content: bytes, message: str
) -> None:
    status, error = expect_error(lambda: upload(client, content, name))

    assert status == 400
    assert error == {"message": message, "type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize("name", ["upload", "tmpk2x8r0wd"])
def test_a_batch_input_file_without_an_extension_is_accepted(client: OpenAI, name: str) -> None:
    file = client.files.create(file=(name, io.BytesIO(b"{}\n")), purpose="batch")

    assert (file.filename, file.status) == (name, "processed")


def test_the_upload_does_not_check_lines_after_the_first(client: OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", io.BytesIO(b'{"a": 1}\nno json\n')), purpose="batch")

    assert file.status == "processed"
    assert file.expires_at == file.created_at + 2_592_000


def test_a_batch_input_file_over_200_mb_is_too_large(client: OpenAI, tmp_path: Path) -> None:
    with open(tmp_path / "big.jsonl", "wb+") as sparse:
        sparse.truncate(200_000_001)
        status, error = expect_error(lambda: client.files.create(file=sparse, purpose="batch"))

    assert (status, error["message"]) == (400, "File is too large.")


def test_files_with_other_purposes_are_not_checked(client: OpenAI) -> None:
    file = client.files.create(file=("notes.txt", io.BytesIO(b"hello")), purpose="user_data")

    assert client.files.content(file.id).content == b"hello"
    assert file.expires_at is None


def test_a_file_expires_after_the_requested_time(client: OpenAI) -> None:
    file = client.files.create(
        file=("a.jsonl", io.BytesIO(b"{}\n")),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600

    status, error = expect_error(
        lambda: client.files.create(
            file=("a.jsonl", io.BytesIO(b"{}\n")),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 60},
        )
    )
    assert (status, error["param"]) == (400, "expires_after.seconds")


@pytest.mark.parametrize(
    ("change", "param", "code", "part"),
    [
        ({"endpoint": "/v1/nothing"}, "endpoint", "invalid_value", "Supported values are: '/v1/responses'"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value", "'24h'"),
        ({"completion_window": ""}, "completion_window", "invalid_value", "'24h'"),
        ({"input_file_id": None}, "input_file_id", "missing_required_parameter", "input_file_id"),
        (
            {"metadata": {"tags": ["a"]}},
            "metadata.tags",
            "invalid_type",
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
        ),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length", "512"),
        ({"metadata": {"k" * 65: "v"}}, f"metadata.{'k' * 65}", "string_above_max_length", "64"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties", "16"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
            "invalid_value",
            "3600",
        ),
    ],
)
def test_create_rejects_invalid_arguments(
    client: OpenAI, change: dict[str, Any], param: str, code: str, part: str
) -> None:
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **change}

    status, error = expect_error(lambda: client.post("/batches", body=body, cast_to=object))
    assert status == 400
    assert (error["param"], error["code"]) == (param, code)
    assert part in error["message"]


@pytest.mark.parametrize("endpoint", ["/v1/images/generations", "/v1/images/edits", "/v1/videos"])
def test_endpoints_that_only_openai_supports_have_their_own_error(client: OpenAI, endpoint: Any) -> None:
    status, error = expect_error(
        lambda: client.batches.create(input_file_id="file-x", endpoint=endpoint, completion_window="24h")
    )

    assert (status, error["param"], error["code"]) == (400, "endpoint", "unsupported_endpoint")
    assert error["message"].startswith(
        f"The local batch server does not implement the endpoint '{endpoint}', which OpenAI's"
    )
    assert expect_error(lambda: client.post(endpoint.removeprefix("/v1"), body={}, cast_to=object))[0] == 404


def test_result_files_expire_after_the_time_that_the_batch_requests(client: OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=upload(client, jsonl(chats(1))),
        endpoint=CHAT,
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    while batch.status != "completed":
        batch = client.batches.retrieve(batch.id)

    file = client.files.retrieve(batch.output_file_id or "")
    assert file.expires_at == file.created_at + 7200


def test_unknown_ids_and_paths_are_404(client: OpenAI) -> None:
    status, error = expect_error(lambda: client.batches.retrieve("batch_none"))
    assert (status, error["message"]) == (404, "No batch found with id 'batch_none'.")
    assert expect_error(lambda: client.batches.cancel("batch_none"))[0] == 404
    assert expect_error(lambda: client.files.retrieve("file-none"))[0] == 404
    assert expect_error(lambda: client.files.content("file-none"))[0] == 404
    assert expect_error(lambda: client.files.delete("file-none"))[0] == 404
    status, error = expect_error(lambda: client.get("/nothing", cast_to=object))
    assert (status, error["message"]) == (404, "Invalid URL (GET /v1/nothing)")


def test_a_deleted_file_is_404(client: OpenAI) -> None:
    file_id = upload(client, jsonl(chats(1)))
    assert client.files.delete(file_id).deleted

    assert expect_error(lambda: client.files.retrieve(file_id))[0] == 404


def test_an_ended_batch_cannot_be_cancelled(client: OpenAI) -> None:
    for lines in (chats(1), ["{}"]):
        batch = run(client, lines)
        status, error = expect_error(partial(client.batches.cancel, batch.id))
        assert status == 409
        assert error["message"] == f"Cannot cancel a batch with status '{batch.status}'."


def test_a_call_without_a_key_is_401(server: LocalServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
        for path in ("/batches", "/files", "/models"):
            status, error = expect_error(
                partial(client.get, path, cast_to=object, options={"headers": {"Authorization": openai.Omit()}})
            )
            assert status == 401
            assert error["type"] == "invalid_request_error"
            assert "You didn't provide an API key." in error["message"]


def test_a_server_with_an_api_key_accepts_no_other(serve: Serve) -> None:
    server, client_with_wrong_key = serve(api_key="right")
    status, error = expect_error(lambda: client_with_wrong_key.batches.list())
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert "local" not in json.dumps(error), "a response never repeats a key"

    with OpenAI(base_url=server.base_url, api_key="right", max_retries=0) as client:
        assert client.batches.list().data == []


def test_an_unsupported_method_is_405_and_the_response_lists_the_supported_ones(client: OpenAI) -> None:
    for path, allowed in (("/batches", "GET, POST"), ("/files/file-x", "DELETE, GET"), ("/models", "GET")):
        with pytest.raises(openai.APIStatusError) as error_info:
            client.put(path, body={}, cast_to=object)
        assert error_info.value.status_code == 405
        assert error_info.value.response.json()["error"]["message"] == f"Invalid method for URL (PUT /v1{path})"
        assert error_info.value.response.headers["allow"] == allowed
        assert_fits(error_info.value.response.json(), "ErrorResponse")


def test_paths_must_match_exactly(client: OpenAI) -> None:
    for path in ("/batches/", "/files//content", "/files/a%2Fb", "//batches"):
        status, error = expect_error(partial(client.get, path, cast_to=object))
        assert status == 404
        assert error["message"].startswith("Invalid URL (GET /v1/")


@pytest.mark.parametrize("path", ["/batches", "/chat/completions", "/moderations"])
def test_json_with_another_content_type_is_400(client: OpenAI, path: str) -> None:
    def post(kind: str) -> object:
        return client.post(path, cast_to=object, content=b"{}", options={"headers": {"Content-Type": kind}})

    status, error = expect_error(lambda: post("text/plain"))
    assert (status, error["code"]) == (400, "unsupported_content_type")
    assert error["message"].startswith("Unsupported content type: 'text/plain'. This API method only accepts")
    _, error = expect_error(lambda: post("application/json; charset=utf-8"))
    assert error["code"] != "unsupported_content_type"


def test_an_upload_that_is_not_a_form_is_415(client: OpenAI) -> None:
    status, error = expect_error(lambda: client.post("/files", body={"purpose": "batch"}, cast_to=object))

    assert status == 415
    assert error["message"].startswith("Invalid Content-Type header (application/json), expected multipart/form-data.")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("body", [b"", b"no form", b"--b\r\n\r\n", b"--b--\r\n"])
def test_a_broken_form_is_400(server: LocalServer, kind: str, body: bytes) -> None:
    address = server.base_url.removeprefix("http://").removesuffix("/v1")
    with closing(HTTPConnection(address, timeout=10)) as connection:
        connection.request("POST", "/v1/files", body, {"Authorization": "Bearer local", "Content-Type": kind})
        response = connection.getresponse()
        assert response.status == 400
        assert_fits(json.loads(response.read()), "ErrorResponse")


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/batches", {"limit": "0"}, "limit"),
        ("/batches", {"limit": "101"}, "limit"),
        ("/batches", {"limit": "-1"}, "limit"),
        ("/batches", {"limit": "ten"}, "limit"),
        ("/batches", {"limit": "1.0"}, "limit"),
        ("/batches", {"limit": "9" * 5_000}, "limit"),
        ("/files", {"limit": "0"}, "limit"),
        ("/files", {"limit": "10001"}, "limit"),
        ("/files", {"order": "newest"}, "order"),
    ],
)
def test_a_list_call_with_an_invalid_argument_is_400(
    client: OpenAI, path: str, query: dict[str, str], param: str
) -> None:
    status, error = expect_error(lambda: client.get(path, cast_to=object, options={"params": query}))

    assert (status, error["param"]) == (400, param)


def test_invalid_http_is_rejected_and_other_calls_keep_working(server: LocalServer, client: OpenAI) -> None:
    host, port = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    for content in (b"no http\r\n\r\n", b"GET /v1/models HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(content)
            assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert client.models.list().data
    options: Any = {"headers": {"X-Long": "x" * 60_000}}
    assert client.get("/models", cast_to=object, options=options)


def test_a_body_that_is_not_a_json_object_is_400(client: OpenAI) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 100_000):
        status, _ = expect_error(
            partial(
                client.post,
                "/chat/completions",
                cast_to=object,
                content=body,
                options={"headers": {"Content-Type": "application/json"}},
            )
        )
        assert status == 400
