"""Parsing of batch objects, as OpenAI and compatible servers send them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch

from airflow_provider_batch.core.provider.batch import BatchProblem, BatchView, Status, read_batch
from airflow_provider_batch.exceptions import ProviderError

#: example from OpenAI's API reference (https://platform.openai.com/docs/api-reference/batch/object)
OPENAI: dict[str, Any] = {
    "id": "batch_abc123",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-abc123",
    "completion_window": "24h",
    "status": "completed",
    "output_file_id": "file-cvaTdG",
    "error_file_id": "file-HOWS94",
    "created_at": 1711471533,
    "in_progress_at": 1711471538,
    "expires_at": 1711557933,
    "completed_at": 1711493163,
    "request_counts": {"total": 100, "completed": 95, "failed": 5},
    "metadata": {"nonce": "n1", "shard": "s0001"},
}


def batch(**changes: Any) -> dict[str, Any]:
    return {**OPENAI, **changes}


@pytest.mark.parametrize("answer", [OPENAI, Batch.construct(**OPENAI)], ids=["mapping", "SDK object"])
def test_a_batch_is_read_from_a_mapping_and_from_the_sdks_object(answer: dict[str, Any] | Batch) -> None:
    view = read_batch(answer)
    assert (view.id, view.status, view.raw_status) == ("batch_abc123", Status.COMPLETED, "completed")
    assert (view.input_file_id, view.output_file_id, view.error_file_id) == (
        "file-abc123",
        "file-cvaTdG",
        "file-HOWS94",
    )
    assert (view.total, view.completed, view.failed, view.created_at) == (100, 95, 5, 1711471533)
    assert view.metadata == {"nonce": "n1", "shard": "s0001"}
    assert view.problems == []
    assert view.has_known_status


@pytest.mark.parametrize(
    ("raw_status", "status", "is_final"),
    [
        ("validating", Status.RUNNING, False),
        ("in_progress", Status.RUNNING, False),
        ("finalizing", Status.RUNNING, False),
        ("cancelling", Status.CANCELLING, False),
        ("completed", Status.COMPLETED, True),
        ("failed", Status.FAILED, True),
        ("expired", Status.EXPIRED, True),
        ("cancelled", Status.CANCELLED, True),
        # Together, in capitals
        ("VALIDATING", Status.RUNNING, False),
        ("IN_PROGRESS", Status.RUNNING, False),
        ("COMPLETED", Status.COMPLETED, True),
        ("FAILED", Status.FAILED, True),
        ("EXPIRED", Status.EXPIRED, True),
        ("CANCELLED", Status.CANCELLED, True),
        # Mistral, SiliconFlow, Maritaca
        ("QUEUED", Status.RUNNING, False),
        ("RUNNING", Status.RUNNING, False),
        ("SUCCESS", Status.COMPLETED, True),
        ("TIMEOUT_EXCEEDED", Status.EXPIRED, True),
        ("CANCELLATION_REQUESTED", Status.CANCELLING, False),
        ("in_queue", Status.RUNNING, False),
        # Novita
        ("PROGRESS", Status.RUNNING, False),
        ("succeeded", Status.COMPLETED, True),
    ],
)
def test_every_status_of_a_known_server_is_mapped(raw_status: str, status: Status, is_final: bool) -> None:
    view = read_batch(batch(status=raw_status))
    assert (view.status, view.status.ended, view.raw_status, view.has_known_status) == (
        status,
        is_final,
        raw_status,
        True,
    )


@pytest.mark.parametrize("raw_status", ["JOB_STATE_PENDING", "paused", "", "completed?"])
def test_an_unknown_status_counts_as_running_and_is_marked_as_unknown(raw_status: str) -> None:
    view = read_batch(batch(status=raw_status))
    assert (view.status, view.raw_status, view.has_known_status) == (Status.RUNNING, raw_status, False)


def test_fields_that_differ_from_openais_cause_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    answer = Batch.construct(**batch(created_at="2024-03-26T16:45:33Z", errors=[{"code": "c", "message": "m"}]))
    assert read_batch(answer).problems == [BatchProblem("c", "m")]
    assert not recwarn


def test_a_batch_wrapped_in_a_job_object_is_unwrapped() -> None:
    envelope: dict[str, Any] = {"job": batch(status="IN_PROGRESS"), "warning": "…"}
    assert read_batch(envelope).id == "batch_abc123"
    assert read_batch(Batch.construct(**envelope)).id == "batch_abc123"


@pytest.mark.parametrize(
    ("errors", "problems"),
    [
        (None, []),
        ("", []),
        ([], []),
        ({"object": "list", "data": []}, []),
        ({"object": "list", "data": None}, []),
        (
            {"object": "list", "data": [{"code": "invalid_url", "message": "no", "param": "url", "line": 3}]},
            [BatchProblem("invalid_url", "no", 3)],
        ),
        ([{"code": "invalid_method", "message": "GET", "line": 1}], [BatchProblem("invalid_method", "GET", 1)]),
        ({"code": "rate_limit_exceeded", "message": "slow down"}, [BatchProblem("rate_limit_exceeded", "slow down")]),
        ("quota is used up", [BatchProblem(message="quota is used up")]),
        (["first", {"message": "second"}], [BatchProblem(message="first"), BatchProblem(message="second")]),
        ([{"code": None, "message": None, "line": None}], [BatchProblem()]),
        ([{"code": 17, "message": "m", "line": "3"}], [BatchProblem(message="m")]),
        ([{"message": "m", "line": True}], [BatchProblem(message="m")]),
        (17, []),
    ],
)
def test_errors_may_be_openais_list_object_a_plain_list_a_single_object_or_text(
    errors: Any, problems: list[BatchProblem]
) -> None:
    assert read_batch(batch(status="failed", errors=errors)).problems == problems


def test_the_reason_of_a_failure_is_read_from_togethers_error_field() -> None:
    view = read_batch({"id": "b", "status": "FAILED", "error": "bad file"})
    assert view.problems == [BatchProblem(message="bad file")]


@pytest.mark.parametrize(
    "counts",
    [None, {}, [], "3/4", {"total": None, "completed": None, "failed": None}, {"total": "9", "completed": -1}],
)
def test_counts_that_are_missing_or_null_are_zero(counts: dict[str, Any] | list[Any] | str | None) -> None:
    view = read_batch(batch(request_counts=counts))
    assert (view.total, view.completed, view.failed) == (0, 0, 0)


@pytest.mark.parametrize("file_id", ["", None, 0, []])
def test_an_empty_file_id_counts_as_missing(file_id: str | int | list[Any] | None) -> None:
    view = read_batch(batch(input_file_id=file_id, output_file_id=file_id, error_file_id=file_id))
    assert (view.input_file_id, view.output_file_id, view.error_file_id) == ("", "", "")


@pytest.mark.parametrize(
    ("created_at", "seconds"),
    [
        (1711471533, 1711471533),
        (1711471533000, 1711471533),
        ("1711471533", 1711471533),
        ("1711471533000", 1711471533),
        ("2024-03-26T16:45:33Z", 1711471533),
        ("2024-03-26T18:45:33.2491382+02:00", 1711471533),
        ("2024-03-26T16:45:33", 1711471533),
        (None, 0),
        (-1, 0),
        (True, 0),
        ("", 0),
        ("soon", 0),
        ("-1", 0),
        ("9" * 5000, 0),
        ("1900-01-01T00:00:00Z", 0),
    ],
)
def test_creation_times_in_any_known_format_become_seconds_and_unknown_ones_zero(
    created_at: int | str | None, seconds: int
) -> None:
    assert read_batch(batch(created_at=created_at)).created_at == seconds


@pytest.mark.parametrize("metadata", [None, [], "x"])
def test_missing_metadata_is_empty(metadata: list[Any] | str | None) -> None:
    assert read_batch(batch(metadata=metadata)).metadata == {}


def test_an_id_and_a_status_are_enough() -> None:
    view = read_batch({"id": "b1", "status": "validating"})
    assert (view.id, view.status, view.output_file_id, view.total) == ("b1", Status.RUNNING, "", 0)


#: a list in a list in a list, and so on
NESTED: list[Any] = reduce(lambda inner, _: [inner], range(100_000), [])


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Bad gateway</html>",
        None,
        [],
        [OPENAI],
        17,
        {},
        {"id": "b1"},
        {"status": "completed"},
        {"id": "", "status": "completed"},
        {"id": None, "status": "completed"},
        {"id": "b1", "status": None},
        {"id": "b1", "status": 3},
        {"job": None},
        {"job": {}},
        {"error": {"message": "no"}},
        Batch.construct(),
        {**OPENAI, "metadata": {"a": NESTED}},
        Batch.construct(**{**OPENAI, "metadata": {"a": NESTED}}),
    ],
)
def test_an_answer_that_is_not_a_batch_is_an_error(answer: Any) -> None:
    with pytest.raises(ProviderError, match="where a batch was expected"):
        read_batch(answer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*OPENAI, "job", "error"], json_values)))
def test_any_json_is_read_as_a_batch_or_raises_a_provider_error(answer: dict[str, Any]) -> None:
    try:
        view = read_batch(answer)
    except ProviderError:
        return
    assert view.id
    assert view.status in Status


def view(status: str, answered: int = 0, total: int = 10) -> BatchView:
    return read_batch(
        {"id": "b", "status": status, "request_counts": {"total": total, "completed": answered, "failed": 0}}
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (view("validating"), view("in_progress")),
        (view("queued", 0, 0), view("RUNNING")),
        (view("in_progress", 10), view("finalizing", 10)),
        (view("in_progress", 4), view("in_progress", 5)),
        (view("in_progress", 4), view("cancelling", 4)),
        (view("cancelling", 9), view("cancelled", 4)),
        (view("in_progress", 10), view("failed", 0, 0)),
    ],
)
def test_a_view_is_behind_one_with_a_later_status_or_more_answers(earlier: BatchView, later: BatchView) -> None:
    assert earlier.is_behind(later)
    assert not later.is_behind(earlier)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (view("completed"), view("expired")),
        (view("in_progress", 4), view("IN_PROGRESS", 4)),
        (view("validating"), view("queued")),
        (view("in_progress", 0, 0), view("in_progress")),
    ],
)
def test_two_views_that_show_the_same_progress_are_not_behind_each_other(left: BatchView, right: BatchView) -> None:
    assert not left.is_behind(right)
    assert not right.is_behind(left)


def test_a_view_without_counts_is_not_behind_one_with_counts() -> None:
    assert not view("in_progress", 0, 0).is_behind(view("in_progress", 5))


def test_two_different_statuses_of_unknown_order_are_behind_each_other() -> None:
    assert view("waiting for a slot").is_behind(view("in_progress"))
    assert view("in_progress").is_behind(view("waiting for a slot"))
    assert not view("waiting for a slot").is_behind(view("waiting for a slot"))
