"""Every switch over what the file and batch routes answer, and over what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.api.objects import Status
from tests.local.driving import CHAT, RESPONSES, chat, chats
from tests.local.in_process import InProcess, in_process

DONE = (Status.COMPLETED,)
#: two requests, of which one fails
MIXED = [chat("good", "hello"), chat("bad", "[[fail:500]]")]
#: lines that fail validation
INVALID = [chat("a", "hello"), chat("b", "hello", stream=True)]

Speaking = Callable[..., InProcess]


@pytest.fixture
def speaking(tmp_path: Path) -> Iterator[Speaking]:
    """An application with these dialects and settings."""
    with ExitStack() as stack:

        def start(*dialects: str, **settings: Any) -> InProcess:
            state = tmp_path / f"state-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(in_process(state, *dialects, **settings))

        yield start


def through(server: InProcess, lines: list[dict[str, Any]], **body: Any) -> dict[Status, Any]:
    """A batch of these lines as it is shown in every state, the reply to create included as `validating`."""
    shown = server.create(lines, **body)
    batch_id = shown.get("job", shown)["id"]
    seen = {Status.VALIDATING: shown}
    for status in (Status.IN_PROGRESS, Status.FINALIZING, Status.COMPLETED):
        seen[status] = server.advance_until(batch_id, status)
    return seen


def failed(server: InProcess) -> Any:
    """A batch that failed validation."""
    return server.advance_until(server.create(INVALID)["id"], Status.FAILED)


# status


def test_statuses_may_be_in_capitals(speaking: Speaking) -> None:
    seen = through(speaking("uppercase-status"), chats(1))
    assert [shown["status"] for shown in seen.values()] == ["VALIDATING", "IN_PROGRESS", "FINALIZING", "COMPLETED"]


def test_statuses_may_have_one_capital(speaking: Speaking) -> None:
    seen = through(speaking("capitalized-status"), chats(1))
    assert [shown["status"] for shown in seen.values()] == ["Validating", "In_progress", "Finalizing", "Completed"]


def test_a_batch_may_be_in_queue_in_place_of_validating(speaking: Speaking) -> None:
    seen = through(speaking("in-queue"), chats(1))
    assert [shown["status"] for shown in seen.values()] == ["in_queue", "in_progress", "finalizing", "completed"]


def test_a_batch_may_be_in_progress_under_another_word(speaking: Speaking) -> None:
    seen = through(speaking("status-progress", "uppercase-status"), chats(1))
    assert [shown["status"] for shown in seen.values()] == ["VALIDATING", "PROGRESS", "FINALIZING", "COMPLETED"]


# times


def test_times_may_be_iso_8601(speaking: Speaking) -> None:
    shown = through(speaking("iso-times"), chats(1))[Status.COMPLETED]
    for name in ("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"):
        assert shown[name].startswith("20"), name
        assert shown[name].endswith("Z"), name
    assert shown["failed_at"] is None


def test_times_may_be_milliseconds_and_a_fixed_moment_where_there_is_none(speaking: Speaking) -> None:
    seen = through(speaking("millisecond-times"), chats(1))
    first, last = seen[Status.VALIDATING], seen[Status.COMPLETED]
    assert first["expires_at"] - first["created_at"] == 86_400_000
    assert first["in_progress_at"] == first["completed_at"] == first["cancelled_at"] == 946_656_000_000
    assert last["created_at"] <= last["in_progress_at"] <= last["finalizing_at"] <= last["completed_at"]
    assert last["failed_at"] == 946_656_000_000


def test_the_creation_time_alone_may_be_a_string(speaking: Speaking) -> None:
    server = speaking("text-created-at")
    shown = server.create(chats(1))
    assert shown["created_at"] == str(shown["expires_at"] - 86_400)


def test_finalizing_at_may_stay_null(speaking: Speaking) -> None:
    for shown in through(speaking("no-finalizing-at"), chats(1)).values():
        assert shown["finalizing_at"] is None


def test_expires_at_may_be_null_until_the_batch_runs(speaking: Speaking) -> None:
    seen = through(speaking("late-expires-at"), chats(1))
    assert seen[Status.VALIDATING]["expires_at"] is None
    assert seen[Status.IN_PROGRESS]["expires_at"] == seen[Status.IN_PROGRESS]["created_at"] + 86_400


def test_a_batch_may_go_on_after_its_announced_end(speaking: Speaking) -> None:
    server = speaking("never-expires", in_progress=200_000)
    batch = server.create(chats(2))
    assert batch["expires_at"] == batch["created_at"] + 86_400

    server.advance_until(batch["id"], Status.IN_PROGRESS)
    server.server.clock.advance(90_000)
    shown = server.get(f"/v1/batches/{batch['id']}")
    assert (shown["status"], shown["expires_at"]) == ("in_progress", batch["expires_at"])
    server.server.clock.advance(190_000)
    assert server.advance_until(batch["id"], *DONE)["request_counts"]["completed"] == 2


def test_a_failed_batch_may_be_stamped_as_completed(speaking: Speaking) -> None:
    shown = failed(speaking("failed-is-completed-at"))
    assert shown["failed_at"] is None
    assert shown["completed_at"] >= shown["created_at"]


# counts


def test_counts_may_be_null_before_the_batch_runs_and_after_it_failed(speaking: Speaking) -> None:
    server = speaking("null-counts")
    seen = through(server, chats(2))
    nothing = {"total": None, "completed": None, "failed": None}
    assert seen[Status.VALIDATING]["request_counts"] == nothing
    assert seen[Status.COMPLETED]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert failed(server)["request_counts"] == nothing


def test_counts_may_lie_flat_beside_the_object(speaking: Speaking) -> None:
    shown = through(speaking("flat-counts"), MIXED)[Status.COMPLETED]
    assert (shown["total"], shown["completed"], shown["failed"]) == (2, 1, 1)
    assert shown["request_counts"] == {"total": 2, "completed": 1, "failed": 1}


def test_progress_may_stand_in_place_of_counts(speaking: Speaking) -> None:
    seen = through(speaking("progress"), MIXED)
    assert not any("request_counts" in shown for shown in seen.values())
    assert (seen[Status.VALIDATING]["progress"], seen[Status.COMPLETED]["progress"]) == (0, 100)


def test_counts_may_be_null_for_good(speaking: Speaking) -> None:
    assert [shown["request_counts"] for shown in through(speaking("no-counts"), chats(1)).values()] == [None] * 4


# errors


def test_errors_may_be_a_bare_list(speaking: Speaking) -> None:
    server = speaking("errors-list")
    assert [(one["code"], one["line"]) for one in failed(server)["errors"]] == [("streaming_unsupported", 2)]
    assert server.create(chats(1))["errors"] is None


def test_errors_may_be_text(speaking: Speaking) -> None:
    server = speaking("errors-text")
    assert failed(server)["errors"].startswith("line 2: streaming_unsupported: ")
    assert server.create(chats(1))["errors"] == ""


def test_errors_may_go_by_another_name(speaking: Speaking) -> None:
    server = speaking("error-text")
    shown = failed(server)
    assert "errors" not in shown
    assert shown["error"].startswith("line 2: streaming_unsupported: ")
    assert not {"error", "errors"} & server.create(chats(1)).keys()


def test_a_completed_batch_may_have_errors(speaking: Speaking) -> None:
    server = speaking("errors-when-completed")
    shown = through(server, MIXED)[Status.COMPLETED]
    assert shown["status"] == "completed"
    assert [one["message"] for one in shown["errors"]["data"]] == ["1 of 2 requests failed; see the error file."]
    assert through(server, chats(1))[Status.COMPLETED]["errors"] is None


# ids and result files


def test_missing_file_ids_may_be_empty_strings(speaking: Speaking) -> None:
    seen = through(speaking("empty-ids"), chats(1))
    assert (seen[Status.VALIDATING]["output_file_id"], seen[Status.VALIDATING]["error_file_id"]) == ("", "")
    assert seen[Status.COMPLETED]["output_file_id"].startswith("file-")
    assert seen[Status.COMPLETED]["error_file_id"] == ""


def test_file_ids_may_look_otherwise_and_lead_to_their_files_all_the_same(speaking: Speaking) -> None:
    server = speaking("underscore-ids")
    uploaded = server.upload(MIXED)
    assert uploaded["id"].startswith("file_")
    assert server.get(f"/v1/files/{uploaded['id']}") == uploaded
    batch = server.try_create(uploaded["id"]).json()
    assert batch["input_file_id"] == uploaded["id"]

    shown = server.advance_until(batch["id"], *DONE)
    for name, custom_id in (("output_file_id", "good"), ("error_file_id", "bad")):
        assert shown[name].startswith("file_")
        assert [line["custom_id"] for line in server.content(shown[name])] == [custom_id]
    page = server.get("/v1/files")
    assert page["first_id"] == page["data"][0]["id"]
    assert {file["id"] for file in page["data"]} == {uploaded["id"], shown["output_file_id"], shown["error_file_id"]}
    assert [file["id"] for file in server.get("/v1/files", after=page["first_id"])["data"]] == [
        file["id"] for file in page["data"][1:]
    ]
    assert server.call("DELETE", f"/v1/files/{uploaded['id']}").json()["id"] == uploaded["id"]
    assert server.call("GET", f"/v1/files/{uploaded['id']}").status_code == 404


def test_an_error_file_of_zero_bytes_may_lie_beside_a_success(speaking: Speaking) -> None:
    server = speaking("empty-error-file")
    shown = through(server, chats(2))[Status.COMPLETED]

    file = server.get(f"/v1/files/{shown['error_file_id']}")
    assert (file["bytes"], file["purpose"]) == (0, "batch_output")
    assert file["id"] in {one["id"] for one in server.get("/v1/files")["data"]}
    assert server.content(file["id"]) == []
    assert len(server.content(shown["output_file_id"])) == 2


def test_a_failed_batch_may_have_both_result_files(speaking: Speaking) -> None:
    server = speaking("failed-with-files")
    shown = failed(server)
    assert shown["errors"]["data"][0]["code"] == "streaming_unsupported"
    for name in ("output_file_id", "error_file_id"):
        assert server.get(f"/v1/files/{shown[name]}")["bytes"] == 0


# create and upload


def test_the_reply_to_an_upload_may_have_the_file_under_data(speaking: Speaking) -> None:
    server = speaking("upload-data")
    reply = server.upload(chats(1))
    assert "id" not in reply
    assert (reply["code"], reply["status"]) == (20000, True)
    assert server.get(f"/v1/files/{reply['data']['id']}") == reply["data"]


def test_the_reply_to_create_may_have_the_batch_under_job(speaking: Speaking) -> None:
    server = speaking("job-wrapper")
    reply = server.create(chats(1))
    assert reply.keys() == {"job", "warning"}
    assert server.get(f"/v1/batches/{reply['job']['id']}") == reply["job"], "only create wraps it"


def test_a_batch_may_have_other_fields_altogether(speaking: Speaking) -> None:
    server = speaking("job-fields", "progress", "error-text")
    shown = server.create(chats(1), metadata={"nonce": "n"})
    assert shown.keys() == {
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
    assert shown["job_deadline"] == shown["created_at"] + 86_400


@pytest.mark.parametrize(
    ("switch", "taken", "refused"),
    [
        ("windows-24h-to-7d", {"24h": 24, "7d": 168, "72h": 72}, ["1h", "8d", "169h"]),
        ("windows-24h-to-14d", {"24h": 24, "1d": 24, "336h": 336, "14d": 336}, ["1h", "337h", "15d"]),
        ("windows-1h-or-24h", {"1h": 1, "24h": 24}, ["2h", "48h"]),
        ("openai", {"24h": 24}, ["1d", "48h", "1h", "", "24", "h"]),
    ],
)
def test_other_completion_windows_are_taken_and_decide_when_a_batch_expires(
    speaking: Speaking, switch: str, taken: dict[str, int], refused: list[str]
) -> None:
    server = speaking(switch)
    file_id = server.upload(chats(1))["id"]
    for window, hours in taken.items():
        batch = server.try_create(file_id, completion_window=window).json()
        assert batch["completion_window"] == window
        assert batch["expires_at"] - batch["created_at"] == hours * 3600
    for window in refused:
        answer = server.try_create(file_id, completion_window=window)
        assert answer.status_code == 400, window
        assert answer.json()["error"]["param"] == "completion_window"


def test_the_window_may_be_another_than_was_asked_for(speaking: Speaking) -> None:
    batch = speaking("window-48h").create(chats(1), completion_window="24h")
    assert batch["completion_window"] == "48h"
    assert batch["expires_at"] - batch["created_at"] == 48 * 3600


def test_a_batch_expires_when_its_own_window_ends(speaking: Speaking) -> None:
    server = speaking("windows-1h-or-24h", in_progress=500_000)
    batch = server.create(chats(2), completion_window="1h")
    server.advance_until(batch["id"], Status.IN_PROGRESS)
    server.server.clock.advance(3_700)
    shown = server.advance_until(batch["id"], Status.EXPIRED)
    assert shown["expired_at"] >= batch["created_at"] + 3_600


def test_endpoints_may_lack_their_version_in_create_and_in_lines(speaking: Speaking) -> None:
    server = speaking("bare-endpoints")
    bare = [{**chat("a", "hello"), "url": "/chat/completions"}, chat("b", "hello")]
    for endpoint in ("/chat/completions", CHAT):
        seen = through(server, bare, endpoint=endpoint)
        assert seen[Status.VALIDATING]["endpoint"] == "/chat/completions"
        assert seen[Status.COMPLETED]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert server.try_create(server.upload(bare)["id"], endpoint="/chat").status_code == 400
    wrong = server.advance_until(server.create(bare, endpoint=RESPONSES)["id"], Status.FAILED)
    assert {one["code"] for one in wrong["errors"]["data"]} >= {"invalid_url"}


# lists


def test_a_list_that_ignores_after_and_never_ends_shows_the_same_page_for_ever(speaking: Speaking) -> None:
    server = speaking("ignore-after", "no-has-more")
    for _ in range(3):
        server.create(chats(1))
    page = server.get("/v1/batches", limit=2)
    assert page.keys() == {"object", "data"}
    assert server.get("/v1/batches", limit=2, after=page["data"][-1]["id"]) == page
    files = server.get("/v1/files", limit=2)
    assert files.keys() == {"object", "data"}
    assert server.get("/v1/files", limit=2, after=files["data"][-1]["id"]) == files


def test_a_list_may_go_on_by_its_cursor(speaking: Speaking) -> None:
    server = speaking("cursor", "ignore-after", "no-has-more")
    made = [server.create(chats(1))["id"] for _ in range(5)]
    for what, expected in (("batches", made[::-1]), ("files", None)):
        found: list[str] = []
        page = server.get(f"/v1/{what}", limit=2)
        while True:
            found += [one["id"] for one in page["data"]]
            after = page["paging"]["next_cursor"]
            if after is None:
                break
            page = server.get(f"/v1/{what}", limit=2, cursor=after)
        assert len(set(found)) == len(found) == 5
        assert expected is None or found == expected


# Azure's door


def test_azures_paths_lead_to_the_same_files_and_batches(speaking: Speaking) -> None:
    server = speaking("azure-paths")
    batch = server.create(chats(1))
    for root in ("/openai", "/openai/v1", "/v1"):
        assert server.get(f"{root}/batches/{batch['id']}", **{"api-version": "2024-10-21"})["id"] == batch["id"]
        assert server.get(f"{root}/files/{batch['input_file_id']}")["id"] == batch["input_file_id"]
    asked = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    answer = server.call("POST", "/openai/deployments/gpt-5-mini/chat/completions", json=asked)
    assert answer.json()["object"] == "chat.completion"
    assert speaking().call("GET", "/openai/v1/batches").status_code == 404


def test_the_api_key_may_come_in_its_own_header(speaking: Speaking) -> None:
    server = speaking("api-key-header", api_key="secret")
    for headers, status in (
        ({"api-key": "secret"}, 200),
        ({"Authorization": "Bearer secret"}, 200),
        ({"api-key": "wrong"}, 401),
        ({}, 401),
    ):
        assert server.call("GET", "/v1/batches", headers=headers).status_code == status, headers
    plain = speaking(api_key="secret")
    assert plain.call("GET", "/v1/batches", headers={"api-key": "secret"}).status_code == 401
