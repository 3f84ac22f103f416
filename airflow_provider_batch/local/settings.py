"""Settings of one server: how long the states of a batch last, which limits apply, and everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_batch.local.dialects import OPENAI, Dialect
from airflow_provider_batch.local.faults import Fault

#: maximum number of requests in one input file (OpenAI, Batch guide)
MAX_REQUESTS = 50_000
#: maximum number of embedding inputs over all lines of one input file (OpenAI, Batch guide)
MAX_EMBEDDING_INPUTS = 50_000
#: Maximum size of one input file in bytes. OpenAI's 200 MB are decimal megabytes.
MAX_INPUT_BYTES = 200_000_000
#: maximum size in bytes of one file with any purpose (openai SDK, `files.create`)
MAX_FILE_BYTES = 512_000_000
#: Maximum size in bytes of a file uploaded in parts, and of one part (openai SDK, `uploads.create` and
#: `parts.create`). The SDK's parts of "64 MB" have 67,108,864 bytes, so these megabytes are binary.
MAX_UPLOAD_BYTES = 8 << 30
MAX_PART_BYTES = 64 << 20
#: seconds from the creation of an upload in parts to its expiry
UPLOAD_LIFETIME = 3_600
#: seconds for which a file with purpose `batch` or `batch_output` is kept: 30 days
FILE_LIFETIME = 2_592_000
#: seconds of OpenAI's only completion window, `24h`
WINDOW = 86_400
#: maximum number of batches created per hour (OpenAI, Batch guide)
CREATES_PER_HOUR = 2_000
#: maximum number of files uploaded per minute (openai SDK, `files.create`)
UPLOADS_PER_MINUTE = 1_000


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The server that answers instead of the offline responder. Times are real seconds, not the server clock's."""

    #: base URL without a trailing slash, such as `http://127.0.0.1:8000/v1`
    url: str
    #: its bearer token
    api_key: str | None = field(default=None, repr=False)
    #: model to send instead of the one that a request names; None leaves the request's model unchanged
    model: str | None = None
    #: maximum duration of one request, up to the end of its answer
    timeout: float = 600.0
    #: how long batch requests wait for an unreachable upstream
    patience: float = 120.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one server. All times are seconds of the server's clock."""

    #: server seconds per real second
    speed: float = 1.0
    #: Minimum time in `validating`. The validation itself may take longer.
    validating: float = 0.0
    #: time in `in_progress`, spread evenly over the requests so that the counts grow
    in_progress: float = 0.0
    #: time in `finalizing`, and in `cancelling`
    finalizing: float = 0.0
    #: Time from `created_at` to `expires_at`. Requests that have not run by then expire.
    window: int = WINDOW
    #: determines the order of lines in result files, and which rows and calls faults hit
    seed: int = 0
    #: maximum number of concurrent requests: per batch with the offline responder, in total with an upstream
    concurrency: int = 1
    #: names of the models that exist; empty accepts every name
    models: frozenset[str] = frozenset()
    #: maximum number of estimated input tokens in the queue per model; None for no limit
    enqueued_token_limit: int | None = None
    #: how long the tokens of an ended batch still count as enqueued
    release_after: float = 0.0
    #: maximum number of batches created per hour; None for no limit
    creates_per_hour: int | None = CREATES_PER_HOUR
    #: maximum number of files uploaded per minute; None for no limit
    uploads_per_minute: int | None = UPLOADS_PER_MINUTE
    #: median duration of a request on the flex tier, and how many of them run at the same time
    flex_latency: float = 0.0
    flex_concurrency: int = 64
    #: share of the requests on the flex tier that are refused for lack of resources, from 0 to 1
    flex_unavailable: float = 0.0
    #: models that have the flex tier; empty for those that have it at OpenAI
    flex_models: frozenset[str] = frozenset()
    #: how the server differs from OpenAI
    dialect: Dialect = OPENAI
    #: the bearer token that clients must send; None accepts any non-empty one
    api_key: str | None = None
    #: the server that answers; None selects the offline responder
    upstream: Upstream | None = None
    #: file with labelled examples, by which the offline responder chooses the values of enums; see `answers.examples`
    examples: Path | None = None
    #: models and skills of the offline responder, such as `("gpt-5-mini", "moves")`, that are a planted regression: the
    #: model uses the skill only the first time that it gets a question
    forgotten: frozenset[tuple[str, str]] = frozenset()
    #: faults that are active from the start
    faults: tuple[Fault, ...] = ()
    #: Share of webhooks that are delivered twice, from 0 to 1. The seed decides which.
    webhook_duplicates: float = 0.0
    #: Whether the routes under `/admin` exist. They set faults and move the clock.
    admin: bool = False

    @property
    def injects_call_faults(self) -> bool:
        """Whether the server counts calls and can inject faults into them."""
        return self.admin or bool(self.faults)
