"""`EvalGateOperator`: fails, or warns, when a graded run is worse than the last accepted one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_batch.evals.read_report import LEAST_BY_CHANCE
from airflow_provider_batch.evals.tables import gate_sql
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.worker.airflow_errors import told_to_airflow

if TYPE_CHECKING:
    from airflow.sdk import Context

#: what a closed gate does
ACTIONS = ("fail", "warn")

#: cases that are named of each model
_NAMED = 10


class EvalGateOperator(BaseOperator):
    """Run `gate_sql` and fail, or skip, if a model got worse.

    The message says which model, by how much and in which cases. `SQLCheckOperator` could run the same SQL. A model
    without history passes.

    Closed, the gate fails its task at once, or with `action="warn"` it skips it, and with it what comes after: either
    way put `EvalAcceptOperator` behind it, so that the run is not accepted. To accept it all the same, mark the gate
    as success and clear what is behind it.

    :param run: which run to judge.
    :param action: "fail" or "warn".
    :param max_unanswered: the share of a model's answers that may be missing.
    :param prefix: as given to EvalGradeOperator.
    :param warehouse_conn_id: connection to read from.
    :raises AirflowFailException: if the gate is closed, and the run has not been graded.
    """

    template_fields: Sequence[str] = ("run", "action", "prefix", "warehouse_conn_id")
    ui_color = "#e8e4f3"

    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        action: str = "fail",
        max_unanswered: float = 0.02,
        prefix: str = "eval_",
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.action = action
        self.max_unanswered = max_unanswered
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> None:
        """Let the run pass, or say why not."""
        with told_to_airflow():
            if self.action not in ACTIONS:
                raise InputError(f"action: {self.action!r} is none of {', '.join(ACTIONS)}.")
            (found,) = self._rows(gate_sql(self.run, self.prefix, self.max_unanswered))
            if all(found.values()):
                self.log.info("Run %s passes: no model regressed, and all were answered.", self.run)
                return
            reasons = " ".join(self._reasons(found))
        said = (
            f"Run {self.run} does not pass. {reasons} It is not accepted: later runs are compared with the one "
            "that was accepted before. The report has every case. To accept it all the same, mark this task as "
            "success and clear what is behind it."
        )
        if self.action == "warn":
            self.log.warning(said)
            raise AirflowSkipException(said)
        raise AirflowFailException(said)

    def _reasons(self, found: Mapping[str, Any]) -> Iterator[str]:
        where = "run = '{}'".format(self.run.replace("'", "''"))
        if not found["graded"]:
            yield "It has no grades."
        if not found["answered"]:
            for row in self._rows(
                f"SELECT variant, answers, unanswered FROM {self.prefix}summaries WHERE {where} AND tag = '' "
                f"AND unanswered > {self.max_unanswered} * answers ORDER BY variant"
            ):
                yield (
                    f"{row['variant']}: {row['unanswered']:,} of {row['answers']:,} answers are missing, more than "
                    f"{self.max_unanswered:.1%}."
                )
        if not found["no_regression"]:
            for row in self._rows(
                f"SELECT * FROM {self.prefix}comparisons WHERE {where} AND verdict = 'regressed' ORDER BY variant"
            ):
                yield (
                    f"{row['variant']} regressed by {-row['difference'] * 100:.1f} points since {row['baseline_run']}: "
                    f"{row['worse']:,} cases worse, {row['better']:,} better of {row['cases']:,} "
                    f"(p = {row['p_corrected']:.2g}), such as {self._named(where, row['variant'])}."
                )

    def _named(self, where: str, variant: str) -> str:
        rows = self._rows(
            f"SELECT case_id, variant FROM {self.prefix}changes WHERE {where} AND change = 'worse' "
            f"ORDER BY {LEAST_BY_CHANCE}"
        )
        names = [row["case_id"] for row in rows if row["variant"] == variant]
        return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")

    def _rows(self, sql: str) -> Iterator[dict[str, Any]]:
        with read_rows(sql_hook(self.warehouse_conn_id), sql) as rows:
            names = [name.lower() for name in rows.columns]
            for row in rows:
                yield dict(zip(names, row, strict=True))
