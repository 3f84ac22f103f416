"""OpenAI's error shape: `{"error": {"message", "type", "param", "code"}}` and a status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that is refused, synchronously or as one line of a batch."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The JSON body that goes with `status`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def too_many(message: str, *, retry_after: float) -> ApiError:
    """429: a rate limit is reached. `retry_after` is in real seconds, rounded up."""
    headers = {"Retry-After": str(math.ceil(retry_after))}
    return ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=headers)


#: message, type and code of OpenAI's errors by status; 504 is what batches report of a model that took too long
#: (community.openai.com, topic 1385608)
_FAILURES: dict[int, tuple[str, str, str | None]] = {
    400: ("The request was rejected as invalid.", "invalid_request_error", "invalid_value"),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded"),
    504: (
        "Timed out generating response. Please try again with a shorter prompt or with `max_tokens` set to a lower"
        " value.",
        "server_error",
        None,
    ),
}


def failure(
    status: int, *, code: str | None = None, message: str | None = None, headers: Mapping[str, str] | None = None
) -> ApiError:
    """An error on request (a marker or a fault); what is None is as OpenAI's errors of this status have it."""
    server = ("An error occurred while processing your request. You can retry your request.", "server_error", None)
    client = (f"The request failed with status {status}.", "invalid_request_error", None)
    usual, type, usual_code = _FAILURES.get(status, server if status >= 500 else client)
    if code == "insufficient_quota":
        type = code
    return ApiError(status, message or usual, type=type, code=code or usual_code, headers=headers)


#: how OpenAI's messages call the JSON types
_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    type(None): "null",
}


def missing_parameter(name: str) -> ApiError:
    """400: a required parameter was not given."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def wrong_type(name: str, expected: str, value: object) -> ApiError:
    """400: a parameter has the wrong JSON type. `expected` carries its article: `a string`."""
    got = _TYPE_NAMES.get(type(value), "something else")
    return ApiError(
        400,
        f"Invalid type for '{name}': expected {expected}, but got {got} instead.",
        param=name,
        code="invalid_type",
    )


def invalid_value(name: str, value: object, supported: list[str]) -> ApiError:
    """400: a parameter is not one of the supported values."""
    quoted = [f"'{item}'" for item in supported]
    listed = " and ".join(quoted) if len(quoted) < 3 else f"{', '.join(quoted[:-1])}, and {quoted[-1]}"
    return ApiError(
        400,
        f"Invalid value: '{value}'. Supported values are: {listed}.",
        param=name,
        code="invalid_value",
    )


def out_of_range(name: str, kind: str, value: float, low: int, high: int | None) -> ApiError | None:
    """400 if a number is below `low` or above `high`, else None. `kind` is `integer` or `decimal`."""
    if value < low:
        side, code, sign, bound = "below minimum", "below_min", ">=", low
    elif high is not None and value > high:
        side, code, sign, bound = "above maximum", "above_max", "<=", high
    else:
        return None
    return ApiError(
        400,
        f"Invalid '{name}': {kind} {side} value. Expected a value {sign} {bound}, but got {value} instead.",
        param=name,
        code=f"{kind}_{code}_value",
    )
