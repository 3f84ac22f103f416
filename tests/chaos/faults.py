"""The faults and the dialects from which rounds of chaos are drawn."""

from __future__ import annotations

import msgspec

from airflow_provider_batch.local.faults import BODY_KINDS, Call, Fault, Kind

#: a JSON text deeper than any parser follows
ENDLESS = "[" * 100_000 + "]" * 100_000
_DOWNLOAD = frozenset({Call.DOWNLOAD})
_CREATE = frozenset({Call.CREATE})

#: faults that end by themselves
FAULTS: list[Fault] = [
    # calls
    Fault(kind=Kind.STATUS, calls=_CREATE, status=500, times=2),
    Fault(kind=Kind.STATUS, calls=_CREATE, status=429, times=2),
    Fault(kind=Kind.COMMIT_THEN_STATUS, calls=_CREATE, status=500, times=2),
    Fault(kind=Kind.COMMIT_THEN_STATUS, calls=_CREATE, status=503, times=1),
    Fault(kind=Kind.COMMIT_THEN_HANG, calls=_CREATE, seconds=0.8, times=2),
    Fault(kind=Kind.DROP, calls=_CREATE, times=2),
    Fault(kind=Kind.HTML, calls=_CREATE, times=1),
    Fault(kind=Kind.GARBAGE, calls=_CREATE, times=1),
    Fault(kind=Kind.ERROR_BODY, calls=_CREATE, times=1),
    Fault(kind=Kind.EMPTY_BODY, calls=_CREATE, times=1),
    Fault(kind=Kind.RESPONSE_FIELD, calls=_CREATE, path="metadata", json=ENDLESS, times=1),
    Fault(kind=Kind.REDIRECT, calls=_CREATE, status=307, location="/v1/models", times=1),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=500, times=2),
    Fault(kind=Kind.DROP, calls=frozenset({Call.UPLOAD}), times=1),
    Fault(kind=Kind.ERROR_BODY, calls=frozenset({Call.UPLOAD}), times=1),
    Fault(kind=Kind.REDIRECT, calls=frozenset({Call.UPLOAD}), status=302, location="/v1/models", times=1),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=500, times=3),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=404, times=2),
    Fault(kind=Kind.HTML, calls=frozenset({Call.RETRIEVE}), times=2),
    Fault(kind=Kind.ERROR_BODY, calls=frozenset({Call.RETRIEVE}), times=2),
    Fault(kind=Kind.RESPONSE_FIELD, calls=frozenset({Call.RETRIEVE}), path="metadata", json=ENDLESS, times=2),
    Fault(kind=Kind.STATUS, calls=frozenset({Call.LIST}), status=500, times=1),
    Fault(kind=Kind.EMPTY_BODY, calls=frozenset({Call.LIST}), times=1),
    Fault(kind=Kind.RESPONSE_FIELD, calls=frozenset({Call.LIST}), path="data.*.metadata", json=ENDLESS, times=1),
    # downloads
    Fault(kind=Kind.TRUNCATE, calls=_DOWNLOAD, times=3),
    Fault(kind=Kind.DROP, calls=_DOWNLOAD, times=2),
    *(
        Fault(kind=kind, calls=_DOWNLOAD, times=2)
        for kind in (
            Kind.HTML,
            Kind.ERROR_BODY,
            Kind.EMPTY_BODY,
            *sorted(BODY_KINDS - {Kind.RESPONSE_FIELD}),
        )
    ),
    Fault(kind=Kind.CUT_AT_LINE, calls=_DOWNLOAD, chunked=True, rate=0.5, times=3),
    # rows
    Fault(kind=Kind.ERROR, status=429, rate=0.3, times=1),
    Fault(kind=Kind.ERROR, status=500, rate=0.2, times=2),
    Fault(kind=Kind.STATUS_0, rate=0.2, times=1),
    Fault(kind=Kind.REQUEST_TIMEOUT, rate=0.2, times=1),
    Fault(kind=Kind.MISSING_LINE, rate=0.2, times=1),
    Fault(kind=Kind.BROKEN_LINE, rate=0.2, times=1),
    Fault(kind=Kind.DUPLICATE_LINE, rate=0.2, times=1),
    Fault(kind=Kind.ERROR_LINE_BEFORE, rate=0.3),
    Fault(kind=Kind.ERROR_LINE_BESIDES, rate=0.2),
    Fault(kind=Kind.NUL, rate=0.2),
    Fault(kind=Kind.SEPARATORS, rate=0.2),
    *(
        Fault(kind=Kind.LINE_FIELD, path=path, json=text, rate=0.2)
        for path, text in (
            ("response.body.usage", None),
            ("response.body.usage", '"many"'),
            ("response.body.usage", '{"prompt_tokens":-1,"completion_tokens":1.5,"total_tokens":"3"}'),
            ("response.body.usage.completion_tokens", str(2**70)),
            ("response.body.created", "1e400"),
            ("response.body.id", '"\\ud83d"'),
            ("response.status_code", '"200"'),
        )
    ),
    # batches
    Fault(kind=Kind.FAIL_BATCH, code="token_limit_exceeded", message="Enqueued token limit reached", times=2),
    Fault(kind=Kind.FAIL_BATCH, code="invalid_request", message="Cannot find file file-1", times=1),
    Fault(kind=Kind.FAIL_BATCH, code="upstream_lost", message="The job was lost.", times=1),
    Fault(kind=Kind.HIDDEN, retrieves=2),
    Fault(kind=Kind.LATE_IN_LIST, seconds=0.5),
    Fault(kind=Kind.STALE_IN_LIST),
]

#: Faults that do not end until a person acts. All of them spoil downloads, so a batch is held in the end.
LASTING_FAULTS: list[Fault] = [
    Fault(kind=kind, calls=_DOWNLOAD)
    for kind in (
        Kind.HTML,
        Kind.ERROR_BODY,
        Kind.EMPTY_BODY,
        Kind.COMPRESSED,
        Kind.CUT,
        Kind.CUT_AT_LINE,
        Kind.REPEATED_HALF,
    )
]

#: what can be wrong with the line of a row so that no reader can use its answer, although it was paid for
UNUSABLE_LINES: list[tuple[str, str]] = [
    ("response.body.extra", ENDLESS),
    ("response.body.choices", ENDLESS),
    ("response.body", '"not an object"'),
    ("response.body.choices", "[]"),
]

#: servers other than OpenAI's
DIALECTS: list[tuple[str, ...]] = [
    ("ogx",),
    ("response-text",),
    ("no-counts", "null-bytes"),
    ("zero-counts", "absent-bytes"),
    ("absent-counts",),
    ("unfinished-counts", "zero-bytes"),
    ("wrong-bytes",),
    ("siliconflow",),
    ("groq",),
]

#: dialects in which nothing shows that a download is incomplete, except that another download is different
_SILENT_DIALECTS = (("no-counts", "null-bytes"), ("zero-counts", "absent-bytes"), ("unfinished-counts", "zero-bytes"))


def faults_for(dialects: tuple[str, ...]) -> list[Fault]:
    """Return the faults that a job can survive with these dialects. Each of them ends by itself."""
    if dialects not in _SILENT_DIALECTS:
        return FAULTS
    # A file that is cut off twice in the same place looks like the file. A file without any line is never believed, and
    # that of a single row that is retried has none if the line of the row is missing.
    return [
        msgspec.structs.replace(fault, times=1, rate=1.0, chunked=False) if fault.calls == _DOWNLOAD else fault
        for fault in FAULTS
        if not fault.chunked and fault.kind not in (Kind.MISSING_LINE, Kind.BROKEN_LINE)
    ]
