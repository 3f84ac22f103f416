"""Faults on request: what goes wrong, for whom and how often, repeatable by the seed.

Nothing goes wrong unless it is asked for, with `--faults FILE` or through `/admin/faults`; both take a list of
`Fault`. A fault of a row is decided by the seed and the row's custom_id, whatever batch it is in; one of a call,
a batch or a file by the seed and by how many the fault has seen before. Which one hits is therefore the same in
every run in which they come in the same order.

This module decides which fault hits. Four others carry it out: `answers/faulty` (answers), `engine/batch_faults`
(batches), `engine/results` (lines and files) and `http/call_faults` (calls).

A list of faults in JSON:

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

from airflow_provider_batch.local.api.errors import ApiError, failure


class Call(StrEnum):
    """A call of the API."""

    UPLOAD = "upload"
    FILES = "files"
    FILE = "file"
    DELETE = "delete"
    DOWNLOAD = "download"
    CREATE = "create"
    LIST = "list"
    RETRIEVE = "retrieve"
    CANCEL = "cancel"
    #: a synchronous chat, response, embedding and so on
    SYNCHRONOUS = "synchronous"


class Kind(StrEnum):
    """What goes wrong."""

    # the answer to a row

    #: an HTTP error of `status` in place of the answer; it lies in the error file
    ERROR = "error"
    #: `status_code` 0 and no body, counted as completed
    STATUS_0 = "status_0"
    #: it never ran: `response` null and the error `request_timeout`
    REQUEST_TIMEOUT = "request_timeout"
    REFUSAL = "refusal"
    CONTENT_FILTER = "content_filter"
    #: cut off at the cap on output tokens
    LENGTH = "length"
    #: 200 without any text
    EMPTY = "empty"
    #: a text that fits no schema
    INVALID_JSON = "invalid_json"
    #: Responses: a first message with the text cut off, then one with the whole text
    MULTI_TEXT = "multi_text"
    #: U+2028, U+2029 and U+0085 raw in the text
    SEPARATORS = "separators"

    # the line of a row in a result file

    MISSING_LINE = "missing_line"
    DUPLICATE_LINE = "duplicate_line"
    #: not JSON
    BROKEN_LINE = "broken_line"

    # a result file

    CRLF = "crlf"
    NO_FINAL_NEWLINE = "no_final_newline"

    # a batch

    #: fails at validation with `code` and `message`
    FAIL_BATCH = "fail_batch"
    #: stays in progress, with nothing answered, until its window ends
    STUCK = "stuck"

    # a call

    #: `status` (with `retry_after`, if set) in place of the answer; nothing was done
    STATUS = "status"
    #: the call is carried out, and then answered with `status`
    COMMIT_THEN_STATUS = "commit_then_status"
    #: the call is carried out; no answer comes for `seconds`, then the connection is closed
    COMMIT_THEN_HANG = "commit_then_hang"
    #: no answer for `seconds`, then the connection is closed; nothing was done
    HANG = "hang"
    #: the connection is closed without an answer; nothing was done
    DROP = "drop"
    #: 200 with an HTML page
    HTML = "html"
    #: half of the body, then the connection is closed
    TRUNCATE = "truncate"
    #: half of the body, then nothing for `seconds`, then the rest
    STALL = "stall"


class Target(StrEnum):
    """Where a fault strikes."""

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
    ),
    Target.LINE: (Kind.MISSING_LINE, Kind.DUPLICATE_LINE, Kind.BROKEN_LINE),
    Target.FILE: (Kind.CRLF, Kind.NO_FINAL_NEWLINE),
    Target.BATCH: (Kind.FAIL_BATCH, Kind.STUCK),
}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault. It hits every row, call, batch or file that it applies to, unless the fields say less.

    :raises ValueError: a field narrows down what this kind of fault is not about.
    """

    kind: Kind
    #: the share that is hit, drawn by the seed
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: how often it hits: one row so often, of calls, batches and files so many in all; None is no limit
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    #: so many calls, batches or files pass unharmed first
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: only these rows; empty is any
    custom_ids: frozenset[str] = frozenset()
    #: only these calls; empty is any
    calls: frozenset[Call] = frozenset()
    #: HTTP status of an error
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 500
    #: seconds in the Retry-After header; None leaves it out
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None
    #: real seconds of a silence
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    #: of a failed batch or an HTTP error; None is what fits the status
    code: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        # A fault would hit more than it says if such a field were passed over.
        of_row = self.target in (Target.ANSWER, Target.LINE)
        if self.calls and self.target is not Target.CALL:
            raise ValueError(f"field `calls` is for faults of calls, which `{self.kind}` is not")
        if self.custom_ids and not of_row:
            raise ValueError(f"field `custom_ids` is for faults of rows, which `{self.kind}` is not")
        if self.skip and of_row:
            raise ValueError(f"field `skip` is not for faults of rows, as `{self.kind}` is")

    @property
    def target(self) -> Target:
        """Where it strikes."""
        return next((target for target, kinds in _KINDS.items() if self.kind in kinds), Target.CALL)

    def error(self) -> ApiError:
        """The HTTP error of `status` in OpenAI's shape, with `code`, `message` and `retry_after` if they are set."""
        headers = None if self.retry_after is None else {"Retry-After": f"{self.retry_after:f}".rstrip("0").rstrip(".")}
        return failure(self.status, code=self.code, message=self.message, headers=headers)


class FaultsError(ValueError):
    """What was given is no list of faults. Says what is wrong, and where."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        #: the field, as in `[0].rate`; None if it is no field's fault
        self.param = param


def read_faults(raw: bytes) -> list[Fault]:
    """A JSON list of faults.

    :raises FaultsError: it is none.
    """
    try:
        return msgspec.json.decode(raw, type=list[Fault])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        path = re.search(r" - at `\$(\S+)`$", text)
        # Of a field too many, or one that is missing, the path leads to the object only.
        field = re.search(r"field `(\w+)`", text)
        names = [path[1] if path else "", field[1] if field else ""]
        raise FaultsError(text, ".".join(name for name in names if name) or None) from error


class Faults:
    """The faults that were asked for, and how often each has hit.

    :param first_time: remembers keys beyond the life of the process; True for a key's first call only.
    """

    def __init__(self, seed: int, first_time: Callable[[bytes], bool], plan: Sequence[Fault] = ()) -> None:
        self._seed = seed
        self._first_time = first_time
        self._take(plan, "start")

    def replace(self, plan: Sequence[Fault]) -> None:
        """Take these faults instead of all others, and count from 0."""
        self._take(plan, secrets.token_hex(8))

    def _take(self, plan: Sequence[Fault], name: str) -> None:
        #: what the hits of rows are remembered under
        self._name = name
        self.plan = tuple(plan)
        #: how often each has hit
        self.hits = [0] * len(plan)
        self._seen = [0] * len(plan)

    def draw_row_fault(self, target: Target, custom_id: str | None) -> Fault | None:
        """The first fault that hits this row at this place (`ANSWER` or `LINE`)."""
        for index, fault in enumerate(self.plan):
            if fault.target is target and self._hits_row(index, fault, custom_id):
                self.hits[index] += 1
                return fault
        return None

    def draw_call_fault(self, call: Call) -> Fault | None:
        """The first fault that hits this call."""
        return self._next(Target.CALL, call)

    def draw_batch_fault(self) -> Fault | None:
        """The first fault that hits the next batch."""
        return self._next(Target.BATCH, None)

    def draw_file_faults(self) -> list[Fault]:
        """All faults that hit the next result file."""
        return [fault for index, fault in enumerate(self.plan) if fault.target is Target.FILE and self._counts(index)]

    def _next(self, target: Target, call: Call | None) -> Fault | None:
        for index, fault in enumerate(self.plan):
            wanted = not fault.calls or call is None or call in fault.calls
            if fault.target is target and wanted and self._counts(index):
                return fault
        return None

    def _counts(self, index: int) -> bool:
        """Count one more that this fault applies to; whether it hits."""
        fault, seen = self.plan[index], self._seen[index]
        self._seen[index] += 1
        hit = (
            seen >= fault.skip
            and (fault.times is None or self.hits[index] < fault.times)
            and self._drawn(index, str(seen)) < fault.rate
        )
        self.hits[index] += hit
        return hit

    def _hits_row(self, index: int, fault: Fault, custom_id: str | None) -> bool:
        name = custom_id or ""
        if fault.custom_ids and name not in fault.custom_ids:
            return False
        if self._drawn(index, name) >= fault.rate:
            return False
        if fault.times is None:
            return True
        # Remembered on disk, so that a row is not hit anew because the server was started again.
        keys = (f"fault/{self._name}/{index}/{fault.kind}/{name}/{n}" for n in range(fault.times))
        return any(self._first_time(_digest(key, 16)) for key in keys)

    def _drawn(self, index: int, key: str) -> float:
        """A number from 0 to below 1 that only the seed, the fault's position and the key decide."""
        return (int.from_bytes(_digest(f"{self._seed}/{index}/{key}", 8)) >> 11) / 2**53


def _digest(key: str, size: int) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=size).digest()
