"""The table `costs`: the estimated and the actual cost of each part of a run.

Both figures come from the summaries that the landing tasks (`BatchResultsOperator`) return. A summary names its job,
and the results tables contain the model of each job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.evals.tables import EvalTable

#: one row per run, model and part of the run
COSTS = EvalTable(
    "costs",
    (
        Column("run", ColumnType.TEXT, key=True),
        Column("variant", ColumnType.TEXT, key=True),
        # answers | judgements | embeddings
        Column("part", ColumnType.TEXT, key=True),
        # US dollars; NULL if a price is unknown
        Column("estimate_low_usd", ColumnType.FLOAT),
        Column("estimate_high_usd", ColumnType.FLOAT),
        Column("cost_usd", ColumnType.NUMERIC),
        # what the same requests would have cost outside a batch
        Column("standard_cost_usd", ColumnType.NUMERIC),
        # number of rows of the job, of rows that were sent, and of requests in attempts after the first
        Column("requests", ColumnType.INTEGER),
        Column("sent", ColumnType.INTEGER),
        Column("retried", ColumnType.INTEGER),
    ),
)


def cost_rows(
    run: str, landings: Iterable[Mapping[str, Any]], jobs: Mapping[str, tuple[str, str]]
) -> list[tuple[Any, ...]]:
    """Return the rows of `COSTS` for a run.

    :param landings: what the landing tasks returned.
    :param jobs: model and part for each job_uid of the run. Landings of other jobs are skipped.
    """
    return [
        (
            run,
            *jobs[landing["job_uid"]],
            landing["estimate"]["low_usd"],
            landing["estimate"]["high_usd"],
            _decimal(landing["cost_usd"]),
            _decimal(landing["standard_cost_usd"]),
            landing["requests"],
            landing["sent"],
            landing["retried"],
        )
        for landing in landings
        if landing["job_uid"] in jobs
    ]


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
