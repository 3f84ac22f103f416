"""Ended batches in the odd forms that providers return: every answer lands, and every row has one outcome.

A scripted provider accepts one shard of three rows, then returns a batch and result files that the test specifies.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.airflow.scripted import Request, ScriptedServer, reply, serve_script
from tests.airflow.test_runner import seal_job

pytestmark = pytest.mark.usefixtures("offline")
LOG = logging.getLogger(__name__)


def complete(n: int, **changes: Any) -> dict[str, Any]:
    """Return the line of row n with a complete answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer {n}"}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"object": "chat.completion", "model": "gpt-5-mini", "choices": [choice], "usage": usage, **changes}
    response = {"status_code": 200, "request_id": f"req_{n}", "body": body}
    return {"id": f"batch_req_{n}", "custom_id": f"row-{n}", "response": response, "error": None}


def http_error(n: int, status: int = 400) -> dict[str, Any]:
    """Return the line of row n with an HTTP error and a null top-level error."""
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": "bad"}
    response = {"status_code": status, "request_id": f"req_{n}", "body": {"error": error}}
    return {"id": f"batch_req_{n}", "custom_id": f"row-{n}", "response": response, "error": None}


def unexecuted(n: int, code: str) -> dict[str, Any]:
    """Return the line of row n, which was never executed. OpenAI's guide shows two such lines with the same id."""
    return {"id": "batch_req_123", "custom_id": f"row-{n}", "response": None, "error": {"code": code, "message": code}}


def lines(*contents: Any, end: bytes = b"\n") -> bytes:
    return b"".join(line + end if isinstance(line, bytes) else json.dumps(line).encode() + end for line in contents)


class Provider:
    """A provider that accepts files and batches. Once `ended` is set, it returns `batch` and `files`."""

    def __init__(self, batch: dict[str, Any], files: dict[str, bytes]) -> None:
        self.batch, self.files, self.ended, self.created = batch, files, False, 0
        #: by file: the size that the provider states for it; None states no size. By default, the true one
        self.sizes: dict[str, int | None] = {}
        #: response to return instead of the batch, if any
        self.replacement: bytes | None = None

    def __call__(self, request: Request) -> bytes:
        batch = {"id": "batch_1", "object": "batch", "status": "validating", "input_file_id": "file-1", "created_at": 1}
        if self.ended:
            batch |= self.batch
        match request.call:
            case "POST /files":
                return reply({"id": "file-1", "object": "file", "status": "processed"})
            case "POST /batches":
                self.created += 1
                self.metadata = json.loads(request.body)["metadata"]
                return reply(batch | {"id": f"batch_{self.created}"})
            case "GET /batches":
                return reply({"object": "list", "data": [batch | {"metadata": self.metadata}], "has_more": False})
            case "GET /batches/batch_1" | "GET /batches/batch_2" as call:
                batch["id"] = call.rpartition("/")[2]
                return reply(batch) if self.replacement is None else self.replacement
        for name, content in self.files.items():
            if request.call == f"GET /files/{name}/content":
                return reply(content, content_type="application/octet-stream")
            if request.call == f"GET /files/{name}":
                return reply({"id": name, "object": "file", "bytes": self.sizes.get(name, len(content))})
        return reply({"error": {"message": f"no {request.target}"}}, status=404)


class Job(NamedTuple):
    """A job whose batch runs at a scripted provider."""

    ledger: Any
    provider: Provider
    server: ScriptedServer
    backoff: timedelta

    def collect(self, later: timedelta = timedelta()) -> Any:
        """Let a worker look at the batch and act; return the state of the job and what the worker waits for.

        :param later: how far the worker's clock is ahead.
        """
        self.provider.ended = True
        worker = worker_of(self.ledger, self.backoff, later)
        pause = worker.run(worker.observe())
        return worker.ledger.state(), pause

    def landed_rows(self, later: timedelta = timedelta()) -> dict[str, tuple[str, str | None]]:
        """Return outcome and output by custom_id, as they land."""
        from airflow_provider_batch.core.landing.landing import Landing

        state, _ = self.collect(later)
        landing = Landing(
            self.ledger.folder,
            state,
            key={},
            columns={},
            store_response=False,
            run_id="run",
            landed_at=datetime.now(UTC),
        )
        rows = {row[0]: (row[1], row[2]) for row in landing}
        assert sum(landing.outcomes.values()) == len(rows) == 3
        return rows

    def outcomes(self, later: timedelta = timedelta()) -> list[str]:
        """Return the outcomes of the rows, in the order of their custom_ids."""
        return [outcome for _, (outcome, _) in sorted(self.landed_rows(later).items())]


def worker_of(ledger: Any, backoff: timedelta = timedelta(minutes=5), later: timedelta = timedelta()) -> Any:
    """Return a worker that sends no row twice."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    worker_ledger = open_ledger(ledger.folder)
    assert worker_ledger is not None
    policy = Policy(max_attempts=1, backoff=backoff)
    return Runner(worker_ledger, BatchHook(), policy, LOG, clock=lambda: datetime.now(UTC) + later)


@pytest.fixture
def running_job(tmp_path: Path, connect: Callable[..., None]) -> Callable[..., AbstractContextManager[Job]]:
    """Return a context manager: `running_job(batch, files)` starts a job whose batch ends in this form."""

    @contextmanager
    def start(
        batch: dict[str, Any], files: dict[str, bytes] | None = None, *, backoff: timedelta = timedelta(minutes=5)
    ) -> Iterator[Job]:
        provider = Provider(batch, files or {})
        with serve_script(provider) as server:
            extra = {"openai_client_kwargs": {"max_retries": 0, "timeout": 20}}
            connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
            ledger = seal_job(tmp_path, ["one", "two", "three"], requests=3)
            worker_of(ledger).run({})
            assert provider.created == 1
            yield Job(ledger, provider, server, backoff)

    return start


ALL_SUCCEEDED = ["succeeded"] * 3
ALL_LINES = lines(complete(3), complete(1), complete(2))


@pytest.mark.parametrize("empty_id", [None, "", 0, {}], ids=repr)
@pytest.mark.parametrize("missing", ["output_file_id", "error_file_id"])
def test_a_file_that_a_batch_does_not_have_is_never_downloaded(running_job: Any, missing: str, empty_id: Any) -> None:
    other = "error_file_id" if missing == "output_file_id" else "output_file_id"
    with running_job({"status": "completed", missing: empty_id, other: "file-2"}, {"file-2": ALL_LINES}) as job:
        assert job.outcomes() == ALL_SUCCEEDED
        assert [request.target for request in job.server.requests if "/content" in request.target] == [
            "/files/file-2/content"
        ]


TWO_FILES = {"output_file_id": "file-2", "error_file_id": "file-3"}


@pytest.mark.parametrize("usage", [None, "many", {"prompt_tokens": 2**70, "completion_tokens": 5.5}], ids=repr)
def test_the_cost_of_a_batch_is_unknown_if_one_answer_reports_no_usage(running_job: Any, usage: Any) -> None:
    content = lines(complete(1), complete(2, usage=usage), complete(3))
    with running_job({"status": "completed", "output_file_id": "file-2"}, {"file-2": content}) as job:
        assert job.outcomes() == ALL_SUCCEEDED
        ((_, _, settled),) = job.collect()[0].settled_submissions()
        assert (settled.cost_usd, settled.answers, settled.output_tokens) == (None, 2, 10)


@pytest.mark.parametrize(
    ("batch", "files", "outcomes"),
    [
        (
            {"status": "completed", **TWO_FILES},
            [lines(complete(3), complete(1)), lines(http_error(2))],
            "succeeded failed succeeded",
        ),
        ({"status": "completed", **TWO_FILES}, [ALL_LINES, b""], "succeeded succeeded succeeded"),
        ({"status": "completed", **TWO_FILES}, [b"", b""], "pending pending pending"),
        ({"status": "completed"}, [], "pending pending pending"),
        (
            {"status": "completed", "output_file_id": None, "error_file_id": "file-2"},
            [lines(http_error(2), http_error(1, 500), http_error(3, 429))],
            "failed failed failed",
        ),
        (
            {"status": "expired", "request_counts": {"total": 3, "completed": 1, "failed": 0}, **TWO_FILES},
            [lines(complete(2)), lines(unexecuted(1, "batch_expired"), unexecuted(3, "batch_expired"))],
            "expired succeeded expired",
        ),
        (
            {"status": "expired", "output_file_id": None, "error_file_id": "file-2"},
            [lines(*[unexecuted(n, "batch_expired") for n in (1, 2, 3)])],
            "expired expired expired",
        ),
        (
            {"status": "cancelled", **TWO_FILES},
            [lines(complete(2)), lines(unexecuted(1, "batch_cancelled"), http_error(3))],
            "cancelled succeeded failed",
        ),
        ({"status": "cancelled", "output_file_id": "file-2"}, [lines(complete(2))], "missing succeeded missing"),
        ({"status": "cancelled"}, [], "missing missing missing"),
        ({"status": "failed", **TWO_FILES}, [lines(complete(1)), lines(http_error(2))], "succeeded failed missing"),
    ],
    ids=[
        "mixed",
        "an empty error file, as with Azure",
        "two empty files",
        "completed without files",
        "completed though every request failed",
        "expired with some answers",
        "expired without answers",
        "cancelled with some answers",
        "cancelled without lines for the other rows",
        "cancelled before anything ran",
        "failed, but with answers",
    ],
)
def test_both_files_land_with_every_batch_status(
    running_job: Any, batch: dict[str, Any], files: list[bytes], outcomes: str
) -> None:
    with running_job(batch, dict(zip(("file-2", "file-3"), files, strict=False))) as job:
        assert job.outcomes() == outcomes.split()


@pytest.mark.parametrize(
    ("content", "outcomes"),
    [
        (lines(complete(3), complete(1)), "succeeded missing succeeded"),
        (lines(complete(1), complete(2), complete(3), complete(4)), "succeeded succeeded succeeded"),
        (lines(complete(1), complete(2), complete(3), complete(2)), "succeeded succeeded succeeded"),
        (lines(complete(1), complete(2), http_error(2), complete(3)), "succeeded succeeded succeeded"),
        (lines(complete(1), b"\xff{not a line", complete(3)), "succeeded missing succeeded"),
        (lines(complete(1), {**complete(2), "custom_id": None}, complete(3)), "succeeded missing succeeded"),
        (lines(complete(1), complete(2), complete(3), end=b"\r\n"), "succeeded succeeded succeeded"),
        (b"\xef\xbb\xbf" + ALL_LINES, "succeeded succeeded succeeded"),
        (lines(complete(1), b"", b" ", complete(2), complete(3))[:-1], "succeeded succeeded succeeded"),
        (lines(complete(1), complete(2)) + lines(complete(3))[:-20], "succeeded succeeded missing"),
        (lines(complete(1), complete(2, usage=None), {**complete(3), "id": None}), "succeeded succeeded succeeded"),
        (lines(complete(1), http_error(2, 0), http_error(3, 504)), "succeeded failed failed"),
        (lines(*[{**complete(n), "id": "batch_req_123"} for n in (2, 3, 1)]), "succeeded succeeded succeeded"),
        (
            lines(complete(1), unexecuted(2, "request_timeout"), unexecuted(3, "server_error")),
            "succeeded expired failed",
        ),
        (json.dumps([complete(1), complete(2)]).encode(), "pending pending pending"),
    ],
    ids=[
        "a line is missing",
        "a line for a row that was not sent",
        "a repeated line",
        "a row with an answer and an error",
        "a line that is not JSON",
        "a line without a custom_id",
        "CRLF",
        "a byte order mark",
        "empty lines, and no line ending at the end",
        "the last line is cut off",
        "no usage, no id",
        "status 0 and a timeout",
        "another order, and the same id on all lines",
        "an unexecuted request and a server error",
        "an array instead of lines",
    ],
)
def test_every_row_of_a_result_file_has_the_outcome_of_its_own_line(
    running_job: Any, content: bytes, outcomes: str
) -> None:
    with running_job({"status": "completed", "output_file_id": "file-2"}, {"file-2": content}) as job:
        assert job.outcomes() == outcomes.split()


def test_answers_land_under_the_key_of_their_row_in_any_order(running_job: Any) -> None:
    with running_job({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL_LINES}) as job:
        assert job.landed_rows() == {f"row-{n}": ("succeeded", f"answer {n}") for n in (1, 2, 3)}


def test_collected_answers_land_after_the_provider_deleted_the_files(running_job: Any) -> None:
    with running_job({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL_LINES}) as job:
        job.collect()
        job.provider.batch, job.provider.files = {"status": "completed", "output_file_id": None}, {}
        assert job.outcomes() == ALL_SUCCEEDED
        assert job.server.calls("GET /files/file-2/content") == 1


@pytest.mark.parametrize(
    "batch",
    [
        {"status": "finalizing", "request_counts": {"total": 3, "completed": 3, "failed": 0}},
        {"status": "finalizing", **TWO_FILES},
        {"status": "in_progress", **TWO_FILES},
        {"status": "cancelling", "output_file_id": "", "error_file_id": ""},
        {"status": "unknown status", **TWO_FILES},
        {"status": "IN_QUEUE", "request_counts": None},
    ],
    ids=lambda batch: batch["status"],
)
def test_a_batch_that_has_not_ended_is_waited_for_even_if_it_has_files(running_job: Any, batch: dict[str, Any]) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    with running_job(batch, {"file-2": ALL_LINES}) as job:
        state, pause = job.collect()
        assert isinstance(pause, Wait)
        assert pause.batch_ids == ["batch_1"]
        assert state.settled_submissions() == []
        assert not [request for request in job.server.requests if "/content" in request.target]


ERROR = {"error": {"message": "no"}}


@pytest.mark.parametrize(
    "replacement",
    [
        reply(ERROR, status=503),
        reply(ERROR, status=429, retry_after="7200"),
        reply(ERROR, status=409),
        reply(ERROR, status=401),
        reply(ERROR, status=403),
        reply(ERROR, status=404),
        reply(ERROR, status=410),
        reply(b"<html>Bad gateway</html>", content_type="text/html"),
        reply(b"<html>Bad gateway</html>"),
        reply({}),
        reply({"id": "batch_1", "status": None}),
        b"",
    ],
    ids=[
        "503",
        "429 for two hours",
        "409",
        "401",
        "403",
        "404",
        "410",
        "a web page",
        "not JSON",
        "an empty object",
        "no status",
        "no response",
    ],
)
def test_a_batch_that_cannot_be_read_right_now_is_waited_for(running_job: Any, replacement: bytes) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    with running_job({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL_LINES}) as job:
        job.provider.replacement = replacement
        state, pause = job.collect()
        assert isinstance(pause, Wait)
        assert pause.batch_ids == ["batch_1"]
        assert state.settled_submissions() == []

        job.provider.replacement = None
        assert job.outcomes() == ALL_SUCCEEDED
        assert job.provider.created == 1


@pytest.mark.parametrize(
    "errors",
    [
        {"object": "list", "data": [{"code": "invalid_json_line", "message": "not JSON", "param": None, "line": 2}]},
        [{"code": "invalid_json_line", "message": "not JSON", "line": 2}],
    ],
    ids=["OpenAI's list", "a bare list"],
)
def test_if_a_batch_fails_for_an_invalid_line_that_row_fails_and_the_others_are_sealed_again(
    running_job: Any, errors: Any
) -> None:
    with running_job({"status": "failed", "errors": errors}) as job:
        state, _ = job.collect()
        assert [[shard.requests for shard in retry_round.shards] for retry_round in state.retry_rounds] == [[2]]
        assert [shard.attempt for shard in state.retry_rounds[0].shards] == [1]
        assert state.settled_submissions()[0][2].line_errors == {1: "invalid_json_line: not JSON"}
        assert job.provider.created == 2


@pytest.mark.parametrize(
    "errors",
    [None, "", [], {"object": "list", "data": None}, "the file is odd", {"code": "never_seen_before"}, ["hm"]],
    ids=repr,
)
def test_a_batch_that_failed_for_an_unknown_reason_is_submitted_once_more_and_then_its_rows_fail(
    running_job: Any, errors: Any
) -> None:
    with running_job({"status": "failed", "errors": errors}, backoff=timedelta(0)) as job:
        job.collect()
        assert job.provider.created == 2
        assert job.outcomes() == ["failed"] * 3
        assert job.provider.created == 2
        assert job.server.calls("POST /files") == 2


@pytest.mark.parametrize(
    "errors",
    [
        {"object": "list", "data": [{"code": "request_failed", "message": "1 of 3 failed", "line": 2}]},
        [{"code": "request_failed", "message": "1 of 3 failed", "line": 2}],
        "1 of 3 failed",
    ],
    ids=["a list", "a bare list", "text"],
)
def test_errors_of_a_completed_batch_do_not_replace_its_answers(running_job: Any, errors: Any) -> None:
    with running_job(
        {"status": "completed", "errors": errors, "output_file_id": "file-2"}, {"file-2": ALL_LINES}
    ) as job:
        assert job.outcomes() == ALL_SUCCEEDED


@pytest.mark.parametrize(
    "counts",
    [None, {"total": 3, "completed": 0, "failed": 3}, {"total": 9, "completed": 9, "failed": 0}, {"total": 0}, "3/3"],
    ids=repr,
)
def test_result_files_take_precedence_over_request_counts(running_job: Any, counts: Any) -> None:
    batch = {"status": "completed", "request_counts": counts, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": lines(complete(1), complete(2))}) as job:
        assert job.outcomes() == ["succeeded", "succeeded", "missing"]


def failures_of(state: Any) -> list[str]:
    """Return why the batch could not be collected, oldest first."""
    return [failure.message for failure in state.shards["s0001"].submissions[0].collection_failures]


def test_a_batch_whose_result_files_are_lost_is_not_settled(running_job: Any) -> None:
    with running_job({"status": "completed", "output_file_id": "file-2"}) as job:
        state, pause = job.collect()
        assert state.settled_submissions() == []
        (message,) = failures_of(state)
        assert "deleted or has expired at the provider" in message
        assert pause.until is not None


THREE_COMPLETED = {"total": 3, "completed": 3, "failed": 0}

WRONG_DOWNLOADS = {
    "a web page": b"<!DOCTYPE html><html>502 Bad gateway</html>\n",
    "an XML error": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "an error as JSON": b'{"error": {"message": "upstream is gone", "code": 502}}',
    "an error over several lines": b'{\n  "error": {\n    "message": "gone"\n  }\n}\n',
    "nothing": b"",
    "blank lines": b"\n\n\n",
    "compressed": gzip.compress(ALL_LINES),
    "garbage": bytes(range(256)) * 20,
    "cut off within a line": ALL_LINES[: len(ALL_LINES) // 2],
    "cut off at the end of a line": lines(complete(3), complete(1)),
    "the file of another job": ALL_LINES.replace(b"row-", b"other-"),
    "the first line twice": lines(complete(3)) * 2,
    "the answers without their keys": ALL_LINES.replace(b"custom_id", b"id"),
}


@pytest.mark.parametrize("counts", [THREE_COMPLETED, None], ids=["with counts", "without counts"])
@pytest.mark.parametrize("states_size", [True, False], ids=["with sizes", "without sizes"])
@pytest.mark.parametrize("content", WRONG_DOWNLOADS.values(), ids=WRONG_DOWNLOADS)
def test_a_download_that_is_not_the_file_settles_nothing_and_is_repeated(
    running_job: Any, content: bytes, states_size: bool, counts: Any
) -> None:
    batch = {"status": "completed", "request_counts": counts, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": content}) as job:
        job.provider.sizes["file-2"] = len(ALL_LINES) if states_size else None
        state, pause = job.collect()
        assert state.settled_submissions() == []
        (message,) = failures_of(state)
        assert message.startswith("Batch batch_1 is completed")
        assert pause.until is not None
        assert pause.batch_ids == []

        job.provider.files["file-2"] = ALL_LINES
        assert job.outcomes(later=timedelta(minutes=2)) == ALL_SUCCEEDED
        assert job.provider.created == 1


@pytest.mark.parametrize("counts", [THREE_COMPLETED, None], ids=["with counts", "without counts"])
@pytest.mark.parametrize("states_size", [True, False], ids=["with sizes", "without sizes"])
@pytest.mark.parametrize("line", [b"<!-- served by cache-7 -->", b"<", b'{"x": 1}', b"\x1f\x8b", b"# comment", b"[]"])
def test_an_odd_line_among_good_ones_does_not_make_the_file_suspicious(
    running_job: Any, line: bytes, states_size: bool, counts: Any
) -> None:
    batch = {"status": "completed", "request_counts": counts, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": line + b"\n" + ALL_LINES + line}) as job:
        if not states_size:
            job.provider.sizes["file-2"] = None
        assert job.outcomes() == ALL_SUCCEEDED


def test_a_file_of_the_right_size_that_repeats_a_row_in_place_of_another_settles_nothing(running_job: Any) -> None:
    batch = {"status": "completed", "request_counts": THREE_COMPLETED, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": lines(complete(1), complete(2), complete(1))}) as job:
        assert job.collect()[0].settled_submissions() == []
        job.provider.files["file-2"] = ALL_LINES
        assert job.outcomes(later=timedelta(minutes=2)) == ALL_SUCCEEDED


@pytest.mark.parametrize("counts", [THREE_COMPLETED, None], ids=["with counts", "without counts"])
def test_garbage_of_the_right_size_in_place_of_one_file_settles_nothing(running_job: Any, counts: Any) -> None:
    answers, errors = lines(complete(3), complete(1)), lines(http_error(2))
    batch = {"status": "completed", "request_counts": counts, "output_file_id": "file-2", "error_file_id": "file-3"}
    with running_job(batch, {"file-2": b"\x8f\n" * (len(answers) // 2), "file-3": errors}) as job:
        job.provider.sizes["file-2"] = len(answers) // 2 * 2
        assert job.collect()[0].settled_submissions() == []


def test_a_line_that_the_provider_lost_is_missing_if_the_size_of_the_file_is_right(running_job: Any) -> None:
    batch = {"status": "completed", "request_counts": THREE_COMPLETED, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": lines(complete(1), complete(3))}) as job:
        assert job.outcomes() == ["succeeded", "missing", "succeeded"]


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_without_counts_and_sizes_some_rows_are_believed_once_a_second_download_is_identical(
    running_job: Any, status: str
) -> None:
    with running_job(
        {"status": status, "output_file_id": "file-2"}, {"file-2": lines(complete(1), complete(3))}
    ) as job:
        job.provider.sizes["file-2"] = None
        assert job.collect()[0].settled_submissions() == []
        assert job.outcomes(later=timedelta(minutes=2)) == ["succeeded", "missing", "succeeded"]


def test_without_counts_and_sizes_some_rows_of_a_completed_batch_are_believed_once_a_person_has_cleared_the_wait(
    running_job: Any,
) -> None:
    batch = {"status": "completed", "output_file_id": "file-2"}
    with running_job(batch, {"file-2": lines(complete(1), complete(3))}) as job:
        job.provider.sizes["file-2"] = None
        for hours in range(7):
            job.collect(timedelta(hours=hours))
        assert job.outcomes(later=timedelta(hours=7)) == ["pending"] * 3
        clear_the_wait(job, timedelta(hours=8))
        assert job.outcomes(later=timedelta(hours=8)) == ["succeeded", "missing", "succeeded"]


def test_a_completed_batch_that_names_no_output_file_is_read_again(running_job: Any) -> None:
    batch = {"status": "completed", "request_counts": THREE_COMPLETED, "output_file_id": None}
    with running_job(batch, {"file-2": ALL_LINES}) as job:
        state, _ = job.collect()
        assert failures_of(state) == [
            "Batch batch_1 is completed and reports 3 completed requests and 0 failed, but it names no result file, so "
            "there is no line for any row of the shard."
        ]
        job.provider.batch["output_file_id"] = "file-2"
        assert job.outcomes(later=timedelta(minutes=2)) == ALL_SUCCEEDED


def test_a_batch_is_held_after_seven_wrong_downloads_and_its_rows_land_as_pending(
    running_job: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Finish

    batch = {"status": "completed", "request_counts": THREE_COMPLETED, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": b"<html>"}) as job:
        later = timedelta()
        for _ in range(7):
            state, pause = job.collect(later)
            later += timedelta(hours=1)
        assert len(failures_of(state)) == 7
        assert pause == Finish()
        assert "Batch batch_1 is held: its rows are not sent again" in caplog.text
        downloads = [request for request in job.server.requests if request.call == "GET /files/file-2/content"]
        job.collect(later)
        assert len(downloads) == 7
        assert job.outcomes(later=later) == ["pending"] * 3
        assert job.provider.created == 1

        clear_the_wait(job, later)
        job.provider.files["file-2"] = ALL_LINES
        assert job.outcomes(later=later) == ALL_SUCCEEDED
        assert job.provider.created == 1


def clear_the_wait(job: Job, later: timedelta) -> None:
    from airflow_provider_batch.core.ledger.records import Task, TaskStarted

    worker_of(job.ledger).ledger.add(TaskStarted(Task.WAIT, 2, datetime.now(UTC) + later))


def test_an_empty_file_is_believed_once_a_person_has_cleared_the_wait_and_it_is_still_empty(running_job: Any) -> None:
    batch = {"status": "completed", "request_counts": THREE_COMPLETED, "output_file_id": "file-2"}
    with running_job(batch, {"file-2": b""}) as job:
        for hours in range(7):
            job.collect(timedelta(hours=hours))
        assert job.outcomes(later=timedelta(hours=7)) == ["pending"] * 3
        clear_the_wait(job, timedelta(hours=8))
        assert job.outcomes(later=timedelta(hours=8)) == ["missing"] * 3
