"""Switches over what the file and batch routes answer: each changes one JSON object in place.

They run over finished answers, so the rest of the server stays OpenAI's. A switch is named after its function:
`empty_ids` is `--dialect empty-ids`. They run in the order of the tables at the end of this file, whatever order
they were asked for in, and each leaves alone what one before it has already changed beyond its reach.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_batch.local.dialects.windows import hours_of

#: a JSON object on its way out
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
    """File ids that are not there are `""`.

    Azure does so before the end; a client saw it in place of OpenAI's missing error file too
    (github.com/tobert/kaibo pull 93).
    """
    for name in ("output_file_id", "error_file_id"):
        batch[name] = batch.get(name) or ""


def underscore_ids(wire: Wire) -> None:
    """File ids begin with `file_` (Groq)."""
    for name in _FILE_IDS:
        value = wire.get(name)
        if isinstance(value, str) and value.startswith("file-"):
            wire[name] = f"file_{value.removeprefix('file-')}"


# times


def never_expires(batch: Wire) -> None:
    """`expires_at` is announced, and nothing happens then (Azure: "we don't expire the jobs that take longer")."""
    batch["expires_at"] = batch["created_at"] + (hours_of(batch["completion_window"]) or 24) * 3600


def late_expires_at(batch: Wire) -> None:
    """`expires_at` is null until the batch runs (DashScope)."""
    if batch["status"] == "validating":
        batch["expires_at"] = None


def no_finalizing_at(batch: Wire) -> None:
    """`finalizing_at` stays null (Groq)."""
    batch["finalizing_at"] = None


def failed_is_completed_at(batch: Wire) -> None:
    """A failed batch has `completed_at` and no `failed_at` (Azure's sample of a failed batch)."""
    if batch["status"] == "failed":
        batch["completed_at"], batch["failed_at"] = batch["failed_at"], None


def text_created_at(batch: Wire) -> None:
    """`created_at` is a string of digits (Novita, which documents a string and not what is in it)."""
    batch["created_at"] = str(batch["created_at"])


def iso_times(batch: Wire) -> None:
    """Times are ISO-8601 in UTC (Together; Azure's REST samples)."""
    for name in _STAMPS:
        if isinstance(batch.get(name), int):
            batch[name] = datetime.fromtimestamp(batch[name], UTC).isoformat().replace("+00:00", "Z")


def millisecond_times(batch: Wire) -> None:
    """Times are milliseconds, and 946656000000 (the year 2000) where there is none.

    From the reference of a gateway whose name was not recorded.
    """
    for name in _STAMPS:
        value = batch.get(name)
        if value is None:
            batch[name] = _UNSET_MILLISECONDS
        elif isinstance(value, int):
            batch[name] = value * 1000


# counts


def null_counts(batch: Wire) -> None:
    """Counts are null where nothing is counted yet, and in a failed batch (Azure's REST samples)."""
    counts = batch["request_counts"]
    if batch["status"] in ("validating", "failed"):
        counts |= {"total": counts["total"] or None, "completed": None, "failed": None}


def flat_counts(batch: Wire) -> None:
    """`total`, `completed` and `failed` also stand beside `request_counts` (Novita)."""
    batch.update(batch["request_counts"])


def progress(batch: Wire) -> None:
    """`progress`, a percentage, in place of `request_counts` (Together)."""
    counts = batch.pop("request_counts")
    done = (counts["completed"] or 0) + (counts["failed"] or 0)
    batch["progress"] = 100 * done // counts["total"] if counts["total"] else 0


def no_counts(batch: Wire) -> None:
    """`request_counts` is null (SiliconFlow)."""
    batch["request_counts"] = None


# errors


def errors_when_completed(batch: Wire) -> None:
    """A completed batch with failed requests has `errors` too.

    Groq does so. Its sample names the line; here one entry stands for all.
    """
    counts = batch["request_counts"]
    if batch["status"] == "completed" and counts["failed"]:
        message = f"{counts['failed']} of {counts['total']} requests failed; see the error file."
        entry = {"code": "request_failed", "message": message, "param": None, "line": None}
        batch["errors"] = {"object": "list", "data": [entry]}


def errors_list(batch: Wire) -> None:
    """`errors` is the bare list (Groq)."""
    if batch["errors"] is not None:
        batch["errors"] = batch["errors"]["data"]


def errors_text(batch: Wire) -> None:
    """`errors` is one string, empty without errors (Novita)."""
    batch["errors"] = _told(batch["errors"])


def error_text(batch: Wire) -> None:
    """A string `error` in place of `errors`, absent without errors (Together)."""
    told = _told(batch.pop("errors"))
    if told:
        batch["error"] = told


def _told(errors: Any) -> str:
    if errors is None or isinstance(errors, str):
        return errors or ""
    entries = errors["data"] if isinstance(errors, dict) else errors
    lines = [f"line {one['line']}: " if one["line"] is not None else "" for one in entries]
    return "; ".join(f"{line}{one['code']}: {one['message']}" for line, one in zip(lines, entries, strict=True))


# status


def in_queue(batch: Wire) -> None:
    """`in_queue` in place of `validating` (SiliconFlow)."""
    if batch["status"] == "validating":
        batch["status"] = "in_queue"


def status_progress(batch: Wire) -> None:
    """`progress` in place of `in_progress` (Novita, in capitals)."""
    if batch["status"] == "in_progress":
        batch["status"] = "progress"


def uppercase_status(batch: Wire) -> None:
    """The status in capitals (Together, Novita)."""
    batch["status"] = batch["status"].upper()


def capitalized_status(batch: Wire) -> None:
    """The status with one capital, `Validating` (Azure's REST samples)."""
    batch["status"] = batch["status"].capitalize()


# the whole object


def bare_endpoints(batch: Wire) -> None:
    """The endpoint without `/v1`; create and input lines take it with and without (Azure)."""
    batch["endpoint"] = batch["endpoint"].removeprefix("/v1")


def job_fields(batch: Wire) -> None:
    """No more fields than Together has: no metadata, `job_deadline`, `model_id` (Together)."""
    batch["job_deadline"] = batch.pop("expires_at")
    batch["model_id"] = batch.pop("model")
    kept = {"id", "input_file_id", "status", "job_deadline", "created_at", "endpoint", "progress", "model_id"}
    kept |= {"output_file_id", "error_file_id", "error", "completed_at"}
    for name in batch.keys() - kept:
        del batch[name]


def job_wrapper(answer: Wire) -> None:
    """The reply to create is `{"job": {…}, "warning": ""}`.

    Together does so; its other calls show the batch itself.
    """
    batch = dict(answer)
    answer.clear()
    answer |= {"job": batch, "warning": ""}


# uploads and lists


def upload_data(answer: Wire) -> None:
    """The reply to an upload has the file under `data` (SiliconFlow)."""
    file = dict(answer)
    answer.clear()
    answer |= {"code": 20000, "message": "Ok", "status": True, "data": file}


def cursor(page: Wire) -> None:
    """The next page is had with `?cursor=`, from `paging.next_cursor` (Groq)."""
    page["paging"] = {"next_cursor": page["last_id"] if page.get("has_more") else None}


def no_has_more(page: Wire) -> None:
    """Lists have neither `has_more` nor `first_id` and `last_id`.

    From Groq's SDK (github.com/groq/groq-python batch_list_response.py). With `ignore-after` OpenAI's SDK pages for
    ever.
    """
    for name in ("has_more", "first_id", "last_id"):
        page.pop(name, None)


#: over every batch that is shown
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
    in_queue,
    status_progress,
    uppercase_status,
    capitalized_status,
    job_fields,
)
#: over the reply to create, after those
CREATED: tuple[Rewrite, ...] = (job_wrapper,)
#: over every file that is shown
FILE: tuple[Rewrite, ...] = (underscore_ids,)
#: over the reply to an upload, after those
UPLOADED: tuple[Rewrite, ...] = (upload_data,)
#: over every list, once what is in it is done
PAGE: tuple[Rewrite, ...] = (underscore_ids, cursor, no_has_more)
