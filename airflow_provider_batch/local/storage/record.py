"""A batch as the server stores it: the object that the API shows, plus internal data."""

from __future__ import annotations

import msgspec

from airflow_provider_batch.local.api.objects import Batch
from airflow_provider_batch.local.faults import Fault


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A batch with internal data that the API does not show."""

    batch: Batch
    #: Number of the batch in its state directory, from 1. Together with the seed it determines the order of result
    #: lines.
    number: int
    #: name of the model in the input file
    requested_model: str | None = None
    #: estimated input tokens, which count against the enqueued-token limit until the batch has ended
    enqueued_tokens: int = 0
    #: seconds for which its result files are kept
    output_lifetime: int
    #: injected fault of the whole batch
    fault: Fault | None = None
