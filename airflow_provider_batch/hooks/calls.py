"""What the calls of the hook return and raise.

This module does not import the OpenAI SDK. The operators and the worker therefore use it without making every DAG file
that imports an operator pay for the import of the SDK, which takes half a second.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.exceptions import ProviderError

#: Timeout for one synchronous request, in seconds. Slower rows go to a batch, which has no such limit.
SYNCHRONOUS_TIMEOUT = 120.0


class SynchronousResponse(NamedTuple):
    """Result of one synchronous request."""

    #: HTTP status; 0 if there was no answer
    status: int
    request_id: str
    #: body of the answer, unparsed; if there was no answer, a description of what happened
    body: bytes
    #: the provider's error code
    code: str | None = None
    #: seconds that the provider asks us to wait before a retry
    retry_after: float | None = None
    #: whether the request may have been billed although there is no answer
    may_be_billed: bool = False


class CreateRefusedError(Exception):
    """Raised when the provider refused to create a batch: no batch exists."""

    def __init__(self, failure: Failure, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.failure, self.message = failure, message
        #: seconds that the provider asks us to wait before a retry; None if it does not say
        self.retry_after = retry_after


class CreateUnconfirmedError(Exception):
    """Raised when it is unknown whether a batch was created, because there was no usable answer."""


def is_key_refused(error: ProviderError) -> bool:
    """Return whether a call failed because the provider refused the key itself (HTTP 401)."""
    return getattr(error.__cause__, "status_code", None) == 401
