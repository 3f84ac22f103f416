"""`BatchResultsOperator`: lands the collected answers of a job in its results table."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator, MappedOperator

from airflow_provider_batch.core.arguments import (
    argument_error,
    check_templated,
    is_final,
    is_runtime_value,
    none_if_blank,
    parse_bool,
    parse_columns,
    parse_mapping,
    parse_table_name,
    require_conn_id,
    require_number,
)
from airflow_provider_batch.core.documentation import docs_page
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.landing.columns import FIXED_COLUMNS, check_names, no_schema_error, results_columns
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.landing.refusals import group_refusals, refusal_message
from airflow_provider_batch.core.landing.summary import failure_message, landed_record
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import Landed
from airflow_provider_batch.core.lifecycle.cleared_wait import clear_wait
from airflow_provider_batch.core.lifecycle.receipt import receipt
from airflow_provider_batch.core.lifecycle.summary import JobSummary, landing_result, summarize
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.core.schema.native import plain
from airflow_provider_batch.core.schema.paths import Path, column_type
from airflow_provider_batch.exceptions import (
    InputError,
    LedgerError,
    ResultsTableError,
    SchemaError,
    TooManyFailuresError,
)
from airflow_provider_batch.links.batch import BatchJobLink
from airflow_provider_batch.sensors.batch import BatchSensor
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.results_file import ResultsFile, parse_results_file
from airflow_provider_batch.warehouse.sinks.open import Sink, SinkFactory, open_sink
from airflow_provider_batch.worker.airflow_arguments import argument_of, operator_class, parse_job, submit_task_of
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments
from airflow_provider_batch.worker.mapped_names import NamedByMapping
from airflow_provider_batch.worker.metrics import JobMetrics
from airflow_provider_batch.worker.open_job import open_job
from airflow_provider_batch.worker.remote_files import delete_remote_files
from airflow_provider_batch.worker.traces import trace_job

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_batch.core.ledger.ledger import Ledger


#: parsers of the template fields besides `job`
_TEMPLATED: Mapping[str, Callable[[str, Any], Any]] = {
    "warehouse_conn_id": require_conn_id,
    "table": parse_table_name,
    "key": parse_mapping,
    "results_file": parse_results_file,
}


class BatchResultsOperator(CheckedMapping, NamedByMapping, BaseOperator):
    """Land the answers of a job in a table, a file or both, one row per custom_id, and return a summary.

    The task reads the answers from staging and upserts them by key, so it can be run again at any time with the same
    result. If two jobs write the same key, the job that was sealed later wins. Columns of the table that this operator
    does not know are never touched. Rows of every outcome land, and only then does the task fail if too many of them
    did not succeed.

    The returned summary contains:

    * `job_uid` and `table`
    * `requests`, the number of rows, and how many of them were `sent`, were `duplicates` (their request equals that of
      a row that was sent) or were `reused` (their answer came from the table `reuse_from`); and `invalid`, if it is not
      0: the number of rows that were not sent, because a file that they name is missing or cannot be used
    * `outcomes`, the number of rows by outcome, which add up to `requests`
    * `tokens`, the sums that the provider reported, by kind; and `without_usage`, if it is not 0: the number of
      requests whose cost is unknown, because the answer does not report its tokens or never arrived
    * `estimate`, with the `low_usd` and `high_usd` that were expected before the job ran, as in the reference
    * `cost_usd`, and `standard_cost_usd`, the cost of the same answers without the Batch API: US dollars as text, or
      None if the price or the tokens of an answer are unknown
    * `cost`, the cost and the estimate as text for people, such as "$0.12 (estimate: $0.10 to $0.21)"
    * `lanes`, the number of answers by lane: "batch", "flex" and "standard"
    * `receipt`, sentences with the list price, what was paid and saved, and whether the deadline was met
    * `retried`, the number of requests in attempts after the first, and `retried_cost_usd`, the part of `cost_usd` that
      was spent on them
    * `paid_twice`, the number of requests that were answered in two batches of the same attempt
    * `reasons`, the most frequent reasons why rows did not succeed
    * `results_file`, the address of the file, if there is one

    A duplicate or reused row lands with attempt 0, 0 tokens and a cost of 0, so the sum over the table is what was
    paid.

    If the task has assets as `outlets`, the summary without `reasons` is also the extra of their asset events. For an
    `AssetAlias`, the event is that of an asset with the name of the table.

    :param job: the output of the task that submits the job (`submit.output`), or that task itself. A `BatchSensor` must
        wait for the job before this task, unless `partial` is set.
    :param table: results table, as `schema.table` or `table`. Created if it does not exist. Optional with
        `results_file`.
    :param warehouse_conn_id: connection of the results table. Not used without `table`.
    :param columns: extra columns to fill from the structured output: a list of its fields, such as `["category",
        "score"]`, or a mapping from column name to path, such as `{"city": "address.city", "first": "items.0.name"}`.
        The names in a path may contain dots. A list of names, such as `["v1.0", "score"]`, is a path that is taken
        literally. The types of the columns follow from the output schema.
    :param key: extra key columns, with the value that they get in every row. Templated. Default: only the custom_id is
        the key.
    :param create_table: create the table if it does not exist. If False, the task fails and says what to create.
    :param max_failure_rate: share of rows, from 0 to 1, that may have another outcome than succeeded. If it is
        exceeded, the task fails after landing everything. Default: 0.05, which is 5 %.
    :param history: keep the answers of every job, by adding `job_uid` to the key.
    :param keep_last_success: never replace a succeeded row of an earlier job with a row that did not succeed.
    :param store_response: also land the whole response body, in a column `response`.
    :param results_file: file that gets the rows: an absolute path, or a URL such as
        `s3://aws_default@bucket/answers/{{ ds }}.parquet`. Templated. The ending decides on the format: `.parquet`, or
        `.jsonl` or `.ndjson` for newline-delimited JSON, also with `.gz`. Every landing replaces the file as a whole,
        and readers never see a part of it. Without `table`, no warehouse is needed.
    :param sink: your own class or function that writes the rows, or its import path. It is called as `sink(hook, table,
        columns, create=…, keep_last_success=…)` and returns a `warehouse.sinks.open.Sink`. Default: chosen by the type
        of database behind the connection.
    :param partial: do not count rows that are not settled yet, or that the budget withheld, as failed. Run the task
        again later to land them.
    :raises AirflowFailException: if the table does not fit the job (the answers stay in staging), if it refused a value
        of some rows (all others have landed), or if too many rows did not succeed (all rows have landed).
    """

    template_fields: Sequence[str] = ("job", "warehouse_conn_id", "table", "key", "results_file")
    ui_color = "#dcefe6"
    operator_extra_links = (BatchJobLink(),)

    @check_arguments
    def __init__(
        self,
        *,
        job: Any = None,
        table: str | None = None,
        warehouse_conn_id: str = "warehouse",
        columns: Mapping[str, Path] | Sequence[str] | str | None = None,
        key: Mapping[str, Any] | None = None,
        create_table: bool | str = True,
        max_failure_rate: float | str = 0.05,
        history: bool | str = False,
        keep_last_success: bool | str = False,
        store_response: bool | str = False,
        results_file: Any = None,
        sink: SinkFactory | str | None = None,
        partial: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.warehouse_conn_id = warehouse_conn_id
        self.table = table
        self.columns = parse_columns(columns)
        self.key = key
        self.create_table = parse_bool("create_table", create_table, default=True)
        self.max_failure_rate = require_number("max_failure_rate", max_failure_rate, maximum=1)
        self.history = parse_bool("history", history)
        self.keep_last_success = parse_bool("keep_last_success", keep_last_success)
        self.store_response = parse_bool("store_response", store_response)
        self.results_file = results_file
        self.sink = _check_sink(sink)
        self.accept_partial = parse_bool("partial", partial)
        self._ledger: Ledger | None = None
        self._landed: Landed | None = None
        check_templated(self, _TEMPLATED)
        if not is_runtime_value(results_file):
            parse_results_file("results_file", results_file)  # of a template, it checks the ending
        if is_final(table):
            self._check_destination(table, results_file)
        self.job = parse_job("job", job)
        self._check_columns()

    def _check_columns(self) -> None:
        """Check `columns` while the DAG is parsed: their names, and their paths if the schema is in the same DAG."""
        key = self.key if isinstance(self.key, Mapping) else {}
        check_names([*key, "custom_id", *(column.name for column in FIXED_COLUMNS), *self.columns])
        for schema in _schemas_of(self.job) if self.columns else ():
            if schema is None:
                raise no_schema_error(self.columns)
            for path in self.columns.values():
                column_type(schema, path)

    def _check_destination(self, table: Any, results_file: Any) -> None:
        if none_if_blank(table) is not None:
            return
        if none_if_blank(results_file) is None:
            raise _no_destination_error()
        for name in ("history", "keep_last_success", "sink"):
            if getattr(self, name):
                raise InputError(
                    f"{name} needs a results table, but only results_file is set, and every landing replaces that file "
                    f"as a whole. Pass table as well, or leave out {name}."
                )

    def prepare_template(self) -> None:
        """Check that a sensor waits for the job before its answers land. Airflow calls this once the DAG is complete.

        :raises InputError: if there is none. The rows would land as pending as soon as they were sent.
        """
        super().prepare_template()
        if not self.accept_partial and self.has_dag():  # type: ignore[no-untyped-call]
            _check_wait(self)

    @classmethod
    def check_dag(cls, mapped: MappedOperator) -> None:
        """Check, as `prepare_template` does, that a sensor waits before the tasks that the operator is mapped to."""
        if mapped.dag is not None and not argument_of(mapped, "partial"):
            _check_wait(mapped)

    def execute(self, context: Context) -> dict[str, Any]:
        """Upsert one row per custom_id, log the summary, and fail if too many rows did not succeed."""
        with airflow_failures(self.log):
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, Any]:
        self.table, self.key = parse_table_name("table", self.table), parse_mapping("key", self.key)
        self.results_file = parse_results_file("results_file", self.results_file)
        self._ledger = ledger = open_job(self.job)
        ledger.on_record = JobMetrics(ledger)
        BatchJobLink.persist(context, ledger.folder.uri)
        manifest = ledger.manifest
        try:
            sink = self.prepare_sink(manifest, self.warehouse_conn_id, self.table, self.key, self.results_file)
        except (ResultsTableError, SchemaError) as error:
            raise type(error)(
                f"{error} The answers are kept in staging. Fix the table or the arguments, then clear this task."
            ) from error
        state = ledger.state()
        landing = Landing(
            ledger.folder,
            state,
            key=self.key,
            columns=self.columns,
            store_response=self.store_response,
            run_id=manifest.key.run_id,
            landed_at=datetime.now(UTC),
            limits=getattr(sink, "limits", None),
        )
        # a sink of the author gets plain values only
        sink.write(landing if self.sink is None else map(plain, landing))
        refusals = getattr(sink, "refusals", ())
        record = landed_record(landing, self.table, self.results_file, datetime.now(UTC), refusals)
        self._landed = record = ledger.append(record)
        trace_job(manifest, record)
        summary = summarize(ledger, ledger.known_state())
        self._log_landing(summary, record)
        delete_remote_files(ledger, self.log)
        landed_rows = sum(record.outcomes.values())
        if landed_rows != manifest.requests:
            raise LedgerError(
                f"Job {manifest.job_uid}: {format_count(landed_rows, 'row')} landed in {record.location}, but "
                f"{manifest.requests:,} were sealed. The rows that landed are kept. Compare the table with the sealed "
                f"input files in {ledger.folder.uri}."
            )
        result: dict[str, Any] = msgspec.to_builtins(landing_result(summary, record))
        failure = failure_message(
            record,
            manifest.requests,
            str(clear_wait(ledger.known_state())),
            max_failure_rate=self.max_failure_rate,
            partial=self.accept_partial,
        )
        problems = {**landing.misfits, **group_refusals(refusals)}
        if failure is not None or problems:
            context["ti"].xcom_push(key="return_value", value=result)
        if problems:
            refused = refusal_message(problems, manifest.requests, record.location)
            raise ResultsTableError(f"{refused}\n{failure}" if failure else refused)
        if failure is not None:
            raise TooManyFailuresError(failure)
        self._attach_to_outlets(context, result)
        return result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what OpenLineage reports: the source of the rows, the job, and the results. Also called on failure."""
        from airflow_provider_batch.lineage.tasks import landing_lineage

        if self._ledger is None:
            return None
        columns = self._columns(self._ledger.manifest, self.key or {})
        return landing_lineage(self._ledger, self.warehouse_conn_id, columns, list(self.columns), self._landed)

    def _attach_to_outlets(self, context: Context, result: Mapping[str, Any]) -> None:
        """Add the summary to the event of each outlet, without `reasons`, which quote the provider."""
        extra = {name: value for name, value in result.items() if name != "reasons"}
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(extra)
            elif isinstance(outlet, AssetAlias) and result["table"]:
                context["outlet_events"][outlet].add(Asset(result["table"]), extra=extra)

    def prepare_sink(
        self,
        manifest: Manifest,
        warehouse_conn_id: str,
        table: str | None,
        key: Mapping[str, Any],
        results_file: Any,
    ) -> Sink:
        """Return what the rows are written to, ready for them: the results table, the file, or both.

        Creates the table if it does not exist. Submit calls this too, to check the table before anything is paid for.

        :param warehouse_conn_id: the task's argument, rendered; likewise `table`, `key` and `results_file`.
        :raises InputError: if the file cannot be written.
        :raises SchemaError: if the job cannot fill the columns.
        :raises ResultsTableError: if the columns or the key of the table do not fit the job.
        """
        columns = self._columns(manifest, parse_mapping("key", key))
        table_name, address = parse_table_name("table", table), parse_results_file("results_file", results_file)
        self._check_destination(table_name, address)
        sink: Sink | None = None
        # a new table would have columns of the wrong type
        has_unknown_types = not manifest.requests and any(not column.native_type for column in manifest.carry)
        if table_name is not None and has_unknown_types:
            sink = _NoRows()
        elif table_name is not None:
            sink = open_sink(
                sql_hook(require_conn_id("warehouse_conn_id", warehouse_conn_id)),
                table_name,
                columns,
                create=self.create_table,
                keep_last_success=self.keep_last_success,
                factory=_import_sink(self.sink) if isinstance(self.sink, str) else self.sink,
            )
        if address is not None:
            sink = ResultsFile(address, columns, sink)
        if sink is None:
            raise _no_destination_error()
        sink.prepare()
        return sink

    def _columns(self, manifest: Manifest, key: Mapping[str, Any]) -> list[Column]:
        return results_columns(
            manifest, key=key, columns=self.columns, history=self.history, store_response=self.store_response
        )

    def _log_landing(self, summary: JobSummary, record: Landed) -> None:
        if summary.duplicates or summary.reuse_from:
            self.log.info("%s: %s", format_count(summary.requests, "row"), summary.sources)
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in record.outcomes.items())
        self.log.info(
            "Landed %s in %s%s. Cost: %s.",
            format_count(summary.requests, "row"),
            record.location,
            f": {outcomes}" if outcomes else "",
            format_usd(record.cost_usd),
        )
        self.log.info("Receipt. %s", receipt(record))
        if record.lowest_cost_usd != record.cost_usd:
            self.log.info(
                "The cost counts cached input at the full batch price, because no source says whether batches have a "
                "discount for it. With the discount, it is %s. %s lists the sources.",
                format_usd(record.lowest_cost_usd),
                docs_page("reference/prices"),
            )
        if record.without_usage:
            self.log.warning(
                "For %s, the provider did not report the tokens used, so the total cost is unknown. Their rows have no "
                "cost_usd. The sum of that column is the cost of the others.",
                format_count(record.without_usage, "request"),
            )
        if summary.paid_twice:
            self.log.warning(
                "Paid twice: %s answered in two batches of the same attempt.",
                format_count(summary.paid_twice, "request was", "requests were"),
            )
        if summary.lost_requests:
            self.log.warning(
                "A worker was sending %s synchronously when it died. They may have been billed as well, and the "
                "cost does not include that, because it is unknown.",
                format_count(summary.lost_requests, "request"),
            )
        if record.retried:
            self.log.info(
                "Retried %s. The cost of these attempts, which is part of the total, is %s.",
                format_count(record.retried, "request"),
                format_usd(record.retried_cost_usd),
            )
        for reason in record.reasons:
            self.log.warning(
                "%s %s, %s: %s", format_count(reason.rows, "row"), reason.outcome, reason.code, reason.message
            )


class _NoRows:
    """The sink of a job without rows, which leaves the results table as it is."""

    def prepare(self) -> None:
        pass

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        return sum(1 for _ in rows)


def _no_destination_error() -> InputError:
    return InputError(
        "There is nowhere to land the rows: pass table, or results_file with the address of a file such as "
        "'s3://bucket/answers.parquet', or both."
    )


def _schemas_of(job: Any) -> Iterator[dict[str, Any] | None]:
    """Yield the output schemas of the tasks that a reference to a job comes from, as far as they are known already."""
    for operator, _ in job.iter_references() if is_runtime_value(job) else ():
        arguments = getattr(operator, "partial_kwargs", None) or vars(operator)
        is_submit = "output_schema" in getattr(operator, "template_fields", ())
        if is_submit and isinstance(schema := arguments.get("output_schema"), dict | None):
            yield schema


def _check_wait(task: Any) -> None:
    """Raise InputError if no sensor waits for the job before a task, which may be mapped, lands its answers."""
    submit = submit_task_of(argument_of(task, "job"), task.dag)
    if submit is None:
        return
    if not any(_waits_for(upstream, submit) for upstream in task.get_flat_relatives(upstream=True)):
        raise InputError(
            f"Task {task.task_id!r} would land the job of task {submit.task_id!r} without its answers, because no "
            "BatchSensor waits for the job before. Add wait = BatchSensor(task_id='wait', job=submit.output), and "
            "order the tasks as submit >> wait >> land. To land the answers that exist by then, set partial=True."
        )


def _waits_for(task: Any, submit: Any) -> bool:
    return issubclass(operator_class(task), BatchSensor) and submit_task_of(argument_of(task, "job"), task.dag) in (
        submit,
        None,
    )


def _check_sink(sink: Any) -> Any:
    """Return the argument `sink`. Raises InputError if it is not a class, a function or an import path."""
    is_path = isinstance(sink, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*[:.][^\W\d]\w*", sink) is not None
    if sink is not None and not is_path and not callable(sink):
        raise argument_error("sink", "a class, a function or an import path such as 'package.module:Sink'", sink)
    return sink


def _import_sink(path: str) -> SinkFactory:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        factory: SinkFactory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"sink: Cannot import {path!r} ({type(error).__name__}: {error}). Expected a path like "
            "'package.module:Sink'. Nothing was written."
        ) from error
    return factory
