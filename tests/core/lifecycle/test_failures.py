"""Every known error code of a failed batch, with the messages that were observed: what happens to the rows."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batch.core.ledger.records import Failure, Settled
from airflow_provider_batch.core.ledger.state import ShardState, Submission
from airflow_provider_batch.core.lifecycle.failures import classify_batch_failure
from airflow_provider_batch.core.provider.batch import read_batch
from tests.core.building import NOW, plain_shard

#: code, message, 1-based line
OF_A_LINE = [
    ("invalid_json_line", "This line is not parseable as valid JSON.", 3),
    ("missing_required_parameter", "Missing required parameter: 'custom_id'.", 1),
    ("invalid_url", "The URL provided for this request does not match the batch endpoint.", 2),
    ("url_mismatch", "The URL of the row does not match the endpoint of the batch.", 2),
    ("streaming_unsupported", "Chat Completions: Streaming is not supported in the Batch API.", 4),
    ("model_not_found", "The provided model 'gpt-x' is not supported by the Batch API.", 1),
    ("invalid_request", "Model parameter is required.", 1),
    ("invalid_request", "Messages parameter is required.", 5),
    ("duplicate_custom_id", "The custom_id of this line was used before.", 2),
    ("model_mismatch", "The model differs from the rest of the file.", 2),
    ("mismatched_model", "The model differs from the rest of the file.", 2),
    ("invalid_method", "Invalid value: 'GET'. Supported values are: 'POST'", 1),
    ("a code that nobody has seen yet", "hm", 1),
]
OF_THE_FILE = [
    ("invalid_request", "Model parameter is required."),
    ("empty_file", "The input file is empty. Please ensure that the batch contains at least one request."),
    ("too_many_tasks", "The input file has more than 100,000 requests."),
    ("input_modified", "The blob was changed."),
    ("input_no_permissions", "The blob cannot be read."),
]
OF_UNKNOWN_CLASS: list[list[dict[str, Any]]] = [
    [],
    [{"code": "a code that nobody has seen yet", "message": "hm", "line": None}],
    [{"code": None, "message": "Something went wrong.", "line": None}],
    [{"code": "odd", "message": "No such line.", "line": 0}],
    [{"code": "odd", "message": "No such line.", "line": 101}],
    [{"code": "internal_error", "message": "Try again."}, {"code": "odd", "message": "hm"}],
]
OF_THE_QUEUE = [
    "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued tokens. Please try "
    "again once some in_progress batches have been completed.",
    "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'd'",
]
OF_THE_ACCOUNT = [
    "billing_hard_limit_reached",
    "insufficient_quota",
    "billing_not_active",
    "project_spend_limit_exceeded",
    "organization_spend_limit_exceeded",
]


def classify(*errors: dict[str, Any], earlier: Failure | None = None, **batch: Any) -> Any:
    """Return the classification of a batch of 100 requests that failed with these errors, as OpenAI reports it.

    :param earlier: how an earlier batch of the same shard failed.
    :param batch: further fields of the batch.
    """
    batch |= {"id": "batch_2", "status": "failed", "errors": {"object": "list", "data": list(errors)}}
    shard = ShardState(plain_shard("s0001", requests=100))
    if earlier is not None:
        settled = Settled("s0001", 1, "batch_1", "failed", NOW, failure=earlier, message="hm")
        shard.submissions.append(Submission(1, "file-1", batch_id="batch_1", settled=settled))
    return classify_batch_failure(read_batch(batch), shard)


def error(code: str | None, message: str | None, line: int | None = None, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


@pytest.mark.parametrize(("code", "message", "line"), OF_A_LINE)
def test_an_error_of_a_line_fails_that_row(code: str, message: str, line: int) -> None:
    assert classify(error(code, message, line, "body"))[::2] == (Failure.LINES, {line - 1: f"{code}: {message}"})


def test_every_invalid_line_is_reported() -> None:
    _, message, lines = classify(*(error(code, text, n) for n, (code, text, _) in enumerate(OF_A_LINE, start=1)))
    assert sorted(lines) == list(range(len(OF_A_LINE)))
    assert message.startswith("invalid_json_line: This line is not parseable")


@pytest.mark.parametrize(("code", "message"), OF_THE_FILE)
def test_an_error_of_the_whole_file_fails_its_rows_with_the_providers_message(code: str, message: str) -> None:
    assert classify(error(code, message)) == (Failure.LINES, f"{code}: {message}", {})


@pytest.mark.parametrize("errors", OF_UNKNOWN_CLASS)
def test_a_batch_that_failed_for_an_unknown_reason_is_submitted_once_more(errors: list[dict[str, Any]]) -> None:
    assert classify(*errors)[::2] == (Failure.UNKNOWN, {})
    assert classify(*errors, earlier=Failure.CAPACITY)[0] is Failure.UNKNOWN
    assert classify(*errors, earlier=Failure.UNKNOWN)[::2] == (Failure.LINES, {})


@pytest.mark.parametrize("errors", OF_UNKNOWN_CLASS)
@pytest.mark.parametrize(
    "bill", [{"request_counts": {"total": 100, "completed": 1, "failed": 99}}, {"usage": {"total_tokens": 17}}], ids=str
)
def test_a_batch_that_was_billed_is_not_submitted_again(errors: list[dict[str, Any]], bill: dict[str, Any]) -> None:
    assert classify(*errors, **bill)[0] is Failure.LINES


@pytest.mark.parametrize("message", OF_THE_QUEUE)
@pytest.mark.parametrize("code", ["token_limit_exceeded", None])
def test_a_full_queue_holds_the_shard_back(code: str | None, message: str) -> None:
    assert classify(error(code, message))[::2] == (Failure.CAPACITY, {})


@pytest.mark.parametrize("code", OF_THE_ACCOUNT)
def test_an_account_failure_waits_for_a_person(code: str) -> None:
    assert classify(error(code, "You exceeded your current quota."))[::2] == (Failure.ACCOUNT, {})


@pytest.mark.parametrize("owner", ["organization org-x", "project proj-x"])
def test_a_file_that_is_not_found_is_uploaded_again(owner: str) -> None:
    message = f"Cannot find file file-x, or {owner} does not have access to it."
    assert classify(error("invalid_request", message, param="file_id"))[::2] == (Failure.FILE, {})
