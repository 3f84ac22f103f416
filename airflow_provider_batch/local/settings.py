"""How long each state of a batch lasts, and which limits hold."""

from __future__ import annotations

from dataclasses import dataclass

#: requests in one input file (OpenAI, Batch guide)
MAX_REQUESTS = 50_000
#: embedding inputs over all lines of one input file (OpenAI, Batch guide)
MAX_EMBEDDING_INPUTS = 50_000
#: bytes of one input file; OpenAI counts 200 MB as decimal megabytes
MAX_INPUT_BYTES = 200_000_000
#: seconds a file with purpose `batch` or `batch_output` is kept: 30 days
FILE_LIFETIME = 2_592_000
#: seconds of OpenAI's only completion window, `24h`
WINDOW = 86_400


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one server was started with. All times are seconds."""

    #: time in `validating`, at least; the check itself may take longer
    validating: float = 0.0
    #: time in `in_progress`, spread evenly over the requests so that the counts grow
    in_progress: float = 0.0
    #: time in `finalizing`, and in `cancelling`
    finalizing: float = 0.0
    #: from `created_at` to `expires_at`; what has not run by then expires
    window: int = WINDOW
    #: decides the order of lines in result files
    seed: int = 0
    #: models the server knows; empty means that every name is accepted
    models: frozenset[str] = frozenset()
    #: estimated input tokens that may wait per model; None means no limit
    enqueued_token_limit: int | None = None
    #: the bearer token to ask for; None accepts any non-empty one
    api_key: str | None = None
