"""How long each state of a batch lasts, which limits hold, and what else one server was started with."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_batch.local.dialects import OPENAI, Dialect
from airflow_provider_batch.local.faults import Fault

#: requests in one input file (OpenAI, Batch guide)
MAX_REQUESTS = 50_000
#: embedding inputs over all lines of one input file (OpenAI, Batch guide)
MAX_EMBEDDING_INPUTS = 50_000
#: bytes of one input file; OpenAI counts 200 MB as decimal megabytes
MAX_INPUT_BYTES = 200_000_000
#: bytes of one file of any purpose (openai SDK, `files.create`)
MAX_FILE_BYTES = 512_000_000
#: bytes of one file that comes in parts, and of one part (openai SDK, `uploads.create` and `parts.create`); its parts
#: of "64 MB" have 67,108,864 bytes, so these megabytes are binary
MAX_UPLOAD_BYTES = 8 << 30
MAX_PART_BYTES = 64 << 20
#: seconds from its creation until an upload in parts expires
UPLOAD_LIFETIME = 3_600
#: seconds a file with purpose `batch` or `batch_output` is kept: 30 days
FILE_LIFETIME = 2_592_000
#: seconds of OpenAI's only completion window, `24h`
WINDOW = 86_400
#: batches that may be created in an hour (OpenAI, Batch guide)
CREATES_PER_HOUR = 2_000
#: files that may be uploaded in a minute (openai SDK, `files.create`)
UPLOADS_PER_MINUTE = 1_000


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The server that answers in place of the offline responder. Times are real seconds, whatever the clock shows."""

    #: the base URL, without a slash at the end, for instance `http://127.0.0.1:8000/v1`
    url: str
    #: its bearer token
    api_key: str | None = field(default=None, repr=False)
    #: the model to ask for in place of the one that a request names; None asks for that one
    model: str | None = None
    #: how long one request may take, from its start to the end of its answer
    timeout: float = 600.0
    #: how long requests of batches wait for an upstream that cannot be reached
    patience: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one server was started with. All times are seconds of the server's clock."""

    #: server seconds per real second
    speed: float = 1.0
    #: time in `validating`, at least; the check itself may take longer
    validating: float = 0.0
    #: time in `in_progress`, spread evenly over the requests so that the counts grow
    in_progress: float = 0.0
    #: time in `finalizing`, and in `cancelling`
    finalizing: float = 0.0
    #: from `created_at` to `expires_at`; what has not run by then expires
    window: int = WINDOW
    #: decides the order of lines in result files, and whom faults hit
    seed: int = 0
    #: requests of one batch that are asked at the same time; of an upstream, over all batches and calls
    concurrency: int = 1
    #: models the server knows; empty means that every name is accepted
    models: frozenset[str] = frozenset()
    #: estimated input tokens that may wait per model; None means no limit
    enqueued_token_limit: int | None = None
    #: how long the tokens of an ended batch still count as enqueued
    release_after: float = 0.0
    #: batches that may be created in an hour; None means no limit
    creates_per_hour: int | None = CREATES_PER_HOUR
    #: files that may be uploaded in a minute; None means no limit
    uploads_per_minute: int | None = UPLOADS_PER_MINUTE
    #: in which ways it differs from OpenAI
    dialect: Dialect = OPENAI
    #: the bearer token to ask for; None accepts any non-empty one
    api_key: str | None = None
    #: who answers; None is the offline responder
    upstream: Upstream | None = None
    #: what goes wrong from the start
    faults: tuple[Fault, ...] = ()
    #: the share of webhooks that arrive twice, drawn by the seed
    webhook_duplicates: float = 0.0
    #: whether there are routes under `/admin`, by which faults are set and the clock is moved
    admin: bool = False

    @property
    def calls_may_fail(self) -> bool:
        """Whether calls are counted and may be hit by faults."""
        return self.admin or bool(self.faults)
