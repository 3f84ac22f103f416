"""`BatchSensor`: waits until the batches of a job have ended and their answers are in staging."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.arguments import (
    check_templated,
    parse_bool,
    parse_choice,
    parse_deadline,
    parse_duration,
    parse_names,
    require_count,
)
from airflow_provider_batch.core.formatting import format_count, format_time
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import RetryArguments, Task, TaskStarted
from airflow_provider_batch.core.lifecycle.deadline import cutoff, deadline_to_record
from airflow_provider_batch.core.lifecycle.steps import RETRYABLE, Finish, Hold, Pause, Policy, Void, Wait
from airflow_provider_batch.core.lifecycle.summary import summarize, wait_result
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.sealing.final_pass import DEFAULT_ROWS
from airflow_provider_batch.exceptions import InputError, JobHeldError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.links.batch import BatchJobLink, ProviderBatchesLink
from airflow_provider_batch.triggers.batch import ATTEMPT_KEY, MAX_BATCHES, MAX_REFUSALS, BatchTrigger
from airflow_provider_batch.worker.airflow_arguments import parse_job
from airflow_provider_batch.worker.airflow_errors import airflow_failures, canary_error
from airflow_provider_batch.worker.bundle import bundle_records
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments
from airflow_provider_batch.worker.kill_switch import KillSwitch
from airflow_provider_batch.worker.lessons import save_lessons
from airflow_provider_batch.worker.mapped_names import NamedByMapping
from airflow_provider_batch.worker.open_job import open_job
from airflow_provider_batch.worker.runner import Runner
from airflow_provider_batch.worker.synchronous import find_flex_models

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_batch.hooks.batch import BatchHook

__all__ = ["BatchSensor"]


#: maximum seconds between two looks at batches that the provider refuses to show, without a triggerer
_REFUSED_PAUSE = 60.0
#: choices for `at_deadline`
AT_DEADLINE = COLLECT, FLEX, SYNC = ("collect", "flex", "sync")
#: choices for `on_incomplete`
ON_INCOMPLETE = KEEP, RAISE_CAP = ("keep", "raise_cap")


class BatchSensor(CheckedMapping, NamedByMapping, BaseSensorOperator):
    """Wait for the batches of a job, collect their answers into staging, and retry transient failures.

    The sensor retries rows that never ran or that failed for a transient reason (5xx, 429, expired), and submits shards
    that had to wait for queue capacity. While batches run, the task is deferred and holds no worker slot.

    At the deadline the sensor cancels the batches that are still running, collects what was answered, and succeeds.
    It never fails because of rows; `BatchResultsOperator` judges them. The task returns `job_uid`, `batches`,
    `retry_rounds`, `paid_twice` (requests answered in two batches of the same attempt), `outcomes` (rows by outcome)
    and, if there was a final pass, `final_pass`.

    **The final pass.** With `at_deadline="flex"` or "sync", rows without a usable answer are sent once more, one by
    one: rows that were cancelled, expired or never sent, and rows that would otherwise be retried, regardless of
    `max_attempts`. "flex" uses OpenAI's flex tier, which costs as much as a batch and answers within minutes; only some
    models have it. "sync" also uses flex where the model has it, and sends at the standard price what flex does not
    take. So that the answers are there by the deadline, batches are cancelled earlier: 20 minutes, and 3 seconds for
    each of up to `at_deadline_rows` rows (0.6 without flex), but not before half of the time has passed. The batches
    must end first, which may take 15 minutes. Rows of a batch that has not ended by then are left out, because their
    answers may still arrive. The sensor starts new requests until 30 minutes after the deadline, with up to 16 at a
    time. The log and `final_pass` say how many rows were left out, and why.

    A duration is a `timedelta`, a number of seconds, or text such as "90", "30 min" or "1h 30m".

    :param job: the output of the task that submits the job (`submit.output`), or that task itself.
    :param max_attempts: maximum number of times that the provider tries a row, including the first. Default: 3.
    :param retry_on: outcomes to retry: any of "failed", "expired", "cancelled", "invalid_output" and "missing". Failed
        rows are only retried if the failure was transient. Default: all five; an empty list retries none.
    :param on_incomplete: what to do with answers that were cut off at the output cap. "keep" lands them as they are.
        "raise_cap" retries these rows, within `max_attempts`, and doubles the cap each time; rows whose request states
        no cap are kept. `request_sha256` remains the hash of the original request.
    :param row_retry_delay: how long a row waits before its first retry. The delay doubles with each attempt.
        Default: config `[openai_batch] row_retry_delay`, 300 s.
    :param deadline: end of the wait: a duration from the first start of the task, or an absolute time as a `datetime`
        or as ISO text (templated; UTC unless it has an offset). A plain number is in seconds and must be at least 60.
        Retries of the task never move the deadline. If a person clears the task after the wait has ended or the
        deadline has passed, the deadline is set again, and rows without a usable answer may be tried `max_attempts`
        times more. Default: 30 hours.
    :param at_deadline: what to do with rows that have no usable answer as the deadline approaches. "collect" leaves
        them as they are. "flex" sends them on the flex tier, at the price of a batch. "sync" sends them on flex if
        possible, and otherwise at the standard price. Both stay within the job's `max_cost_usd`.
    :param at_deadline_rows: maximum number of rows to send in the final pass; the others are left out.
        Default: 1,000.
    :param deferrable: wait in the triggerer. If False, `mode` selects poke or reschedule, as for any sensor.
    :param poke_interval: maximum duration between two checks of a batch. While the task is deferred, batches
        that have just started or are nearly complete are checked more often. Default: config `[openai_batch]
        poll_interval`, 60 s.
    :param cancel_on_kill: cancel the batches if the task is marked failed or skipped, or its run is deleted. Clearing
        or retrying the task, or restarting any part of Airflow, never cancels them.
    :raises JobHeldError: if the account or the connection needs attention, or if the provider refused five times in a
        row to show the batches that are left. Everything is kept. Fix it, then clear the task.
    """

    template_fields: Sequence[str] = ("job", "deadline")
    ui_color = "#dcefe6"
    operator_extra_links = (BatchJobLink(), ProviderBatchesLink())

    @check_arguments
    def __init__(
        self,
        *,
        job: Any = None,
        max_attempts: int | str = 3,
        retry_on: Iterable[str] | str | None = None,
        on_incomplete: str = KEEP,
        row_retry_delay: timedelta | float | str | None = None,
        deadline: timedelta | datetime | float | str = timedelta(hours=30),
        at_deadline: str = COLLECT,
        at_deadline_rows: int | str = DEFAULT_ROWS,
        deferrable: bool | str = True,
        poke_interval: timedelta | float | str | None = None,
        cancel_on_kill: bool | str = True,
        **kwargs: Any,
    ) -> None:
        if "timeout" in kwargs:
            raise InputError(
                "timeout is not supported: it would end the wait without collecting answers that were paid for. Use "
                "deadline instead."
            )
        interval = parse_duration("poke_interval", poke_interval)
        if interval is None:
            interval = timedelta(seconds=conf.getfloat("openai_batch", "poll_interval", fallback=60.0))
        delay = parse_duration("row_retry_delay", row_retry_delay)
        if delay is None:
            delay = timedelta(seconds=conf.getfloat("openai_batch", "row_retry_delay", fallback=300.0))
        super().__init__(poke_interval=interval, timeout=timedelta(days=365), **kwargs)
        if self.soft_fail or self.never_fail:  # they may come from default_args
            raise InputError(
                "soft_fail and never_fail are not supported: they would turn every error into SKIPPED and hide a job "
                "that still costs money. The wait succeeds at its deadline in any case. To tolerate failures, set "
                "trigger_rule on the task after the landing."
            )
        self.max_attempts = require_count("max_attempts", max_attempts, minimum=1)
        self.retry_on = sorted(RETRYABLE if retry_on is None else parse_names("retry_on", retry_on, RETRYABLE))
        self.on_incomplete = parse_choice("on_incomplete", on_incomplete, ON_INCOMPLETE)
        self.row_retry_delay = delay
        self.deadline = deadline
        self.at_deadline = parse_choice("at_deadline", at_deadline, AT_DEADLINE)
        self.at_deadline_rows = require_count("at_deadline_rows", at_deadline_rows, minimum=1)
        self.deferrable = parse_bool("deferrable", deferrable, default=True)
        self.cancel_on_kill = parse_bool("cancel_on_kill", cancel_on_kill, default=True)
        check_templated(self, {"deadline": parse_deadline})
        self.job = parse_job("job", job)
        self._kill_switch = KillSwitch(cancel=self.cancel_on_kill)

    def execute(self, context: Context) -> Any:
        """Carry out the steps that are possible now, then wait."""
        with self._kill_switch.watching(context["ti"], lambda: open_job(self.job), self.log):
            return self._continue(context, is_start=True) if self.deferrable else super().execute(context)

    def resume(self, context: Context, event: dict[str, Any], refused_looks: int = 0) -> Any:
        """Continue after the trigger fired.

        :param refused_looks: consecutive starts of the worker at which the provider refused to show any batch. A
            trigger that was refused has counted for itself.
        """
        if event.get("reason") == "refused":
            refused_looks = MAX_REFUSALS
        with self._kill_switch.watching(context["ti"], lambda: open_job(self.job), self.log):
            return self._continue(context, refused_looks=refused_looks)

    def poke(self, context: Context) -> PokeReturnValue:
        """Check the batches once, without a triggerer, and carry out the steps that are possible now."""
        with airflow_failures(self.log, lambda: self._kill_switch.is_pulled):
            ledger = open_job(self.job)
            pause, end, refusal = self._advance(context, ledger, is_start=True)
            looks = 1
            # Nothing else would count the refusals: in mode reschedule, each call has a process of its own.
            while refusal and isinstance(pause, Wait) and pause.until in (None, end):
                if looks == MAX_REFUSALS:
                    raise _refused_error(ledger, refusal)
                time.sleep(min(self.poke_interval, _REFUSED_PAUSE))
                pause, end, refusal = self._advance(context, ledger, is_start=True)
                looks += 1
            is_finished = isinstance(pause, Finish)
            return PokeReturnValue(is_finished, self._result(ledger) if is_finished else None)

    def on_kill(self) -> None:
        """Stop making paid calls. Everything done so far is recorded, and the next attempt continues from there.

        With `cancel_on_kill`, the batches are cancelled if the task was marked failed or skipped, or its run was
        deleted.
        """
        self._kill_switch.pull()

    def _continue(self, context: Context, *, is_start: bool = False, refused_looks: int = 0) -> dict[str, Any]:
        with airflow_failures(self.log, lambda: self._kill_switch.is_pulled):
            ledger = open_job(self.job)
            pause, end, refusal = self._advance(context, ledger, is_start=is_start)
            refused_looks = refused_looks + 1 if refusal else 0
            if refused_looks > MAX_REFUSALS:
                raise _refused_error(ledger, refusal)
        if not isinstance(pause, Wait):
            return self._result(ledger)
        deadline, now = ledger.known_state().deadline, datetime.now(UTC)
        self.log.info(
            "Waiting for %s%s%s",
            format_count(len(pause.batch_ids), "batch", "batches"),
            f" until {format_time(deadline, now)} at the latest" if deadline else " to end",
            f"; the next step is due at {format_time(pause.until, now)}"
            if pause.until and pause.until not in (deadline, end)
            else "",
        )
        # With the id of this attempt, the trigger can tell whether a person stopped it or a later attempt failed.
        context["ti"].xcom_push(key=ATTEMPT_KEY, value=str(context["ti"].id))
        self.defer(
            trigger=BatchTrigger(
                openai_conn_id=ledger.manifest.openai_conn_id,
                job_uid=ledger.manifest.job_uid,
                # The oldest batches, which should end first. Once they have ended, the sensor waits for the next ones.
                batch_ids=pause.batch_ids[:MAX_BATCHES],
                deadline=end.isoformat() if end and now < end else None,
                wake_at=pause.until.isoformat() if pause.until else None,
                any_end=pause.any_end,
                poll_interval=self.poke_interval,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="resume",
            kwargs={"refused_looks": refused_looks},
        )
        raise AssertionError("defer never returns")

    def _advance(self, context: Context, ledger: Ledger, *, is_start: bool) -> tuple[Pause, datetime | None, str]:
        """Carry out the steps that are possible now. Return how the job pauses, its cut-off, and a refusal.

        The refusal is empty, unless the provider refuses to show every batch that the job waits for. After the cut-off
        it is empty, too, because the wait then ends anyway.
        """
        BatchJobLink.persist(context, ledger.folder.uri)
        now = datetime.now(UTC)
        arguments = RetryArguments(self.max_attempts, self.retry_on, self.on_incomplete == RAISE_CAP)
        ledger.add(TaskStarted(Task.WAIT, context["ti"].max_tries, now, arguments))
        if is_start:
            self._set_deadline(context, ledger, now)
        hook = open_hook(ledger.manifest.openai_conn_id)
        ProviderBatchesLink.persist(context, hook.host)
        policy = self._policy(ledger, hook, now)
        if is_start and self.at_deadline == FLEX and not policy.has_flex:
            self.log.warning(
                "at_deadline is 'flex', but no model of this job has the flex tier at connection %r. Rows without an "
                "answer stay as they are at the deadline. Set at_deadline='sync' to send them at the standard price.",
                ledger.manifest.openai_conn_id,
            )
        runner = Runner(ledger, hook, policy, self.log, stopping=lambda: self._kill_switch.is_pulled)
        pause = runner.run(runner.observe())
        if isinstance(pause, Void):
            raise canary_error(pause)
        if isinstance(pause, Hold):
            raise JobHeldError(
                f"Job {ledger.manifest.job_uid} is held: {pause.message.removesuffix('.')}. All answers so far are "
                f"kept in {ledger.folder.uri}, and existing batches keep running. Fix the account or the connection, "
                "then clear this task."
            )
        if isinstance(pause, Finish):
            runner.finish(pause)
        save_lessons(ledger, self.log, ended=isinstance(pause, Finish))
        bundle_records(ledger, self.log)
        awaited_ids = pause.batch_ids if isinstance(pause, Wait) else []
        refusals = [runner.refused_reads.get(batch_id, "") for batch_id in awaited_ids]
        end = cutoff(ledger.known_state(), policy)
        is_past_cutoff = end is not None and now >= end
        return pause, end, refusals[0] if refusals and all(refusals) and not is_past_cutoff else ""

    def _policy(self, ledger: Ledger, hook: BatchHook, now: datetime) -> Policy:
        has_flex = self.at_deadline != COLLECT and bool(find_flex_models(ledger.manifest, hook))
        has_final_pass = self.at_deadline == SYNC or has_flex
        return Policy(
            max_attempts=self.max_attempts,
            retry_on=frozenset(Outcome(outcome) for outcome in self.retry_on),
            raise_cap=self.on_incomplete == RAISE_CAP,
            backoff=self.row_retry_delay,
            restarted_at=now,
            at_deadline_rows=self.at_deadline_rows if has_final_pass else 0,
            at_deadline_lane=Lane.STANDARD if self.at_deadline == SYNC else Lane.FLEX,
            has_flex=has_flex,
        )

    def _set_deadline(self, context: Context, ledger: Ledger, now: datetime) -> None:
        """Record the deadline, unless an attempt of this task did so since the task was last cleared.

        `max_tries` tells whether a person cleared the task or Airflow retried it after a crash. Clearing a task sets it
        to the number of tries so far plus the task's retries (`airflow.models.taskinstance`), and nothing else changes
        it.
        """
        clear_epoch = getattr(context["ti"], "max_tries", 0)
        deadline = deadline_to_record(ledger.state(), clear_epoch, self._absolute_deadline(now), now)
        if deadline is not None and ledger.add(deadline) and deadline.resets_attempts:
            self.log.info(
                "The wait had ended and was cleared. Rows without a usable answer may be tried %s more, until %s.",
                format_count(self.max_attempts, "time"),
                format_time(deadline.ends_at, now),
            )

    def _absolute_deadline(self, now: datetime) -> datetime:
        deadline = parse_deadline("deadline", self.deadline)
        return now + deadline if isinstance(deadline, timedelta) else deadline

    def _result(self, ledger: Ledger) -> dict[str, Any]:
        result = wait_result(summarize(ledger, ledger.known_state()))
        self.log.info(
            "The wait is over: %s, %s",
            format_count(result.batches, "batch", "batches"),
            format_count(result.retry_rounds, "retry round"),
        )
        if result.paid_twice:
            self.log.warning(
                "Paid twice: %s answered in two batches of the same attempt.",
                format_count(result.paid_twice, "request was", "requests were"),
            )
        xcom_value: dict[str, Any] = msgspec.to_builtins(result)
        return xcom_value


def _refused_error(ledger: Ledger, refusal: str) -> JobHeldError:
    return JobHeldError(
        f"Job {ledger.manifest.job_uid} cannot go on: the provider refused {MAX_REFUSALS} times in a row to show the "
        f"batches that are left. {refusal} All answers so far are kept in {ledger.folder.uri}. Check that connection "
        f"{ledger.manifest.openai_conn_id!r} has the API key and the project of the job, then clear this task. If the "
        "provider has lost these batches, mark this task as successful instead: the answers so far then land, the rows "
        "of these batches stay pending, and a new run sends them again."
    )
