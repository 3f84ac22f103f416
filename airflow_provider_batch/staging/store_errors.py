"""What an error of an object store means, however the store's library wraps it.

s3fs raises errors of botocore and aiohttp, some of them translated into an OSError; gcsfs raises its own and those of
requests; adlfs raises those of the Azure SDK. Here they are recognized by the HTTP status that they carry, and by the
names of their classes, so that no library has to be installed or imported.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

#: HTTP statuses with which a store says that it cannot answer now
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
#: error codes of S3 that come with a status that can also mean something else
_TRANSIENT_CODES = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
#: error codes of S3 for a conditional upload that met another one of the same key; S3 asks to repeat it
_CONFLICT_CODES = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
        getattr(errno, "EREMOTEIO", errno.EAGAIN),
    }
)
#: how many errors that wrap each other are looked at
_MAX_CAUSES = 10
#: classes of errors of a connection: the store was not reached, or its answer was cut off
_TRANSIENT_CLASSES = frozenset(
    {
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "azure.core.exceptions.IncompleteReadError",
        "azure.core.exceptions.ServiceRequestError",
        "azure.core.exceptions.ServiceResponseError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.IncompleteReadError",
        "botocore.parsers.ResponseParserError",
        "gcsfs.retry.ChecksumError",
        "google.auth.exceptions.TransportError",
        "http.client.IncompleteRead",
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "urllib3.exceptions.ProtocolError",
    }
)


class StoreError(OSError):
    """Raised for every error of an object store except a missing file. The error of the library is its cause."""

    #: path that the operation was about
    path: str = ""


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of the answer that caused an error, or None if there was no answer."""
    for cause in _causes(error):
        for value in (
            _response(cause).get("ResponseMetadata", {}).get("HTTPStatusCode"),  # botocore
            getattr(cause, "status_code", None),  # Azure
            getattr(cause, "code", None),  # gcsfs
            getattr(cause, "status", None),  # aiohttp
        ):
            if str(value).isdecimal() and 400 <= int(str(value)) < 600:
                return int(str(value))
    return None


def is_taken(error: BaseException) -> bool:
    """Return whether a file could not be created because it exists."""
    return isinstance(error, FileExistsError) or http_status(error) == 412


def is_conflict(error: BaseException) -> bool:
    """Return whether a file could not be created because another upload of it was under way."""
    return http_status(error) == 409 and any(_code(cause) in {*_CONFLICT_CODES, "409"} for cause in _causes(error))


def is_end_of_file(error: BaseException) -> bool:
    """Return whether a range of bytes could not be read because it begins after the last byte."""
    return http_status(error) == 416


def is_transient(error: BaseException) -> bool:
    """Return whether the same operation may succeed later: the store could not be reached, or could not answer."""
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return False
    status = http_status(error)
    if status is not None and status in _TRANSIENT_STATUSES:
        return True
    return any(
        _code(cause) in _TRANSIENT_CODES
        or (status is None and (isinstance(cause, ConnectionError | TimeoutError) or _is_connection_error(cause)))
        for cause in _causes(error)
    )


def describe(error: BaseException) -> str:
    """Return one sentence without a full stop that says what went wrong."""
    text = str(getattr(error, "strerror", None) or error).strip().splitlines()
    reason = text[0].rstrip(".") if text else ""
    status = http_status(error)
    parts = [reason if isinstance(error, OSError) and reason else f"{type(error).__name__}: {reason}".rstrip(": ")]
    if status is not None and str(status) not in reason:
        parts.append(f"(HTTP {status})")
    return " ".join(parts)


def _is_connection_error(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    return any(f"{base.__module__}.{base.__qualname__}" in _TRANSIENT_CLASSES for base in type(error).__mro__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _response(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _code(error: BaseException) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))
