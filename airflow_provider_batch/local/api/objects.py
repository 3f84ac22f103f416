"""File and batch objects, as defined in the public OpenAPI description of OpenAI's API."""

from __future__ import annotations

import secrets
from enum import StrEnum
from typing import Literal

import msgspec

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Status(StrEnum):
    """Status of a batch. `failed` means that validation failed and no request ran."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    #: all requests are answered, but the result files are not written yet
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


#: final statuses
FINAL_STATUSES = frozenset({Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED})


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """`OpenAIFile`. Times are integer Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    #: None keeps the file until it is deleted
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a batch's `errors.data`. `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct, frozen=True, kw_only=True):
    """The `errors` field of a batch that failed validation."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a batch's requests. Requests that never ran count as neither completed nor failed."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Breakdown of `BatchUsage.input_tokens`."""

    cached_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Breakdown of `BatchUsage.output_tokens`."""

    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Token totals over all answers of a batch. All 0 until the batch has ended."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """`Batch`. Times are integer Unix seconds. The id of a result file is None if the file would be empty."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: Status = Status.VALIDATING
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage = BatchUsage()
    metadata: dict[str, str] | None = None

    @property
    def ended_at(self) -> int | None:
        """Unix time at which the batch reached its final status, or None if it has not ended."""
        stamps = (self.completed_at, self.failed_at, self.expired_at, self.cancelled_at)
        return next((stamp for stamp in stamps if stamp is not None), None)


def new_file_id() -> str:
    """Return `file-` and 22 random base62 characters, like OpenAI's ids."""
    return "file-" + "".join(secrets.choice(_BASE62) for _ in range(22))


def new_batch_id() -> str:
    """Return `batch_` and 32 random hexadecimal digits, like OpenAI's ids."""
    return f"batch_{secrets.token_hex(16)}"
