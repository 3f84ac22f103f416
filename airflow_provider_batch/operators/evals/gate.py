"""`EvalGateOperator` fails or warns if a graded run is worse than the accepted runs before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_batch.core.arguments import require_number
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.compare import STOPPING_VERDICTS, Verdict
from airflow_provider_batch.evals.queries import LEAST_LIKELY_CHANCE
from airflow_provider_batch.evals.sentences import format_edited
from airflow_provider_batch.evals.tables import gate_sql
from airflow_provider_batch.operators.evals.arguments import FAIL, WARN, check_fields, parse_fields
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.worker.airflow_errors import airflow_failures, log_reason
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context

#: maximum number of cases to name per model
_MAX_NAMES = 10


class EvalGateOperator(CheckedMapping, BaseOperator):
    """Check a graded run with `gate_sql`, and fail or skip if a model got worse or too many answers are missing.

    A model got worse if it lost more than chance explains, over all its cases or over those of a tag. That some cases
    broke is enough: the run does not pass even if as many others are right for the first time and the accuracy is the
    same, because whoever relies on the broken cases is not helped by the others. The message names the model, the tags,
    the size of the change and the cases, and those that got better if they did so by more than chance. It also names
    wrong cases that are not compared because they were edited. A model without history passes.
    `SQLCheckOperator` can run the same SQL, with a shorter message.

    If the run does not pass, the gate fails without retries. With `action="warn"` it skips itself and the tasks
    downstream. Put `EvalAcceptOperator` downstream of the gate, so that a run that does not pass is not accepted. To
    accept it anyway, mark the gate as success and clear the tasks downstream.

    :param run: id of the run to check.
    :param action: "fail" or "warn".
    :param max_unanswered: share of a model's answers that may be missing, between 0 and 1.
    :param prefix: as passed to EvalGradeOperator.
    :param warehouse_conn_id: connection to read from.
    :raises AirflowFailException: if the run does not pass and `action` is "fail". A run without grades does not pass.
    :raises AirflowSkipException: if the run does not pass and `action` is "warn".
    """

    template_fields: Sequence[str] = ("run", "action", "prefix", "warehouse_conn_id")
    ui_color = "#e8e4f3"

    @check_arguments
    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        action: str = FAIL,
        max_unanswered: float | str = 0.02,
        prefix: str = "eval_",
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.action = action
        self.max_unanswered = require_number("max_unanswered", max_unanswered, maximum=1)
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> None:
        """Return if the run passes; otherwise fail or skip with the reasons."""
        with airflow_failures(self.log):
            parse_fields(self)
            (checks,) = self._rows(gate_sql(self.run, self.prefix, self.max_unanswered))
            edited = " ".join(self._edited_cases())
            if all(checks.values()):
                self.log.info("Run %s passes: no model regressed, and none lacks too many answers.", self.run)
                if edited:
                    self.log.warning(edited)
                return
            reasons = " ".join(filter(None, (*self._reasons(checks), edited)))
        message = (
            f"Run {self.run} does not pass. {reasons} The run is not accepted, and later runs are compared with those "
            "accepted before it. The report shows the cases. To accept this run anyway, mark this task as "
            "success and clear the tasks downstream."
        )
        if self.action == WARN:
            self.log.warning(message)
            raise AirflowSkipException(message)
        log_reason(self.log, message)
        raise AirflowFailException(message)

    def _reasons(self, checks: Mapping[str, Any]) -> Iterator[str]:
        if not checks["graded"]:
            yield f"It has no grades in the table {self.prefix}summaries."
        if not checks["answered"]:
            for row in self._rows(
                f"SELECT variant, answers, unanswered FROM {self.prefix}summaries WHERE {self._condition} "
                f"AND tag = '' AND unanswered > {self.max_unanswered} * answers ORDER BY variant"
            ):
                yield (
                    f"{row['variant']}: {row['unanswered']:,} of {row['answers']:,} answers are missing, which is more "
                    f"than {self.max_unanswered:.1%}."
                )
        if not checks["no_regression"]:
            rows = self._rows(
                f"SELECT * FROM {self.prefix}comparisons WHERE {self._condition} AND verdict <> 'same' "
                "ORDER BY variant, tag"
            )
            for _, (total, *tags) in groupby(rows, key=lambda row: row["variant"]):
                if total["verdict"] in STOPPING_VERDICTS:
                    yield from self._regression(total, tags)

    def _regression(self, total: Mapping[str, Any], tags: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Yield sentences about a model that got worse."""
        variant, points = total["variant"], 100 * total["difference"]
        verb = f"regressed by {-points:.1f} points" if points < 0 else "broke cases that were right"
        yield (
            f"{variant} {verb} since run {total['baseline_run']}: of {format_count(total['cases'], 'case')}, "
            f"{total['worse']:,} got worse and {total['better']:,} got better "
            f"({points:+.1f} points, p = {total['p_worse']:.2g})."
        )
        for row in tags:
            if row["verdict"] in STOPPING_VERDICTS:
                yield (
                    f"The tag {row['tag']} regressed by {-100 * row['difference']:.1f} points: of "
                    f"{format_count(row['cases'], 'case')}, {row['worse']:,} got worse and {row['better']:,} got "
                    f"better (p = {row['p_worse']:.2g})."
                )
        yield f"Worse: {self._names(variant, 'worse')}."
        if total["verdict"] == Verdict.MIXED:
            yield f"Better: {self._names(variant, 'better')}."

    def _edited_cases(self) -> Iterator[str]:
        """Yield a sentence per model about the wrong cases that are not compared because they were edited."""
        rows = self._rows(
            f"SELECT variant, COUNT(*) AS cases FROM {self.prefix}changes WHERE {self._condition} "
            "AND change = 'edited' GROUP BY variant ORDER BY variant"
        )
        for row in list(rows):
            yield (
                f"{row['variant']}: {format_edited(row['cases'])} edited since, and not compared: "
                f"{self._names(row['variant'], 'edited')}."
            )

    def _names(self, variant: str, change: str) -> str:
        """Return the case_ids with a change, starting with those that are least likely to be chance."""
        rows = self._rows(
            f"SELECT case_id, variant FROM {self.prefix}changes WHERE {self._condition} AND change = '{change}' "
            f"ORDER BY {LEAST_LIKELY_CHANCE}"
        )
        names = [row["case_id"] for row in rows if row["variant"] == variant]
        return ", ".join(names[:_MAX_NAMES]) + (
            f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
        )

    @property
    def _condition(self) -> str:
        return "run = '{}'".format(self.run.replace("'", "''"))

    def _rows(self, sql: str) -> Iterator[dict[str, Any]]:
        with read_rows(sql_hook(self.warehouse_conn_id), sql) as rows:
            names = [name.lower() for name in rows.columns]
            for row in rows:
                yield dict(zip(names, row, strict=True))
