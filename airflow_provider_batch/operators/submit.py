"""`BatchSubmitOperator`: rows of a query -> a sealed job -> batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from airflow_provider_batch.core.ledger.job import Reference
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger
from airflow_provider_batch.core.ledger.records import Submitted, Task, TaskStarted
from airflow_provider_batch.core.lifecycle.canary_verdict import MAX_REQUESTS as MAX_CANARY
from airflow_provider_batch.core.lifecycle.generation import Action, Decision
from airflow_provider_batch.core.lifecycle.steps import Finish, Hold, Policy, Void
from airflow_provider_batch.core.lifecycle.summary import preview_reference, reference_of, summarize
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.limits import read_limits
from airflow_provider_batch.core.requests.arguments import (
    is_file_name,
    is_runtime_value,
    none_if_blank,
    parse_bool,
    parse_count,
    parse_number,
    parse_table,
    resolve,
)
from airflow_provider_batch.core.requests.preview import render_preview
from airflow_provider_batch.core.requests.render import RequestSpec, check
from airflow_provider_batch.core.schema.judge import strict_schema
from airflow_provider_batch.exceptions import InputError, JobHeldError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.links.batch import BatchJobLink
from airflow_provider_batch.operators.landings import check_landings
from airflow_provider_batch.staging.layout import check_reachable, job_folder, staging_root
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.airflow_errors import airflow_failures, canary_error
from airflow_provider_batch.worker.build import Plan
from airflow_provider_batch.worker.generation import Sealing, Source, cancel_earlier, change_budget
from airflow_provider_batch.worker.kill_switch import KillSwitch
from airflow_provider_batch.worker.runner import Runner
from airflow_provider_batch.worker.seal_log import log_build
from airflow_provider_batch.worker.task_context import job_key, row_context, to_plain_datetime

if TYPE_CHECKING:
    from airflow.sdk import Context

#: arguments that Airflow resolves and we render per row
ROW_ARGUMENTS = ("custom_id", "model", "system", "prompt", "body", "request", "output_schema")
#: what `delete_remote_files` may be
NEVER, AFTER_COLLECT = "never", "after_collect"
#: XCom keys under which a preview leaves its first requests, and what a person reads of it
PREVIEW_KEY = "preview"
PREVIEW_TEXT_KEY = "preview_text"


class BatchSubmitOperator(BaseOperator):
    """Ask every row of a query, through the batch API. Returns a reference to the job.

    The rows are rendered, checked, priced and sealed in staging before anything is uploaded; a retry goes on from the
    sealed files and never reads the warehouse again. When the task is cleared it reads and renders again, which is
    free, and compares: rows whose custom_id and request are as before keep their batch and their answer, only the
    others are asked, and rows that are gone are not landed again.

    The price before is a range from estimated tokens. If tiktoken is installed and its vocabulary lies in its cache
    (`TIKTOKEN_CACHE_DIR`), it counts the first 1,000 requests of each model and 1 % of the others, which corrects the
    estimate of the rest; nothing is ever downloaded for that. The log says which of the two it was. Where earlier jobs
    of the task had 20 answers from a model, their mean narrows the range that is shown; the ceiling is not checked by
    it, as the prompt may be another now.

    Row templates (`custom_id`, `model`, `system`, `prompt`, `body`) are Jinja with `row`, `params`, `run_id`,
    `dag_run.conf` and the run's dates; strict: an unknown column is an error. They may be XComArgs, mapped arguments,
    `dag.param(...)`, or names of `.txt`, `.md` and `.j2` files beside the DAG. What a form gives for a field that was
    left empty (None, blank text, `{}`) is as if an optional argument were not given.

    :param warehouse_conn_id: connection to read from; any connection whose hook is a `DbApiHook`.
    :param sql: one SELECT. Airflow-templated; a name ending in `.sql` is a file.
    :param max_rows: at most so many rows of the query, the first ones, are asked; the log says if there are more. For
        the same rows in every run, let the SQL sort them. Default: all.
    :param parameters: values for placeholders in the SQL, in the style of the database's driver.
    :param custom_id: row template for the caller's key of a row; unique in the job; never rewritten.
    :param model: row template; each model gets files of its own.
    :param endpoint: /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/completions or /v1/moderations.
    :param system: row template for the system message, or the instructions.
    :param prompt: row template for the user message or the input; a list of content parts or of inputs.
    :param output_schema: pydantic model or JSON Schema of the answer; made strict.
    :param max_output_tokens: cap on each answer, in tokens.
    :param body: base of every request body, with row templates at any depth; what the other arguments fill in must not
        be in it.
    :param request: function, or its import path: dict of the row -> request body; instead of `prompt` and `system`.
    :param carry: columns of the query that land beside the answer, with their types.
    :param max_cost_usd: ceiling in US dollars. The job is refused if its lowest estimate is over it; while it runs, no
        batch is created that could take it past the ceiling, and rows that are not asked for that land as `withheld`.
        Raise it and clear this task with those after it, and the job goes on from there.
    :param prices: your own prices, by model: `{"my-model": {"input": 0.1, "output": 0.4}}` in US dollars per million
        tokens, or the name of a model with the same price.
    :param openai_conn_id: connection of the official OpenAI provider's type.
    :param staging: where the job lies; default: config `[openai_batch] staging`.
    :param allow_local_staging: take a local path for staging although tasks may run on other machines.
    :param limits: the most that one input file may hold, in place of what its provider takes: `requests`, `bytes`,
        `inputs` (of embeddings), `tokens` (estimated input tokens, so that a file fits the provider's queue) and
        `output_bytes` (expected size of its answers). They come before those in the connection's extra
        (`{"batch_limits": {…}}`), and those before the provider's own, which the connection's base URL tells. Where
        nobody states `tokens`, a queue limit counts that the provider told a job of this connection in the last 30
        days; a row that is over it alone is still asked.
    :param completion_window: as the provider takes it.
    :param metadata: up to 12 pairs of your own on every batch.
    :param deduplicate: send identical requests once and write the answer to every row that needs it. Set it to
        False to send one prompt several times on purpose, for example to sample answers.
    :param reuse_from: results table of earlier jobs, `table` or `schema.table`, on the same connection, or
        `{"conn_id": …, "table": …}`. A row whose request succeeded there is not asked: that answer lands for it, with
        the batch_id it came from, an attempt of 0 and no tokens or cost. The table is read once. Where it is not there
        yet, as in the first night of a job that lands in it, every row is asked.
    :param canary: how many requests of each model, the first ones, are asked synchronously before anything is uploaded,
        at the standard price; 0 for none, 20 at most. Their answers count and land like all others. If all of a model
        are refused for what its requests have in common, and more would be asked of it, or the job would cost more than
        `max_cost_usd` by the output that they had, submit fails and nothing is uploaded. Default: 2; 0 at Azure, whose
        batch deployments answer nothing but batches.
    :param resubmit: when the task is cleared, send every row from scratch, and pay for it, instead of keeping
        what is unchanged. `reuse_from` is ignored, and batches of the job that still run are cancelled. The run conf
        `{"batch_resubmit": true}` and `airflow-batch jobs resubmit` do the same. A retry never asks anew.
    :param retention: how long `airflow-batch jobs clean` leaves the job in staging after its last event; default:
        config `[openai_batch] retention`, 30 days. Nothing is ever removed by itself.
    :param delete_remote_files: "after_collect": landing deletes the input and result files at the provider whose
        answers lie in staging; a file that cannot be deleted is told of and left. "never": they stay, until the
        provider's own time for them is over.
    :param preview: render, check and price, show the first requests; seal nothing, pay nothing. Beside the reference
        it leaves the XComs `preview`, the first requests, and `preview_text`, Markdown with counts, estimate and those
        requests: the body of an `ApprovalOperator`, say.
    :param on_empty: what zero rows do: "succeed", "skip" or "fail".
    :raises AirflowFailException: for bad arguments or rows, before anything is uploaded.
    """

    template_fields: Sequence[str] = (
        "warehouse_conn_id",
        "sql",
        "max_rows",
        "parameters",
        "endpoint",
        "max_cost_usd",
        "openai_conn_id",
        "staging",
        "metadata",
        "deduplicate",
        "canary",
        "reuse_from",
        "resubmit",
        "preview",
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
    operator_extra_links = (BatchJobLink(),)

    def __init__(
        self,
        *,
        sql: str,
        custom_id: Any,
        warehouse_conn_id: str = "warehouse",
        max_rows: int | str | None = None,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        model: Any = None,
        endpoint: str = "/v1/chat/completions",
        system: Any = None,
        prompt: Any = None,
        output_schema: Any = None,
        max_output_tokens: int | None = None,
        body: Any = None,
        request: Callable[[dict[str, Any]], Mapping[str, Any]] | str | None = None,
        carry: Sequence[str] = (),
        max_cost_usd: float | str | None = None,
        prices: Mapping[str, Any] | None = None,
        openai_conn_id: str = "openai_default",
        staging: str | None = None,
        allow_local_staging: bool = False,
        limits: Mapping[str, int | None] | None = None,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        deduplicate: bool | str = True,
        reuse_from: str | Mapping[str, str] | None = None,
        canary: int | str | None = None,
        resubmit: bool | str = False,
        retention: timedelta | None = None,
        delete_remote_files: str = NEVER,
        preview: bool | str = False,
        on_empty: str = "succeed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.warehouse_conn_id = warehouse_conn_id
        self.sql = sql
        self.max_rows = max_rows
        self.parameters = parameters
        self.custom_id = custom_id
        self.model = model
        self.endpoint = endpoint
        self.system = system
        self.prompt = prompt
        self.output_schema = plain_schema(output_schema)
        self.max_output_tokens = max_output_tokens
        self.body = body
        self.request = request
        self.carry = list(carry)
        self.max_cost_usd = max_cost_usd
        self.prices = dict(prices or {})
        self.openai_conn_id = openai_conn_id
        self.staging = staging
        self.allow_local_staging = allow_local_staging
        self.limits = dict(limits or {})
        self.completion_window = completion_window
        self.metadata = metadata or {}
        self.deduplicate = deduplicate
        self.reuse_from = reuse_from
        self.canary = canary
        self.resubmit = resubmit
        self.retention = retention
        self.delete_remote_files = delete_remote_files
        self.preview = preview
        self.on_empty = on_empty
        self._kill = KillSwitch()
        self._check_arguments()

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As Airflow's; a pydantic model becomes plain JSON Schema first, since no class can be serialised in a DAG."""
        if "output_schema" in kwargs:
            kwargs["output_schema"] = plain_schema(kwargs["output_schema"])
        return super().partial(**kwargs)

    def resolve_template_files(self) -> None:
        """Read `.sql` files as Airflow does, and the text files that row arguments name."""
        super().resolve_template_files()
        for name in ROW_ARGUMENTS:
            value = getattr(self, name)
            if is_file_name(value):
                setattr(self, name, self._text_of(value))

    def _text_of(self, name: str) -> str:
        env = self.get_template_env()
        if env.loader is None:
            raise InputError(f"{name} is the name of a text file, but there is no DAG folder to find it in.")
        return env.loader.get_source(env, name)[0].removesuffix("\n")

    def _do_render_template_fields(
        self, parent: Any, template_fields: Any, context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        if parent is self:
            self.resolve_template_files()
            for name in ROW_ARGUMENTS:
                setattr(self, name, resolve(getattr(self, name), context))
            template_fields = [field for field in template_fields if field not in ROW_ARGUMENTS]
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    def execute(self, context: Context) -> dict[str, Any]:
        """Seal the job unless it is sealed, then create its batches as far as the provider has room."""
        with airflow_failures(), self._kill.watching(context["ti"], lambda: self._ledger(context), self.log):
            reference: dict[str, Any] = msgspec.to_builtins(self._execute(context))
            return reference

    def _execute(self, context: Context) -> Reference:
        hook = BatchHook(conn_id=self.openai_conn_id)
        source = self._source(context, hook)
        if parse_bool("preview", self.preview):
            return self._preview(context, source, hook)
        check_reachable(source.root, allow_local=self.allow_local_staging)
        folder = job_folder(source.root, source.plan.key)
        sealing = Sealing(
            source, folder, hook, self.log, check_tables=lambda manifest: check_landings(self, context, manifest)
        )
        clear_epoch = context["ti"].max_tries
        ledger = sealing.open(clear_epoch, resubmit=self._resubmits(context))
        change_budget(ledger, source.plan.max_cost_usd, self.log)
        ledger.add(TaskStarted(Task.SUBMIT, clear_epoch, datetime.now(UTC)))
        cancel_earlier(ledger, self.log)
        BatchJobLink.persist(context, folder.uri)
        if not ledger.manifest.requests:
            self._empty()
        self._send(ledger, hook)
        ledger.add(Submitted(datetime.now(UTC)))
        return reference_of(summarize(ledger))

    def _send(self, ledger: Ledger, hook: BatchHook) -> None:
        """Create the job's batches as far as the provider has room."""
        policy = Policy(max_attempts=1, restarted_at=datetime.now(UTC))
        runner = Runner(ledger, hook, policy, self.log, stopping=lambda: self._kill.is_pulled)
        pause = runner.run({})
        if isinstance(pause, Void):
            raise canary_error(pause)
        if isinstance(pause, Finish):
            runner.log_withheld(pause)
        if isinstance(pause, Hold):
            manifest = ledger.manifest
            raise JobHeldError(
                f"Job {manifest.job_uid} is held: {pause.message}. Its {manifest.sent:,} requests stay sealed in "
                f"{ledger.folder.uri}, and batches that exist go on. Mend the account or the connection, then clear "
                "this task."
            )

    def _resubmits(self, context: Context) -> bool:
        conf = getattr(context.get("dag_run"), "conf", None) or {}
        return parse_bool("resubmit", self.resubmit) or parse_bool("batch_resubmit", conf.get("batch_resubmit"))

    def on_kill(self) -> None:
        """Make no further paid call. What was created is recorded, and the next attempt goes on with it.

        Batches are cancelled only if the task was marked failed or skipped, or its run was deleted.
        """
        self._kill.pull()

    def _ledger(self, context: Context) -> Ledger | None:
        return open_ledger(job_folder(staging_root(self.staging), job_key(context)))

    def _spec(self) -> RequestSpec:
        return RequestSpec(
            endpoint=self.endpoint,
            custom_id=self.custom_id,
            model=none_if_blank(self.model),
            system=none_if_blank(self.system),
            prompt=self.prompt,
            body=none_if_blank(self.body),
            request=none_if_blank(self.request),
            output_schema=self.output_schema,
            max_output_tokens=self.max_output_tokens,
        )

    def _plan(self, context: Context, hook: BatchHook) -> Plan:
        for name in ("warehouse_conn_id", "sql", "openai_conn_id"):
            if none_if_blank(getattr(self, name)) is None:
                raise InputError(f"{name} is empty. Nothing was run, nothing was uploaded.")
        self.output_schema = plain_schema(self.output_schema)
        spec = self._spec()
        check(spec)
        hook.check()
        logical_date = context.get("logical_date")
        canary = parse_count("canary", self.canary, MAX_CANARY)
        return Plan(
            key=job_key(context),
            spec=spec,
            sql=self.sql,
            max_rows=parse_count("max_rows", self.max_rows),
            parameters=none_if_blank(self.parameters),
            carry=self.carry,
            context=row_context(context),
            openai_conn_id=self.openai_conn_id,
            limits=hook.limits(self.limits),
            prices=self.prices,
            max_cost_usd=parse_number("max_cost_usd", self.max_cost_usd),
            completion_window=self.completion_window,
            metadata=dict(none_if_blank(self.metadata) or {}),
            logical_date=to_plain_datetime(logical_date) if logical_date else None,
            deduplicate=parse_bool("deduplicate", self.deduplicate),
            canary=hook.canary if canary is None else canary,
            retention_days=self.retention / timedelta(days=1) if self.retention is not None else None,
            delete_remote_files=self.delete_remote_files == AFTER_COLLECT,
        )

    def _source(self, context: Context, hook: BatchHook) -> Source:
        plan = self._plan(context, hook)
        return Source(
            plan,
            conn_id=self.warehouse_conn_id,
            reused_table=self._reused_table,
            root=staging_root(self.staging),
            has_explicit_token_limit=hook.has_explicit_token_limit(self.limits),
        )

    def _reused_table(self) -> ReusedTable | None:
        place = parse_table("reuse_from", self.reuse_from, self.warehouse_conn_id)
        return None if place is None else ReusedTable(sql_hook(place.conn_id), place.table)

    def _preview(self, context: Context, source: Source, hook: BatchHook) -> Reference:
        source = replace(source, plan=msgspec.structs.replace(source.plan, canary=0))
        with TemporaryDirectory(prefix="batch-preview-") as path:
            made = source.build(LocalFolder(Path(path)), Decision(Action.SEAL, 1, reuse=True), hook, self.log)
        log_build(self.log, made)
        for request in made.sample:
            self.log.info("Would ask %s: %s", request["custom_id"], msgspec.json.encode(request["body"]).decode())
        self.log.info("Preview: nothing was sealed, nothing was uploaded, nothing is billed.")
        context["ti"].xcom_push(key=PREVIEW_KEY, value=made.sample)
        text = render_preview(made.manifest, made.sample, has_more_rows=made.has_more_rows)
        context["ti"].xcom_push(key=PREVIEW_TEXT_KEY, value=text)
        return preview_reference(made.manifest)

    def _empty(self) -> None:
        if self.on_empty == "skip":
            raise AirflowSkipException("The query returned no rows.")
        if self.on_empty == "fail":
            raise InputError("The query returned no rows, and on_empty is 'fail'. Nothing was uploaded.")
        self.log.info("The query returned no rows: nothing to ask.")

    def _check_arguments(self) -> None:
        """What can be said while the DAG is parsed."""
        if self.on_empty not in ("succeed", "skip", "fail"):
            raise InputError(f"on_empty must be 'succeed', 'skip' or 'fail', not {self.on_empty!r}.")
        if self.delete_remote_files not in (NEVER, AFTER_COLLECT):
            raise InputError(
                f"delete_remote_files is {NEVER!r} or {AFTER_COLLECT!r}, not {self.delete_remote_files!r}."
            )
        kept = self.retention
        if kept is not None and not (isinstance(kept, timedelta) and kept >= timedelta(0)):
            raise InputError(f"retention is a timedelta of at least 0, not {kept!r}.")
        read_limits(self.limits)
        if not is_runtime_value(self.canary) and not (isinstance(self.canary, str) and "{" in self.canary):
            parse_count("canary", self.canary, MAX_CANARY)
        if not is_runtime_value(self.max_rows) and not (isinstance(self.max_rows, str) and "{" in self.max_rows):
            parse_count("max_rows", self.max_rows)
        Prices(self.prices)
        spec = self._spec()
        plain = not any(
            is_runtime_value(getattr(self, name)) or is_file_name(getattr(self, name)) for name in ROW_ARGUMENTS
        )
        if plain and isinstance(self.endpoint, str) and "{" not in self.endpoint:
            check(spec)
        if is_runtime_value(self.metadata):
            return
        reserved = {"job_uid", "shard", "attempt", "nonce"} & set(self.metadata)
        if reserved or len(self.metadata) > 12:
            raise InputError(
                "metadata: a batch takes 16 pairs, and job_uid, shard, attempt and nonce are ours; up to 12 are yours."
            )


def plain_schema(schema: Any) -> Any:
    """A schema as strict JSON Schema; what Airflow resolves later is left for then."""
    if is_runtime_value(schema):
        return schema
    schema = none_if_blank(schema)
    if schema is None:
        return None
    return strict_schema(schema)
