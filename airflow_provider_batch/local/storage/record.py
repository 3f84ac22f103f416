"""A batch as the server stores it: what the API shows, and what only the server knows."""

from __future__ import annotations

import msgspec

from airflow_provider_batch.local.api.objects import Batch
from airflow_provider_batch.local.faults import Fault


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A batch together with what the server remembers of it and never shows."""

    batch: Batch
    #: counts the batches of this state directory; with the seed it decides the order of result lines
    number: int
    #: the model name the input file asks for
    requested_model: str | None = None
    #: estimated input tokens, counted against the enqueued-token limit until the batch has ended
    enqueued_tokens: int = 0
    #: seconds its result files are kept
    output_lifetime: int
    #: what goes wrong with the whole batch, on request
    fault: Fault | None = None
