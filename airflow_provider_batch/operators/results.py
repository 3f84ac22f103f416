"""`BatchResultsOperator`: collected answers -> the results table."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import Asset, BaseOperator

from airflow_provider_batch.core.landing.landing import Landing, results_columns
from airflow_provider_batch.core.landing.summary import failure_message, landed_record
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.lifecycle.summary import JobSummary, landing_result, summarize
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import (
    InputError,
    LedgerError,
    ResultsTableError,
    SchemaError,
    TooManyFailuresError,
)
from airflow_provider_batch.links.batch import BatchJobLink
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.landed_file import write_landed_file
from airflow_provider_batch.warehouse.sinks.open import Sink, SinkFactory, open_sink
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.open_job import open_job
from airflow_provider_batch.worker.remote_files import delete_remote_files

if TYPE_CHECKING:
    from airflow.sdk import Context


class BatchResultsOperator(BaseOperator):
    """Land every answer of a job in a table, one row per custom_id. Returns the account of the landing.

    It reads staging alone and upserts by key; so it may be run again at any time, and ends in the same table. Between
    jobs that write the same key the later seal wins. Columns that are not ours are never touched.

    The task returns a summary: `job_uid`, `table`, `requests` (rows), of these `sent`, `duplicates` (rows whose request
    equals another row's) and `reused` (rows whose answer came from the table of `reuse_from`), `outcomes` (they add
    up to `requests`), `tokens`, `estimate` (as in the reference: `low_usd` and `high_usd` were expected before the
    job ran), `cost_usd` and `standard_cost_usd` (strings of US dollars, or None if a price is unknown), `retried`
    (requests of the attempts after the first), `retried_cost_usd` (what their answers cost, a part of `cost_usd`),
    `paid_twice` (requests answered in two batches of one attempt), `reasons`, and with `landed_file` the address of
    the file under that name. A row that was not sent itself has attempt 0, 0 tokens and a cost of 0, so sums over the
    table are what was paid for its answers.

    The event of each asset among the task's `outlets` carries the account too, as its extra, without the `reasons`.

    :param job: the reference that submit returned.
    :param warehouse_conn_id: connection to write to.
    :param table: the results table, `schema.table` or `table`. Created if a probe finds none. May be left out where
        `landed_file` is given.
    :param columns: column <- path in the structured output, such as `{"city": "address.city"}`; types from the schema.
    :param key: extra key columns and the value they get in every row; templated. Default: one row per custom_id.
    :param create_table: create the table if there is none; else say what to create.
    :param max_failure_rate: share of rows that may end other than succeeded; over it the task fails, after landing.
    :param history: keep the answers of every job: `job_uid` joins the key.
    :param keep_last_success: never replace a succeeded row of an earlier job by one that did not succeed.
    :param store_response: land the whole answer body in a column `response` too.
    :param landed_file: write the rows as newline-delimited JSON too, into the job's folder in staging, each row once,
        for `COPY INTO` and load jobs. Every landing writes a new file; the account tells its address.
    :param sink: your own way into the table, or its import path: called as `sink(hook, table, columns, create=…,
        keep_last_success=…)`, it gives a `warehouse.sinks.open.Sink`. Default: by the kind of the connection's
        database.
    :param partial: take rows that are not settled yet as not failed; run again to land the rest.
    :raises AirflowFailException: if the table does not fit, or too many rows failed (all are landed then).
    """

    template_fields: Sequence[str] = ("job", "warehouse_conn_id", "table", "key")
    ui_color = "#dcefe6"
    operator_extra_links = (BatchJobLink(),)

    def __init__(
        self,
        *,
        job: Any,
        table: str | None = None,
        warehouse_conn_id: str = "warehouse",
        columns: Mapping[str, str] | None = None,
        key: Mapping[str, Any] | None = None,
        create_table: bool = True,
        max_failure_rate: float = 0.05,
        history: bool = False,
        keep_last_success: bool = False,
        store_response: bool = False,
        landed_file: bool = False,
        sink: SinkFactory | str | None = None,
        partial: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= max_failure_rate <= 1:
            raise InputError(f"max_failure_rate is a share between 0 and 1, not {max_failure_rate!r}.")
        if table is None and not landed_file:
            raise InputError("Nothing says where the rows are to land: give a table, or landed_file=True, or both.")
        self.job = job
        self.warehouse_conn_id = warehouse_conn_id
        self.table = table
        self.columns = dict(columns or {})
        self.key = dict(key or {})
        self.create_table = create_table
        self.max_failure_rate = max_failure_rate
        self.history = history
        self.keep_last_success = keep_last_success
        self.store_response = store_response
        self.landed_file = landed_file
        self.sink = sink
        self.accept_partial = partial

    def execute(self, context: Context) -> dict[str, Any]:
        """Upsert one row per custom_id, tell the account, judge the failures."""
        with airflow_failures():
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, Any]:
        ledger = open_job(self.job)
        BatchJobLink.persist(context, ledger.folder.uri)
        manifest = ledger.manifest
        try:
            sink = self.prepared_sink(manifest, self.warehouse_conn_id, self.table, self.key)
        except (ResultsTableError, SchemaError) as error:
            raise type(error)(f"{error} The answers are kept in staging; mend it, then clear this task.") from error
        state = ledger.state()
        landing = Landing(
            ledger.folder,
            state,
            key=self.key,
            columns=self.columns,
            store_response=self.store_response,
            run_id=manifest.key.run_id,
            landed_at=datetime.now(UTC),
        )
        file = None
        if self.landed_file:
            name = f"landed/{context['ti'].task_id}-{secrets.token_hex(8)}.jsonl"
            write = sink.write if sink is not None else _only_count
            file = write_landed_file(ledger.folder, name, self._columns(manifest, self.key), landing, write)
            self.log.info("Wrote %s rows to %s", f"{manifest.requests:,}", file)
        elif sink is not None:
            sink.write(landing)
        landed = landed_record(landing, self.table, file, datetime.now(UTC))
        ledger.append(landed)
        summary = summarize(ledger)
        self._log(summary, landed)
        delete_remote_files(ledger, self.log)
        if sum(landed.outcomes.values()) != manifest.requests:
            raise LedgerError(
                f"Job {manifest.job_uid}: {sum(landed.outcomes.values()):,} rows were landed in {landed.location}, "
                f"but {manifest.requests:,} were sealed. What there is was landed. Look at {ledger.folder.uri}."
            )
        result: dict[str, Any] = msgspec.to_builtins(landing_result(summary, landed))
        failure = failure_message(
            landed, manifest.requests, max_failure_rate=self.max_failure_rate, partial=self.accept_partial
        )
        if failure is not None:
            context["ti"].xcom_push(key="return_value", value=result)
            raise TooManyFailuresError(failure)
        self._attach(context, result)
        return result

    def _attach(self, context: Context, result: Mapping[str, Any]) -> None:
        """Add what was landed to the event of each outlet, without `reasons`: they hold the provider's words."""
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                extra = {name: value for name, value in result.items() if name != "reasons"}
                context["outlet_events"][outlet].extra.update(extra)

    def prepared_sink(
        self, manifest: Manifest, warehouse_conn_id: str, table: str | None, key: Mapping[str, Any]
    ) -> Sink | None:
        """The results table, created if need be, with columns and a key that fit the job. None without a table.

        The arguments are this task's own, rendered; submit gives them too, to know before anything is paid for.

        :raises SchemaError: for columns that the job cannot fill.
        :raises ResultsTableError: for a table that does not fit.
        """
        columns = self._columns(manifest, key)
        if table is None:
            return None
        sink = open_sink(
            sql_hook(warehouse_conn_id),
            table,
            columns,
            create=self.create_table,
            keep_last_success=self.keep_last_success,
            factory=_imported(self.sink) if isinstance(self.sink, str) else self.sink,
        )
        sink.prepare()
        return sink

    def _columns(self, manifest: Manifest, key: Mapping[str, Any]) -> list[Column]:
        return results_columns(
            manifest, key=key, columns=self.columns, history=self.history, store_response=self.store_response
        )

    def _log(self, summary: JobSummary, landed: Landed) -> None:
        if summary.duplicates or summary.reuse_from:
            self.log.info("%s rows: %s", f"{summary.requests:,}", summary.sources)
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in landed.outcomes.items())
        self.log.info(
            "Landed %s rows in %s: %s. Cost: %s US dollars. Paid twice: %d",
            f"{summary.requests:,}",
            landed.location,
            outcomes or "none",
            landed.cost_usd or "unknown",
            summary.paid_twice,
        )
        if landed.retried:
            self.log.info(
                "Asked again: %s requests, which cost %s US dollars of these",
                f"{landed.retried:,}",
                landed.retried_cost_usd or "unknown",
            )
        for reason in landed.reasons:
            self.log.warning("%s %s, %s: %s", f"{reason.rows:,}", reason.outcome, reason.code, reason.message)


def _only_count(rows: Iterable[tuple[Any, ...]]) -> int:
    return sum(1 for _ in rows)


def _imported(path: str) -> SinkFactory:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: SinkFactory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"sink: cannot import {path!r}, which should be like 'package.module:Sink': {error}. Nothing was written."
        ) from error
    return found
