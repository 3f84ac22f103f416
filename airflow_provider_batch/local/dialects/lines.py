"""Switches that rewrite the lines of result files: each function changes one line in place before it is written.

As in `wire`, a switch is named after its function.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

#: one decoded line of a result file
Line = dict[str, Any]


def response_is_body(line: Line) -> None:
    """Replace `response` of an answered request with its body, without `status_code` (Nebius)."""
    if line["response"] is not None and line["response"]["status_code"] == 200:
        line["response"] = line["response"]["body"]


def sparse_lines(line: Line) -> None:
    """Omit `request_id`, and whichever of `error` and `response` has no value (Doubleword).

    A failed request has no response; its error has the code and the message of the body.
    """
    response = line["response"]
    if response is not None and "status_code" in response:
        response.pop("request_id", None)
        if response["status_code"] != 200:
            line["error"], line["response"] = _error_fields(response), None
    for name in ("response", "error"):
        if line[name] is None:
            del line[name]


def vllm_lines(line: Line) -> None:
    """Set vLLM's ids, and move the error of a failed request from its body to `error` (vLLM).

    `error` is the text of an exception for status 400 and an ErrorResponse for all others.
    """
    line["id"] = f"vllm-{secrets.token_hex(16)}"
    response = line.get("response")
    if response is None or "status_code" not in response:
        return
    response["request_id"] = f"vllm-batch-{secrets.token_hex(16)}"
    status = response["status_code"]
    if status != 200:
        error = _error_fields(response)
        response["body"] = None
        line["error"] = error["message"] if status == 400 else {"error": {**error, "param": None, "code": status}}


def ogx_lines(line: Line) -> None:
    """Use the id of the line as `request_id`, and omit `response` or `error` (OGX, formerly Llama Stack).

    The error of a failed request has a type and a message, but no status.
    """
    response = line.get("response")
    if response is None or "status_code" not in response:
        return
    response["request_id"] = line["id"]
    if response["status_code"] == 200:
        line.pop("error", None)
    else:
        line["error"] = {"type": "request_failed", "message": _error_fields(response)["message"]}
        del line["response"]


def body_text(line: Line) -> None:
    """Send `response.body` as a string that contains JSON (OGX, formerly Llama Stack)."""
    response = line.get("response")
    if response is not None and isinstance(response.get("body"), dict):
        response["body"] = _as_text(response["body"])


def response_text(line: Line) -> None:
    """Send `response` as a string that contains JSON (our choice)."""
    if line.get("response") is not None:
        line["response"] = _as_text(line["response"])


def no_line_ids(line: Line) -> None:
    """Omit `id` (Azure)."""
    del line["id"]


def _as_text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _error_fields(response: dict[str, Any]) -> dict[str, Any]:
    body = response["body"]
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    return {
        "code": error.get("code") or error.get("type") or f"http_{response['status_code']}",
        "message": error.get("message") or f"HTTP status {response['status_code']}",
    }


#: the switches in the order in which they run
LINE: tuple[Callable[[Line], None], ...] = (
    response_is_body,
    sparse_lines,
    vllm_lines,
    ogx_lines,
    no_line_ids,
    body_text,
    response_text,
)
