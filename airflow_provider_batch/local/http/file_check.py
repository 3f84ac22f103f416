"""What is checked of a file when it is uploaded, whole or in parts: little, as OpenAI does."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter
from airflow_provider_batch.local.http.server import expires_after
from airflow_provider_batch.local.settings import FILE_LIFETIME, MAX_INPUT_BYTES

_PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
#: a first line longer than this is left to the batch's own validation
_FIRST_LINE = 16_000_000


def _no_batch_input() -> ApiError:
    return ApiError(400, "Invalid file format for Batch API. Must be .jsonl")


def known_purpose(purpose: object) -> str:
    """The purpose, or 400."""
    if purpose is None:
        raise missing_parameter("purpose")
    if not isinstance(purpose, str) or purpose not in _PURPOSES:
        raise invalid_value("purpose", purpose, _PURPOSES)
    return purpose


def lifetime_of(policy: dict[str, Any] | None, purpose: str) -> int | None:
    """Seconds from its creation until a file expires, None for never; 400 for a wrong `expires_after`."""
    if policy is None:
        return FILE_LIFETIME if purpose == "batch" else None
    return expires_after(policy.get("anchor"), policy.get("seconds"), "expires_after")


def check_name_and_size(purpose: str, filename: str, size: int, most: int) -> None:
    """400 for a file beyond `most` bytes; one for batches must hold something, has 200 MB at most and the extension.

    A name without any extension passes: OpenAI takes a file that its SDK calls `upload` for lack of a name (recorded
    in the tests of DaiseyCode/lmwrapper, June 2024; bespokelabsai/curator uploads that way).
    """
    if purpose == "batch":
        most = MAX_INPUT_BYTES
        if PurePath(filename).suffix not in (".jsonl", "") or not size:
            raise _no_batch_input()
    if size > most:
        raise ApiError(400, "File is too large.")


def check_first_line(content: BinaryIO) -> None:
    """400 unless a file for batches begins with a JSON object. Everything else is found when a batch is validated."""
    first = content.readline(_FIRST_LINE)
    content.seek(0)
    # A byte order mark passes here and fails the batch's first line later, as OpenAI has it.
    text = first.removeprefix(b"\xef\xbb\xbf").strip()
    if text and len(first) < _FIRST_LINE:
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _no_batch_input() from error
