"""The result lines of other providers, and result files that can be read while their batch runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.api.objects import Status
from tests.local.driving import EMBEDDINGS, chat, chats
from tests.local.in_process import InProcess, in_process

StartServer = Callable[..., InProcess]

#: one request that succeeds, one that is rejected, and one that fails
MIXED_LINES = [chat("good", "hello"), chat("refused", "[[fail:400]]"), chat("broken", "[[fail:500]]")]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start an application with the given dialects and settings."""
    with ExitStack() as stack:

        def start(*dialects: str, **settings: Any) -> InProcess:
            return stack.enter_context(in_process(tmp_path / "state", *dialects, **settings))

        yield start


def run(server: InProcess, lines: list[dict[str, Any]], **body: Any) -> Any:
    return server.advance_until(server.create(lines, **body)["id"], Status.COMPLETED)


def by_custom_id(server: InProcess, batch: Any) -> dict[str, dict[str, Any]]:
    files = [batch[name] for name in ("output_file_id", "error_file_id") if batch[name]]
    return {line["custom_id"]: line for file in files for line in server.content(file)}


# formats


def test_a_response_can_be_the_completion_itself(start_server: StartServer) -> None:
    server = start_server("response-is-body")
    lines = by_custom_id(server, run(server, MIXED_LINES))
    assert lines["good"]["response"]["object"] == "chat.completion"
    assert lines["refused"]["response"]["status_code"] == 400
    vector = {"custom_id": "v", "method": "POST", "url": EMBEDDINGS, "body": {"model": "m", "input": "red pump"}}
    assert by_custom_id(server, run(server, [vector], endpoint=EMBEDDINGS))["v"]["response"]["object"] == "list"


def test_lines_can_omit_null_values(start_server: StartServer) -> None:
    server = start_server("sparse-lines")
    lines = by_custom_id(server, run(server, MIXED_LINES))
    assert lines["good"].keys() == {"id", "custom_id", "response"}
    assert lines["good"]["response"].keys() == {"status_code", "body"}
    assert lines["broken"].keys() == {"id", "custom_id", "error"}
    assert lines["broken"]["error"]["code"] == "server_error"


def test_a_request_that_never_ran_has_no_response_in_sparse_lines(start_server: StartServer) -> None:
    server = start_server("sparse-lines", in_progress=100_000)
    batch_id = server.create(chats(4))["id"]
    server.advance_until(batch_id, Status.IN_PROGRESS)
    server.call("POST", f"/v1/batches/{batch_id}/cancel")
    lines = server.content(server.advance_until(batch_id, Status.CANCELLED)["error_file_id"])
    assert {line["error"]["code"] for line in lines} == {"batch_cancelled"}
    assert all(line.keys() == {"id", "custom_id", "error"} for line in lines)


def test_lines_can_lack_ids(start_server: StartServer) -> None:
    server = start_server("no-line-ids")
    for line in by_custom_id(server, run(server, MIXED_LINES)).values():
        assert line.keys() == {"custom_id", "response", "error"}


def test_vllm_lines_have_their_own_ids_and_two_kinds_of_error_without_a_body(start_server: StartServer) -> None:
    server = start_server("vllm-lines")
    lines = by_custom_id(server, run(server, MIXED_LINES))
    for line in lines.values():
        assert line["id"].startswith("vllm-")
        assert line["response"]["request_id"].startswith("vllm-batch-")
    assert lines["good"]["response"]["body"]["object"] == "chat.completion"
    assert lines["good"]["error"] is None
    assert (lines["refused"]["response"]["status_code"], lines["refused"]["response"]["body"]) == (400, None)
    assert isinstance(lines["refused"]["error"], str)
    assert (lines["broken"]["response"]["status_code"], lines["broken"]["response"]["body"]) == (500, None)
    assert lines["broken"]["error"]["error"]["code"] == 500
    assert lines["broken"]["error"]["error"]["message"]


def test_ogx_lines_have_no_status_for_failures_and_no_null_values(start_server: StartServer) -> None:
    server = start_server("ogx-lines")
    lines = by_custom_id(server, run(server, MIXED_LINES))
    assert lines["good"].keys() == {"id", "custom_id", "response"}
    assert lines["good"]["response"]["request_id"] == lines["good"]["id"]
    for name in ("refused", "broken"):
        assert lines[name].keys() == {"id", "custom_id", "error"}
        assert lines[name]["error"].keys() == {"type", "message"}


def test_the_body_or_the_whole_response_can_be_a_string(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("body-text")
    response = by_custom_id(server, run(server, MIXED_LINES))["good"]["response"]
    assert json.loads(response["body"])["object"] == "chat.completion"

    with in_process(tmp_path / "other", "response-text") as other:
        line = by_custom_id(other, run(other, MIXED_LINES))["good"]
    assert json.loads(line["response"])["body"]["object"] == "chat.completion"


def test_one_file_can_contain_all_lines_in_the_order_of_the_input(start_server: StartServer) -> None:
    server = start_server("one-file", "in-order")
    batch = run(server, [*chats(20), *MIXED_LINES])
    assert batch["error_file_id"] is None
    lines = server.content(batch["output_file_id"])
    assert [line["custom_id"] for line in lines] == [*(f"row-{n}" for n in range(20)), "good", "refused", "broken"]


# growing files


def growing_batch(start_server: StartServer, *switches: str) -> tuple[InProcess, Any]:
    """Start a batch of ten requests that takes 1,000 seconds. Its third and sixth request fail."""
    server = start_server("growing-output", *switches, in_progress=1_000)
    lines = [chat(f"row-{n}", "[[fail:500]]" if n in (2, 5) else "hello") for n in range(10)]
    return server, server.create(lines)


def wait_for_count(server: InProcess, batch_id: str, count: int) -> Any:
    """Return the batch when exactly `count` of its requests have been answered."""
    for _ in range(2000):
        batch = server.get(f"/v1/batches/{batch_id}")
        counts = batch["request_counts"]
        if counts["completed"] + counts["failed"] >= count:
            assert counts["completed"] + counts["failed"] == count
            return batch
        server.server.clock.advance(50)
        server.pause()
    raise AssertionError(batch)


def read(server: InProcess, file_id: str, **params: Any) -> tuple[list[str], str, str]:
    """Download a file. Return its custom_ids, X-Incomplete and X-Last-Line."""
    answer = server.call("GET", f"/v1/files/{file_id}/content", params=params)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    custom_ids = [line.split(b'"custom_id":"')[1].split(b'"')[0].decode() for line in answer.content.splitlines()]
    return custom_ids, answer.headers["X-Incomplete"], answer.headers["X-Last-Line"]


def test_the_result_files_can_be_read_while_they_grow(start_server: StartServer) -> None:
    server, batch = growing_batch(start_server)
    output, errors = batch["output_file_id"], batch["error_file_id"]
    assert batch["status"] == "validating"
    assert read(server, output) == ([], "true", "0")

    current = wait_for_count(server, batch["id"], 4)
    assert (current["output_file_id"], current["error_file_id"]) == (output, errors), "the ids never change"
    assert read(server, output) == (["row-0", "row-1", "row-3"], "true", "3")
    assert read(server, errors) == (["row-2"], "true", "1")
    file = server.get(f"/v1/files/{output}")
    assert file["bytes"] == len(server.call("GET", f"/v1/files/{output}/content").content)

    wait_for_count(server, batch["id"], 7)
    assert read(server, output, offset=3) == (["row-4", "row-6"], "true", "5"), "only the lines after the offset"
    final = server.advance_until(batch["id"], Status.COMPLETED)
    assert (final["output_file_id"], final["error_file_id"]) == (output, errors)
    assert read(server, output, offset=5) == (["row-7", "row-8", "row-9"], "false", "8")
    assert read(server, errors) == (["row-2", "row-5"], "false", "2")
    assert read(server, output, offset=8) == read(server, output, offset=99) == ([], "false", "8")
    assert read(server, output)[0] == ["row-0", "row-1", "row-3", "row-4", "row-6", "row-7", "row-8", "row-9"]


def test_the_lines_of_a_growing_file_have_their_final_format(start_server: StartServer) -> None:
    server, batch = growing_batch(start_server, "sparse-lines")
    wait_for_count(server, batch["id"], 3)
    assert "request_id" not in server.content(batch["output_file_id"])[0]["response"]
    assert server.content(batch["error_file_id"])[0].keys() == {"id", "custom_id", "error"}


def test_a_growing_file_continues_to_grow_after_a_restart(tmp_path: Path) -> None:
    with in_process(tmp_path, "growing-output", in_progress=1_000) as server:
        batch = server.create(chats(6))
        interrupted = wait_for_count(server, batch["id"], 3)
        first, _, _ = read(server, batch["output_file_id"])
    with in_process(tmp_path, "growing-output", in_progress=1_000) as server:
        second, incomplete, _ = read(server, interrupted["output_file_id"])
        assert (second[:3], incomplete) == (first, "true")
        final = server.advance_until(batch["id"], Status.COMPLETED)
        assert final["output_file_id"] == interrupted["output_file_id"]
        assert read(server, final["output_file_id"])[0][:3] == first


def test_a_batch_that_failed_validation_has_no_growing_files(start_server: StartServer) -> None:
    server = start_server("growing-output")
    batch = server.create([chat("a", "hello", stream=True)])
    final = server.advance_until(batch["id"], Status.FAILED)
    assert (final["output_file_id"], final["error_file_id"]) == (None, None)
    assert server.call("GET", f"/v1/files/{batch['output_file_id']}/content").status_code == 404


# deleted and expired files


def test_a_deleted_or_expired_result_file_is_gone(start_server: StartServer) -> None:
    server = start_server("gone")
    batch = run(server, MIXED_LINES)
    server.call("DELETE", f"/v1/files/{batch['output_file_id']}")
    for path in ("", "/content"):
        assert server.call("GET", f"/v1/files/{batch['output_file_id']}{path}").status_code == 410
        assert server.call("GET", f"/v1/files/{batch['error_file_id']}{path}").status_code == 200

    server.server.clock.advance(31 * 86_400)
    answer = server.call("GET", f"/v1/files/{batch['error_file_id']}/content")
    assert answer.status_code == 410
    assert "was deleted or has expired" in answer.json()["error"]["message"]


def test_deleted_input_files_and_unknown_files_are_not_found(start_server: StartServer) -> None:
    server = start_server("gone")
    batch = run(server, MIXED_LINES)
    server.call("DELETE", f"/v1/files/{batch['input_file_id']}")
    for file_id in (batch["input_file_id"], "file-0000000000000000000000"):
        assert server.call("GET", f"/v1/files/{file_id}").status_code == 404
