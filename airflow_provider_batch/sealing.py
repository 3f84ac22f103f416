"""From the rows of a query to a sealed job: read, render, shard, price, budget, seal.

Nothing is uploaded here. Whatever is wrong with the arguments or the rows is found here; a build that fails leaves
a folder without a seal, which nobody reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import BudgetError, InputError
from airflow_provider_batch.jobs.carry import CarriedColumns
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import Estimate, JobKey, Manifest
from airflow_provider_batch.jobs.ledger import generation_prefix
from airflow_provider_batch.jobs.limits import Limits
from airflow_provider_batch.jobs.price import Estimator, Prices
from airflow_provider_batch.jobs.render import RequestSpec, compile_renderer
from airflow_provider_batch.jobs.row import Columns, UnknownColumnError
from airflow_provider_batch.jobs.schema import SchemaJudge
from airflow_provider_batch.jobs.shard import Sealer
from airflow_provider_batch.reuse import Rendered, with_known
from airflow_provider_batch.warehouse.known import KnownTable
from airflow_provider_batch.warehouse.read import read_rows

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
    ask_once: bool = True


class Build(msgspec.Struct, frozen=True):
    """A job that lies ready: its manifest, not yet the seal, and the first requests as they would be asked."""

    manifest: Manifest
    sample: list[dict[str, Any]]


def build(
    plan: Plan, warehouse: DbApiHook, folder: Folder, generation: int = 1, *, reuse: KnownTable | None = None
) -> Build:
    """Read and render every row into shards in the folder, prove them, price them, check the budget.

    :param reuse: a results table; rows whose request succeeded there are not asked.
    :raises ResultsTableError: if that is no results table; before anything else is read.
    :raises InputError: (or one of its kinds) naming the row, column or argument.
    :raises WarehouseError: if the query fails.
    """
    if reuse is not None:
        reuse.check()
    prefix = f"{generation_prefix(generation)}/build-{secrets.token_hex(8)}"
    sealer = Sealer(folder, prefix, plan.spec.endpoint, plan.limits, ask_once=plan.ask_once)
    prices = Prices(plan.prices)
    estimator = Estimator(prices, plan.spec.endpoint)
    sample: list[dict[str, Any]] = []
    try:
        with read_rows(warehouse, plan.sql, plan.parameters) as rows:
            renderer = compile_renderer(plan.spec, rows.columns, plan.context)
            carried = _carried(plan.carry, rows.columns)
            rendered: Iterator[Rendered] = (
                Rendered(renderer(row, number), carried.take(row, number), number)
                for number, row in enumerate(rows, start=1)
            )
            if reuse is not None:
                schema = plan.spec.output_schema
                judge = SchemaJudge(schema) if schema is not None else None
                rendered = with_known(rendered, reuse, sealer, folder, prefix, judge)
            for request, carry, number in rendered:
                if not sealer.is_copy(request, carry, number):
                    tokens = estimator.add(request.model, request.body, request.inputs)
                    sealer.add(request, carry, number, tokens)
                if number <= SAMPLE:
                    sample.append({"custom_id": request.custom_id, "body": msgspec.json.decode(request.body)})
        shards = sealer.finish()
    finally:
        sealer.abandon()
    estimate = estimator.finish()
    check_budget(estimate, plan.max_cost_usd)
    manifest = Manifest(
        job_uid=secrets.token_hex(16),
        key=plan.key,
        sealed_at=datetime.now(UTC),
        endpoint=plan.spec.endpoint,
        openai_conn_id=plan.openai_conn_id,
        requests=sealer.requests + sealer.same + sealer.reused,
        shards=shards,
        carry=carried.columns(),
        estimate=estimate,
        limits=plan.limits,
        output_schema=plan.spec.output_schema,
        several_inputs=sealer.several_inputs,
        logical_date=plan.logical_date,
        completion_window=plan.completion_window,
        metadata=plan.metadata,
        prices=plan.prices,
        max_cost_usd=plan.max_cost_usd,
        outputs=estimator.outputs(),
        generation=generation,
        same=sealer.same,
        known=sealer.reused,
        reuse_from=reuse.name if reuse is not None else "",
        copies=sealer.copies,
        known_answers=sealer.known,
    )
    return Build(manifest, sample)


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
