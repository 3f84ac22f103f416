"""What kind of failure a provider's answer is: of the queue, of the account, of the file, or of lines."""

from __future__ import annotations

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.http_status import is_transient

#: words in an error's code that tell its class; the message decides where the code does not
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
    """Class, message, and messages by line (from 0) of a batch that ended `failed`.

    Codes are an open set: an unknown one without a line fails the rows. Messages that name no line decide where codes
    are missing; those that do may speak of the row (of an image's file, say), and are of the row.
    """
    codes = {problem.code for problem in batch.problems}
    message = (
        "; ".join(dict.fromkeys(f"{p.code}: {p.message}".strip(": ") for p in batch.problems[:5]))
        or "the provider gave no reason"
    )
    said = " ".join(problem.message.lower() for problem in batch.problems if problem.line is None)
    if codes & _CAPACITY_CODES or any(word in said for word in _CAPACITY_WORDS):
        return Failure.CAPACITY, message, {}
    if codes & _ACCOUNT_CODES:
        return Failure.ACCOUNT, message, {}
    if any(word in said for word in _FILE_WORDS):
        return Failure.FILE, message, {}
    lines = {p.line - 1: f"{p.code}: {p.message}" for p in batch.problems if p.line is not None and p.line > 0}
    return Failure.LINES, message, lines


def is_account_failure(status: int, code: str | None) -> bool:
    """Whether an HTTP answer speaks of the account or the key, and not of what was asked."""
    return code in _ACCOUNT_CODES or status in (401, 402, 403)


def classify_refusal(status: int, code: str | None, message: str) -> Failure | None:
    """Class of an HTTP answer that says no batch was created; None if it does not say so for sure.

    :param status: the HTTP status. 408, 409 and 5xx leave it open whether a batch exists.
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
