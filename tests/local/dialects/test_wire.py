"""Every switch that changes the answers of the file and batch routes, or the requests that they accept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.api.objects import Status
from tests.local.driving import CHAT, RESPONSES, chat, chats
from tests.local.in_process import InProcess, in_process

#: two requests, one of which fails
MIXED_LINES = [chat("good", "hello"), chat("bad", "[[fail:500]]")]
#: lines that fail validation
INVALID_LINES = [chat("a", "hello"), chat("b", "hello", stream=True)]

StartServer = Callable[..., InProcess]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start an application with the given dialects and settings."""
    with ExitStack() as stack:

        def start(*dialects: str, **settings: Any) -> InProcess:
            state = tmp_path / f"state-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(in_process(state, *dialects, **settings))

        yield start


def run_batch(server: InProcess, lines: Sequence[dict[str, Any] | str], **body: Any) -> dict[Status, Any]:
    """Run a batch of these lines. Return its JSON in every state, with the reply to create as `validating`."""
    reply = server.create(lines, **body)
    batch_id = reply.get("job", reply)["id"]
    states = {Status.VALIDATING: reply}
    for status in (Status.IN_PROGRESS, Status.FINALIZING, Status.COMPLETED):
        states[status] = server.advance_until(batch_id, status)
    return states


def failed_batch(server: InProcess) -> Any:
    """Return a batch that failed validation."""
    return server.advance_until(server.create(INVALID_LINES)["id"], Status.FAILED)


# status


def test_statuses_can_be_in_capitals(start_server: StartServer) -> None:
    states = run_batch(start_server("uppercase-status"), chats(1))
    assert [batch["status"] for batch in states.values()] == ["VALIDATING", "IN_PROGRESS", "FINALIZING", "COMPLETED"]


def test_statuses_can_be_capitalized(start_server: StartServer) -> None:
    states = run_batch(start_server("capitalized-status"), chats(1))
    assert [batch["status"] for batch in states.values()] == ["Validating", "In_progress", "Finalizing", "Completed"]


def test_validating_can_be_called_in_queue(start_server: StartServer) -> None:
    states = run_batch(start_server("in-queue"), chats(1))
    assert [batch["status"] for batch in states.values()] == ["in_queue", "in_progress", "finalizing", "completed"]


def test_in_progress_can_be_called_progress(start_server: StartServer) -> None:
    states = run_batch(start_server("status-progress", "uppercase-status"), chats(1))
    assert [batch["status"] for batch in states.values()] == ["VALIDATING", "PROGRESS", "FINALIZING", "COMPLETED"]


# times


def test_times_can_be_iso_8601(start_server: StartServer) -> None:
    batch = run_batch(start_server("iso-times"), chats(1))[Status.COMPLETED]
    for name in ("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"):
        assert batch[name].startswith("20"), name
        assert batch[name].endswith("Z"), name
    assert batch["failed_at"] is None


def test_times_can_be_milliseconds_with_a_fixed_value_for_unset_ones(start_server: StartServer) -> None:
    states = run_batch(start_server("millisecond-times"), chats(1))
    first, last = states[Status.VALIDATING], states[Status.COMPLETED]
    assert first["expires_at"] - first["created_at"] == 86_400_000
    assert first["in_progress_at"] == first["completed_at"] == first["cancelled_at"] == 946_656_000_000
    assert last["created_at"] <= last["in_progress_at"] <= last["finalizing_at"] <= last["completed_at"]
    assert last["failed_at"] == 946_656_000_000


def test_only_the_creation_time_can_be_a_string(start_server: StartServer) -> None:
    server = start_server("text-created-at")
    batch = server.create(chats(1))
    assert batch["created_at"] == str(batch["expires_at"] - 86_400)


def test_finalizing_at_can_stay_null(start_server: StartServer) -> None:
    for batch in run_batch(start_server("no-finalizing-at"), chats(1)).values():
        assert batch["finalizing_at"] is None


def test_expires_at_can_be_null_until_the_batch_runs(start_server: StartServer) -> None:
    states = run_batch(start_server("late-expires-at"), chats(1))
    assert states[Status.VALIDATING]["expires_at"] is None
    assert states[Status.IN_PROGRESS]["expires_at"] == states[Status.IN_PROGRESS]["created_at"] + 86_400


def test_a_batch_can_run_beyond_its_announced_expiry(start_server: StartServer) -> None:
    server = start_server("never-expires", in_progress=200_000)
    batch = server.create(chats(2))
    assert batch["expires_at"] == batch["created_at"] + 86_400

    server.advance_until(batch["id"], Status.IN_PROGRESS)
    server.server.clock.advance(90_000)
    late = server.get(f"/v1/batches/{batch['id']}")
    assert (late["status"], late["expires_at"]) == ("in_progress", batch["expires_at"])
    server.server.clock.advance(190_000)
    assert server.advance_until(batch["id"], Status.COMPLETED)["request_counts"]["completed"] == 2


def test_a_failed_batch_can_have_completed_at_instead_of_failed_at(start_server: StartServer) -> None:
    batch = failed_batch(start_server("failed-is-completed-at"))
    assert batch["failed_at"] is None
    assert batch["completed_at"] >= batch["created_at"]


# counts


def test_counts_can_be_null_before_the_batch_runs_and_after_it_failed(start_server: StartServer) -> None:
    server = start_server("null-counts")
    states = run_batch(server, chats(2))
    null_counts = {"total": None, "completed": None, "failed": None}
    assert states[Status.VALIDATING]["request_counts"] == null_counts
    assert states[Status.COMPLETED]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert failed_batch(server)["request_counts"] == null_counts


def test_counts_can_be_repeated_at_the_top_level(start_server: StartServer) -> None:
    batch = run_batch(start_server("flat-counts"), MIXED_LINES)[Status.COMPLETED]
    assert (batch["total"], batch["completed"], batch["failed"]) == (2, 1, 1)
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}


def test_progress_can_replace_the_counts(start_server: StartServer) -> None:
    states = run_batch(start_server("progress"), MIXED_LINES)
    assert not any("request_counts" in batch for batch in states.values())
    assert (states[Status.VALIDATING]["progress"], states[Status.COMPLETED]["progress"]) == (0, 100)


def test_counts_can_always_be_null(start_server: StartServer) -> None:
    assert [batch["request_counts"] for batch in run_batch(start_server("no-counts"), chats(1)).values()] == [None] * 4


def test_counts_can_be_absent(start_server: StartServer) -> None:
    states = run_batch(start_server("absent-counts"), chats(1))
    assert not any("request_counts" in batch for batch in states.values())


def test_counts_can_stay_at_0(start_server: StartServer) -> None:
    for batch in run_batch(start_server("zero-counts"), chats(1)).values():
        assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


def test_counts_can_have_only_the_total(start_server: StartServer) -> None:
    batch = run_batch(start_server("unfinished-counts"), MIXED_LINES)[Status.COMPLETED]
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 0}


# sizes of files


@pytest.mark.parametrize(
    ("switch", "size"), [("null-bytes", None), ("zero-bytes", 0), ("wrong-bytes", "+1"), ("absent-bytes", "absent")]
)
def test_the_size_of_a_file_can_be_wrong_or_unknown(start_server: StartServer, switch: str, size: object) -> None:
    server = start_server(switch)
    batch = run_batch(server, chats(2))[Status.COMPLETED]
    actual_size = len(server.call("GET", f"/v1/files/{batch['output_file_id']}/content").content)

    sizes = [
        file.get("bytes", "absent")
        for file in (server.get(f"/v1/files/{batch['output_file_id']}"), server.get("/v1/files")["data"][0])
    ]
    assert sizes == [actual_size + 1 if size == "+1" else size] * 2


# errors


def test_errors_can_be_a_plain_list(start_server: StartServer) -> None:
    server = start_server("errors-list")
    assert [(entry["code"], entry["line"]) for entry in failed_batch(server)["errors"]] == [
        ("streaming_unsupported", 2)
    ]
    assert server.create(chats(1))["errors"] is None


def test_errors_can_be_text(start_server: StartServer) -> None:
    server = start_server("errors-text")
    assert failed_batch(server)["errors"].startswith("line 2: streaming_unsupported: ")
    assert server.create(chats(1))["errors"] == ""


def test_errors_can_be_a_text_named_error(start_server: StartServer) -> None:
    server = start_server("error-text")
    batch = failed_batch(server)
    assert "errors" not in batch
    assert batch["error"].startswith("line 2: streaming_unsupported: ")
    assert not {"error", "errors"} & server.create(chats(1)).keys()


def test_a_completed_batch_can_have_errors(start_server: StartServer) -> None:
    server = start_server("errors-when-completed")
    batch = run_batch(server, MIXED_LINES)[Status.COMPLETED]
    assert batch["status"] == "completed"
    assert [entry["message"] for entry in batch["errors"]["data"]] == ["1 of 2 requests failed; see the error file."]
    assert run_batch(server, chats(1))[Status.COMPLETED]["errors"] is None


# ids and result files


def test_missing_file_ids_can_be_empty_strings(start_server: StartServer) -> None:
    states = run_batch(start_server("empty-ids"), chats(1))
    assert (states[Status.VALIDATING]["output_file_id"], states[Status.VALIDATING]["error_file_id"]) == ("", "")
    assert states[Status.COMPLETED]["output_file_id"].startswith("file-")
    assert states[Status.COMPLETED]["error_file_id"] == ""


def test_file_ids_can_have_another_format_and_still_work(start_server: StartServer) -> None:
    server = start_server("underscore-ids")
    input_file = server.upload(MIXED_LINES)
    assert input_file["id"].startswith("file_")
    assert server.get(f"/v1/files/{input_file['id']}") == input_file
    batch = server.try_create(input_file["id"]).json()
    assert batch["input_file_id"] == input_file["id"]

    batch = server.advance_until(batch["id"], Status.COMPLETED)
    for name, custom_id in (("output_file_id", "good"), ("error_file_id", "bad")):
        assert batch[name].startswith("file_")
        assert [line["custom_id"] for line in server.content(batch[name])] == [custom_id]
    page = server.get("/v1/files")
    assert page["first_id"] == page["data"][0]["id"]
    assert {file["id"] for file in page["data"]} == {input_file["id"], batch["output_file_id"], batch["error_file_id"]}
    assert [file["id"] for file in server.get("/v1/files", after=page["first_id"])["data"]] == [
        file["id"] for file in page["data"][1:]
    ]
    assert server.call("DELETE", f"/v1/files/{input_file['id']}").json()["id"] == input_file["id"]
    assert server.call("GET", f"/v1/files/{input_file['id']}").status_code == 404


def test_a_batch_without_failures_can_have_an_empty_error_file(start_server: StartServer) -> None:
    server = start_server("empty-error-file")
    batch = run_batch(server, chats(2))[Status.COMPLETED]

    file = server.get(f"/v1/files/{batch['error_file_id']}")
    assert (file["bytes"], file["purpose"]) == (0, "batch_output")
    assert file["id"] in {entry["id"] for entry in server.get("/v1/files")["data"]}
    assert server.content(file["id"]) == []
    assert len(server.content(batch["output_file_id"])) == 2


def test_a_failed_batch_can_have_both_result_files(start_server: StartServer) -> None:
    server = start_server("failed-with-files")
    batch = failed_batch(server)
    assert batch["errors"]["data"][0]["code"] == "streaming_unsupported"
    for name in ("output_file_id", "error_file_id"):
        assert server.get(f"/v1/files/{batch[name]}")["bytes"] == 0


# create and upload


def test_the_reply_to_an_upload_can_have_the_file_under_data(start_server: StartServer) -> None:
    server = start_server("upload-data")
    reply = server.upload(chats(1))
    assert "id" not in reply
    assert (reply["code"], reply["status"]) == (20000, True)
    assert server.get(f"/v1/files/{reply['data']['id']}") == reply["data"]


def test_the_reply_to_create_can_have_the_batch_under_job(start_server: StartServer) -> None:
    server = start_server("job-wrapper")
    reply = server.create(chats(1))
    assert reply.keys() == {"job", "warning"}
    assert server.get(f"/v1/batches/{reply['job']['id']}") == reply["job"], "only the reply to create is wrapped"


def test_a_batch_can_have_other_fields(start_server: StartServer) -> None:
    server = start_server("job-fields", "progress", "error-text")
    batch = server.create(chats(1), metadata={"nonce": "n"})
    assert batch.keys() == {
        "id",
        "input_file_id",
        "status",
        "job_deadline",
        "created_at",
        "endpoint",
        "progress",
        "model_id",
        "output_file_id",
        "error_file_id",
        "completed_at",
    }
    assert batch["job_deadline"] == batch["created_at"] + 86_400


@pytest.mark.parametrize(
    ("switch", "accepted_windows", "rejected_windows"),
    [
        ("windows-24h-to-7d", {"24h": 24, "7d": 168, "72h": 72}, ["1h", "8d", "169h"]),
        ("windows-24h-to-14d", {"24h": 24, "1d": 24, "336h": 336, "14d": 336}, ["1h", "337h", "15d"]),
        ("windows-1h-or-24h", {"1h": 1, "24h": 24}, ["2h", "48h"]),
        ("openai", {"24h": 24}, ["1d", "48h", "1h", "", "24", "h"]),
    ],
)
def test_other_completion_windows_are_accepted_and_decide_when_a_batch_expires(
    start_server: StartServer, switch: str, accepted_windows: dict[str, int], rejected_windows: list[str]
) -> None:
    server = start_server(switch)
    file_id = server.upload(chats(1))["id"]
    for window, hours in accepted_windows.items():
        batch = server.try_create(file_id, completion_window=window).json()
        assert batch["completion_window"] == window
        assert batch["expires_at"] - batch["created_at"] == hours * 3600
    for window in rejected_windows:
        answer = server.try_create(file_id, completion_window=window)
        assert answer.status_code == 400, window
        assert answer.json()["error"]["param"] == "completion_window"


def test_the_window_can_differ_from_the_requested_one(start_server: StartServer) -> None:
    batch = start_server("window-48h").create(chats(1), completion_window="24h")
    assert batch["completion_window"] == "48h"
    assert batch["expires_at"] - batch["created_at"] == 48 * 3600


def test_a_batch_expires_when_its_own_window_ends(start_server: StartServer) -> None:
    server = start_server("windows-1h-or-24h", in_progress=500_000)
    batch = server.create(chats(2), completion_window="1h")
    server.advance_until(batch["id"], Status.IN_PROGRESS)
    server.server.clock.advance(3_700)
    expired = server.advance_until(batch["id"], Status.EXPIRED)
    assert expired["expired_at"] >= batch["created_at"] + 3_600


def test_endpoints_can_lack_the_version_in_create_and_in_lines(start_server: StartServer) -> None:
    server = start_server("bare-endpoints")
    lines = [{**chat("a", "hello"), "url": "/chat/completions"}, chat("b", "hello")]
    for endpoint in ("/chat/completions", CHAT):
        states = run_batch(server, lines, endpoint=endpoint)
        assert states[Status.VALIDATING]["endpoint"] == "/chat/completions"
        assert states[Status.COMPLETED]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert server.try_create(server.upload(lines)["id"], endpoint="/chat").status_code == 400
    mismatched = server.advance_until(server.create(lines, endpoint=RESPONSES)["id"], Status.FAILED)
    assert {entry["code"] for entry in mismatched["errors"]["data"]} >= {"invalid_url"}


# lines of input files


def separated_lines() -> list[dict[str, Any] | str]:
    """Return four lines, three of which contain a Unicode line end in their text."""
    lines = [chat("plain", "hello"), *(chat(f"row-{ord(end)}", f"a{end}b") for end in "\u2028\u2029\u0085")]
    return [json.dumps(line, ensure_ascii=False) for line in lines]


def test_unicode_line_ends_can_break_the_lines_of_an_input_file(start_server: StartServer) -> None:
    server = start_server("unicode-line-ends")
    batch = server.advance_until(server.create(separated_lines())["id"], Status.FAILED)
    assert {(entry["code"], entry["line"]) for entry in batch["errors"]["data"]} == {
        ("invalid_json_line", line) for line in range(2, 8)
    }
    escaped = [json.dumps(json.loads(line)) for line in separated_lines() if isinstance(line, str)]
    assert run_batch(server, escaped)[Status.COMPLETED]["request_counts"]["completed"] == 4


def test_rows_whose_lines_are_broken_can_be_lost_without_an_error(start_server: StartServer) -> None:
    server = start_server("unicode-line-ends", "skip-broken-lines")
    batch = run_batch(server, separated_lines())[Status.COMPLETED]
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert [line["custom_id"] for line in server.content(batch["output_file_id"])] == ["plain"]


# lists


def test_a_list_that_ignores_after_always_returns_the_same_page(start_server: StartServer) -> None:
    server = start_server("ignore-after", "no-has-more")
    for _ in range(3):
        server.create(chats(1))
    page = server.get("/v1/batches", limit=2)
    assert page.keys() == {"object", "data"}
    assert server.get("/v1/batches", limit=2, after=page["data"][-1]["id"]) == page
    files = server.get("/v1/files", limit=2)
    assert files.keys() == {"object", "data"}
    assert server.get("/v1/files", limit=2, after=files["data"][-1]["id"]) == files


def test_a_list_can_be_paged_with_a_cursor(start_server: StartServer) -> None:
    server = start_server("cursor", "ignore-after", "no-has-more")
    batch_ids = [server.create(chats(1))["id"] for _ in range(5)]
    for kind, expected in (("batches", batch_ids[::-1]), ("files", None)):
        ids: list[str] = []
        page = server.get(f"/v1/{kind}", limit=2)
        while True:
            ids += [item["id"] for item in page["data"]]
            next_cursor = page["paging"]["next_cursor"]
            if next_cursor is None:
                break
            page = server.get(f"/v1/{kind}", limit=2, cursor=next_cursor)
        assert len(set(ids)) == len(ids) == 5
        assert expected is None or ids == expected


# Azure's requests


def test_azures_paths_are_served_like_openais(start_server: StartServer) -> None:
    server = start_server("azure-paths")
    batch = server.create(chats(1))
    for root in ("/openai", "/openai/v1", "/v1"):
        assert server.get(f"{root}/batches/{batch['id']}", **{"api-version": "2024-10-21"})["id"] == batch["id"]
        assert server.get(f"{root}/files/{batch['input_file_id']}")["id"] == batch["input_file_id"]
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    answer = server.call("POST", "/openai/deployments/gpt-5-mini/chat/completions", json=body)
    assert answer.json()["object"] == "chat.completion"
    assert start_server().call("GET", "/openai/v1/batches").status_code == 404


def test_the_api_key_can_be_in_its_own_header(start_server: StartServer) -> None:
    server = start_server("api-key-header", api_key="secret")
    for headers, status in (
        ({"api-key": "secret"}, 200),
        ({"Authorization": "Bearer secret"}, 200),
        ({"api-key": "wrong"}, 401),
        ({}, 401),
    ):
        assert server.call("GET", "/v1/batches", headers=headers).status_code == status, headers
    openai_server = start_server(api_key="secret")
    assert openai_server.call("GET", "/v1/batches", headers={"api-key": "secret"}).status_code == 401


# errors that repeat the key


def test_an_error_can_repeat_the_key(start_server: StartServer) -> None:
    server = start_server("echo-key", api_key="sk-right")
    rejected = server.call("GET", "/v1/batches", headers={"Authorization": "Bearer sk-wrong"})
    assert (rejected.status_code, rejected.json()["error"]["message"]) == (
        401,
        "Incorrect API key provided. (API key: sk-wrong)",
    )
    missing = server.call("GET", "/v1/batches/batch_1", headers={"Authorization": "Bearer sk-right"})
    assert missing.json()["error"]["message"] == "No batch found with id 'batch_1'. (API key: sk-right)"
