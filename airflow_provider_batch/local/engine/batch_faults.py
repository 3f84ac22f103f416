"""Batch faults: the error of a batch that an injected fault causes to fail."""

from __future__ import annotations

from airflow_provider_batch.local.api.objects import Batch, BatchError
from airflow_provider_batch.local.engine.validation import missing_file_findings, token_limit_error
from airflow_provider_batch.local.faults import Fault

#: limit on enqueued tokens that the error names if the server has no limit (openai-python issue 2084)
_DEFAULT_LIMIT = 2_000_000
#: OpenAI's messages for account errors. It is not documented that batches report them with these codes.
_ACCOUNT_ERRORS = {
    "billing_hard_limit_reached": "Billing hard limit has been reached.",
    "billing_not_active": "Your account is not active, please check your billing details on our website.",
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
}


def failure_of(fault: Fault, batch: Batch, model: str | None, limit: int | None) -> BatchError:
    """Return the error of a batch that fails because of this fault.

    The default code is `token_limit_exceeded`. The default message of `invalid_request` is that of an input file that
    cannot be found.

    :param model: the model in the input file, if it has a valid one.
    :param limit: the server's own limit on enqueued tokens.
    """
    code = fault.code or "token_limit_exceeded"
    if code == "token_limit_exceeded":
        default = token_limit_error(model or "the model", limit or _DEFAULT_LIMIT)
    elif code == "invalid_request":
        default = missing_file_findings(batch.input_file_id).errors[0]
    else:
        default = BatchError(code=code, message=_ACCOUNT_ERRORS.get(code, f"The batch failed with {code}."))
    if fault.message is None:
        return default
    return BatchError(code=code, message=fault.message)
