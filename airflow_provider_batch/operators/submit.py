"""`BatchSubmitOperator`: turns rows into a sealed job and submits its batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator
from jinja2 import TemplateNotFound

from airflow_provider_batch.core.arguments import (
    check_templated,
    check_value,
    is_file_name,
    is_final,
    is_runtime_value,
    none_if_blank,
    parse_bool,
    parse_choice,
    parse_count,
    parse_duration,
    parse_location,
    parse_mapping,
    parse_metadata,
    parse_names,
    parse_number,
    parse_parameters,
    parse_table,
    parse_templated,
    parse_text,
    replace_runtime_values,
    require_conn_id,
    require_text,
    resolve,
)
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, Origin, Reference
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.core.ledger.records import Submitted, Task, TaskStarted
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.canary_verdict import MAX_REQUESTS as MAX_CANARY
from airflow_provider_batch.core.lifecycle.generation import Action, Decision
from airflow_provider_batch.core.lifecycle.steps import Finish, Hold, Policy, Void
from airflow_provider_batch.core.lifecycle.summary import preview_reference, reference_of, summarize
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.lane import FLEX_ENDPOINTS, Lane
from airflow_provider_batch.core.provider.limits import read_limits
from airflow_provider_batch.core.requests.preview import render_preview
from airflow_provider_batch.core.requests.render import RequestSpec, check
from airflow_provider_batch.core.schema.author_schema import author_schema, strict_schema
from airflow_provider_batch.exceptions import InputError, JobHeldError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.links.batch import BatchJobLink, ProviderBatchesLink
from airflow_provider_batch.operators.landings import check_landings, check_waits, landing_tables, results_connection
from airflow_provider_batch.sources.open import ResolvedRows, check_rows, has_templates
from airflow_provider_batch.sources.source import RowSource
from airflow_provider_batch.staging.layout import (
    check_budgets_reachable,
    check_exclusive_mode,
    check_reachable,
    job_folder,
    parse_staging,
    staging_root,
)
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.airflow_arguments import as_output
from airflow_provider_batch.worker.airflow_errors import airflow_failures, canary_error
from airflow_provider_batch.worker.build import Plan
from airflow_provider_batch.worker.bundle import bundle_records
from airflow_provider_batch.worker.canary_preview import read_canary
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments, naming_task
from airflow_provider_batch.worker.earlier_attempt import check_earlier_attempt, note_seal
from airflow_provider_batch.worker.generation import Sealing, Source, cancel_earlier, change_budget
from airflow_provider_batch.worker.kill_switch import KillSwitch
from airflow_provider_batch.worker.mapped_names import NamedByMapping
from airflow_provider_batch.worker.runner import Runner
from airflow_provider_batch.worker.seal_log import log_build
from airflow_provider_batch.worker.task_context import job_key, row_context, to_plain_datetime

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_batch.hooks.batch import BatchHook

#: arguments that Airflow resolves but does not render, because they are rendered once per row
ROW_ARGUMENTS = ("custom_id", "model", "system", "prompt", "files", "body", "request", "output_schema")
#: choices for `delete_remote_files`
DELETE_REMOTE_FILES = DELETE_NEVER, DELETE_AFTER_COLLECT = ("never", "after_collect")
#: choices for `files_as`
FILES_AS = BASE64, FILE_ID = ("base64", "file_id")
#: choices for `lane`
LANES = BATCH, FLEX, AUTO = ("batch", "flex", "auto")
#: choices for `on_empty`
ON_EMPTY = SUCCEED, SKIP, FAIL = ("succeed", "skip", "fail")
#: XCom key of the first requests of a preview
PREVIEW_KEY = "preview"
#: XCom key of a preview as Markdown
PREVIEW_TEXT_KEY = "preview_text"
#: XCom key of the part of `preview_text` that a decision needs, without the requests in full
APPROVAL_TEXT_KEY = "approval_text"
#: parsers of the template fields that are not row arguments
_TEMPLATED: Mapping[str, Callable[[str, Any], Any]] = {
    "warehouse_conn_id": require_conn_id,
    "sql": parse_text,
    "max_rows": parse_count,
    "parameters": parse_parameters,
    "endpoint": require_text,
    "max_cost_usd": parse_number,
    "max_run_cost_usd": parse_number,
    "openai_conn_id": require_conn_id,
    "staging": parse_staging,
    "metadata": parse_metadata,
    "deduplicate": partial(parse_bool, default=True),
    "canary": partial(parse_count, maximum=MAX_CANARY),
    "ignore_canary": parse_bool,
    "reuse_from": parse_table,
    "resubmit": parse_bool,
    "stop_after_canary": parse_bool,
    "preview": parse_bool,
    "lane": partial(parse_choice, choices=LANES),
    "files_root": parse_location,
}


class BatchSubmitOperator(CheckedMapping, NamedByMapping, BaseOperator):
    """Send one request per row through the Batch API, and return a reference to the job.

    The rows are those of a SQL query (`sql`), or others that the author has in hand (`rows`).

    The rows are rendered, checked, priced and sealed in staging before anything is uploaded. The task then creates as
    many batches as the provider accepts; `BatchSensor` submits the rest. The task returns `job_uid`, `ledger` (the
    address of the job's folder), `openai_conn_id`, `requests` (rows), how many of these are `sent`, `duplicates`,
    `reused` and `invalid` (a file that the row names is missing or cannot be used), `shards` (input files), `estimate`
    and `preview`. Pass this reference as `job` to `BatchSensor` and `BatchResultsOperator`.

    **Running it again.** A retry continues from the sealed files and never reads the rows again. When the task is
    cleared, it reads and renders the rows again, which is free, and compares them with the sealed ones. Rows with the
    same custom_id and the same request keep their batch and their answer. All other rows are sent. Rows that are
    no longer there are not landed again.

    **The estimate** is a range, based on estimated token counts. Where the extra `tokens` is installed, the prompts of
    the first 1,000 requests of each model and of 1 % of the others are counted exactly, and the estimate of the rest is
    corrected accordingly. Nothing is downloaded for this. The log says which method was used. Once earlier jobs of this
    task have 20 answers from a model, their mean output narrows the range that is shown, and the input tokens that the
    provider reported for them correct it. `max_cost_usd` is checked without that, because the prompt may have changed
    since. From the canary on, the estimate is corrected by what the provider reports for this job.

    **Row templates** (`custom_id`, `model`, `system`, `prompt`, `body`) are Jinja templates that are rendered once per
    row, with `row`, `params`, `run_id`, `dag_run.conf` and the dates of the run. An unknown column is an error. A
    template may also be an XComArg, a mapped argument, `dag.param(...)`, or the name of a `.txt`, `.md` or `.j2` file
    next to the DAG. A template may take 10 seconds and 100,000,000 characters for a row; one that needs more, or shows
    an object whose text differs from run to run, is an error that names the row. Optional arguments that were left
    empty in a form (None, blank text, `{}`) count as not given.

    **Arguments** are checked while the DAG is parsed, as far as they are known then, and the others before anything is
    sent. Numbers and switches may be text, as forms pass them: "no" and "false" are False.

    :param sql: one SELECT statement. Templated by Airflow; a value that ends in `.sql` is read as a file. Give either
        `sql` or `rows`.
    :param rows: the rows, without a query: a list of dicts; the output of a task that returns one, as in
        `rows=load()`; a data frame of pandas, polars or Arrow; or the address of files (NDJSON, CSV, Parquet), such as
        `"s3://aws_default@bucket/{{ ds }}/*.parquet"`. Addresses are templated by Airflow, and the rows themselves
        never are. `docs/how-to/rows.md` describes them all.
    :param custom_id: row template for the caller's key of a row. Must be unique within the job; never rewritten.
    :param warehouse_conn_id: connection to read `sql` from. Any connection whose hook is a `DbApiHook` works. With
        `rows`, only `reuse_from` needs it, and only if no task lands the job in a table.
    :param max_rows: maximum number of rows to send; the rows after the first `max_rows` are left out, and the log says
        so. Sort the rows in the SQL to select the same ones in every run. Default: all rows.
    :param parameters: values for the placeholders in `sql`, in the style of the database driver.
    :param model: row template for the model. Each model gets its own input files.
    :param endpoint: `/v1/chat/completions`, `/v1/responses`, `/v1/embeddings`, `/v1/completions` or `/v1/moderations`.
    :param system: row template for the system message, or for the instructions of the Responses API.
    :param prompt: row template for the user message or the input. May be a list of content parts, or of inputs.
    :param files: row template for the path of an image, a PDF or an audio file to add to the user message, such as
        `"s3://aws_default@bucket/photos/{{ row.photo }}"`; a list of them; or dicts such as
        `{"path": "…", "detail": "low"}`. It names a file on object storage or on a disk that every worker mounts. An
        expression may yield a list of paths, and a path that renders blank adds nothing. The file is read when the row
        is sealed and sent in base64. For `/v1/chat/completions` and `/v1/responses`. A row with a file that is missing
        or cannot be used is not sent and lands as `invalid_input`. See `docs/how-to/files.md`.
    :param files_root: address of the folder below which the files are. No row can read a file anywhere else. Default:
        the text with which the templates in `files` begin, up to its last slash. Required if they begin with an
        expression; paths may then be relative to it.
    :param files_as: how the content of the files is sent. "base64" makes it a part of the request. "file_id" uploads
        each file once before the requests that refer to it; images and audio of `/v1/chat/completions`, which takes
        them in base64 only, stay in the request.
    :param output_schema: the expected shape of the answer, as JSON Schema or as anything that pydantic can validate: a
        model, a dataclass, a TypedDict, or a type such as `list[Item]`. Answers are judged by it. What is sent is made
        strict; `docs/how-to/structured-output.md` says how, and the log and the preview list the changes.
    :param max_output_tokens: maximum length of each answer, in tokens.
    :param body: base of every request body, with row templates at any depth. Must not contain fields that other
        arguments fill in.
    :param request: function that takes the row as a dict and returns the request body, or the import path of such a
        function. Replaces `prompt` and `system`.
    :param carry: columns of the rows to land next to the answer, with the types they have in the source: a list of
        names, or one name.
    :param max_cost_usd: budget of the job, in US dollars. The task fails if the lowest estimate exceeds it. While the
        job runs, no batch is created that could exceed the budget, and rows that are not sent for this reason land as
        `withheld`. To continue, raise the budget and clear this task and the tasks after it.
    :param max_run_cost_usd: budget of all jobs of the DAG run together, in US dollars; give it to each of them. It also
        covers retries and clears of the run. Rows that exceed it wait while other jobs of the run may still release
        money, until the deadline, and then land as `withheld`. The connection can have a budget as well; see
        `docs/how-to/budgets.md`.
    :param prices: your own prices by model, either in US dollars per million tokens, as in
        `{"my-model": {"input": 0.1, "output": 0.4}}`, or as the name of a model with the same price. They take
        precedence over `batch_prices` in the connection's extra, which has the same form. `docs/reference/prices.md`
        lists the published prices.
    :param openai_conn_id: connection of the type that the official OpenAI provider defines.
    :param staging: absolute path or object store URI for the job's files. Default: config `[openai_batch] staging`.
    :param allow_local_staging: accept a local path for staging even if tasks may run on several machines. Set this
        only if every worker mounts that path.
    :param limits: maximum size of one input file, by unit: `requests`, `bytes`, `inputs` (of embeddings), `tokens`
        (estimated input tokens, so that a file fits into the provider's queue) and `output_bytes` (expected size of the
        answers). A limit given here takes precedence over `batch_limits` in the connection's extra, which takes
        precedence over the limits of the provider that the base URL identifies. If neither the argument nor the
        connection sets `tokens`, but the provider reported a queue limit to a job of this connection within the last
        30 days, input files are cut to fit that limit. A single row that exceeds it is still sent.
    :param completion_window: the `completion_window` of each batch, as the provider accepts it. Default: "24h".
    :param metadata: up to 12 key-value pairs to add to the metadata of every batch.
    :param deduplicate: send identical requests once and write the answer to every row that needs it. Set it to
        False to send one prompt several times on purpose, for example to sample answers. Otherwise a request in which
        no template mentions the row is an error.
    :param reuse_from: results table of earlier jobs whose answers are reused: `table` or `schema.table` on the
        connection of the task that lands the job, or `{"conn_id": …, "table": …}`. A row whose request succeeded there
        is not sent. It lands with that answer and its batch_id, and with attempt 0, no tokens and no cost. The table is
        read once. If it does not exist yet, as on the first run of a job that lands in it, every row is sent.
    :param canary: number of requests per model, at most 20, to send synchronously before anything is uploaded: on the
        flex tier, at the price of a batch, if the model has it, and otherwise at the standard price; 0 sends none. They
        come from all over the rows, and are at most a quarter of the model's requests, rounded up. Their answers land
        like all others. Submit fails, and nothing is uploaded, if no canary request of a model gets a usable answer
        (all of them are cut off, empty, refused, invalid against the schema, or failed for a reason that does not
        concern a single row), or if even the low end of the estimate by their answers exceeds `max_cost_usd`. Default:
        5, and 0 for Azure, whose batch deployments accept only batches.
    :param ignore_canary: send all requests even if no canary request got a usable answer. The log says what came back.
        `max_cost_usd` still applies.
    :param resubmit: when the task is cleared, send and pay for every row again instead of keeping the unchanged ones.
        `reuse_from` is ignored, and batches of the job that are still running are cancelled. A retry never resubmits.
        The run conf `{"batch_resubmit": true}` and the command `airflow-batch jobs resubmit` have the same effect.
    :param retention: how long after its last event `airflow-batch jobs clean` keeps the job in staging, as a
        `timedelta` or as text with a unit, such as "30d". Only that command removes jobs. Default: config
        `[openai_batch] retention`, 30 days.
    :param delete_remote_files: "after_collect" deletes the input and result files at the provider during landing, once
        their answers are in staging; files that cannot be deleted are logged and left alone. "never" leaves all files
        to the provider's own expiry.
    :param stop_after_canary: seal the job and send its canary, but upload nothing. The task pushes the XComs `preview`
        and `preview_text`, which show the answers of the canary next to their requests, and the estimate that follows
        from them, and `approval_text`, the part that a decision needs. `BatchSensor` sends the other requests, so put
        an `ApprovalOperator` before it, or let `batch_job(approve_above_usd=…)` do that.
    :param preview: render, check and price the job and show its first requests, without sealing or sending anything.
        The task pushes two more XComs: `preview`, the first requests, and `preview_text`, Markdown with the counts,
        the estimate and these requests, for example for the body of an `ApprovalOperator`.
    :param lane: how the rows are sent after the canary. "batch" sends them in batches, which may take 24 hours. "flex"
        sends them one by one on OpenAI's flex tier, which costs the same and usually answers within minutes; the task
        sends 16 at a time and ends when all are answered. "auto" selects "flex" for jobs of up to 300 rows, and
        otherwise "batch". Rows that flex does not take, and models without flex, are sent in batches. Default: "batch".
    :param on_empty: what to do if there are no rows: "succeed", "skip" or "fail".
    :raises AirflowFailException: if the arguments or the rows are wrong. Nothing was uploaded.
    :raises JobHeldError: if the account or the connection needs attention. Fix it, then clear the task.
    """

    template_fields: Sequence[str] = (
        "warehouse_conn_id",
        "sql",
        "rows",
        "max_rows",
        "parameters",
        "endpoint",
        "max_cost_usd",
        "max_run_cost_usd",
        "openai_conn_id",
        "staging",
        "metadata",
        "deduplicate",
        "canary",
        "ignore_canary",
        "reuse_from",
        "resubmit",
        "stop_after_canary",
        "preview",
        "lane",
        "files_root",
        *ROW_ARGUMENTS,
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "sql": "sql",
        "system": "md",
        "prompt": "md",
        "body": "json",
        "output_schema": "json",
    }
    ui_color = "#dcefe6"
    operator_extra_links = (BatchJobLink(), ProviderBatchesLink())
    #: whether the output of a task is the reference to a job
    returns_job: ClassVar[bool] = True

    @check_arguments
    def __init__(
        self,
        *,
        sql: str | None = None,
        rows: Any = None,
        custom_id: Any = None,
        warehouse_conn_id: str = "warehouse",
        max_rows: int | str | None = None,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        model: Any = None,
        endpoint: str = "/v1/chat/completions",
        system: Any = None,
        prompt: Any = None,
        files: Any = None,
        files_root: str | None = None,
        files_as: str = BASE64,
        output_schema: Any = None,
        max_output_tokens: int | str | None = None,
        body: Any = None,
        request: Callable[[dict[str, Any]], Mapping[str, Any]] | str | None = None,
        carry: Iterable[str] | str | None = None,
        max_cost_usd: float | str | None = None,
        max_run_cost_usd: float | str | None = None,
        prices: Mapping[str, Any] | None = None,
        openai_conn_id: str = "openai_default",
        staging: str | PathLike[str] | None = None,
        allow_local_staging: bool | str = False,
        limits: Mapping[str, int | None] | None = None,
        completion_window: str = "24h",
        metadata: Mapping[str, Any] | str | None = None,
        deduplicate: bool | str = True,
        reuse_from: str | Mapping[str, str] | None = None,
        canary: int | str | None = None,
        ignore_canary: bool | str = False,
        resubmit: bool | str = False,
        retention: timedelta | str | None = None,
        delete_remote_files: str = DELETE_NEVER,
        stop_after_canary: bool | str = False,
        preview: bool | str = False,
        lane: str = BATCH,
        on_empty: str = SUCCEED,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.warehouse_conn_id = warehouse_conn_id
        self.sql: Any = sql
        self.rows: Any = as_output(rows)
        self.max_rows: Any = max_rows
        self.parameters: Any = parameters
        self.custom_id = custom_id
        self.model = model
        self.endpoint = endpoint
        self.system = system
        self.prompt = prompt
        self.files = files
        # a path or an ObjectStoragePath counts as its address
        self.files_root: Any = str(files_root) if hasattr(files_root, "parts") else files_root
        self.files_as = parse_choice("files_as", files_as, FILES_AS)
        self.output_schema = plain_schema(output_schema)
        self.max_output_tokens = parse_count("max_output_tokens", max_output_tokens, minimum=1)
        self.body = body
        self.request = request
        self.carry = parse_names("carry", carry)
        self.max_cost_usd: Any = max_cost_usd
        self.max_run_cost_usd: Any = max_run_cost_usd
        self.prices = parse_mapping("prices", prices)
        self.openai_conn_id = openai_conn_id
        self.staging: Any = staging
        self.allow_local_staging = parse_bool("allow_local_staging", allow_local_staging)
        self.limits = parse_mapping("limits", limits)
        self.completion_window = require_text("completion_window", completion_window, pattern=r"[\w .-]{1,32}")
        self.metadata: Any = metadata
        self.deduplicate: Any = deduplicate
        self.reuse_from: Any = reuse_from
        self.canary: Any = canary
        self.ignore_canary: Any = ignore_canary
        self.resubmit: Any = resubmit
        self.retention = parse_duration("retention", retention, needs_unit=True)
        self.delete_remote_files = parse_choice("delete_remote_files", delete_remote_files, DELETE_REMOTE_FILES)
        self.stop_after_canary: Any = stop_after_canary
        self.preview: Any = preview
        self.lane: Any = lane
        self.on_empty = parse_choice("on_empty", on_empty, ON_EMPTY)
        self._kill_switch = KillSwitch()
        self._ledger: Ledger | None = None
        check_templated(self, _TEMPLATED)
        read_limits(self.limits)
        Prices(self.prices)
        self._check_source()
        self._check_row_arguments()

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return a partial operator to be mapped.

        A pydantic `output_schema` becomes JSON Schema here, because a serialised DAG cannot contain a class.
        """
        if "output_schema" in kwargs:
            with naming_task(kwargs):
                kwargs["output_schema"] = plain_schema(kwargs["output_schema"])
        return super().partial(**kwargs)

    def resolve_template_files(self) -> None:
        """Read `.sql` files as Airflow does, and the text files that row arguments refer to."""
        super().resolve_template_files()
        for name in ROW_ARGUMENTS:
            value = getattr(self, name)
            if name != "files" and is_file_name(value):
                setattr(self, name, self._read_text_file(name, value))
        self._check_row_arguments()

    def _read_text_file(self, argument: str, name: str) -> str:
        env = self.get_template_env()
        if env.loader is None:
            raise InputError(
                f"Cannot read the text file {name!r}: the task belongs to no DAG, so there is no folder to look in."
            )
        try:
            return env.loader.get_source(env, name)[0].removesuffix("\n")
        except (TemplateNotFound, OSError, UnicodeError) as error:
            raise InputError(
                f"{argument}: Cannot read the text file {name!r} ({type(error).__name__}). Give its path relative to "
                "the file of the DAG or to its template_searchpath."
            ) from error

    def _do_render_template_fields(
        self, parent: Any, template_fields: Any, context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        if parent is self:
            self.resolve_template_files()
            for name in ROW_ARGUMENTS:
                setattr(self, name, resolve(getattr(self, name), context))
            self.rows = self._resolve_rows(context, jinja_env, seen_oids)
            template_fields = [field for field in template_fields if field not in (*ROW_ARGUMENTS, "rows")]
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    def _resolve_rows(self, context: Any, jinja_env: Any, seen_oids: set[int]) -> ResolvedRows | None:
        """Return the value of `rows`, resolved. Only addresses that the author wrote are rendered, never a row.

        :param seen_oids: ids of values that come from other tasks, which Airflow does not render.
        """
        rows = self.rows
        if rows is None or isinstance(rows, ResolvedRows):
            return rows
        if has_templates(rows):
            rows = self.render_template(rows, context, jinja_env, seen_oids)
        elif is_runtime_value(rows):
            rows = resolve(rows, context)
        if none_if_blank(rows) is None:
            return None
        return rows if isinstance(rows, ResolvedRows) else ResolvedRows(rows)

    def execute(self, context: Context) -> dict[str, Any]:
        """Seal the job if it is not sealed yet, then create as many batches as the provider accepts."""
        with (
            airflow_failures(self.log, lambda: self._kill_switch.is_pulled),
            self._kill_switch.watching(context["ti"], lambda: self._open_ledger(context), self.log),
        ):
            reference: dict[str, Any] = msgspec.to_builtins(self._execute(context))
            return reference

    def _execute(self, context: Context) -> Reference:
        parse_templated(self, _TEMPLATED)
        self._check_source()
        check_waits(self, context)
        hook = open_hook(self.openai_conn_id)
        source = self._source(context, hook)
        if self.preview:
            return self._preview(context, source, hook)
        check_reachable(source.root, allow_local=self.allow_local_staging)
        if source.plan.max_run_cost_usd is not None or source.plan.connection_budget is not None:
            check_budgets_reachable(allow_local=self.allow_local_staging and self.staging is None)
            check_exclusive_mode(staging_root())
        check_exclusive_mode(source.root)
        folder = job_folder(source.root, source.plan.key)
        sealing = Sealing(
            source,
            folder,
            hook,
            self.log,
            check_tables=lambda manifest: self._check_tasks_after(context, folder, manifest),
        )
        clear_epoch, resubmit = context["ti"].max_tries, self._wants_resubmit(context)
        if not resubmit:
            check_earlier_attempt(context, folder, self.log)
        self._ledger = ledger = sealing.open(clear_epoch, resubmit=resubmit)
        note_seal(context, folder, ledger.manifest, self.log)
        change_budget(ledger, source.plan.max_cost_usd, source.plan.max_run_cost_usd, self.log)
        ledger.add(TaskStarted(Task.SUBMIT, clear_epoch, datetime.now(UTC)))
        cancel_earlier(ledger, self.log)
        BatchJobLink.persist(context, folder.uri)
        ProviderBatchesLink.persist(context, hook.host)
        if not ledger.manifest.requests:
            self._handle_no_rows()
        if self.lane == FLEX and ledger.manifest.lane is not Lane.FLEX:
            self.log.warning(
                "lane is 'flex', but connection %r or endpoint %s has no flex tier, so all requests go to batches",
                self.openai_conn_id,
                self.endpoint,
            )
        self._send(ledger, hook)
        ledger.add(Submitted(datetime.now(UTC)))
        bundle_records(ledger, self.log)
        state = ledger.known_state()
        reference = reference_of(summarize(ledger, state), state)
        if self.stop_after_canary:
            self._show_canary(context, ledger, state, reference)
        return reference

    def _check_tasks_after(self, context: Context, folder: Folder, manifest: Manifest) -> list[int]:
        """Check the tasks that wait for the job and land it, before it is sealed."""
        check_waits(self, context, datetime.now(UTC))
        return check_landings(self, context, folder, manifest)

    def _send(self, ledger: Ledger, hook: BatchHook) -> None:
        policy = Policy(max_attempts=1, stop_after_canary=self.stop_after_canary, restarted_at=datetime.now(UTC))
        runner = Runner(ledger, hook, policy, self.log, stopping=lambda: self._kill_switch.is_pulled)
        pause = runner.run({})
        if isinstance(pause, Void):
            raise canary_error(pause)
        if isinstance(pause, Finish):
            runner.log_withheld(pause)
        if isinstance(pause, Hold):
            manifest = ledger.manifest
            raise JobHeldError(
                f"Job {manifest.job_uid} is held: {pause.message.removesuffix('.')}. The job is kept, with "
                f"{format_count(manifest.sent, 'request')}, in {ledger.folder.uri}, and existing batches keep running. "
                "Fix the account or the connection, then clear this task."
            )

    def _wants_resubmit(self, context: Context) -> bool:
        conf = getattr(context.get("dag_run"), "conf", None) or {}
        return self.resubmit or parse_bool("batch_resubmit", conf.get("batch_resubmit"))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return what OpenLineage reports: the tables that the task read, and the job. Also called on failure."""
        from airflow_provider_batch.lineage.tasks import submit_lineage

        return submit_lineage(self._origin, self._ledger)

    def on_kill(self) -> None:
        """Stop making paid calls. Existing batches are recorded, and the next attempt continues with them.

        The batches are cancelled only if the task was marked failed or skipped, or its run was deleted.
        """
        self._kill_switch.pull()

    def _open_ledger(self, context: Context) -> Ledger | None:
        return open_ledger(job_folder(staging_root(self.staging), job_key(context)))

    def _request_spec(self) -> RequestSpec:
        schema = self.output_schema
        return RequestSpec(
            endpoint=self.endpoint,
            custom_id=self.custom_id,
            model=none_if_blank(self.model),
            system=none_if_blank(self.system),
            prompt=self.prompt,
            files=none_if_blank(self.files),
            files_root=none_if_blank(self.files_root),
            body=none_if_blank(self.body),
            request=none_if_blank(self.request),
            output_schema=None if schema is None or is_runtime_value(schema) else strict_schema(schema),
            author_schema=schema,
            max_output_tokens=self.max_output_tokens,
        )

    def _plan(self, context: Context, hook: BatchHook) -> Plan:
        self.output_schema = plain_schema(self.output_schema)
        spec = self._request_spec()
        check(spec, deduplicate=self.deduplicate)
        hook.check()
        logical_date = context.get("logical_date")
        return Plan(
            key=job_key(context),
            spec=spec,
            max_rows=self.max_rows,
            carry=self.carry,
            context=row_context(context),
            openai_conn_id=self.openai_conn_id,
            limits=hook.limits(self.limits),
            prices=hook.prices(self.prices),
            price_list=hook.price_list,
            max_cost_usd=self.max_cost_usd,
            max_run_cost_usd=self.max_run_cost_usd,
            connection_budget=hook.budget,
            completion_window=self.completion_window,
            metadata=self.metadata,
            logical_date=to_plain_datetime(logical_date) if logical_date else None,
            deduplicate=self.deduplicate,
            canary=hook.canary if self.canary is None else self.canary,
            ignore_canary=self.ignore_canary,
            retention_days=self.retention / timedelta(days=1) if self.retention is not None else None,
            delete_remote_files=self.delete_remote_files == DELETE_AFTER_COLLECT,
            uploads_files=self.files is not None and self.files_as == FILE_ID,
            lane=None if self.lane == AUTO else Lane(self.lane),
            has_flex=hook.has_flex and self.endpoint in FLEX_ENDPOINTS,
            origin=self._origin,
        )

    @property
    def _origin(self) -> Origin:
        if self.rows is None:
            return Origin(conn_id=self.warehouse_conn_id, sql=self.sql)
        return Origin(addresses=self.rows.addresses if isinstance(self.rows, ResolvedRows) else [])

    def _source(self, context: Context, hook: BatchHook) -> Source:
        plan = self._plan(context, hook)
        return Source(
            plan,
            origin=f"connection {self.warehouse_conn_id}" if self.rows is None else str(self.rows),
            open_rows=self._open_rows,
            reused_table=lambda: self._open_reused_table(context),
            root=staging_root(self.staging),
            has_explicit_token_limit=hook.has_explicit_token_limit(self.limits),
        )

    def _open_rows(self) -> RowSource:
        if self.rows is None:
            return read_rows(sql_hook(self.warehouse_conn_id), self.sql, self.parameters, exact=True)
        rows: ResolvedRows = self.rows
        return rows.open()

    def _open_reused_table(self, context: Context) -> ReusedTable | None:
        table_ref = self.reuse_from
        if table_ref is None:
            return None
        conn_id = table_ref.conn_id or results_connection(self, context) or self.warehouse_conn_id
        return ReusedTable(sql_hook(conn_id), table_ref.table)

    def _preview(self, context: Context, source: Source, hook: BatchHook) -> Reference:
        source = replace(source, plan=msgspec.structs.replace(source.plan, canary=0))
        with TemporaryDirectory(prefix="batch-preview-") as path:
            build = source.build(LocalFolder(Path(path)), Decision(Action.SEAL, 1, reuse=True), hook, self.log)
        log_build(self.log, build)
        for request in build.sample:
            self.log.info("Would send %s: %s", request["custom_id"], msgspec.json.encode(request["body"]).decode())
        self.log.info("This was a preview: nothing was sealed, uploaded or billed.")
        tables = landing_tables(self, context)
        render = partial(render_preview, build.manifest, build.sample, sql=self.sql, tables=tables)
        self._push_preview(context, build.sample, render)
        return preview_reference(build.manifest)

    def _show_canary(self, context: Context, ledger: Ledger, state: JobState, reference: Reference) -> None:
        """Push the requests and answers of the canary, for the person who decides about the other requests."""
        requests, canaries = read_canary(ledger), state.canary_shards
        render = partial(
            render_preview,
            ledger.manifest,
            requests,
            reference.estimate,
            sql=self.sql,
            tables=landing_tables(self, context),
            canary_outcomes=reference.canary_outcomes,
            canary_cost_usd=reference.canary_cost_usd,
            has_sent_others=any(shard.submissions for shard in state.shards.values() if shard not in canaries),
        )
        self._push_preview(context, requests, render)
        self.log.info("Stopped after the canary: nothing was uploaded. The wait sends the other requests.")

    def _push_preview(self, context: Context, requests: list[dict[str, Any]], render: Callable[..., str]) -> None:
        context["ti"].xcom_push(key=PREVIEW_KEY, value=requests)
        context["ti"].xcom_push(key=PREVIEW_TEXT_KEY, value=render())
        # without it, the body of the approval cannot be rendered, not even for a task that is skipped
        context["ti"].xcom_push(key=APPROVAL_TEXT_KEY, value=render(in_full=False))

    def _handle_no_rows(self) -> None:
        if self.on_empty == SKIP:
            raise AirflowSkipException("There are no rows.")
        if self.on_empty == FAIL:
            raise InputError("There are no rows, and on_empty is 'fail'. Nothing was uploaded.")
        self.log.info("There are no rows, so there is nothing to send.")

    def _check_source(self) -> None:
        """Check that the rows come from exactly one source.

        :raises InputError: if there is none, or several, or if the value of `rows` cannot hold rows.
        """
        has_sql, has_rows = none_if_blank(self.sql) is not None, none_if_blank(self.rows) is not None
        if has_sql == has_rows:
            raise InputError(
                f"The rows come {'from both sql and rows' if has_sql else 'from nowhere'}. Give exactly one of them: "
                "sql for a query of the warehouse, or rows for a list of dicts, the output of a task, a data frame or "
                "the address of files."
            )
        if has_rows and none_if_blank(self.parameters) is not None:
            raise InputError("parameters: These are values for the placeholders of sql, but the rows come from rows.")
        if has_rows and not isinstance(self.rows, ResolvedRows):
            if isinstance(self.rows, str):
                check_value("rows", self.rows, require_text)
            check_rows(self.rows)

    def _check_row_arguments(self) -> None:
        """Check the row arguments, with stand-ins for values that are not known while the DAG is parsed."""
        if not is_final(self.endpoint) or any(map(_is_replaced, (self.body, self.request))):
            return
        spec = msgspec.structs.replace(
            self._request_spec(),
            custom_id=_known_part(self.custom_id),
            # every row has the same model, unless it is a row template
            model=_known_part(none_if_blank(self.model), stand_in="{{ params }}"),
            system=_known_part(none_if_blank(self.system)),
            prompt=_known_part(self.prompt),
            files=replace_runtime_values(none_if_blank(self.files), lambda _: "/files/{{ row }}"),
            files_root=_known_root(self.files_root),
            body=_known_part(none_if_blank(self.body)),
            output_schema=None if is_runtime_value(self.output_schema) else self.output_schema,
        )
        check(
            spec, deduplicate=is_final(self.deduplicate) and parse_bool("deduplicate", self.deduplicate, default=True)
        )


def _known_root(files_root: Any) -> Any:
    """Return `files_root` with a stand-in if it is not known while the DAG is parsed."""
    is_row_template = isinstance(files_root, str) and re.search(r"\{\{\s*row\b", files_root)
    return none_if_blank(files_root) if is_final(files_root) or is_row_template else "/files/"


def _is_replaced(value: Any) -> bool:
    """Return True for a value that Airflow replaces as a whole at run time."""
    return is_runtime_value(value) and not isinstance(value, (dict, list, tuple))


def _known_part(value: Any, stand_in: str = "{{ row }}") -> Any:
    """Return a row argument with a stand-in for each part that is not known while the DAG is parsed."""
    return stand_in if is_file_name(value) else replace_runtime_values(value, lambda _: stand_in)


def plain_schema(schema: Any) -> Any:
    """Return a schema as JSON Schema. A value that Airflow resolves only at run time is returned unchanged."""
    if is_runtime_value(schema) and not isinstance(schema, (list, tuple)):
        return schema
    schema = none_if_blank(schema)
    if schema is None:
        return None
    plain = author_schema(schema)
    strict_schema(plain)  # raises for what strict output cannot express
    return plain
