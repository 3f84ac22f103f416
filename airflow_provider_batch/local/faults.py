"""Injected faults: what goes wrong, where and how often. The seed makes every choice repeatable.

A server injects faults only when a test requests them, with `--faults FILE` or through `/admin/faults`. Both take
a list of `Fault`, called the plan.

Whether a fault hits a row depends only on the seed and the row's custom_id, not on the batch that contains the row.
Whether it hits a call, a batch or a result file depends on the seed and on how many of them the fault has seen so
far. Two runs that make the same calls in the same order therefore have the same faults.

This module decides which fault hits. Five others carry the faults out: `answers/faulty` (answers),
`engine/batch_faults` and `http/batch_views` (batches), `engine/results` (lines and files) and `http/call_faults`
(calls).

A plan in JSON:

    [{"kind": "error", "status": 429, "rate": 0.01, "times": 1},
     {"kind": "commit_then_status", "calls": ["create"], "status": 500, "times": 1},
     {"kind": "truncate", "calls": ["download"], "skip": 2, "times": 1}]
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated

import msgspec

from airflow_provider_batch.local.api.errors import ApiError, injected_error


class Call(StrEnum):
    """A kind of API call."""

    UPLOAD = "upload"
    FILES = "files"
    FILE = "file"
    DELETE = "delete"
    DOWNLOAD = "download"
    CREATE = "create"
    LIST = "list"
    RETRIEVE = "retrieve"
    CANCEL = "cancel"
    #: a synchronous request: a chat completion, a response, an embedding and so on
    SYNCHRONOUS = "synchronous"


class Kind(StrEnum):
    """What goes wrong."""

    # row faults: the answer

    #: An HTTP error with `status` instead of the answer. It is in the error file.
    ERROR = "error"
    #: `status_code` 0 without a body. The request counts as completed.
    STATUS_0 = "status_0"
    #: the request never ran: `response` is null and the error code is `request_timeout`
    REQUEST_TIMEOUT = "request_timeout"
    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    #: the answer is cut off at the maximum number of output tokens
    LENGTH = "length"
    #: status 200, but no text
    EMPTY = "empty"
    #: a text that matches no schema
    INVALID_JSON = "invalid_json"
    #: Responses API only: a message with truncated text, then a second one with the complete text
    MULTI_TEXT = "multi_text"
    #: U+2028, U+2029 and U+0085 unescaped in the text
    SEPARATORS = "separators"
    #: the character NUL in the text
    NUL = "nul"
    #: the text is a JSON object nested `depth` levels deep
    NESTED = "nested"

    # row faults: the line in the result file

    MISSING_LINE = "missing_line"
    DUPLICATE_LINE = "duplicate_line"
    #: the line is not JSON
    BROKEN_LINE = "broken_line"
    #: an error line for the same row (`status`, `code` and `message`) in front of its line
    ERROR_LINE_BEFORE = "error_line_before"
    #: an error line for an answered row in the error file, besides its answer in the output file
    ERROR_LINE_BESIDES = "error_line_besides"
    #: the value at `path` is replaced with `json`
    LINE_FIELD = "line_field"

    # result file faults

    CRLF = "crlf"
    NO_FINAL_NEWLINE = "no_final_newline"

    # batch faults

    #: the batch fails validation with `code` and `message`
    FAIL_BATCH = "fail_batch"
    #: the batch stays in progress without answering any request until its window ends
    STUCK = "stuck"
    #: The batch is not found the first `retrieves` times that it is retrieved. Lists and `cancel` find it.
    HIDDEN = "hidden"
    #: lists show the batch as it was `seconds` of the server's clock ago, and not at all before that
    LATE_IN_LIST = "late_in_list"
    #: lists show the batch as it was when it was last retrieved
    STALE_IN_LIST = "stale_in_list"

    # call faults

    #: the server responds with `status` (and `retry_after`, if set) and does not execute the call
    STATUS = "status"
    #: the server executes the call, then responds with `status`
    COMMIT_THEN_STATUS = "commit_then_status"
    #: the server executes the call, sends nothing for `seconds`, then closes the connection
    COMMIT_THEN_HANG = "commit_then_hang"
    #: The server sends nothing for `seconds`, then closes the connection. It does not execute the call.
    HANG = "hang"
    #: The server redirects the call to `location` with `status`. It does not execute the call.
    REDIRECT = "redirect"
    #: The server closes the connection without a response. It does not execute the call.
    DROP = "drop"
    #: The server responds with status 200 and an HTML page. It does not execute the call.
    HTML = "html"
    #: the server sends half of the body, then closes the connection
    TRUNCATE = "truncate"
    #: the server sends half of the body, then nothing for `seconds`, then the rest
    STALL = "stall"
    #: The server responds with status 200 and the error that `status`, `code` and `message` describe. It does not
    #: execute the call.
    ERROR_BODY = "error_body"
    #: The server responds with status 200 and an empty body. It does not execute the call.
    EMPTY_BODY = "empty_body"

    # call faults that replace the body of a successful response; its Content-Length matches the new body

    #: compressed with gzip, without Content-Encoding
    COMPRESSED = "compressed"
    #: random bytes, as many as the body has
    GARBAGE = "garbage"
    #: the first half, cut off within a line
    CUT = "cut"
    #: the first half of the lines
    CUT_AT_LINE = "cut_at_line"
    #: the first half of the lines twice, instead of both halves
    REPEATED_HALF = "repeated_half"
    #: a line in front that is not JSON, such as a cache adds; the rest is complete
    BANNER = "banner"
    #: the content of another file, if possible one with the same purpose
    OTHER_FILE = "other_file"
    #: the value at `path` of a JSON body is replaced with `json`
    RESPONSE_FIELD = "response_field"


class Target(StrEnum):
    """What a fault affects."""

    ANSWER = "answer"
    LINE = "line"
    FILE = "file"
    BATCH = "batch"
    CALL = "call"


_KINDS = {
    Target.ANSWER: (
        Kind.ERROR,
        Kind.STATUS_0,
        Kind.REQUEST_TIMEOUT,
        Kind.REFUSAL,
        Kind.CONTENT_FILTER,
        Kind.LENGTH,
        Kind.EMPTY,
        Kind.INVALID_JSON,
        Kind.MULTI_TEXT,
        Kind.SEPARATORS,
        Kind.NUL,
        Kind.NESTED,
    ),
    Target.LINE: (
        Kind.MISSING_LINE,
        Kind.DUPLICATE_LINE,
        Kind.BROKEN_LINE,
        Kind.ERROR_LINE_BEFORE,
        Kind.ERROR_LINE_BESIDES,
        Kind.LINE_FIELD,
    ),
    Target.FILE: (Kind.CRLF, Kind.NO_FINAL_NEWLINE),
    Target.BATCH: (Kind.FAIL_BATCH, Kind.STUCK, Kind.HIDDEN, Kind.LATE_IN_LIST, Kind.STALE_IN_LIST),
}

#: call faults that replace the body of a successful response
BODY_KINDS = frozenset(
    {
        Kind.COMPRESSED,
        Kind.GARBAGE,
        Kind.CUT,
        Kind.CUT_AT_LINE,
        Kind.REPEATED_HALF,
        Kind.BANNER,
        Kind.OTHER_FILE,
        Kind.RESPONSE_FIELD,
    }
)
#: faults that replace one value of a JSON text
FIELD_KINDS = (Kind.LINE_FIELD, Kind.RESPONSE_FIELD)


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault. By default it hits every row, call, batch or file that its kind affects.

    :raises ValueError: a field does not apply to this kind of fault.
    """

    kind: Kind
    #: Share of rows, calls, batches or files to hit, from 0 to 1. The seed decides which ones.
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: Maximum number of hits, None for no limit. Row faults are counted per row, all others in total.
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    #: number of calls, batches or files to leave alone before the first hit
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: custom_ids of the rows that can be hit; empty for all
    custom_ids: frozenset[str] = frozenset()
    #: calls that can be hit; empty for all
    calls: frozenset[Call] = frozenset()
    #: HTTP status of the error or the redirect
    status: Annotated[int, msgspec.Meta(ge=300, le=599)] = 500
    #: URL or path to which a call is redirected
    location: str | None = None
    #: seconds in the Retry-After header; None omits the header
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    #: real seconds during which the server sends nothing; for `late_in_list`, seconds of the server's clock
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    #: code and message of a failed batch or an HTTP error; None selects the ones that OpenAI uses for the status
    code: str | None = None
    message: str | None = None
    #: whether a replaced body is sent without Content-Length, in chunks
    chunked: bool = False
    #: place of the value to replace, such as `response.body.usage`; see `api.json_path`
    path: str | None = None
    #: JSON text of the new value, which is inserted unchanged; None removes the field
    json: str | None = None
    #: levels of a nested text
    depth: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 256
    #: number of times that a hidden batch is not found
    retrieves: Annotated[int, msgspec.Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        # if such a field were ignored, the fault would hit more than its author intended
        affects_row = self.target in (Target.ANSWER, Target.LINE)
        if self.calls and self.target is not Target.CALL:
            raise ValueError(f"field `calls` applies only to call faults, not to `{self.kind}`")
        if self.custom_ids and not affects_row:
            raise ValueError(f"field `custom_ids` applies only to row faults, not to `{self.kind}`")
        if self.skip and affects_row:
            raise ValueError(f"field `skip` does not apply to row faults such as `{self.kind}`")
        if self.chunked and self.kind not in BODY_KINDS:
            raise ValueError(f"field `chunked` applies only to faults that replace a body, not to `{self.kind}`")
        is_redirect = self.kind is Kind.REDIRECT
        if (self.status < 400) != is_redirect:
            raise ValueError("field `status` must be from 300 to 399 for `redirect`, and from 400 for all other kinds")
        if (self.location is not None) != is_redirect:
            raise ValueError("field `location` is required for `redirect`, and applies to no other kind")
        if (self.path is not None) != (self.kind in FIELD_KINDS):
            raise ValueError(f"field `path` is required for {' and '.join(FIELD_KINDS)}, and applies to no other kind")

    @property
    def target(self) -> Target:
        """What this kind of fault affects."""
        return next((target for target, kinds in _KINDS.items() if self.kind in kinds), Target.CALL)

    def error(self) -> ApiError:
        """Return the HTTP error for `status` in OpenAI's shape, with `code`, `message` and `retry_after` if set."""
        headers = None if self.retry_after is None else {"Retry-After": f"{self.retry_after:f}".rstrip("0").rstrip(".")}
        return injected_error(self.status, code=self.code, message=self.message, headers=headers)


class FaultsError(ValueError):
    """Raised if a plan is not a valid JSON list of faults."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        #: path of the invalid field, such as `[0].rate`; None if the error is not about one field
        self.param = param


def read_faults(raw: bytes) -> list[Fault]:
    """Parse a JSON list of faults.

    :raises FaultsError: it is not a valid list of faults.
    """
    try:
        return msgspec.json.decode(raw, type=list[Fault])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        path = re.search(r" - at `\$(\S+)`$", text)
        # if a field is unknown or missing, the path points only to the object, and the text names the field
        field = re.search(r"field `(\w+)`", text)
        names = [path[1] if path else "", field[1] if field else ""]
        raise FaultsError(text, ".".join(name for name in names if name) or None) from error


class Faults:
    """The current plan, and how often each of its faults has hit.

    :param first_time: returns True only for the first call with a key. It remembers keys across restarts.
    """

    def __init__(self, seed: int, first_time: Callable[[bytes], bool], plan: Sequence[Fault] = ()) -> None:
        self._seed = seed
        self._first_time = first_time
        self._set_plan(plan, "start")

    def replace(self, plan: Sequence[Fault]) -> None:
        """Replace the plan and reset all counts to 0."""
        self._set_plan(plan, secrets.token_hex(8))

    def _set_plan(self, plan: Sequence[Fault], name: str) -> None:
        #: identifies the plan in the keys that record which rows were hit
        self._plan_name = name
        self.plan = tuple(plan)
        #: number of hits of each fault in the plan
        self.hits = [0] * len(plan)
        #: number of calls, batches or files that each fault applied to, whether or not it hit them
        self._candidates = [0] * len(plan)

    def draw_row_fault(self, target: Target, custom_id: str | None) -> Fault | None:
        """Return and count the first fault that hits this row. `target` is `ANSWER` or `LINE`."""
        for index, fault in enumerate(self.plan):
            if fault.target is target and self._hits_row(index, fault, custom_id):
                self.hits[index] += 1
                return fault
        return None

    def draw_call_fault(self, call: Call) -> Fault | None:
        """Return and count the first fault that hits this call."""
        return self._draw(Target.CALL, call)

    def draw_batch_fault(self) -> Fault | None:
        """Return and count the first fault that hits the next batch."""
        return self._draw(Target.BATCH, None)

    def draw_file_faults(self) -> list[Fault]:
        """Return and count all faults that hit the next result file."""
        return [fault for index, fault in enumerate(self.plan) if fault.target is Target.FILE and self._hits(index)]

    def _draw(self, target: Target, call: Call | None) -> Fault | None:
        for index, fault in enumerate(self.plan):
            applies = not fault.calls or call is None or call in fault.calls
            if fault.target is target and applies and self._hits(index):
                return fault
        return None

    def _hits(self, index: int) -> bool:
        """Count the next call, batch or file for this fault, and return whether the fault hits it."""
        fault, number = self.plan[index], self._candidates[index]
        self._candidates[index] += 1
        hit = (
            number >= fault.skip
            and (fault.times is None or self.hits[index] < fault.times)
            and self._draw_share(index, str(number)) < fault.rate
        )
        self.hits[index] += hit
        return hit

    def _hits_row(self, index: int, fault: Fault, custom_id: str | None) -> bool:
        name = custom_id or ""
        if fault.custom_ids and name not in fault.custom_ids:
            return False
        if self._draw_share(index, name) >= fault.rate:
            return False
        if fault.times is None:
            return True
        # hits are recorded on disk, so that a restarted server does not hit the same row more often
        keys = (f"fault/{self._plan_name}/{index}/{fault.kind}/{name}/{hit}" for hit in range(fault.times))
        return any(self._first_time(_digest(key, 16)) for key in keys)

    def _draw_share(self, index: int, key: str) -> float:
        """Return a number from 0 (inclusive) to 1 (exclusive), determined by the seed, the fault's index and `key`."""
        return (int.from_bytes(_digest(f"{self._seed}/{index}/{key}", 8)) >> 11) / 2**53


def _digest(key: str, size: int) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=size).digest()
