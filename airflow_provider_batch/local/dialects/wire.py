"""Switches that rewrite the answers of the file and batch routes: each function changes one JSON object in place.

They run on finished answers, so the rest of the server knows only OpenAI's format. A switch is named after its
function: `empty_ids` is `--dialect empty-ids`. Switches run in the order of the tables at the end of this file, not in
the order of the command line. Each of them tolerates values that earlier switches have already changed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_batch.local.dialects.windows import hours_of

#: the JSON object of an answer
Wire = dict[str, Any]
Rewrite = Callable[[Wire], None]

_STAMPS = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_FILE_IDS = ("id", "input_file_id", "output_file_id", "error_file_id", "first_id", "last_id")
#: 1 January 2000 at midnight in UTC+8, in milliseconds
_UNSET_MILLISECONDS = 946_656_000_000


# ids


def empty_ids(batch: Wire) -> None:
    """Use `""` for missing file ids.

    Azure does so until the batch has ended. A client also saw it where OpenAI has no error file
    (github.com/tobert/kaibo pull 93).
    """
    for name in ("output_file_id", "error_file_id"):
        batch[name] = batch.get(name) or ""


def underscore_ids(wire: Wire) -> None:
    """Begin file ids with `file_` (Groq)."""
    for name in _FILE_IDS:
        value = wire.get(name)
        if isinstance(value, str) and value.startswith("file-"):
            wire[name] = f"file_{value.removeprefix('file-')}"


# times


def never_expires(batch: Wire) -> None:
    """Announce `expires_at`, although batches never expire (Azure: "we don't expire the jobs that take longer")."""
    batch["expires_at"] = batch["created_at"] + (hours_of(batch["completion_window"]) or 24) * 3600


def late_expires_at(batch: Wire) -> None:
    """Leave `expires_at` null until the batch runs (DashScope)."""
    if batch["status"] == "validating":
        batch["expires_at"] = None


def no_finalizing_at(batch: Wire) -> None:
    """Leave `finalizing_at` null (Groq)."""
    batch["finalizing_at"] = None


def failed_is_completed_at(batch: Wire) -> None:
    """Give a failed batch `completed_at` instead of `failed_at` (Azure's sample of a failed batch)."""
    if batch["status"] == "failed":
        batch["completed_at"], batch["failed_at"] = batch["failed_at"], None


def text_created_at(batch: Wire) -> None:
    """Send `created_at` as a string of digits (Novita, which documents a string but not its format)."""
    batch["created_at"] = str(batch["created_at"])


def iso_times(batch: Wire) -> None:
    """Send times in ISO 8601 format, in UTC (Together; Azure's REST samples)."""
    for name in _STAMPS:
        if isinstance(batch.get(name), int):
            batch[name] = datetime.fromtimestamp(batch[name], UTC).isoformat().replace("+00:00", "Z")


def millisecond_times(batch: Wire) -> None:
    """Send times in milliseconds, and 946656000000 (the year 2000) for unset ones.

    Source: the API reference of a gateway whose name was not recorded.
    """
    for name in _STAMPS:
        value = batch.get(name)
        if value is None:
            batch[name] = _UNSET_MILLISECONDS
        elif isinstance(value, int):
            batch[name] = value * 1000


# counts


def null_counts(batch: Wire) -> None:
    """Use null for counts before the batch runs, and in a failed batch (Azure's REST samples)."""
    counts = batch["request_counts"]
    if batch["status"] in ("validating", "failed"):
        counts |= {"total": counts["total"] or None, "completed": None, "failed": None}


def flat_counts(batch: Wire) -> None:
    """Repeat `total`, `completed` and `failed` at the top level, next to `request_counts` (Novita)."""
    batch.update(batch["request_counts"])


def progress(batch: Wire) -> None:
    """Send `progress`, a percentage, instead of `request_counts` (Together)."""
    counts = batch.pop("request_counts")
    ended_requests = (counts["completed"] or 0) + (counts["failed"] or 0)
    batch["progress"] = 100 * ended_requests // counts["total"] if counts["total"] else 0


def no_counts(batch: Wire) -> None:
    """Leave `request_counts` null (SiliconFlow)."""
    batch["request_counts"] = None


def absent_counts(batch: Wire) -> None:
    """Omit `request_counts`, which is optional in OpenAI's API description (our choice)."""
    batch.pop("request_counts", None)


def zero_counts(batch: Wire) -> None:
    """Leave all counts at 0 (our choice)."""
    batch["request_counts"] = {"total": 0, "completed": 0, "failed": 0}


def unfinished_counts(batch: Wire) -> None:
    """Send the total, but leave `completed` and `failed` at 0 (our choice)."""
    if batch.get("request_counts"):
        batch["request_counts"] |= {"completed": 0, "failed": 0}


# errors


def errors_when_completed(batch: Wire) -> None:
    """Give a completed batch with failed requests an entry in `errors`, too.

    Groq does so. Its sample names the line; this switch adds a single entry for all failed requests.
    """
    counts = batch["request_counts"]
    if batch["status"] == "completed" and counts["failed"]:
        message = f"{counts['failed']} of {counts['total']} requests failed; see the error file."
        entry = {"code": "request_failed", "message": message, "param": None, "line": None}
        batch["errors"] = {"object": "list", "data": [entry]}


def errors_list(batch: Wire) -> None:
    """Send `errors` as a plain list (Groq)."""
    if batch["errors"] is not None:
        batch["errors"] = batch["errors"]["data"]


def errors_text(batch: Wire) -> None:
    """Send `errors` as a single string, empty if there are none (Novita)."""
    batch["errors"] = _errors_as_text(batch["errors"])


def error_text(batch: Wire) -> None:
    """Send a string `error` instead of `errors`, and omit it if there are none (Together)."""
    text = _errors_as_text(batch.pop("errors"))
    if text:
        batch["error"] = text


def _errors_as_text(errors: Any) -> str:
    if errors is None or isinstance(errors, str):
        return errors or ""
    entries = errors["data"] if isinstance(errors, dict) else errors
    prefixes = [f"line {entry['line']}: " if entry["line"] is not None else "" for entry in entries]
    return "; ".join(
        f"{prefix}{entry['code']}: {entry['message']}" for prefix, entry in zip(prefixes, entries, strict=True)
    )


# status


def in_queue(batch: Wire) -> None:
    """Use the status `in_queue` for `validating` (SiliconFlow)."""
    if batch["status"] == "validating":
        batch["status"] = "in_queue"


def status_progress(batch: Wire) -> None:
    """Use the status `progress` for `in_progress` (Novita, which writes it in capitals)."""
    if batch["status"] == "in_progress":
        batch["status"] = "progress"


def uppercase_status(batch: Wire) -> None:
    """Write the status in capitals (Together, Novita)."""
    batch["status"] = batch["status"].upper()


def capitalized_status(batch: Wire) -> None:
    """Capitalize the status: `Validating` (Azure's REST samples)."""
    batch["status"] = batch["status"].capitalize()


# the whole object


def bare_endpoints(batch: Wire) -> None:
    """Send the endpoint without `/v1`. Create and input lines accept it with and without (Azure)."""
    batch["endpoint"] = batch["endpoint"].removeprefix("/v1")


def job_fields(batch: Wire) -> None:
    """Send only Together's fields: `job_deadline` for `expires_at`, `model_id` for `model`, no metadata (Together)."""
    batch["job_deadline"] = batch.pop("expires_at")
    batch["model_id"] = batch.pop("model")
    fields = {"id", "input_file_id", "status", "job_deadline", "created_at", "endpoint", "progress", "model_id"}
    fields |= {"output_file_id", "error_file_id", "error", "completed_at"}
    for name in batch.keys() - fields:
        del batch[name]


def job_wrapper(answer: Wire) -> None:
    """Wrap the reply to create: `{"job": {…}, "warning": ""}`.

    Together does so. Its other calls return the batch itself.
    """
    batch = dict(answer)
    answer.clear()
    answer |= {"job": batch, "warning": ""}


# files


def null_bytes(file: Wire) -> None:
    """Leave `bytes` null (our choice)."""
    file["bytes"] = None


def absent_bytes(file: Wire) -> None:
    """Omit `bytes` (our choice)."""
    file.pop("bytes", None)


def zero_bytes(file: Wire) -> None:
    """Leave `bytes` at 0 (our choice)."""
    file["bytes"] = 0


def wrong_bytes(file: Wire) -> None:
    """Send one byte more than the file has (our choice)."""
    if file.get("bytes"):
        file["bytes"] += 1


# uploads and lists


def upload_data(answer: Wire) -> None:
    """Put the file under `data` in the reply to an upload (SiliconFlow)."""
    file = dict(answer)
    answer.clear()
    answer |= {"code": 20000, "message": "Ok", "status": True, "data": file}


def cursor(page: Wire) -> None:
    """Send `paging.next_cursor`, which `?cursor=` accepts to get the next page (Groq)."""
    page["paging"] = {"next_cursor": page["last_id"] if page.get("has_more") else None}


def no_has_more(page: Wire) -> None:
    """Omit `has_more`, `first_id` and `last_id` from lists.

    Source: Groq's SDK (github.com/groq/groq-python batch_list_response.py). Together with `ignore-after` it makes
    OpenAI's SDK request pages endlessly.
    """
    for name in ("has_more", "first_id", "last_id"):
        page.pop(name, None)


#: applied to every batch in an answer
BATCH: tuple[Rewrite, ...] = (
    bare_endpoints,
    underscore_ids,
    empty_ids,
    never_expires,
    late_expires_at,
    no_finalizing_at,
    failed_is_completed_at,
    text_created_at,
    iso_times,
    millisecond_times,
    errors_when_completed,
    errors_list,
    errors_text,
    error_text,
    null_counts,
    flat_counts,
    progress,
    no_counts,
    unfinished_counts,
    zero_counts,
    absent_counts,
    in_queue,
    status_progress,
    uppercase_status,
    capitalized_status,
    job_fields,
)
#: applied to the reply to create, after those of `BATCH`
CREATE_REPLY: tuple[Rewrite, ...] = (job_wrapper,)
#: applied to every file in an answer
FILE: tuple[Rewrite, ...] = (underscore_ids, wrong_bytes, zero_bytes, null_bytes, absent_bytes)
#: applied to the reply to an upload, after those of `FILE`
UPLOAD_REPLY: tuple[Rewrite, ...] = (upload_data,)
#: applied to every list, after its items were rewritten
PAGE: tuple[Rewrite, ...] = (underscore_ids, cursor, no_has_more)
