"""What a job is made of: its key, its sealed shards, its manifest, the reference that tasks pass on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.schema.columns import Column

#: version of everything written into a job's folder
FORMAT = 2


class JobKey(msgspec.Struct, frozen=True):
    """What *finds* a job's ledger: stable over retries and clears of one task instance, so never try_number."""

    dag_id: str
    task_id: str
    run_id: str
    #: -1 for a task that is not mapped
    map_index: int = -1

    def canonical(self) -> bytes:
        """One unambiguous byte string per key."""
        return msgspec.json.encode([self.dag_id, self.task_id, self.run_id, self.map_index])


class Shard(msgspec.Struct, frozen=True):
    """One sealed input file: one endpoint, one model, within every limit."""

    #: c0001, … for the canary; s0001, s0002, … for the other rows; r01-0001, … for rows that are asked again in wave 1;
    #: f02-0001, … if that wave is the finish line
    name: str
    model: str
    #: paths inside the job's folder: the input file, and the index with one line per line of it
    file: str
    index_file: str
    requests: int
    #: size of the input file
    bytes: int
    #: sha256 of the input file, hex
    sha256: str
    #: estimated input tokens
    tokens: int = 0
    #: how often the provider is asked for these rows, this time included
    attempt: int = 1
    #: the canary, asked one by one and at once, so that what is wrong is known before the first file is uploaded; or
    #: the finish line, asked so because the deadline is over
    synchronous: bool = False
    #: of the requests, once a later generation keeps the shard: those whose row changed or vanished since, and of these
    #: the ones whose answer no other row takes either
    obsolete_rows: int = 0
    unneeded_rows: int = 0
    #: by how much the output cap of its requests was raised since they were sealed first, at most
    cap_factor: int = 1


class RowIndex(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of a shard's index: what must be known of a request when its answer lands."""

    custom_id: str
    #: request hash, hex
    sha256: str
    #: values of the carried columns, in the manifest's order
    carry: list[Any] = []
    #: number of the row in the result of the SQL, from 1
    number: int = 0
    #: embedding inputs in the request
    inputs: int = 1
    #: estimated input tokens of the request
    tokens: int = 0
    #: of a row that is asked again: the shard it was sealed in, and its line there (from 0)
    origin: str | None = None
    line: int = 0
    #: False once the row changed or vanished; and whether the row, or another that asks the same, takes the answer
    lands: bool = True
    needed: bool = True


class DuplicateFile(msgspec.Struct, frozen=True):
    """One file of rows whose requests are asked under the custom_ids of other rows."""

    #: paths inside the job's folder: the rows, a `RowIndex` a line, grouped by shard; and where each group begins
    file: str
    segments: str
    rows: int


class ReusedFile(msgspec.Struct, frozen=True):
    """One file of answers that an earlier job already landed."""

    #: k0001, k0002, …: what the rows that get these answers are copies of
    name: str
    #: path inside the job's folder
    file: str
    answers: int


class Estimate(msgspec.Struct, frozen=True):
    """What a job is expected to use and cost, as a range. None is unknown, never 0."""

    input_tokens: int = 0
    output_tokens_low: int = 0
    output_tokens_high: int = 0
    #: US dollars at batch prices
    low_usd: float | None = None
    high_usd: float | None = None
    #: models without any known price
    unknown_models: list[str] = []
    #: models for which only the standard price is known, which then stands in for the batch price
    standard_price_models: list[str] = []
    #: requests whose prompts tiktoken counted; the other input tokens are estimated, all of them if it is 0
    counted_requests: int = 0
    #: answers of earlier jobs that tell the output; 0 if none does
    earlier_answers: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """The seal of a generation: created exclusively, it makes the files it names the job's input."""

    job_uid: str
    key: JobKey
    sealed_at: datetime
    endpoint: str
    openai_conn_id: str
    #: rows of the job; each lands once
    requests: int
    shards: list[Shard]
    #: carried columns with the types found in the data
    carry: list[Column]
    estimate: Estimate
    limits: Limits
    output_schema: dict[str, Any] | None = None
    #: by model: the tokens that a shard may have, as the provider told earlier jobs of the connection
    learned_tokens: dict[str, int] = {}
    #: True if a request has more than one input (embeddings), so that its output is a list of lists
    several_inputs: bool = False
    logical_date: datetime | None = None
    completion_window: str = "24h"
    metadata: dict[str, str] = {}
    #: prices that the author stated, as given to `Prices`
    prices: dict[str, Any] = {}
    #: US dollars that the job may cost; None: no ceiling. A `Budget` in the ledger takes its place
    max_cost_usd: float | None = None
    #: by model: the output tokens that one request may have at most, on average; see `core.lifecycle.budget`
    output_tokens_high: dict[str, float] = {}
    generation: int = 1
    #: of a generation that keeps shards of earlier ones: the first of these, beside whose seal the records of shards
    #: are kept for all of them
    root: int = 0
    #: shards that were sealed in a wave of an earlier generation, with the index of their rows as they are now
    reindexed: list[Shard] = []
    #: waves of earlier generations of which nothing was sent: their rows are asked again from where they were before
    void_retry_rounds: list[int] = []
    #: rows that are not asked themselves, because their request is that of another row
    duplicates: int = 0
    #: rows that are not asked, because the results table `reuse_from` holds their answer
    reused: int = 0
    reuse_from: str = ""
    #: days that staging keeps the job after its last event; None for the configured number
    retention_days: float | None = None
    #: whether the provider's copies of its files go once they are safe in staging
    delete_remote_files: bool = False
    #: the rows that are not asked themselves, and the answers from the results table
    duplicate_files: list[DuplicateFile] = []
    reused_files: list[ReusedFile] = []
    format: int = FORMAT

    @property
    def sent(self) -> int:
        """Rows that are asked: the requests in the shards."""
        return sum(shard.requests - shard.obsolete_rows for shard in self.shards)

    @property
    def sources(self) -> str:
        """Where the rows get their answers, in words."""
        return sources_of(self.sent, self.duplicates, self.reused, self.reuse_from)


def sources_of(sent: int, duplicates: int, reused: int, reuse_from: str) -> str:
    """Return where the rows get their answers, such as "620 sent, 300 duplicates, 80 reused from labels"."""
    earlier = f", {reused:,} reused from {reuse_from}" if reuse_from else ""
    return f"{sent:,} sent, {duplicates:,} {'duplicate' if duplicates == 1 else 'duplicates'}{earlier}"


class Reference(msgspec.Struct, frozen=True, omit_defaults=False):
    """What submit returns and the next tasks take: small enough for XCom, no data and no keys in it."""

    job_uid: str
    #: absolute address of the job's folder
    ledger: str
    openai_conn_id: str
    requests: int
    shards: int
    estimate: Estimate
    #: True if nothing was sealed: the job was only rendered, checked and priced
    preview: bool = False
    #: of the requests: those that are asked, those with the same request as one of them, and those whose answer is
    #: taken from an earlier job's results table
    sent: int = 0
    duplicates: int = 0
    reused: int = 0
