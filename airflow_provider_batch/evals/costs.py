"""What each part of a run was expected to cost, beside what it did: a table of its own.

Both come from the accounts of the landings, which say of which job they are; the results tables say of which model
that job was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.evals.tables import EvalTable

#: one row per run, model and part of it
COSTS = EvalTable(
    "costs",
    (
        Column("run", ColumnType.TEXT, key=True),
        Column("variant", ColumnType.TEXT, key=True),
        # answers | judgements
        Column("part", ColumnType.TEXT, key=True),
        # US dollars; NULL where a price is unknown
        Column("estimate_low_usd", ColumnType.FLOAT),
        Column("estimate_high_usd", ColumnType.FLOAT),
        Column("cost_usd", ColumnType.NUMERIC),
        # what the same would have cost without batch
        Column("standard_cost_usd", ColumnType.NUMERIC),
        # rows, those that were asked, and requests of later attempts
        Column("requests", ColumnType.INTEGER),
        Column("asked", ColumnType.INTEGER),
        Column("asked_again", ColumnType.INTEGER),
    ),
)


def cost_rows(
    run: str, accounts: Iterable[Mapping[str, Any]], jobs: Mapping[str, tuple[str, str]]
) -> list[tuple[Any, ...]]:
    """Rows of `COSTS` from the accounts of landings.

    :param jobs: model and part of each job_uid of the run; other jobs are left out.
    """
    return [
        (
            run,
            *jobs[account["job_uid"]],
            account["estimate"]["low_usd"],
            account["estimate"]["high_usd"],
            _money(account["cost_usd"]),
            _money(account["standard_cost_usd"]),
            account["requests"],
            account["asked"],
            account["asked_again"],
        )
        for account in accounts
        if account["job_uid"] in jobs
    ]


def _money(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
