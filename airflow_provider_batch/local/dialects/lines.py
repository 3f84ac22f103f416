"""Switches over the lines of result files: each changes one line in place, before it is written.

Named after their functions, as those in `wire` are.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

#: one line of a result file, decoded
Line = dict[str, Any]


def response_is_body(line: Line) -> None:
    """`response` of an answered request is the completion itself, without `status_code` and `body` (Nebius)."""
    if line["response"] is not None and line["response"]["status_code"] == 200:
        line["response"] = line["response"]["body"]


def sparse_lines(line: Line) -> None:
    """No `request_id`; no `error` in a line with an answer, no `response` in one without (Doubleword)."""
    response = line["response"]
    if response is not None and "status_code" in response:
        response.pop("request_id", None)
        if response["status_code"] != 200:
            line["error"], line["response"] = _error_of(response), None
    for name in ("response", "error"):
        if line[name] is None:
            del line[name]


def vllm_lines(line: Line) -> None:
    """Ids of its own; no body where a request failed, and `error` an exception's text or an ErrorResponse (vLLM)."""
    line["id"] = f"vllm-{secrets.token_hex(16)}"
    response = line.get("response")
    if response is None or "status_code" not in response:
        return
    response["request_id"] = f"vllm-batch-{secrets.token_hex(16)}"
    status = response["status_code"]
    if status != 200:
        error = _error_of(response)
        response["body"] = None
        line["error"] = error["message"] if status == 400 else {"error": {**error, "param": None, "code": status}}


def no_line_ids(line: Line) -> None:
    """Lines have no `id` (Azure)."""
    del line["id"]


def _error_of(response: dict[str, Any]) -> dict[str, Any]:
    body = response["body"]
    told = body.get("error") if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {}
    return {
        "code": told.get("code") or told.get("type") or f"http_{response['status_code']}",
        "message": told.get("message") or f"HTTP status {response['status_code']}",
    }


#: in the order they run
LINE: tuple[Callable[[Line], None], ...] = (response_is_body, sparse_lines, vllm_lines, no_line_ids)
