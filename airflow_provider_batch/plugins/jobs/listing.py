"""Filters, sorts and sums the jobs of the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_batch.plugins.jobs.job_rows import JobRow, State

#: maximum number of jobs on a page of the list
MAX_LIMIT = 200

#: what the list can be sorted by; by age, descending is newest first
SORT_KEYS: dict[str, Callable[[JobRow], Any]] = {
    "age": lambda row: row.started_at,
    "rows": lambda row: row.rows,
    "cost": lambda row: row.cost_usd,
    "dag": lambda row: (row.dag_id, row.task_id, row.map_index),
    "state": lambda row: row.state,
}


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a person wants to see, and in which order. An empty text and None mean any."""

    state: str = ""
    dag_id: str = ""
    run_id: str = ""
    model: str = ""
    #: part of the name of the DAG, run, task or a model, in upper or lower case
    text: str = ""
    since: datetime | None = None
    sort: str = "age"
    is_descending: bool = True
    offset: int = 0
    limit: int = 50

    def matches(self, row: JobRow) -> bool:
        """Return whether a job is one of those."""
        return (
            self.state in ("", row.state)
            and self.dag_id in ("", row.dag_id)
            and self.run_id in ("", row.run_id)
            and (not self.model or self.model in row.models)
            and (self.since is None or (row.started_at is not None and row.started_at >= self.since))
            and (not self.text or self._contains_text(row))
        )

    def _contains_text(self, row: JobRow) -> bool:
        text = self.text.casefold()
        return any(text in name.casefold() for name in (row.dag_id, row.run_id, row.task_id, *row.models))


class Totals(msgspec.Struct, frozen=True):
    """Sums over jobs. What is unknown of a job is not in the sum. A sum is None if it is unknown of every job."""

    jobs: int
    rows: int
    cost_usd: float | None
    saved_usd: float | None


class Listing(msgspec.Struct, frozen=True):
    """A page of the list, what there is besides, and what the list can be filtered by."""

    jobs: list[JobRow]
    #: number of jobs on all pages
    total: int
    totals: Totals
    dags: list[str]
    models: list[str]
    states: list[str]


def list_jobs(rows: Iterable[JobRow], dag_ids: Set[str], criteria: Criteria) -> Listing:
    """Return a page of the jobs that a user may see.

    :param rows: all jobs, newest first.
    :param dag_ids: the DAGs that the user may read.
    """
    readable = [row for row in rows if row.dag_id in dag_ids]
    matching = [row for row in readable if criteria.matches(row)]
    ordered = _sort(matching, SORT_KEYS[criteria.sort], is_descending=criteria.is_descending)
    present_states = {row.state for row in readable}
    return Listing(
        jobs=ordered[criteria.offset : criteria.offset + criteria.limit],
        total=len(matching),
        totals=Totals(
            len(matching),
            sum(row.rows or 0 for row in matching),
            _sum(row.cost_usd for row in matching),
            _sum(row.saved_usd for row in matching),
        ),
        dags=sorted({row.dag_id for row in readable}),
        models=sorted({model for row in readable for model in row.models}),
        states=[state for state in State if state in present_states],
    )


def _sort(rows: list[JobRow], key: Callable[[JobRow], Any], *, is_descending: bool) -> list[JobRow]:
    """Sort jobs. Those of which the value is unknown come last, and equal ones keep their order."""
    with_value = [row for row in rows if key(row) is not None]
    return sorted(with_value, key=key, reverse=is_descending) + [row for row in rows if key(row) is None]


def _sum(amounts: Iterable[float | None]) -> float | None:
    numbers = [amount for amount in amounts if amount is not None]
    return sum(numbers) if numbers else None
