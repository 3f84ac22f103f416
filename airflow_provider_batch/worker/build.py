"""Turns rows into the shards of a job: read, render, pack, price, check the budget.

Nothing is uploaded here. Every mistake in the arguments or the rows is found here. A build that fails leaves files
without a seal, which nothing reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, islice
from typing import Any

import msgspec

from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Origin, Shard
from airflow_provider_batch.core.ledger.ledger import canary_name_format, generation_prefix, shard_name_format
from airflow_provider_batch.core.lifecycle.budget import Ceiling, ceilings_of
from airflow_provider_batch.core.lifecycle.lessons import LearnedFacts
from airflow_provider_batch.core.lifecycle.shared_budget import SharedBudget
from airflow_provider_batch.core.pricing.estimate import Estimator
from airflow_provider_batch.core.pricing.prices import Prices, Usage
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.answer_size import dimensions_of
from airflow_provider_batch.core.requests.body_form import LeafError
from airflow_provider_batch.core.requests.endpoints import EMBEDDINGS
from airflow_provider_batch.core.requests.file_parts import compact
from airflow_provider_batch.core.requests.render import Renderer, RequestSpec, compile_renderer
from airflow_provider_batch.core.requests.request import Request, request_hashes
from airflow_provider_batch.core.requests.row import Columns, UnknownColumnError
from airflow_provider_batch.core.requests.uploaded_files import with_references
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.native import plain
from airflow_provider_batch.core.sealing.canary_rows import lot_of
from airflow_provider_batch.core.sealing.carry import CarriedColumns
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.reuse_generation import PreviousGeneration, RowSet
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import BudgetError, InputError
from airflow_provider_batch.sources.source import RowSource
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.chunks import CHUNK_ROWS, ChunkSize, chunks_of
from airflow_provider_batch.worker.file_reader import FileReader
from airflow_provider_batch.worker.reuse import with_reused_answers
from airflow_provider_batch.worker.uploaded_files import store_file

#: number of requests that a preview shows
SAMPLE_REQUESTS = 3
#: with lane="auto", the most rows of a job that is sent on flex
AUTO_LANE_ROWS = 300


class Plan(msgspec.Struct, frozen=True):
    """Everything about a job that does not come from its rows."""

    key: JobKey
    spec: RequestSpec
    carry: list[str]
    #: plain values that row templates can see besides `row`
    context: dict[str, Any]
    openai_conn_id: str
    limits: Limits
    #: prices set by people, and the price list that holds all others
    prices: dict[str, Any]
    max_cost_usd: float | None
    completion_window: str
    metadata: dict[str, str]
    logical_date: datetime | None
    #: whether identical requests are sent once
    deduplicate: bool = True
    price_list: str = "openai"
    #: number of requests per model that are sent synchronously before anything is uploaded
    canary: int = 0
    ignore_canary: bool = False
    #: maximum number of rows to send; None sends all
    max_rows: int | None = None
    #: days that staging keeps the job; None means the configured number
    retention_days: float | None = None
    delete_remote_files: bool = False
    #: whether files of rows are uploaded instead of being part of the requests
    uploads_files: bool = False
    #: maximum cost of all jobs of the DAG run
    max_run_cost_usd: float | None = None
    #: the budget that all jobs of the connection share
    connection_budget: SharedBudget | None = None
    #: the lane of the rows after the canary: BATCH, FLEX, or None if their number decides
    lane: Lane | None = Lane.BATCH
    #: whether the server and the endpoint have the flex tier
    has_flex: bool = False
    #: where the rows come from; the builder adds the columns that the requests use
    origin: Origin = Origin()
    #: what earlier jobs learned about queue limits and about the tokens of requests and answers
    learned: LearnedFacts = LearnedFacts()


class Build(msgspec.Struct, frozen=True):
    """A job whose files are written but not sealed yet, with the first requests as they would be sent."""

    manifest: Manifest
    sample: list[dict[str, Any]]
    #: whether the source has more rows than `max_rows`
    has_more_rows: bool = False
    #: number of rows that stay in a shard of an earlier generation
    kept_rows: int = 0
    #: whether every row was already sent as it is now, so that there is nothing to seal
    is_unchanged: bool = False
    #: number of rows that name no file although the job has `files`
    rows_without_files: int = 0


def build(
    plan: Plan,
    source: RowSource,
    folder: Folder,
    generation: int = 1,
    *,
    reuse: ReusedTable | None = None,
    previous: PreviousGeneration | None = None,
) -> Build:
    """Read and render every row into shards in the folder, check and price them, and check the budget.

    :param source: the rows. Entered and read once.
    :param reuse: a results table. Rows whose request succeeded there are not sent. It need not exist yet.
    :param previous: the previous generation. Rows that were sent there are not sent again, and the price covers only
        the others.
    :raises ResultsTableError: if `reuse` is not a results table, before anything else is read.
    :raises InputError: or a subclass, naming the row, column or argument.
    :raises WarehouseError: if the source is a query, and it fails.
    """
    table = reuse if reuse is not None and reuse.check() else None
    builder = _Builder(plan, folder, generation, previous)
    shards = builder.shards_of(source, table)
    builder.check_files()
    # what earlier jobs learned may be out of date, so it is shown but never makes the budget check fail
    check_budget(
        builder.estimator.finish(), ceilings_of(plan.max_cost_usd, plan.max_run_cost_usd, plan.connection_budget)
    )
    check_canary(plan, shards)
    manifest = builder.manifest_of(shards, reuse_from=reuse.name if reuse is not None else "")
    return builder.compare_with_previous(manifest)


class _Builder:
    """Collects the rows of one build."""

    def __init__(self, plan: Plan, folder: Folder, generation: int, previous: PreviousGeneration | None) -> None:
        self._plan, self._folder, self._generation, self._previous = plan, folder, generation, previous
        self._prefix = f"{generation_prefix(generation)}/build-{secrets.token_hex(8)}"
        #: by model: number of tokens that may be enqueued, as earlier jobs learned from the provider
        self._learned = {model: limit.tokens for model, limit in plan.learned.limits.items()}
        self._sealer = Sealer(
            folder,
            self._prefix,
            plan.spec.endpoint,
            plan.limits,
            name_format=shard_name_format(generation),
            deduplicate=plan.deduplicate,
            canary=plan.canary,
            canary_name_format=canary_name_format(generation),
            learned_tokens=self._learned,
            input_factors=plan.learned.input_factors,
        )
        if previous is not None:
            previous.add_requests_to(self._sealer, deduplicate=plan.deduplicate)
        self.estimator = Estimator(Prices(plan.prices, plan.price_list), plan.spec.endpoint, plan.limits.tokens)
        self._rowset = RowSet()
        self._carry: list[Column] = []
        self._origin = plan.origin
        self._sample: list[dict[str, Any]] = []
        self._kept_rows = 0
        #: why the first invalid row cannot be sent
        self._first_problem = ""
        self._rows_without_files = 0
        self._has_more_rows = False

    def shards_of(self, source: RowSource, reused_table: ReusedTable | None) -> list[Shard]:
        """Read and render the rows of the source into shards in the folder.

        :param reused_table: answers of earlier jobs. Rows that have an answer there are not sent.
        """
        plan = self._plan
        try:
            with source as rows, FileReader() as files:
                if not rows.columns:  # rows that come from no query have no columns if there are none
                    self._carry = [Column(name, ColumnType.TEXT) for name in plan.carry]
                    return self._sealer.finish()
                renderer = compile_renderer(
                    plan.spec, rows.columns, plan.context, files.read, max_bytes=plan.limits.bytes
                )
                self._origin = msgspec.structs.replace(
                    plan.origin,
                    custom_id_columns=renderer.custom_id_columns,
                    request_columns=renderer.request_columns,
                )
                carried_columns = _carried_columns(plan.carry, rows)
                row_iterator = iter(rows)
                first_rows: Iterator[tuple[Any, ...]] = islice(row_iterator, plan.max_rows)
                size = ChunkSize(CHUNK_ROWS)
                if plan.spec.files is not None:  # one by one, because the files of each may have many megabytes
                    first_rows = files.read_ahead(first_rows, lambda row: renderer.locations(plain(row)))
                    size = ChunkSize(1)
                rendered_chunks = self._rendered(first_rows, size, renderer, carried_columns)
                if reused_table is not None:
                    rendered_chunks = self._with_reused_answers(rendered_chunks, reused_table)
                for rendered_rows in rendered_chunks:
                    self._seal(rendered_rows)
                    self._add_to_sample(rendered_rows)
                self._has_more_rows = plan.max_rows is not None and next(row_iterator, None) is not None
            self._carry = carried_columns.columns()
            return self._sealer.finish()
        finally:
            self._sealer.abandon()

    def _rendered(
        self,
        rows: Iterable[tuple[Any, ...]],
        size: ChunkSize,
        renderer: Renderer,
        carried_columns: CarriedColumns,
    ) -> Iterator[list[RenderedRow]]:
        """Yield the rows in chunks, rendered. If a row is invalid, those before it are yielded before the error."""
        first = 1
        for chunk in chunks_of(rows, size):
            rendered_rows: list[RenderedRow] = []
            # the function of the author may count its calls or remember them, so it is called once for each row
            if self._plan.spec.request is None:
                with suppress(InputError, LeafError):
                    rendered_rows = self._render(chunk, first, renderer, carried_columns)
            if not rendered_rows:
                try:
                    for number, row in enumerate(chunk, start=first):
                        rendered_rows += self._render([row], number, renderer, carried_columns)
                except Exception:
                    yield rendered_rows
                    raise
            yield rendered_rows
            size.adjust(len(chunk), sum(len(row.request.body) for row in rendered_rows))
            first += len(chunk)

    def _render(
        self, rows: list[tuple[Any, ...]], first: int, renderer: Renderer, carried_columns: CarriedColumns
    ) -> list[RenderedRow]:
        requests = renderer(list(map(plain, rows)), first)
        hashes = request_hashes(self._plan.spec.endpoint, [request.body for request in requests])
        carry = carried_columns.take(rows, first)
        return list(map(RenderedRow, requests, hashes, carry, count(first)))

    def _with_reused_answers(
        self, chunks: Iterator[list[RenderedRow]], table: ReusedTable
    ) -> Iterator[list[RenderedRow]]:
        schema = self._plan.spec.author_schema
        judge = SchemaJudge(schema) if schema is not None else None
        return with_reused_answers(chunks, table, self._sealer, self._folder, self._prefix, judge)

    def _seal(self, rows: list[RenderedRow]) -> None:
        """Seal rows. Those that were already sent in the previous generation stay in their shards."""
        sealer = self._sealer
        if self._plan.spec.files is not None:
            self._count_files(rows)
        if self._previous is not None:
            self._rowset.add_all((row.request.custom_id, row.sha256, row.carry) for row in rows)
        invalid_rows = [row for row in rows if row.request.problem is not None]
        if invalid_rows:
            sealer.add_invalid(invalid_rows)
            rows = [row for row in rows if row.request.problem is None]
        if self._previous is not None:
            rows = self._without_kept_rows(rows, self._previous)
        new_rows, duplicates = sealer.split(rows)
        requests = [row.request for row in new_rows]
        tokens = self.estimator.add(requests, [lot_of(row.sha256, row.request.custom_id) for row in new_rows])
        sealer.add(new_rows, tokens, [self._sent_body(request) for request in requests])
        sealer.add_duplicates(duplicates)

    def _without_kept_rows(self, rows: list[RenderedRow], previous: PreviousGeneration) -> list[RenderedRow]:
        """Keep rows in the shards in which they were sent. Return the others."""
        other_rows = []
        for row in rows:
            shard = previous.shard_of(row)
            if shard is None:
                other_rows.append(row)
            else:
                self._sealer.add_kept_row(row, shard)
                self._kept_rows += 1
        return other_rows

    def _add_to_sample(self, rows: list[RenderedRow]) -> None:
        valid_requests = (row.request for row in rows if row.request.problem is None)
        for request in islice(valid_requests, SAMPLE_REQUESTS - len(self._sample)):
            body = compact(msgspec.json.decode(request.body), request.files)
            self._sample.append({"custom_id": request.custom_id, "body": body})

    def _sent_body(self, request: Request) -> bytes:
        """Return the body, with references to its files if they are uploaded. Such files are kept in staging."""
        if not self._plan.uploads_files or not request.files:
            return request.body
        body, files = with_references(request.body, len(request.files))
        for file in files:
            store_file(self._folder, file)
        return body

    def _count_files(self, rows: list[RenderedRow]) -> None:
        for request in (row.request for row in rows):
            if request.problem is not None:
                self._first_problem = self._first_problem or f"{request.custom_id!r}: {request.problem.message}"
            elif not request.files:
                self._rows_without_files += 1

    def check_files(self) -> None:
        """Raise InputError if no row at all has a usable file, so that nothing could be sent."""
        sealer = self._sealer
        if sealer.invalid and not (self._kept_rows + sealer.requests + sealer.duplicates + sealer.reused):
            raise InputError(
                f"files: {'The only row has' if sealer.invalid == 1 else f'All {sealer.invalid:,} rows have'} a file "
                f"that is missing or cannot be used, so there is nothing to send. Custom_id {self._first_problem} "
                "Nothing was uploaded. Check `files` and `files_root`, then clear the task."
            )

    def manifest_of(self, shards: list[Shard], *, reuse_from: str) -> Manifest:
        """Return the manifest of this generation, without the shards of earlier ones."""
        plan, sealer = self._plan, self._sealer
        return Manifest(
            job_uid=secrets.token_hex(16),
            key=plan.key,
            sealed_at=datetime.now(UTC),
            endpoint=plan.spec.endpoint,
            openai_conn_id=plan.openai_conn_id,
            requests=self._kept_rows + sealer.requests + sealer.duplicates + sealer.reused + sealer.invalid,
            shards=shards,
            carry=self._carry,
            estimate=self.estimator.finish(plan.learned.outputs, plan.learned.input_factors),
            limits=plan.limits,
            learned_tokens=self._learned,
            input_factors=plan.learned.input_factors,
            output_schema=plan.spec.output_schema,
            author_schema=plan.spec.author_schema,
            several_inputs=sealer.several_inputs,
            dimensions=(
                dimensions_of(request["body"] for request in self._sample) if plan.spec.endpoint == EMBEDDINGS else None
            ),
            logical_date=plan.logical_date,
            completion_window=plan.completion_window,
            metadata=plan.metadata,
            prices=plan.prices,
            price_list=plan.price_list,
            max_cost_usd=plan.max_cost_usd,
            max_run_cost_usd=plan.max_run_cost_usd,
            output_tokens_high=self.estimator.outputs(),
            output_caps=self.estimator.caps(),
            media_models=self.estimator.media_models(),
            earlier_outputs=plan.learned.outputs,
            generation=self._generation,
            has_more_rows=self._has_more_rows,
            duplicates=sealer.duplicates,
            reused=sealer.reused,
            retention_days=plan.retention_days,
            ignore_canary=plan.ignore_canary,
            delete_remote_files=plan.delete_remote_files,
            lane=_choose_lane(plan, sealer.requests),
            reuse_from=reuse_from,
            duplicate_files=sealer.duplicate_files,
            reused_files=sealer.reused_files,
            invalid_file=sealer.invalid_file,
            uploads_files=plan.uploads_files,
            origin=self._origin,
        )

    def compare_with_previous(self, manifest: Manifest) -> Build:
        """Return the build, with the shards of the previous generation that are kept."""
        previous = self._previous
        if previous is None:
            return Build(manifest, self._sample, self._has_more_rows, rows_without_files=self._rows_without_files)
        if previous.manifest.generation == self._generation - 1 and previous.matches(self._rowset, manifest):
            return Build(previous.manifest, self._sample, self._has_more_rows, self._kept_rows, is_unchanged=True)
        next_manifest = previous.next_manifest(manifest, self._sealer, self._prefix)
        return Build(
            next_manifest,
            self._sample,
            self._has_more_rows,
            self._kept_rows,
            rows_without_files=self._rows_without_files,
        )


def _choose_lane(plan: Plan, requests: int) -> Lane:
    if not plan.has_flex:
        return Lane.BATCH
    return plan.lane or (Lane.FLEX if requests <= AUTO_LANE_ROWS else Lane.BATCH)


def _carried_columns(names: list[str], rows: RowSource) -> CarriedColumns:
    columns = Columns(rows.columns)
    positions = []
    for name in names:
        try:
            positions.append(columns.index(name))
        except UnknownColumnError as error:
            raise InputError(f"carry: {error} Nothing was uploaded.") from error
    native_types = [rows.native_types[position] for position in positions]
    return CarriedColumns(names, positions, native_types, rows.database)


def check_budget(estimate: Estimate, ceilings: Sequence[Ceiling]) -> None:
    """Raise an error if even the low estimate exceeds a ceiling, or if a ceiling cannot be checked.

    :raises BudgetError: with both amounts and what to do.
    """
    if not ceilings:
        return
    lowest = min(ceilings, key=lambda ceiling: ceiling.usd)
    if estimate.low_usd is None:
        text = str(lowest)
        raise BudgetError(
            f"{text[0] if lowest.name.startswith('max_') else text[0].upper()}{text[1:]}, but no price is known for "
            f"{', '.join(estimate.unknown_models)}, so the budget cannot be checked. Nothing was uploaded. Set the "
            "price with prices={"
            f'"{(estimate.unknown_models or ["model"])[0]}": {{"input": …, "output": …}}}} in US dollars per 1M tokens '
            "or with the name of a model that costs the same. To set it for all jobs of the connection, put the same "
            'object into its extra as "batch_prices".'
        )
    if estimate.low_usd > lowest.usd:
        at_most = "" if estimate.high_usd is None else f" and at most about {format_usd(estimate.high_usd)}"
        raise BudgetError(
            f"The job would cost at least {format_usd(estimate.low_usd)}{at_most}, but {lowest}. Nothing was uploaded. "
            f"Raise {lowest.name}, send fewer rows, or use a cheaper model."
        )


def check_canary(plan: Plan, shards: Sequence[Shard]) -> None:
    """Raise an error if the input of the canary alone costs more than `max_cost_usd`.

    Its requests may cost the standard price, twice the price of a batch, which counts in a job of a few long rows.

    :raises BudgetError: with both amounts and what to do.
    """
    if plan.max_cost_usd is None:
        return
    prices, cost, requests = Prices(plan.prices, plan.price_list), Decimal(0), 0
    for shard in shards:
        if shard.synchronous:
            lane = Lane.FLEX if plan.has_flex and prices.has_flex(shard.model) else Lane.STANDARD
            usage = Usage(input_tokens=-(-shard.tokens // shard.requests))
            cost += (prices.cost(shard.model, usage, lane=lane) or Decimal(0)) * shard.requests
            requests += shard.requests
    if cost > Decimal(str(plan.max_cost_usd)):
        raise BudgetError(
            f"The canary ({format_count(requests, 'request')} to be sent before all others) alone would cost about "
            f"{format_usd(cost)}, but max_cost_usd is {format_usd(plan.max_cost_usd)}. Nothing was sent. Set canary=0 "
            "to send all requests at the price of a batch, or raise max_cost_usd."
        )
