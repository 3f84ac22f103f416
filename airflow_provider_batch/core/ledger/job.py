"""The parts of a job: its key, its sealed shards, its manifest, and the reference that one task passes to the next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.samples import OutputSample
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.schema.columns import Column

#: version of the format of everything written into a job's folder
FORMAT = 4


class JobKey(msgspec.Struct, frozen=True):
    """The key that locates a job's ledger. It stays the same across retries and clears, so it has no try_number."""

    dag_id: str
    task_id: str
    run_id: str
    #: -1 for a task that is not mapped
    map_index: int = -1

    def canonical(self) -> bytes:
        """Return a byte string that is unique to this key."""
        return msgspec.json.encode([self.dag_id, self.task_id, self.run_id, self.map_index])


class Shard(msgspec.Struct, frozen=True):
    """One sealed input file: one endpoint, one model, within every limit."""

    #: c0001, … for the canary; s0001, s0002, … for the other rows; r01-0001, … for the rows of retry round 1;
    #: f02-0001, … if retry round 2 is the final pass; in generation 2, g002-c0001, … and g002-0001, …
    name: str
    model: str
    #: paths inside the job's folder: the input file, and its index, which has one line for each line of the input file
    file: str
    index_file: str
    requests: int
    #: size of the input file
    bytes: int
    #: sha256 of the input file, hex
    sha256: str
    #: estimated input tokens
    tokens: int = 0
    #: number of times these rows have been sent, including this time
    attempt: int = 1
    #: the lane with the highest price in which its requests may be processed. Requests that may go to the standard
    #: lane are first sent to the flex lane, if their model has it
    lane: Lane = Lane.BATCH
    #: set when a later generation keeps the shard: number of requests whose row has changed or disappeared, and how
    #: many of these have an answer that no other row needs
    obsolete_rows: int = 0
    unneeded_rows: int = 0
    #: highest factor by which the output cap of a request was raised after it was first sealed
    cap_factor: int = 1
    #: sha256 of the index file, hex; empty if the shard was sealed before indexes had checksums
    index_sha256: str = ""

    @property
    def synchronous(self) -> bool:
        """Whether the requests are sent one by one instead of in a batch.

        These are the canary, so that a mistake shows before the first upload; the final pass, because the deadline is
        near; and the rows of a job that is sent on flex.
        """
        return self.lane is not Lane.BATCH


class RowIndex(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of a shard's index: what the landing needs to know about a request."""

    custom_id: str
    #: request hash, hex
    sha256: str
    #: values of the carried columns, in the manifest's order
    carry: list[Any] = []
    #: number of the row in the result of the SQL query, from 1
    number: int = 0
    #: number of embedding inputs in the request
    inputs: int = 1
    #: estimated input tokens of the request
    tokens: int = 0
    #: set for a row that is retried: the shard it was first sealed in, and its line there, from 0
    origin: str | None = None
    line: int = 0
    #: whether the answer lands under this custom_id; False once the row has changed or disappeared
    lands: bool = True
    #: whether this row, or another one with the same request, needs the answer
    needed: bool = True


class DuplicateFile(msgspec.Struct, frozen=True):
    """A file of duplicates: rows whose requests are sent under the custom_ids of other rows."""

    #: paths inside the job's folder: the rows, one `RowIndex` per line, grouped by shard; and the offset of each group
    file: str
    segments: str
    rows: int
    #: sha256 of both files, hex; empty if they were sealed before they had checksums
    sha256: str = ""
    segments_sha256: str = ""


class ReusedFile(msgspec.Struct, frozen=True):
    """A file of reused answers, which an earlier job has landed."""

    #: k0001, k0002, …; files of duplicates use it like the name of a shard, for the rows that get these answers
    name: str
    #: path inside the job's folder
    file: str
    answers: int
    #: sha256 of the file, hex; empty if it was sealed before it had a checksum
    sha256: str = ""


class InvalidRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row that cannot be sent, with the reason."""

    row: RowIndex
    model: str
    #: the row's error_code and error_message
    code: str
    message: str


class InvalidFile(msgspec.Struct, frozen=True):
    """The file of the rows that cannot be sent, one `InvalidRow` per line."""

    #: path inside the job's folder
    file: str
    rows: int
    #: sha256 of the file, hex
    sha256: str


class Estimate(msgspec.Struct, frozen=True):
    """The expected tokens and cost of a job, as a range. An unknown cost is None, never 0."""

    input_tokens: int = 0
    output_tokens_low: int = 0
    output_tokens_high: int = 0
    #: US dollars at batch prices
    low_usd: float | None = None
    high_usd: float | None = None
    #: models without any known price
    unknown_models: list[str] = []
    #: models for which only the standard price is known; it is used instead of the batch price
    standard_price_models: list[str] = []
    #: number of requests whose prompt was counted with a tokenizer; the input tokens of the others are estimated
    counted_requests: int = 0
    #: number of answers of earlier jobs on which the output is based; 0 if there are none
    earlier_answers: int = 0
    #: US dollars if the answers are like those seen so far; None if no answers of a model were seen
    likely_usd: float | None = None


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the rows of a job come from, for lineage. All fields are empty if the rows come from another task."""

    #: connection and text of the query
    conn_id: str = ""
    sql: str = ""
    #: addresses of files
    addresses: list[str] = []
    #: columns of the rows in the custom_id, and in the rest of the requests
    custom_id_columns: list[str] = []
    request_columns: list[str] = []


class Manifest(msgspec.Struct, frozen=True):
    """The seal of a generation. Once it is created, the files that it names are the input of the job."""

    job_uid: str
    key: JobKey
    sealed_at: datetime
    endpoint: str
    openai_conn_id: str
    #: number of rows of the job; each lands exactly once
    requests: int
    shards: list[Shard]
    #: carried columns, with the types of the values in the data
    carry: list[Column]
    estimate: Estimate
    limits: Limits
    #: strict JSON Schema that every request contains
    output_schema: dict[str, Any] | None = None
    #: JSON Schema as its author means it; it decides which answers are valid and what type a column has
    author_schema: dict[str, Any] | None = None
    #: by model: maximum tokens of a shard, from the queue limits that the provider named to earlier jobs
    learned_tokens: dict[str, int] = {}
    #: by model: reported divided by estimated input tokens, as earlier jobs of the task learned; see
    #: `core.pricing.input_correction`
    input_factors: dict[str, float] = {}
    #: whether a request has more than one input (embeddings); every output is then a list of lists
    several_inputs: bool = False
    #: number of elements of the embeddings, if the first requests or their model tell
    dimensions: int | None = None
    #: the numbers of elements that the results tables take; empty if they take any
    table_dimensions: list[int] = []
    logical_date: datetime | None = None
    completion_window: str = "24h"
    metadata: dict[str, str] = {}
    #: prices set by people, in the form that `Prices` takes, and the price list that holds all others
    prices: dict[str, Any] = {}
    price_list: str = "openai"
    #: maximum cost of the job in US dollars, or None for no ceiling; a `Budget` record in the ledger replaces it
    max_cost_usd: float | None = None
    #: maximum cost of all jobs of the DAG run together, likewise
    max_run_cost_usd: float | None = None
    #: by model: high estimate of the output tokens of one request, on average; see `core.lifecycle.budget`
    output_tokens_high: dict[str, float] = {}
    #: by model: maximum output tokens of one request, on average, for models of which every request has a cap
    output_caps: dict[str, float] = {}
    #: models to which any request has an image, a sound or a file
    media_models: list[str] = []
    #: by model: the output of answers of earlier jobs of this task
    earlier_outputs: dict[str, OutputSample] = {}
    generation: int = 1
    #: first generation of the lineage if this one keeps shards of earlier ones, else 0; see `core.ledger.ledger`
    root: int = 0
    #: shards of retry rounds of earlier generations, with the index of their rows as they are now
    reindexed: list[Shard] = []
    #: numbers of the retry rounds that earlier generations sealed but never sent; their rows are retried from the
    #: submissions that they came from
    void_retry_rounds: list[int] = []
    #: whether the query has more rows than `max_rows`
    has_more_rows: bool = False
    #: number of rows that are not sent, because another row has the same request
    duplicates: int = 0
    #: number of rows that are not sent, because the results table `reuse_from` holds their answer
    reused: int = 0
    reuse_from: str = ""
    #: rows that are not sent, because a file that they name is missing or cannot be used; None if there are none
    invalid_file: InvalidFile | None = None
    #: the lane of the rows after the canary: BATCH or FLEX
    lane: Lane = Lane.BATCH
    #: number of days for which staging keeps the job after its last event; None for the configured number
    retention_days: float | None = None
    #: whether all requests are sent even if no request of the canary got a usable answer
    ignore_canary: bool = False
    #: whether the provider's copies of the job's files are deleted once staging has them
    delete_remote_files: bool = False
    #: whether requests refer to files that are uploaded before them; see `core.requests.uploaded_files`
    uploads_files: bool = False
    #: files of duplicates, and files of answers from the results table `reuse_from`
    duplicate_files: list[DuplicateFile] = []
    reused_files: list[ReusedFile] = []
    #: where the rows come from
    origin: Origin = Origin()
    format: int = FORMAT

    @property
    def sent(self) -> int:
        """Number of rows that are sent: the requests in the shards."""
        return sum(shard.requests - shard.obsolete_rows for shard in self.shards)

    @property
    def invalid(self) -> int:
        """Number of rows that are not sent, because a file that they name is missing or cannot be used."""
        return self.invalid_file.rows if self.invalid_file else 0

    @property
    def models(self) -> list[str]:
        """Models of the requests."""
        return sorted({shard.model for shard in self.shards})

    @property
    def sources(self) -> str:
        """Description of where the rows get their answers."""
        return sources_of(self.sent, self.duplicates, self.reused, self.reuse_from, self.invalid)


def sources_of(sent: int, duplicates: int, reused: int, reuse_from: str, invalid: int = 0) -> str:
    """Describe where the rows get their answers, such as "620 sent, 300 duplicates, 80 reused from labels"."""
    earlier = f", {reused:,} reused from {reuse_from}" if reuse_from else ""
    unsent = f", {invalid:,} with invalid input" if invalid else ""
    return f"{sent:,} sent, {duplicates:,} {'duplicate' if duplicates == 1 else 'duplicates'}{earlier}{unsent}"


class Reference(msgspec.Struct, frozen=True, omit_defaults=False):
    """The value that submit returns and the next tasks take. It fits into an XCom and holds no row data and no keys."""

    job_uid: str
    #: absolute address of the job's folder
    ledger: str
    openai_conn_id: str
    requests: int
    shards: int
    estimate: Estimate
    #: whether the job was only rendered, checked and priced, and not sealed
    preview: bool = False
    #: number of requests that the canary sent, and what they cost in US dollars; None if that is unknown
    canary_requests: int = 0
    canary_cost_usd: float | None = 0.0
    #: the same as text for people, such as "less than $0.0001"
    canary_cost: str = "$0.00"
    #: number of these requests by outcome
    canary_outcomes: dict[str, int] = {}
    #: numbers of rows: those that are sent, duplicates of these, and those whose answer comes from the results table of
    #: an earlier job
    sent: int = 0
    duplicates: int = 0
    reused: int = 0
    #: number of rows that cannot be sent, because a file that they name is missing or cannot be used
    invalid: int = 0
    #: models of the requests
    models: list[str] = []
