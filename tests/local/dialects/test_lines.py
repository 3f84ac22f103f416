"""The result lines of other servers, and result files that can be read while their batch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.api.objects import Status
from tests.local.driving import EMBEDDINGS, chat, chats
from tests.local.in_process import InProcess, in_process

Speaking = Callable[..., InProcess]

#: one that succeeds, one that is refused, one that breaks
MIXED = [chat("good", "hello"), chat("refused", "[[fail:400]]"), chat("broken", "[[fail:500]]")]


@pytest.fixture
def speaking(tmp_path: Path) -> Iterator[Speaking]:
    """An application with these dialects and settings."""
    with ExitStack() as stack:

        def start(*dialects: str, **settings: Any) -> InProcess:
            return stack.enter_context(in_process(tmp_path / "state", *dialects, **settings))

        yield start


def run(server: InProcess, lines: list[dict[str, Any]], **body: Any) -> Any:
    return server.advance_until(server.create(lines, **body)["id"], Status.COMPLETED)


def by_custom_id(server: InProcess, batch: Any) -> dict[str, dict[str, Any]]:
    files = [batch[name] for name in ("output_file_id", "error_file_id") if batch[name]]
    return {line["custom_id"]: line for file in files for line in server.content(file)}


# shapes


def test_a_response_may_be_the_completion_itself(speaking: Speaking) -> None:
    server = speaking("response-is-body")
    lines = by_custom_id(server, run(server, MIXED))
    assert lines["good"]["response"]["object"] == "chat.completion"
    assert lines["refused"]["response"]["status_code"] == 400
    vector = {"custom_id": "v", "method": "POST", "url": EMBEDDINGS, "body": {"model": "m", "input": "red pump"}}
    assert by_custom_id(server, run(server, [vector], endpoint=EMBEDDINGS))["v"]["response"]["object"] == "list"


def test_lines_may_lack_whatever_is_null(speaking: Speaking) -> None:
    server = speaking("sparse-lines")
    lines = by_custom_id(server, run(server, MIXED))
    assert lines["good"].keys() == {"id", "custom_id", "response"}
    assert lines["good"]["response"].keys() == {"status_code", "body"}
    assert lines["broken"].keys() == {"id", "custom_id", "error"}
    assert lines["broken"]["error"]["code"] == "server_error"


def test_what_never_ran_lacks_a_response_too(speaking: Speaking) -> None:
    server = speaking("sparse-lines", in_progress=100_000)
    batch_id = server.create(chats(4))["id"]
    server.advance_until(batch_id, Status.IN_PROGRESS)
    server.call("POST", f"/v1/batches/{batch_id}/cancel")
    lines = server.content(server.advance_until(batch_id, Status.CANCELLED)["error_file_id"])
    assert {line["error"]["code"] for line in lines} == {"batch_cancelled"}
    assert all(line.keys() == {"id", "custom_id", "error"} for line in lines)


def test_lines_may_have_no_ids(speaking: Speaking) -> None:
    server = speaking("no-line-ids")
    for line in by_custom_id(server, run(server, MIXED)).values():
        assert line.keys() == {"custom_id", "response", "error"}


def test_vllm_has_its_own_ids_no_bodies_of_failures_and_two_kinds_of_error(speaking: Speaking) -> None:
    server = speaking("vllm-lines")
    lines = by_custom_id(server, run(server, MIXED))
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


def test_one_file_may_hold_everything_in_the_order_of_the_input(speaking: Speaking) -> None:
    server = speaking("one-file", "in-order")
    batch = run(server, [*chats(20), *MIXED])
    assert batch["error_file_id"] is None
    lines = server.content(batch["output_file_id"])
    assert [line["custom_id"] for line in lines] == [*(f"row-{n}" for n in range(20)), "good", "refused", "broken"]


# growing


def growing(speaking: Speaking, *more: str) -> tuple[InProcess, Any]:
    """A batch of ten requests, the third and sixth of which fail, that is answered over 1,000 seconds."""
    server = speaking("growing-output", *more, in_progress=1_000)
    lines = [chat(f"row-{n}", "[[fail:500]]" if n in (2, 5) else "hello") for n in range(10)]
    return server, server.create(lines)


def until_counted(server: InProcess, batch_id: str, done: int) -> Any:
    """The batch once so many requests are answered, and no more."""
    for _ in range(2000):
        shown = server.get(f"/v1/batches/{batch_id}")
        counts = shown["request_counts"]
        if counts["completed"] + counts["failed"] >= done:
            assert counts["completed"] + counts["failed"] == done
            return shown
        server.server.clock.advance(50)
        server.pause()
    raise AssertionError(shown)


def read(server: InProcess, file_id: str, **params: Any) -> tuple[list[str], str, str]:
    """custom_ids, X-Incomplete and X-Last-Line of a download."""
    answer = server.call("GET", f"/v1/files/{file_id}/content", params=params)
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    custom_ids = [line.split(b'"custom_id":"')[1].split(b'"')[0].decode() for line in answer.content.splitlines()]
    return custom_ids, answer.headers["X-Incomplete"], answer.headers["X-Last-Line"]


def test_the_output_can_be_read_while_it_grows(speaking: Speaking) -> None:
    server, batch = growing(speaking)
    output, errors = batch["output_file_id"], batch["error_file_id"]
    assert batch["status"] == "validating"
    assert read(server, output) == ([], "true", "0")

    shown = until_counted(server, batch["id"], 4)
    assert (shown["output_file_id"], shown["error_file_id"]) == (output, errors), "the ids are there from the start"
    assert read(server, output) == (["row-0", "row-1", "row-3"], "true", "3")
    assert read(server, errors) == (["row-2"], "true", "1")
    file = server.get(f"/v1/files/{output}")
    assert file["bytes"] == len(server.call("GET", f"/v1/files/{output}/content").content)

    until_counted(server, batch["id"], 7)
    assert read(server, output, offset=3) == (["row-4", "row-6"], "true", "5"), "what has come since"
    ended = server.advance_until(batch["id"], Status.COMPLETED)
    assert (ended["output_file_id"], ended["error_file_id"]) == (output, errors)
    assert read(server, output, offset=5) == (["row-7", "row-8", "row-9"], "false", "8")
    assert read(server, errors) == (["row-2", "row-5"], "false", "2")
    assert read(server, output, offset=8) == read(server, output, offset=99) == ([], "false", "8")
    assert read(server, output)[0] == ["row-0", "row-1", "row-3", "row-4", "row-6", "row-7", "row-8", "row-9"]


def test_a_growing_file_has_the_shape_that_its_lines_end_in(speaking: Speaking) -> None:
    server, batch = growing(speaking, "sparse-lines")
    until_counted(server, batch["id"], 3)
    assert "request_id" not in server.content(batch["output_file_id"])[0]["response"]
    assert server.content(batch["error_file_id"])[0].keys() == {"id", "custom_id", "error"}


def test_a_growing_file_goes_on_growing_in_a_server_started_anew(tmp_path: Path) -> None:
    with in_process(tmp_path, "growing-output", in_progress=1_000) as server:
        batch = server.create(chats(6))
        before = until_counted(server, batch["id"], 3)
        first, _, _ = read(server, batch["output_file_id"])
    with in_process(tmp_path, "growing-output", in_progress=1_000) as server:
        again, incomplete, _ = read(server, before["output_file_id"])
        assert (again[:3], incomplete) == (first, "true")
        ended = server.advance_until(batch["id"], Status.COMPLETED)
        assert ended["output_file_id"] == before["output_file_id"]
        assert read(server, ended["output_file_id"])[0][:3] == first


def test_the_files_of_a_batch_that_failed_validation_never_were(speaking: Speaking) -> None:
    server = speaking("growing-output")
    batch = server.create([chat("a", "hello", stream=True)])
    ended = server.advance_until(batch["id"], Status.FAILED)
    assert (ended["output_file_id"], ended["error_file_id"]) == (None, None)
    assert server.call("GET", f"/v1/files/{batch['output_file_id']}/content").status_code == 404


# gone


def test_a_result_file_that_was_deleted_or_has_expired_is_gone(speaking: Speaking) -> None:
    server = speaking("gone")
    batch = run(server, MIXED)
    server.call("DELETE", f"/v1/files/{batch['output_file_id']}")
    for path in ("", "/content"):
        assert server.call("GET", f"/v1/files/{batch['output_file_id']}{path}").status_code == 410
        assert server.call("GET", f"/v1/files/{batch['error_file_id']}{path}").status_code == 200

    server.server.clock.advance(31 * 86_400)
    gone = server.call("GET", f"/v1/files/{batch['error_file_id']}/content")
    assert gone.status_code == 410
    assert "was deleted or has expired" in gone.json()["error"]["message"]


def test_an_input_file_that_was_deleted_and_one_that_never_was_are_not_found(speaking: Speaking) -> None:
    server = speaking("gone")
    batch = run(server, MIXED)
    server.call("DELETE", f"/v1/files/{batch['input_file_id']}")
    for file_id in (batch["input_file_id"], "file-0000000000000000000000"):
        assert server.call("GET", f"/v1/files/{file_id}").status_code == 404
