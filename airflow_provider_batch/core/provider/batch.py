"""Defensive parsing of the provider's batch object.

Servers that implement OpenAI's batch API differ in the details. Ids may be missing or empty, statuses unknown or in
capitals, errors a string or a plain list, counts null, and times in other units. The SDK validates none of this: if a
server answers a poll with an HTML page, the SDK returns a `str`. `read_batch` turns any answer into a `BatchView`, or
raises an error if the answer is not a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import ProviderError


class Status(StrEnum):
    """What a batch's status means for a job. `BatchView.raw_status` keeps the provider's own word."""

    #: not ended yet; includes every status that we do not know
    RUNNING = "running"
    #: still running, but the provider has accepted a request to cancel it
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    #: validation failed, and the provider executed none of its requests
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the batch has reached a final status."""
        return self not in (Status.RUNNING, Status.CANCELLING)


#: OpenAI's statuses and the equivalents of compatible servers (Together and Novita in capitals, Mistral, …)
_STATUSES = {
    "validating": Status.RUNNING,
    "in_progress": Status.RUNNING,
    "finalizing": Status.RUNNING,
    "queued": Status.RUNNING,
    "in_queue": Status.RUNNING,
    "running": Status.RUNNING,
    "progress": Status.RUNNING,
    "cancelling": Status.CANCELLING,
    "cancellation_requested": Status.CANCELLING,
    "completed": Status.COMPLETED,
    "succeeded": Status.COMPLETED,
    "success": Status.COMPLETED,
    "failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "timeout_exceeded": Status.EXPIRED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}

#: order of the statuses of a running batch; statuses that are missing here have no place in the order
_STAGES = {
    "validating": 0,
    "queued": 0,
    "in_queue": 0,
    "in_progress": 1,
    "running": 1,
    "progress": 1,
    "finalizing": 2,
    "cancelling": 3,
    "cancellation_requested": 3,
}


class BatchProblem(msgspec.Struct, frozen=True):
    """One entry of a batch's `errors`: why it failed validation."""

    code: str = ""
    message: str = ""
    #: 1-based line of the input file, if one line is to blame
    line: int | None = None


class BatchView(msgspec.Struct, frozen=True):
    """What a job needs to know about a batch."""

    id: str
    status: Status
    #: status as the provider spells it
    raw_status: str
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    #: tokens that the provider says the requests used, 0 if it does not say
    used_tokens: int = 0
    #: Unix seconds, 0 if unknown
    created_at: int = 0
    problems: list[BatchProblem] = []
    metadata: dict[str, str] = {}

    @property
    def has_known_status(self) -> bool:
        """Whether some known server uses this status. An unknown status counts as running."""
        return self.raw_status.lower() in _STATUSES

    @property
    def answered(self) -> int:
        """Number of requests that have an answer or an error."""
        return self.completed + self.failed

    def is_behind(self, other: BatchView) -> bool:
        """Return whether this view shows an earlier state of the batch than the other view.

        A view without counts is judged by its status alone. Two different statuses count as out of date if the order
        of one of them is unknown.
        """
        if self.status.ended or other.status.ended:
            return not self.status.ended
        stage, other_stage = (_STAGES.get(view.raw_status.lower()) for view in (self, other))
        if stage is not None and other_stage is not None:
            if stage != other_stage:
                return stage < other_stage
        elif self.raw_status.lower() != other.raw_status.lower():
            return True
        return bool(self.total) and self.answered < other.answered


def read_batch(answer: Any) -> BatchView:
    """Return a batch from a server's answer: a mapping, or an SDK object with a `to_dict` method.

    :raises ProviderError: if the answer is not a batch, for example text, a list, or an object without id or status, or
        if it is nested too deeply to be read.
    """
    try:
        return _read_batch(answer)
    except RecursionError as error:
        raise ProviderError(
            "The server answered with an object that is nested too deeply where a batch was expected."
        ) from error


def _read_batch(answer: Any) -> BatchView:
    # Pydantic would log a warning at every poll for each field that differs from OpenAI's
    data = answer.to_dict(warnings=False) if hasattr(answer, "to_dict") else answer
    if isinstance(data, Mapping) and isinstance(data.get("job"), Mapping):
        data = data["job"]
    if not isinstance(data, Mapping):
        raise ProviderError(f"The server answered with {type(data).__name__} where a batch was expected.")
    batch_id, raw_status = data.get("id"), data.get("status")
    if not isinstance(batch_id, str) or not batch_id or not isinstance(raw_status, str):
        raise ProviderError("The server answered with an object that has no id or status where a batch was expected.")
    counts = data.get("request_counts")
    counts = counts if isinstance(counts, Mapping) else {}
    usage = data.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    metadata = data.get("metadata")
    return BatchView(
        id=batch_id,
        status=_STATUSES.get(raw_status.lower(), Status.RUNNING),
        raw_status=raw_status,
        input_file_id=_text(data.get("input_file_id")),
        output_file_id=_text(data.get("output_file_id")),
        error_file_id=_text(data.get("error_file_id")),
        total=_number(counts.get("total")),
        completed=_number(counts.get("completed")),
        failed=_number(counts.get("failed")),
        used_tokens=_number(usage.get("total_tokens")),
        created_at=_seconds(data.get("created_at")),
        problems=_problems(data.get("errors") or data.get("error")),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else {},
    )


def _problems(errors: Any) -> list[BatchProblem]:
    if isinstance(errors, Mapping):
        errors = errors.get("data") if "data" in errors else [errors]
    if isinstance(errors, str):
        errors = [{"message": errors}]
    if not isinstance(errors, list):
        return []
    problems = []
    for error in errors:
        entry = error if isinstance(error, Mapping) else {"message": str(error)}
        line = entry.get("line")
        problems.append(
            BatchProblem(
                code=_text(entry.get("code")),
                message=_text(entry.get("message")),
                line=line if isinstance(line, int) and not isinstance(line, bool) else None,
            )
        )
    return problems


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _seconds(value: Any) -> int:
    timestamp = _number(_parse_timestamp(value) if isinstance(value, str) else value)
    # a number this large is in milliseconds: as seconds it would lie beyond the year 5000
    return timestamp // 1000 if timestamp > 100_000_000_000 else timestamp


def _parse_timestamp(text: str) -> int:
    """Return digits, or an ISO 8601 time (UTC if it has no offset), as a number; 0 if the text is neither."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    try:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0
