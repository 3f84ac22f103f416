"""Checks a file when it is uploaded, in one request or in parts. Like OpenAI, it checks little at this point."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, BinaryIO

import msgspec

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter
from airflow_provider_batch.local.http.server import parse_expiration
from airflow_provider_batch.local.settings import FILE_LIFETIME, MAX_INPUT_BYTES

_PURPOSES = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
#: Maximum bytes of a first line that is checked. A longer line is left to batch validation.
_FIRST_LINE = 16_000_000


def _invalid_batch_file() -> ApiError:
    return ApiError(400, "Invalid file format for Batch API. Must be .jsonl")


def check_purpose(purpose: object) -> str:
    """Return the purpose, or respond with 400 if it is missing or not supported."""
    if purpose is None:
        raise missing_parameter("purpose")
    if not isinstance(purpose, str) or purpose not in _PURPOSES:
        raise invalid_value("purpose", purpose, _PURPOSES)
    return purpose


def parse_file_lifetime(policy: dict[str, Any] | None, purpose: str) -> int | None:
    """Return the seconds from a file's creation until it expires, or None if it never expires.

    Responds with 400 to an invalid `expires_after`.
    """
    if policy is None:
        return FILE_LIFETIME if purpose == "batch" else None
    return parse_expiration(policy.get("anchor"), policy.get("seconds"), "expires_after")


def check_name_and_size(purpose: str, filename: str, size: int, maximum: int) -> None:
    """Respond with 400 to a file of more than `maximum` bytes, or to an unsuitable batch input file.

    A batch input file must not be empty, must not exceed 200 MB, and must have the extension `.jsonl` or none. OpenAI
    accepts files without an extension: its SDK names a file `upload` if it has no name (recorded in the tests of
    DaiseyCode/lmwrapper, June 2024; bespokelabsai/curator uploads that way).
    """
    if purpose == "batch":
        maximum = MAX_INPUT_BYTES
        if PurePath(filename).suffix not in (".jsonl", "") or not size:
            raise _invalid_batch_file()
    if size > maximum:
        raise ApiError(400, "File is too large.")


def check_first_line(content: BinaryIO) -> None:
    """Respond with 400 unless the first line is a JSON object. Batch validation checks all other lines."""
    line = content.readline(_FIRST_LINE)
    content.seek(0)
    # as with OpenAI, a byte order mark passes here, and the batch's validation later rejects the first line
    text = line.removeprefix(b"\xef\xbb\xbf").strip()
    if text and len(line) < _FIRST_LINE:
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid_batch_file() from error
