"""Queries of the tables of evals, for the readers of a report and of all answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.warehouse.read import read_rows

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: ORDER BY for `changes`: first the cases whose change is least likely to be chance. A case that got worse is one if it
#: was right in most of the runs before, and a case that got better if it was wrong in most of them.
LEAST_LIKELY_CHANCE = (
    "CASE WHEN runs_before = 0 THEN 0 WHEN change = 'better' THEN 1.0 * right_before / runs_before "
    "ELSE -1.0 * right_before / runs_before END, "
    "CASE WHEN change = 'better' THEN score_before - score_now ELSE score_now - score_before END, "
    "runs_before DESC, case_id"
)

Row = Mapping[str, Any]


class EvalQueries:
    """The tables of evals and the answers that they grade.

    :param cases_sql: as passed to the operators.
    :param answers: results table with the answers.
    :param prefix: start of the names of the tables that grading writes.
    """

    def __init__(self, hook: DbApiHook, *, cases_sql: str, answers: str, prefix: str) -> None:
        self.hook = hook
        self._cases_sql = cases_sql
        self._answers = answers
        self._prefix = prefix

    def rows(self, sql: str, *parameters: Any) -> Iterator[Row]:
        """Yield the rows of a query by column. It may use `{prefix}`, `{answers}` and, for each parameter, a `?`."""
        if parameters:
            sql = sql.format(prefix=self._prefix, answers=self._answers).replace("?", self.hook.placeholder)
        elif "{prefix}" in sql:
            sql = sql.format(prefix=self._prefix)
        with read_rows(self.hook, sql, parameters or None) as rows:
            names = [name.lower() for name in rows.columns]
            for row in rows:
                yield dict(zip(names, row, strict=True))

    def cases(self, case_ids: Collection[str]) -> Iterator[tuple[str, Row]]:
        """Yield the cases with these ids that `cases_sql` returns."""
        for row in self.rows(self._cases_sql):
            case_id = str(row["case_id"])
            if case_id in case_ids:
                yield case_id, row


def split_tags(tags: str | None) -> list[str]:
    """Return the tags in a column."""
    return [tag.strip() for tag in (tags or "").split(",") if tag.strip()]


def text_or_none(value: Any) -> str | None:
    """Return a value of any type as text."""
    return None if value is None else str(value)
