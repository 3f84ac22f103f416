"""The lines of result files in OpenAI's format, without their line ends."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from airflow_provider_batch.local.answers.responder import Reply
from airflow_provider_batch.local.api.objects import Status

#: code and message in the error line of a request that never ran (OpenAI, Batch guide)
NEVER_RAN = {
    Status.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Status.CANCELLED: (
        "batch_cancelled",
        "This request could not be executed because the batch was cancelled before this request executed.",
    ),
}


def _line(custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    return msgspec.json.encode(
        {
            "id": f"batch_req_{secrets.token_hex(16)}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
    )


def reply_line(custom_id: str, reply: Reply) -> bytes:
    """Return the result line of a request that was answered, without its line end."""
    if reply.error is not None:
        return _line(custom_id, None, reply.error)
    # The lines that OpenAI writes for status 0 are not documented. Nulls are the hardest case for a reader.
    request_id = f"req_{secrets.token_hex(16)}" if reply.status else None
    return _line(custom_id, {"status_code": reply.status, "request_id": request_id, "body": reply.body or None}, None)


def never_ran_line(custom_id: str, end: Status) -> bytes:
    """Return the error line of a request that had not run when its batch ended, without its line end."""
    code, message = NEVER_RAN[end]
    return _line(custom_id, None, {"code": code, "message": message})
