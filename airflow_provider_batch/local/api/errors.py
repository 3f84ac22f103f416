"""Error responses in OpenAI's shape: an HTTP status and `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class ApiError(Exception):
    """Raised to answer a request with an error, either directly or as the result of one line of a batch."""

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
        """Return the JSON body of the response."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def rate_limited(message: str, *, retry_after: float) -> ApiError:
    """Return a 429 for a rate limit. `retry_after` is in real seconds; the header rounds it up."""
    headers = {"Retry-After": str(math.ceil(retry_after))}
    return ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=headers)


#: Message, type and code of OpenAI's errors by status. Batches report 504 when a model took too long
#: (community.openai.com, topic 1385608).
_DEFAULTS: dict[int, tuple[str, str, str | None]] = {
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


def injected_error(
    status: int, *, code: str | None = None, message: str | None = None, headers: Mapping[str, str] | None = None
) -> ApiError:
    """Return an error that a test requested, by a marker or a fault.

    `code` and `message` default to those that OpenAI sends with this status.
    """
    server_error = (
        "An error occurred while processing your request. You can retry your request.",
        "server_error",
        None,
    )
    client_error = (f"The request failed with status {status}.", "invalid_request_error", None)
    default_message, type, default_code = _DEFAULTS.get(status, server_error if status >= 500 else client_error)
    if code == "insufficient_quota":
        type = code
    return ApiError(status, message or default_message, type=type, code=code or default_code, headers=headers)


#: names of the JSON types in OpenAI's messages
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
    """Return a 400 for a required parameter that is missing."""
    return ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def wrong_type(name: str, expected: str, value: object) -> ApiError:
    """Return a 400 for a parameter of the wrong JSON type. `expected` includes the article, as in `a string`."""
    actual = _TYPE_NAMES.get(type(value), "something else")
    return ApiError(
        400,
        f"Invalid type for '{name}': expected {expected}, but got {actual} instead.",
        param=name,
        code="invalid_type",
    )


def invalid_value(name: str, value: object, supported: Sequence[str]) -> ApiError:
    """Return a 400 for a parameter whose value is not supported."""
    names = [f"'{item}'" for item in supported]
    listing = " and ".join(names) if len(names) < 3 else f"{', '.join(names[:-1])}, and {names[-1]}"
    return ApiError(
        400,
        f"Invalid value: '{value}'. Supported values are: {listing}.",
        param=name,
        code="invalid_value",
    )


def out_of_range(name: str, kind: str, value: float, low: int, high: int | None) -> ApiError | None:
    """Return a 400 if a number is below `low` or above `high`, else None. `kind` is `integer` or `decimal`."""
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
