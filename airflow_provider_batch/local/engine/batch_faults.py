"""Faults of whole batches: the error of one that fails on request."""

from __future__ import annotations

from airflow_provider_batch.local.api.objects import Batch, BatchError
from airflow_provider_batch.local.engine.validation import cannot_find, token_limit
from airflow_provider_batch.local.faults import Fault

#: enqueued tokens of a limit that nobody set (openai-python issue 2084)
_LIMIT = 2_000_000
#: OpenAI's words for errors of the account. That batches report them by these codes is not on record.
_ACCOUNT = {
    "billing_hard_limit_reached": "Billing hard limit has been reached.",
    "billing_not_active": "Your account is not active, please check your billing details on our website.",
    "insufficient_quota": "You exceeded your current quota, please check your plan and billing details.",
}


def failure_of(fault: Fault, batch: Batch, model: str | None, limit: int | None) -> BatchError:
    """The error of a batch that this fault fails.

    Without a code it is `token_limit_exceeded`; `invalid_request` without a message is the one for an input file
    that cannot be found.

    :param model: what the input file asks for, if that is known.
    :param limit: the server's own limit on enqueued tokens.
    """
    code = fault.code or "token_limit_exceeded"
    if code == "token_limit_exceeded":
        usual = token_limit(model or "the model", limit or _LIMIT)
    elif code == "invalid_request":
        usual = cannot_find(batch.input_file_id).errors[0]
    else:
        usual = BatchError(code=code, message=_ACCOUNT.get(code, f"The batch failed with {code}."))
    if fault.message is None:
        return usual
    return BatchError(code=code, message=fault.message)
