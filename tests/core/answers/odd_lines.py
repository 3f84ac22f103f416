"""Result lines with one odd value each, as raw JSON: values of the wrong type, too deep, too long, too large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from airflow_provider_batch.core.schema.author_schema import strict_schema

#: an object with a field of every column type, and a tree that may be nested without end
SCHEMA = strict_schema(
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"child": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            }
        },
        "type": "object",
        "properties": {
            "label": {"type": "string"},
            "count": {"type": "integer"},
            "score": {"type": "number"},
            "spam": {"type": "boolean"},
            "due": {"type": "string", "format": "date"},
            "seen": {"type": "string", "format": "date-time"},
            "tree": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
    }
)
#: the columns that are extracted from it
COLUMNS = {name: name for name in ("label", "count", "score", "spam", "due", "seen", "tree")}
OBJECT: dict[str, Any] = {
    "label": "fine",
    "count": 7,
    "score": 0.5,
    "spam": False,
    "due": "2026-11-29",
    "seen": "2026-11-29T12:00:00Z",
    "tree": {"child": None},
}

_HOLE = "@@"
DEPTHS = (31, 32, 100, 101, 200, 201, 255, 256, 257, 1_000)

ODD_VALUES: dict[str, str] = {
    **{
        f"raw {raw}": raw for raw in ("null", "true", "0", "-1", "7.5", "200.0", "-0.0", "NaN", "Infinity", "-Infinity")
    },
    **{f"raw {raw}": raw for raw in ("1e400", '""', '"200"', '"x"', "[]", "{}", "[1]", '{"a": 1}', "[[]]", "[null]")},
    "2**31": str(2**31),
    "2**63": str(2**63),
    "2**70": str(2**70),
    "10**400": "1" + "0" * 400,
    "5,000 digits": "1" * 5_000,
    "1,000 decimals": "0." + "1" * 1_000,
    "NUL": r'"a\u0000b"',
    "NUL in a key": r'{"a\u0000b": "\u0000"}',
    "half a surrogate pair": r'"a\ud83d"',
    "the other half": r'"\ude00b"',
    "half a surrogate pair in a key": r'{"\ud83d": 1}',
    "not UTF-8": '"\udcff"',
    "duplicate keys": '{"a": 1, "a": [2]}',
    "U+2028": '"a\u2028b"',
    "backslashes and tabs": r'"\\N\t\n\r\\."',
    "quotation marks": r'"\"\u0027`"',
    "300 characters": json.dumps("é" * 300),
    "100,000 characters": json.dumps("x\\\n" * 35_000),
    **{f"{depth:,} lists": "[" * depth + "]" * depth for depth in DEPTHS},
    **{f"{depth:,} objects": '{"child": ' * depth + "null" + "}" * depth for depth in (*DEPTHS, 100_000)},
    **{f"{depth:,} levels of an error": '{"error": ' * depth + '"x"' + "}" * depth for depth in (3, 256, 1_000)},
    "year 0": '"0000-01-01"',
    "year 1": '"0001-01-01T00:00:00+23:59"',
    "the first day": '"0001-01-01"',
    "the last second": '"9999-12-31T23:59:59.999999Z"',
    "year 10,000": '"10000-01-01T00:00:00Z"',
    "after the last second": '"9999-12-31T23:59:59-23:59"',
}

_BODY = {
    "model": "gpt-5-mini-2025-08-07",
    "choices": [{"message": {"content": "", "refusal": None, "tool_calls": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}},
}


def good_line(custom_id: str, content: str | None = None) -> bytes:
    """Return an ordinary line, whose answer fits `SCHEMA`."""
    return _line(custom_id, json.dumps(OBJECT) if content is None else content)


def _line(custom_id: str, content: str) -> bytes:
    return json.dumps(_line_object(custom_id, content)).encode()


def _line_object(custom_id: str, content: str) -> dict[str, Any]:
    body = json.loads(json.dumps(_BODY))
    body["choices"][0]["message"]["content"] = content
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


#: paths into a line
FIELDS: tuple[tuple[str | int, ...], ...] = (
    ("id",),
    ("custom_id",),
    ("error",),
    ("response",),
    *[("response", name) for name in ("status_code", "body", "extra")],
    *[("response", "body", name) for name in ("model", "choices", "usage", "error", "extra")],
    ("response", "body", "choices", 0),
    *[("response", "body", "choices", 0, name) for name in ("message", "finish_reason", "extra")],
    *[("response", "body", "choices", 0, "message", name) for name in ("content", "refusal", "tool_calls")],
    *[("response", "body", "usage", name) for name in ("prompt_tokens", "completion_tokens", "prompt_tokens_details")],
    ("response", "body", "usage", "prompt_tokens_details", "cached_tokens"),
)
#: the paths at which large values are worth their time
LARGE_FIELDS: tuple[tuple[str | int, ...], ...] = (
    ("error",),
    ("response", "extra"),
    ("response", "body", "usage", "prompt_tokens"),
    *[("response", "body", name) for name in ("model", "usage", "extra")],
    ("response", "body", "choices", 0, "finish_reason"),
    *[("response", "body", "choices", 0, "message", name) for name in ("content", "refusal", "tool_calls")],
)
#: paths into an error line
ERROR_FIELDS: tuple[tuple[str | int, ...], ...] = (
    ("response", "status_code"),
    ("response", "body", "error"),
    *[("response", "body", "error", name) for name in ("code", "message", "type")],
)


def odd_line(custom_id: str, path: tuple[str | int, ...], raw: str) -> bytes:
    """Return a line with this JSON text at the path."""
    return _with_hole(_line_object(custom_id, json.dumps(OBJECT)), path, raw)


def odd_error_line(custom_id: str, path: tuple[str | int, ...], raw: str) -> bytes:
    """Return the line of an HTTP error with this JSON text at the path."""
    error = {"code": "bad", "message": "Bad.", "type": "invalid_request_error"}
    response = {"status_code": 400, "request_id": "r", "body": {"error": error}}
    return _with_hole({"custom_id": custom_id, "response": response, "error": None}, path, raw)


def odd_answer_line(custom_id: str, field: str, raw: str) -> bytes:
    """Return a line whose answer has this JSON text in a field."""
    content = json.dumps({**OBJECT, field: _HOLE}).replace(json.dumps(_HOLE), raw)
    return _line(custom_id, content.encode(errors="surrogateescape").decode(errors="replace"))


def _with_hole(line: Any, path: tuple[str | int, ...], raw: str) -> bytes:
    holder = line
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = _HOLE
    return json.dumps(line).replace(json.dumps(_HOLE), raw).encode(errors="surrogateescape")


@cache
def odd_lines() -> dict[str, bytes]:
    """Return the line for every odd value in every place, by custom_id."""
    return dict(_odd_lines())


def _odd_lines() -> Iterator[tuple[str, bytes]]:
    for name, raw in ODD_VALUES.items():
        is_large = len(raw) > 20_000
        for path in LARGE_FIELDS if is_large else FIELDS:
            custom_id = f"{name} in {'.'.join(map(str, path))}"
            yield custom_id, odd_line(custom_id, path, raw)
        for path in ERROR_FIELDS[-2:] if is_large else ERROR_FIELDS:
            custom_id = f"{name} in the error's {'.'.join(map(str, path))}"
            yield custom_id, odd_error_line(custom_id, path, raw)
        for field in ("label", "tree") if is_large else OBJECT:
            custom_id = f"{name} in the answer's {field}"
            yield custom_id, odd_answer_line(custom_id, field, raw)
