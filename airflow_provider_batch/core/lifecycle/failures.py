"""Classifies the failures that a provider reports: of the queue, of the account, of the input file, or of lines."""

from __future__ import annotations

from airflow_provider_batch.core.ledger.records import Failure
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

_CAPACITY_WORDS = ("enqueued token", "rate limit", "too many requests")

_FILE_WORDS = ("cannot find file", "no such file", "file not found")


def classify_batch_failure(batch: BatchView) -> tuple[Failure, str, dict[int, str]]:
    """Return the class, the message, and the messages by line (from 0) of a batch that ended as `failed`.

    Known codes and phrases identify the failures of the queue, the account and the file. All other failures, including
    those with a code that nobody has seen before, are about lines. A message that names a line is about that row, even
    if it contains words such as "file not found", which may refer to an image.
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
    lines = {p.line - 1: f"{p.code}: {p.message}" for p in batch.problems if p.line is not None and p.line > 0}
    return Failure.LINES, message, lines


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
