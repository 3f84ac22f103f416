"""Classifies the failures that a provider reports: of the queue, of the account, of the input file, or of lines."""

from __future__ import annotations

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import ShardState
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.http_status import is_transient

#: error codes that identify a class of failure; phrases in the messages identify it too
_CAPACITY_CODES = frozenset(
    {"token_limit_exceeded", "rate_limit_exceeded", "batch_limit_exceeded", "too_many_requests"}
)

_ACCOUNT_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "insufficient_quota",
        "billing_not_active",
        "project_spend_limit_exceeded",
        "organization_spend_limit_exceeded",
        "invalid_api_key",
        "account_deactivated",
    }
)

#: Error codes of input files that would fail again. `docs/reference/provider-facts.md` says where they were seen.
_PERMANENT_CODES = frozenset(
    {
        "duplicate_custom_id",
        "empty_file",
        "input_modified",
        "input_no_permissions",
        "invalid_json_line",
        "invalid_method",
        "invalid_request",
        "invalid_url",
        "mismatched_model",
        "missing_required_parameter",
        "model_mismatch",
        "model_not_found",
        "streaming_unsupported",
        "too_many_tasks",
        "url_mismatch",
    }
)

_CAPACITY_WORDS = ("enqueued token", "rate limit", "too many requests")

_FILE_WORDS = ("cannot find file", "no such file", "file not found")


def classify_batch_failure(batch: BatchView, shard: ShardState) -> tuple[Failure, str, dict[int, str]]:
    """Return the class, the message, and the messages by line (from 0) of a batch of a shard that ended as `failed`.

    Known codes and phrases identify the failures of the queue, the account and the file. A message that names a line is
    about that row, even if it contains words such as "file not found", which may refer to an image.

    What remains has no code, or one that nobody has seen before, and may be a breakdown at the provider. If the batch
    answered nothing, the shard is submitted once more. If that fails, too, all its rows fail with the message.
    """
    codes = {problem.code for problem in batch.problems}
    message = (
        "; ".join(dict.fromkeys(f"{p.code}: {p.message}".strip(": ") for p in batch.problems[:5]))
        or "the provider gave no reason"
    )
    messages = " ".join(problem.message.lower() for problem in batch.problems if problem.line is None)
    if codes & _CAPACITY_CODES or any(word in messages for word in _CAPACITY_WORDS):
        return Failure.CAPACITY, message, {}
    if codes & _ACCOUNT_CODES:
        return Failure.ACCOUNT, message, {}
    if any(word in messages for word in _FILE_WORDS):
        return Failure.FILE, message, {}
    lines = {
        problem.line - 1: f"{problem.code}: {problem.message}"
        for problem in batch.problems
        if problem.line is not None and 0 < problem.line <= shard.requests
    }
    # some servers send a text instead of codes
    is_permanent = bool(codes & _PERMANENT_CODES) or any(code in messages for code in _PERMANENT_CODES)
    is_billed = bool(batch.completed or batch.used_tokens)
    if lines or is_permanent or is_billed or _was_submitted_again(shard):
        return Failure.LINES, message, lines
    return Failure.UNKNOWN, message, {}


def _was_submitted_again(shard: ShardState) -> bool:
    """Return whether a batch of this shard has failed for an unknown reason before."""
    rejections = (submission.rejection for submission in shard.submissions)
    return any(rejection is not None and rejection.failure is Failure.UNKNOWN for rejection in rejections)


def is_account_failure(status: int, code: str | None) -> bool:
    """Return whether an HTTP response is about the account or the key, and not about the request."""
    return code in _ACCOUNT_CODES or status in (401, 402, 403)


def classify_refusal(status: int, code: str | None, message: str) -> Failure | None:
    """Return the class of a failure if the HTTP response proves that no batch was created, or None if one may exist.

    :param status: the HTTP status. With 408, 409 and 5xx, a batch may exist.
    """
    if is_account_failure(status, code):
        return Failure.ACCOUNT
    if status == 429:
        return Failure.CAPACITY
    if status in (400, 404) and any(word in message.lower() for word in _FILE_WORDS):
        return Failure.FILE
    if 400 <= status < 500 and not is_transient(status):
        return Failure.ACCOUNT
    return None
