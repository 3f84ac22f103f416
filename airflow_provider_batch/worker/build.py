"""From the rows of a query to a sealed job: read, render, shard, price, budget, seal.

Nothing is uploaded here. Whatever is wrong with the arguments or the rows is found here; a build that fails leaves
a folder without a seal, which nobody reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest, Shard
from airflow_provider_batch.core.ledger.ledger import canary_names, generation_prefix, shard_names
from airflow_provider_batch.core.lifecycle.lessons import Learned
from airflow_provider_batch.core.pricing.estimate import Estimator
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.render import Request, RequestSpec, compile_renderer
from airflow_provider_batch.core.requests.row import Columns, UnknownColumnError
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.carry import CarriedColumns
from airflow_provider_batch.core.sealing.reuse_generation import PreviousGeneration, RowSet
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import BudgetError, InputError
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.reuse import Rendered, with_reused_answers

#: requests that a preview shows
SAMPLE = 3


class Plan(msgspec.Struct, frozen=True):
    """Everything submit decides that is not in the rows."""

    key: JobKey
    spec: RequestSpec
    sql: str
    parameters: Sequence[Any] | Mapping[str, Any] | None
    carry: list[str]
    #: plain values that row templates see besides `row`
    context: dict[str, Any]
    openai_conn_id: str
    limits: Limits
    prices: dict[str, Any]
    max_cost_usd: float | None
    completion_window: str
    metadata: dict[str, str]
    logical_date: datetime | None
    #: equal requests are asked once
    deduplicate: bool = True
    #: requests of each model that are asked synchronously before anything is uploaded
    canary: int = 0
    #: of the query's rows, at most so many, the first ones; None: all
    max_rows: int | None = None
    #: days that staging keeps the job; None for the configured number
    retention_days: float | None = None
    delete_remote_files: bool = False
    #: what earlier jobs found out
    learned: Learned = Learned()


class Build(msgspec.Struct, frozen=True):
    """A job that lies ready: its manifest, not yet the seal, and the first requests as they would be asked."""

    manifest: Manifest
    sample: list[dict[str, Any]]
    #: the query has more rows than `max_rows`
    more: bool = False
    #: of the rows: those that stay in a shard of an earlier generation
    kept: int = 0
    #: everything is asked already, as it is asked now: there is nothing to seal
    unchanged: bool = False


def build(
    plan: Plan,
    warehouse: DbApiHook,
    folder: Folder,
    generation: int = 1,
    *,
    reuse: ReusedTable | None = None,
    previous: PreviousGeneration | None = None,
) -> Build:
    """Read and render every row into shards in the folder, prove them, price them, check the budget.

    :param reuse: a results table; rows whose request succeeded there are not asked. Absent, it knows nothing yet.
    :param previous: the generation before; rows that were asked there are not asked. The price is that of the others.
    :raises ResultsTableError: if that is no results table; before anything else is read.
    :raises InputError: (or one of its kinds) naming the row, column or argument.
    :raises WarehouseError: if the query fails.
    """
    known = reuse if reuse is not None and reuse.check() else None
    builder = _Builder(plan, folder, generation, previous)
    shards = builder.shards_of(warehouse, known)
    # What earlier jobs needed may be out of date: it is shown, and refuses none.
    check_budget(builder.estimator.finish(), plan.max_cost_usd)
    manifest = builder.manifest_of(shards, reuse_from=reuse.name if reuse is not None else "")
    return builder.outcome_of(manifest)


class _Builder:
    """One build: what the rows have come to so far."""

    def __init__(self, plan: Plan, folder: Folder, generation: int, previous: PreviousGeneration | None) -> None:
        self._plan, self._folder, self._generation, self._previous = plan, folder, generation, previous
        self._prefix = f"{generation_prefix(generation)}/build-{secrets.token_hex(8)}"
        #: tokens of each model that may be enqueued at once, as the provider told earlier jobs
        self._learned = {model: limit.tokens for model, limit in plan.learned.limits.items()}
        self._sealer = Sealer(
            folder,
            self._prefix,
            plan.spec.endpoint,
            plan.limits,
            names=shard_names(generation),
            deduplicate=plan.deduplicate,
            canary=plan.canary,
            canary_names=canary_names(generation),
            learned_tokens=self._learned,
        )
        if previous is not None:
            previous.add_requests_to(self._sealer, deduplicate=plan.deduplicate)
        self.estimator = Estimator(Prices(plan.prices), plan.spec.endpoint)
        self._rowset = RowSet()
        self._carry: list[Column] = []
        self._sample: list[dict[str, Any]] = []
        self._kept = 0
        self._more = False

    def shards_of(self, warehouse: DbApiHook, known: ReusedTable | None) -> list[Shard]:
        """Read and render the rows of the query into shards in the folder.

        :param known: answers of an earlier job; rows that have one there are not sent.
        """
        plan = self._plan
        try:
            with read_rows(warehouse, plan.sql, plan.parameters) as rows:
                renderer = compile_renderer(plan.spec, rows.columns, plan.context)
                carried = _carried(plan.carry, rows.columns)
                every = iter(rows)
                rendered: Iterator[Rendered] = (
                    Rendered(renderer(row, number), carried.take(row, number), number)
                    for number, row in enumerate(islice(every, plan.max_rows), start=1)
                )
                if known is not None:
                    rendered = self._with_reused_answers(rendered, known)
                for request, carry, number in rendered:
                    self._place(request, carry, number)
                    if number <= SAMPLE:
                        self._sample.append({"custom_id": request.custom_id, "body": msgspec.json.decode(request.body)})
                self._more = plan.max_rows is not None and next(every, None) is not None
            self._carry = carried.columns()
            return self._sealer.finish()
        finally:
            self._sealer.abandon()

    def _with_reused_answers(self, rendered: Iterator[Rendered], known: ReusedTable) -> Iterator[Rendered]:
        schema = self._plan.spec.output_schema
        judge = SchemaJudge(schema) if schema is not None else None
        return with_reused_answers(rendered, known, self._sealer, self._folder, self._prefix, judge)

    def _place(self, request: Request, carry: list[Any], number: int) -> None:
        """Keep a row in its shard of the generation before, else seal it, unless it is a duplicate or reused."""
        sealer, previous = self._sealer, self._previous
        sha256 = sealer.sha256(request)
        if previous is not None:
            self._rowset.add(request.custom_id, sha256, carry)
            shard = previous.shard_of(request, sha256)
            if shard is not None:
                sealer.add_kept_row(request, carry, number, shard)
                self._kept += 1
                return
        if not sealer.add_if_duplicate(request, carry, number):
            tokens = self.estimator.add(
                request.model, request.body, request.inputs, request.outline, request.leaf_values
            )
            sealer.add(request, carry, number, tokens)

    def manifest_of(self, shards: list[Shard], *, reuse_from: str) -> Manifest:
        """Return the manifest of this generation by itself."""
        plan, sealer = self._plan, self._sealer
        return Manifest(
            job_uid=secrets.token_hex(16),
            key=plan.key,
            sealed_at=datetime.now(UTC),
            endpoint=plan.spec.endpoint,
            openai_conn_id=plan.openai_conn_id,
            requests=self._kept + sealer.requests + sealer.duplicates + sealer.reused,
            shards=shards,
            carry=self._carry,
            estimate=self.estimator.finish(plan.learned.outputs),
            limits=plan.limits,
            learned_tokens=self._learned,
            output_schema=plan.spec.output_schema,
            several_inputs=sealer.several_inputs,
            logical_date=plan.logical_date,
            completion_window=plan.completion_window,
            metadata=plan.metadata,
            prices=plan.prices,
            max_cost_usd=plan.max_cost_usd,
            outputs=self.estimator.outputs(),
            generation=self._generation,
            duplicates=sealer.duplicates,
            reused=sealer.reused,
            retention_days=plan.retention_days,
            delete_remote_files=plan.delete_remote_files,
            reuse_from=reuse_from,
            duplicate_files=sealer.duplicate_files,
            reused_files=sealer.reused_files,
        )

    def outcome_of(self, manifest: Manifest) -> Build:
        """Compare with the generation before, if there is one; return the manifest to seal."""
        previous = self._previous
        if previous is None:
            return Build(manifest, self._sample, self._more)
        if previous.manifest.generation == self._generation - 1 and previous.matches(self._rowset, manifest):
            return Build(previous.manifest, self._sample, self._more, self._kept, unchanged=True)
        followed = previous.next_manifest(manifest, self._sealer, self._prefix)
        return Build(followed, self._sample, self._more, self._kept)


def _carried(names: list[str], columns: Sequence[str]) -> CarriedColumns:
    known = Columns(columns)
    positions = []
    for name in names:
        try:
            positions.append(known.index(name))
        except UnknownColumnError as error:
            raise InputError(f"carry: {error} Nothing was uploaded.") from error
    return CarriedColumns(names, positions)


def check_budget(estimate: Estimate, ceiling: float | None) -> None:
    """Refuse a ceiling that the lowest estimate is over, or that cannot be checked.

    :raises BudgetError: with both numbers and the ways out.
    """
    if ceiling is None:
        return
    if estimate.low_usd is None:
        raise BudgetError(
            f"max_cost_usd is {ceiling:g}, but no price is known for {', '.join(estimate.unknown_models)}, so the "
            "budget cannot be checked. Nothing was uploaded. State the price with prices={"
            f'"{(estimate.unknown_models or ["model"])[0]}": {{"input": …, "output": …}}}} (US dollars per 1M tokens).'
        )
    if estimate.low_usd > ceiling:
        raise BudgetError(
            f"The job would cost at least {estimate.low_usd:,.2f} US dollars (at most about {estimate.high_usd:,.2f}), "
            f"max_cost_usd is {ceiling:,.2f}. Nothing was uploaded. Raise it, ask fewer rows, or a smaller model."
        )
