"""Injects faults into the lines of result files."""

from __future__ import annotations

import msgspec

from airflow_provider_batch.local.answers.responder import Reply
from airflow_provider_batch.local.api.json_path import replace_value
from airflow_provider_batch.local.dialects import Dialect
from airflow_provider_batch.local.engine.lines import reply_line
from airflow_provider_batch.local.faults import Fault, Kind


class _Line(msgspec.Struct):
    custom_id: str


def damaged_lines(fault: Fault, line: bytes, dialect: Dialect) -> list[bytes]:
    """Return the lines that replace a line in its own file. None of them has a line end."""
    match fault.kind:
        case Kind.MISSING_LINE:
            return []
        case Kind.BROKEN_LINE:
            return [line[: len(line) // 2]]
        case Kind.ERROR_LINE_BEFORE:
            return [error_line(fault, line, dialect), line]
        case Kind.LINE_FIELD:
            assert fault.path is not None
            return [replace_value(line, fault.path, fault.json)]
    return [line]


def error_line(fault: Fault, line: bytes, dialect: Dialect) -> bytes:
    """Return a line for the same row that says that its request failed."""
    error = fault.error()
    custom_id = msgspec.json.decode(line, type=_Line).custom_id
    return dialect.rewrite_line(reply_line(custom_id, Reply(error.status, error.body())))
