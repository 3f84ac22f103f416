"""What a job makes of an ended batch as providers show it: whatever is there is landed, and every row has one outcome.

A scripted provider takes one shard of three rows, then shows a batch and result files that the test gives.
"""

from __future__ import annotations

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


def whole(n: int, **changes: Any) -> dict[str, Any]:
    """The line of row n, answered well."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer {n}"}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"object": "chat.completion", "model": "gpt-5-mini", "choices": [choice], "usage": usage, **changes}
    response = {"status_code": 200, "request_id": f"req_{n}", "body": body}
    return {"id": f"batch_req_{n}", "custom_id": f"row-{n}", "response": response, "error": None}


def refused(n: int, status: int = 400) -> dict[str, Any]:
    """The line of row n with an HTTP error, whose top-level error is null."""
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": "bad"}
    response = {"status_code": status, "request_id": f"req_{n}", "body": {"error": error}}
    return {"id": f"batch_req_{n}", "custom_id": f"row-{n}", "response": response, "error": None}


def unrun(n: int, code: str) -> dict[str, Any]:
    """The line of row n, which was never executed. The guide's sample has the same id on two such lines."""
    return {"id": "batch_req_123", "custom_id": f"row-{n}", "response": None, "error": {"code": code, "message": code}}


def lines(*those: Any, end: bytes = b"\n") -> bytes:
    return b"".join(one + end if isinstance(one, bytes) else json.dumps(one).encode() + end for one in those)


class Provider:
    """Takes files and batches; the batch is shown as `batch` says once `ended`, its files as `files` says."""

    def __init__(self, batch: dict[str, Any], files: dict[str, bytes]) -> None:
        self.batch, self.files, self.ended, self.created = batch, files, False, 0
        #: in place of the batch, if there is any
        self.instead: bytes | None = None

    def __call__(self, request: Request) -> bytes:
        shown = {"id": "batch_1", "object": "batch", "status": "validating", "input_file_id": "file-1", "created_at": 1}
        if self.ended:
            shown |= self.batch
        match request.call:
            case "POST /files":
                return reply({"id": "file-1", "object": "file", "status": "processed"})
            case "POST /batches":
                self.created += 1
                self.metadata = json.loads(request.body)["metadata"]
                return reply(shown | {"id": f"batch_{self.created}"})
            case "GET /batches":
                return reply({"object": "list", "data": [shown | {"metadata": self.metadata}], "has_more": False})
            case "GET /batches/batch_1":
                return reply(shown) if self.instead is None else self.instead
        for name, content in self.files.items():
            if request.call == f"GET /files/{name}/content":
                return reply(content, content_type="application/octet-stream")
        return reply({"error": {"message": f"no {request.target}"}}, status=404)


class Job(NamedTuple):
    """A job whose batch runs at a scripted provider."""

    ledger: Any
    provider: Provider
    server: ScriptedServer

    def collect(self) -> Any:
        """One worker's look at the batch, and what it does then; the job's state afterwards, and what it waits for."""
        self.provider.ended = True
        worker = worker_of(self.ledger)
        pause = worker.run(worker.observe())
        return worker.ledger.state(), pause

    def landed(self) -> dict[str, tuple[str, str | None]]:
        """custom_id -> outcome and output, as land would write them."""
        from airflow_provider_batch.core.landing.landing import Landing

        state, _ = self.collect()
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

    def outcomes(self) -> list[str]:
        """The outcomes of the rows, in their order."""
        return [outcome for _, (outcome, _) in sorted(self.landed().items())]


def worker_of(ledger: Any) -> Any:
    """A worker that asks no row twice."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    opened = open_ledger(ledger.folder)
    assert opened is not None
    return Runner(opened, BatchHook(), Policy(max_attempts=1, backoff=timedelta(minutes=5)), LOG)


@pytest.fixture
def running(tmp_path: Path, connect: Callable[..., None]) -> Callable[..., AbstractContextManager[Job]]:
    """`running(batch, files)` gives a job whose batch was created and will be shown like this."""

    @contextmanager
    def start(batch: dict[str, Any], files: dict[str, bytes] | None = None) -> Iterator[Job]:
        provider = Provider(batch, files or {})
        with serve_script(provider) as server:
            extra = {"openai_client_kwargs": {"max_retries": 0, "timeout": 20}}
            connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
            ledger = seal_job(tmp_path, ["one", "two", "three"], requests=3)
            worker_of(ledger).run({})
            assert provider.created == 1
            yield Job(ledger, provider, server)

    return start


GOOD = ["succeeded"] * 3
ALL = lines(whole(3), whole(1), whole(2))


@pytest.mark.parametrize("nothing", [None, "", 0, {}], ids=repr)
@pytest.mark.parametrize("missing", ["output_file_id", "error_file_id"])
def test_a_file_that_a_batch_does_not_have_is_never_asked_for(running: Any, missing: str, nothing: Any) -> None:
    has = "error_file_id" if missing == "output_file_id" else "output_file_id"
    with running({"status": "completed", missing: nothing, has: "file-2"}, {"file-2": ALL}) as job:
        assert job.outcomes() == GOOD
        assert [one.target for one in job.server.requests if "/content" in one.target] == ["/files/file-2/content"]


TWO = {"output_file_id": "file-2", "error_file_id": "file-3"}


@pytest.mark.parametrize(
    ("batch", "files", "outcomes"),
    [
        ({"status": "completed", **TWO}, [lines(whole(3), whole(1)), lines(refused(2))], "succeeded failed succeeded"),
        ({"status": "completed", **TWO}, [ALL, b""], "succeeded succeeded succeeded"),
        ({"status": "completed", **TWO}, [b"", b""], "missing missing missing"),
        ({"status": "completed"}, [], "missing missing missing"),
        (
            {"status": "completed", "output_file_id": None, "error_file_id": "file-2"},
            [lines(refused(2), refused(1, 500), refused(3, 429))],
            "failed failed failed",
        ),
        (
            {"status": "expired", "request_counts": {"total": 3, "completed": 1, "failed": 0}, **TWO},
            [lines(whole(2)), lines(unrun(1, "batch_expired"), unrun(3, "batch_expired"))],
            "expired succeeded expired",
        ),
        (
            {"status": "expired", "output_file_id": None, "error_file_id": "file-2"},
            [lines(*[unrun(n, "batch_expired") for n in (1, 2, 3)])],
            "expired expired expired",
        ),
        (
            {"status": "cancelled", **TWO},
            [lines(whole(2)), lines(unrun(1, "batch_cancelled"), refused(3))],
            "cancelled succeeded failed",
        ),
        ({"status": "cancelled", "output_file_id": "file-2"}, [lines(whole(2))], "missing succeeded missing"),
        ({"status": "cancelled"}, [], "missing missing missing"),
        ({"status": "failed", **TWO}, [lines(whole(1)), lines(refused(2))], "succeeded failed missing"),
    ],
    ids=[
        "mixed",
        "an error file without a byte, as at Azure",
        "both files without a byte",
        "completed with no file at all",
        "completed though every request failed",
        "expired with a part answered",
        "expired with nothing answered",
        "cancelled with a part answered",
        "cancelled with some lines and no others",
        "cancelled before anything ran",
        "failed, and yet with answers",
    ],
)
def test_both_files_are_landed_whatever_the_batch_is_called(
    running: Any, batch: dict[str, Any], files: list[bytes], outcomes: str
) -> None:
    with running(batch, dict(zip(("file-2", "file-3"), files, strict=False))) as job:
        assert job.outcomes() == outcomes.split()


@pytest.mark.parametrize(
    ("content", "outcomes"),
    [
        (lines(whole(3), whole(1)), "succeeded missing succeeded"),
        (lines(whole(1), whole(2), whole(3), whole(4)), "succeeded succeeded succeeded"),
        (lines(whole(1), whole(2), whole(3), whole(2)), "succeeded succeeded succeeded"),
        (lines(whole(1), whole(2), refused(2), whole(3)), "succeeded succeeded succeeded"),
        (lines(whole(1), b"\xff{not a line", whole(3)), "succeeded missing succeeded"),
        (lines(whole(1), {**whole(2), "custom_id": None}, whole(3)), "succeeded missing succeeded"),
        (lines(whole(1), whole(2), whole(3), end=b"\r\n"), "succeeded succeeded succeeded"),
        (b"\xef\xbb\xbf" + ALL, "succeeded succeeded succeeded"),
        (lines(whole(1), b"", b" ", whole(2), whole(3))[:-1], "succeeded succeeded succeeded"),
        (lines(whole(1), whole(2)) + lines(whole(3))[:-20], "succeeded succeeded missing"),
        (lines(whole(1), whole(2, usage=None), {**whole(3), "id": None}), "succeeded succeeded succeeded"),
        (lines(whole(1), refused(2, 0), refused(3, 504)), "succeeded failed failed"),
        (lines(*[{**whole(n), "id": "batch_req_123"} for n in (2, 3, 1)]), "succeeded succeeded succeeded"),
        (lines(whole(1), unrun(2, "request_timeout"), unrun(3, "server_error")), "succeeded expired failed"),
        (json.dumps([whole(1), whole(2)]).encode(), "missing missing missing"),
    ],
    ids=[
        "a line is missing",
        "a line that nobody asked for",
        "a line twice",
        "a row answered and refused",
        "a line that is not JSON",
        "a line without a custom_id",
        "CRLF",
        "a byte order mark",
        "empty lines, and no line end at the last",
        "the last line is cut off",
        "no usage, no id",
        "status 0 and a timeout",
        "another order, and one id on all lines",
        "never ran, and an error of the server",
        "an array in place of lines",
    ],
)
def test_every_row_of_a_result_file_has_the_outcome_of_its_own_line(
    running: Any, content: bytes, outcomes: str
) -> None:
    with running({"status": "completed", "output_file_id": "file-2"}, {"file-2": content}) as job:
        assert job.outcomes() == outcomes.split()


def test_answers_come_under_the_key_of_their_row_whatever_the_order(running: Any) -> None:
    with running({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL}) as job:
        assert job.landed() == {f"row-{n}": ("succeeded", f"answer {n}") for n in (1, 2, 3)}


def test_what_was_collected_lands_though_the_provider_has_nothing_of_it_any_more(running: Any) -> None:
    with running({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL}) as job:
        job.collect()
        job.provider.batch, job.provider.files = {"status": "completed", "output_file_id": None}, {}
        assert job.outcomes() == GOOD
        assert job.server.calls("GET /files/file-2/content") == 1


@pytest.mark.parametrize(
    "shown",
    [
        {"status": "finalizing", "request_counts": {"total": 3, "completed": 3, "failed": 0}},
        {"status": "finalizing", **TWO},
        {"status": "in_progress", **TWO},
        {"status": "cancelling", "output_file_id": "", "error_file_id": ""},
        {"status": "a word nobody knows", **TWO},
        {"status": "IN_QUEUE", "request_counts": None},
    ],
    ids=lambda shown: shown["status"],
)
def test_a_batch_that_has_not_ended_is_waited_for_even_if_it_has_files_already(
    running: Any, shown: dict[str, Any]
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    with running(shown, {"file-2": ALL}) as job:
        state, pause = job.collect()
        assert isinstance(pause, Wait)
        assert pause.batch_ids == ["batch_1"]
        assert state.settled_submissions() == []
        assert not [one for one in job.server.requests if "/content" in one.target]


NO = {"error": {"message": "no"}}


@pytest.mark.parametrize(
    "instead",
    [
        reply(NO, status=503),
        reply(NO, status=429, retry_after="7200"),
        reply(NO, status=409),
        reply(b"<html>Bad gateway</html>", content_type="text/html"),
        reply(b"<html>Bad gateway</html>"),
        reply({}),
        reply({"id": "batch_1", "status": None}),
        b"",
    ],
    ids=["503", "429 for two hours", "409", "a web page", "no JSON", "an empty object", "no status", "no answer"],
)
def test_a_batch_that_cannot_be_read_just_now_is_waited_for(running: Any, instead: bytes) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    with running({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL}) as job:
        job.provider.instead = instead
        state, pause = job.collect()
        assert isinstance(pause, Wait)
        assert pause.batch_ids == ["batch_1"]
        assert state.settled_submissions() == []

        job.provider.instead = None
        assert job.outcomes() == GOOD
        assert job.provider.created == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_batch_that_is_refused_to_be_shown_is_told_and_kept(running: Any, status: int) -> None:
    from airflow_provider_batch.exceptions import ProviderError

    with running({"status": "completed", "output_file_id": "file-2"}, {"file-2": ALL}) as job:
        job.provider.instead = reply(NO, status=status)
        with pytest.raises(ProviderError, match=f"HTTP {status}"):
            job.collect()

        job.provider.instead = None
        assert job.outcomes() == GOOD


@pytest.mark.parametrize(
    "errors",
    [
        {"object": "list", "data": [{"code": "invalid_json_line", "message": "not JSON", "param": None, "line": 2}]},
        [{"code": "invalid_json_line", "message": "not JSON", "line": 2}],
    ],
    ids=["OpenAI's list", "a bare list"],
)
def test_of_a_batch_that_failed_at_a_line_that_row_fails_and_the_others_are_sealed_again(
    running: Any, errors: Any
) -> None:
    with running({"status": "failed", "errors": errors}) as job:
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
def test_a_batch_that_failed_for_no_known_reason_fails_its_rows_and_is_not_asked_again(
    running: Any, errors: Any
) -> None:
    with running({"status": "failed", "errors": errors}) as job:
        assert job.outcomes() == ["failed"] * 3
        assert job.provider.created == 1


@pytest.mark.parametrize(
    "errors",
    [
        {"object": "list", "data": [{"code": "request_failed", "message": "1 of 3 failed", "line": 2}]},
        [{"code": "request_failed", "message": "1 of 3 failed", "line": 2}],
        "1 of 3 failed",
    ],
    ids=["a list", "a bare list", "text"],
)
def test_errors_of_a_completed_batch_do_not_stand_in_the_place_of_its_answers(running: Any, errors: Any) -> None:
    with running({"status": "completed", "errors": errors, "output_file_id": "file-2"}, {"file-2": ALL}) as job:
        assert job.outcomes() == GOOD


@pytest.mark.parametrize(
    "counts",
    [None, {"total": 3, "completed": 0, "failed": 3}, {"total": 9, "completed": 9, "failed": 0}, {"total": 0}, "3/3"],
    ids=repr,
)
def test_the_files_are_believed_and_not_the_counts(running: Any, counts: Any) -> None:
    batch = {"status": "completed", "request_counts": counts, "output_file_id": "file-2"}
    with running(batch, {"file-2": lines(whole(1), whole(2))}) as job:
        assert job.outcomes() == ["succeeded", "succeeded", "missing"]


def test_a_batch_whose_files_are_gone_is_not_settled_and_that_is_told(running: Any) -> None:
    from airflow_provider_batch.exceptions import ProviderError

    with running({"status": "completed", "output_file_id": "file-2"}) as job:
        with pytest.raises(ProviderError, match="deleted or has expired at the provider"):
            job.collect()
        assert worker_of(job.ledger).ledger.state().settled_submissions() == []


def test_a_web_page_in_place_of_the_answers_asks_no_row_again(running: Any) -> None:
    from airflow_provider_batch.exceptions import BrokenDownloadError

    batch = {"status": "completed", "output_file_id": "file-2"}
    with running(batch, {"file-2": b"<html>Bad gateway</html>"}) as job:
        with pytest.raises(BrokenDownloadError, match="sent a web page instead of the file"):
            job.collect()
        job.provider.files["file-2"] = ALL
        assert job.outcomes() == GOOD
        assert job.provider.created == 1
