"""`BatchSensor`: waits until a job's batches ended and their answers lie in staging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Task, TaskStarted
from airflow_provider_batch.core.lifecycle.deadline import deadline_to_record
from airflow_provider_batch.core.lifecycle.steps import RETRYABLE, Finish, Hold, Pause, Policy, Void, Wait
from airflow_provider_batch.core.lifecycle.summary import summarize, wait_result
from airflow_provider_batch.core.sealing.final_pass import DEFAULT_ROWS
from airflow_provider_batch.exceptions import InputError, JobHeldError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.links.batch import BatchJobLink
from airflow_provider_batch.triggers.batch import ATTEMPT_KEY, MAX_BATCHES, BatchTrigger
from airflow_provider_batch.worker.airflow_errors import airflow_failures, canary_error
from airflow_provider_batch.worker.kill_switch import KillSwitch
from airflow_provider_batch.worker.lessons import save_lessons
from airflow_provider_batch.worker.open_job import open_job
from airflow_provider_batch.worker.runner import Runner
from airflow_provider_batch.worker.task_context import to_plain_datetime

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["BatchSensor"]


#: what may be done at the deadline with rows that have no usable answer
AT_DEADLINE = ("collect", "sync")
#: what may be done with answers that were cut off at the output cap
ON_INCOMPLETE = KEEP, RAISE_CAP = ("keep", "raise_cap")


class BatchSensor(BaseSensorOperator):
    """Wait for a job. While batches run, the task is deferred and holds no worker slot.

    Ended batches are collected into staging, rows that never ran or failed for a passing reason are asked again, and
    shards that had no room are sent. At the deadline what runs is cancelled, what was answered is collected, and the
    task succeeds: only landing judges rows.

    With `at_deadline="sync"` the rows that then have no usable answer are asked once more, synchronously, each at the
    standard price: those that were cancelled, expired or never sent, and those that would be asked again, however often
    they were. First the batches have to end, which may take 15 minutes; rows of a batch that has not ended by then are
    left, as their answers may yet come. Requests are begun until 30 minutes after the deadline, 16 at once. What is
    left, and why, is in the log and in what the task returns, under `final_pass`.

    :param job: the reference that submit returned.
    :param max_attempts: how often a row is asked in all.
    :param retry_on: outcomes that are asked again, of failed, expired, cancelled, invalid_output and missing.
    :param on_incomplete: what becomes of answers that were cut off at the output cap: "keep" lands them as they are,
        "raise_cap" asks those rows again, as one of their `max_attempts`, each time with twice the cap that they had.
        Rows whose request states no cap are kept. `request_sha256` stays that of the request as it was first asked.
    :param row_retry_delay: how long rows wait before they are asked again; doubled with each attempt; default:
        config `[openai_batch] row_retry_delay`.
    :param deadline: the end of the wait, set once when the task first runs: a `timedelta` from then, or a time of day
        and date as `datetime` or ISO text (templated). Retries never move it. A person who clears the task after the
        wait ended sets it anew, and gives rows without a usable answer a fresh allowance of attempts.
    :param at_deadline: what happens to rows without a usable answer: "collect" leaves them as they are, "sync"
        sends them synchronously, within the job's `max_cost_usd`.
    :param at_deadline_rows: the most rows that are asked so; the others are left.
    :param deferrable: wait in the triggerer; else `mode` decides between poke and reschedule.
    :param poke_interval: seconds between two looks at a batch, at most; young and nearly ended ones are looked at
        sooner while deferred; default: config `[openai_batch] poll_interval`.
    :param cancel_on_kill: cancel the batches when the task is marked failed or skipped, or its run is deleted. A clear,
        a retry, or a restart of anything never cancels.
    :raises JobHeldError: if the account or the connection needs a person; nothing is lost, clear the task then.
    """

    template_fields: Sequence[str] = ("job", "deadline")
    ui_color = "#dcefe6"
    operator_extra_links = (BatchJobLink(),)

    def __init__(
        self,
        *,
        job: Any,
        max_attempts: int = 3,
        retry_on: Iterable[str] = tuple(sorted(RETRYABLE)),
        on_incomplete: str = "keep",
        row_retry_delay: timedelta | None = None,
        deadline: timedelta | datetime | str = timedelta(hours=30),
        at_deadline: str = "collect",
        at_deadline_rows: int = DEFAULT_ROWS,
        deferrable: bool = True,
        poke_interval: float | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("soft_fail") or kwargs.get("never_fail"):
            raise InputError(
                "soft_fail and never_fail would turn every error into SKIPPED and hide a job that still costs money. "
                "The wait succeeds at its deadline anyway; use trigger_rule on the task after land instead."
            )
        if "timeout" in kwargs:
            raise InputError("timeout would end the wait without collecting what was paid for. Use deadline instead.")
        if poke_interval is None:
            poke_interval = conf.getfloat("openai_batch", "poll_interval", fallback=60.0)
        if row_retry_delay is None:
            row_retry_delay = timedelta(seconds=conf.getfloat("openai_batch", "row_retry_delay", fallback=300.0))
        super().__init__(poke_interval=poke_interval, timeout=timedelta(days=365), **kwargs)
        if max_attempts < 1:
            raise InputError(f"max_attempts is how often a row is asked in all: at least 1, not {max_attempts}.")
        unknown = [outcome for outcome in retry_on if outcome not in RETRYABLE]
        if unknown:
            raise InputError(
                f"retry_on: {unknown[0]!r} is never asked again; choose of {', '.join(sorted(RETRYABLE))}."
            )
        if on_incomplete not in ON_INCOMPLETE:
            raise InputError(f"on_incomplete: {on_incomplete!r} is none of {', '.join(ON_INCOMPLETE)}.")
        if at_deadline not in AT_DEADLINE:
            raise InputError(f"at_deadline: {at_deadline!r} is none of {', '.join(AT_DEADLINE)}.")
        if at_deadline_rows < 1:
            raise InputError(
                f"at_deadline_rows is how many rows may be asked at the deadline: at least 1, not {at_deadline_rows}."
            )
        if isinstance(deadline, str) and "{" not in deadline:
            _moment(deadline)
        self.job = job
        self.max_attempts = max_attempts
        self.retry_on = sorted(retry_on)
        self.on_incomplete = on_incomplete
        self.row_retry_delay = row_retry_delay
        self.deadline = deadline
        self.at_deadline = at_deadline
        self.at_deadline_rows = at_deadline_rows
        self.deferrable = deferrable
        self.cancel_on_kill = cancel_on_kill
        self._kill = KillSwitch(cancel=cancel_on_kill)

    def execute(self, context: Context) -> Any:
        """Do what can be done now, then wait."""
        with self._kill.watching(context["ti"], lambda: open_job(self.job), self.log):
            return self._go_on(context, begins=True) if self.deferrable else super().execute(context)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the trigger fired."""
        if event.get("reason") == "refused":
            raise JobHeldError(
                f"The provider refused to show the job's batches, sweep after sweep: {event.get('message')}. The "
                "batches and everything in staging are kept. Check the connection's key and project, then clear it."
            )
        with self._kill.watching(context["ti"], lambda: open_job(self.job), self.log):
            return self._go_on(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """One look without a triggerer."""
        with airflow_failures():
            ledger = open_job(self.job)
            pause = self._advance(context, ledger, begins=True)
            done = isinstance(pause, Finish)
            return PokeReturnValue(done, self._result(ledger) if done else None)

    def on_kill(self) -> None:
        """Make no further paid call; what is recorded is found again by the next attempt.

        With `cancel_on_kill` the batches are cancelled if the task was marked failed or skipped, or its run deleted.
        """
        self._kill.pull()

    def _go_on(self, context: Context, *, begins: bool = False) -> dict[str, Any]:
        with airflow_failures():
            ledger = open_job(self.job)
            pause = self._advance(context, ledger, begins=begins)
        state = ledger.state()
        if not isinstance(pause, Wait):
            return self._result(ledger)
        deadline = state.deadline
        self.log.info(
            "Waiting for %d batch(es)%s, at most until %s",
            len(pause.batch_ids),
            f"; the next step is due at {pause.until:%Y-%m-%d %H:%M:%S} UTC"
            if pause.until and pause.until != deadline
            else "",
            f"{deadline:%Y-%m-%d %H:%M:%S} UTC" if deadline else "they end",
        )
        # So that the trigger knows whether it is this attempt that a person stopped, or a later one failed by itself.
        context["ti"].xcom_push(key=ATTEMPT_KEY, value=str(context["ti"].id))
        self.defer(
            trigger=BatchTrigger(
                openai_conn_id=ledger.manifest.openai_conn_id,
                job_uid=ledger.manifest.job_uid,
                # Those that were created first, which end first; when they ended, the next ones are waited for.
                batch_ids=pause.batch_ids[:MAX_BATCHES],
                deadline=deadline.isoformat() if deadline and datetime.now(UTC) < deadline else None,
                wake_at=pause.until.isoformat() if pause.until else None,
                any_end=pause.any_end,
                poll_interval=self.poke_interval,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="resume",
        )
        raise AssertionError("defer returns never")

    def _advance(self, context: Context, ledger: Ledger, *, begins: bool) -> Pause:
        BatchJobLink.persist(context, ledger.folder.uri)
        now = datetime.now(UTC)
        ledger.add(TaskStarted(Task.WAIT, context["ti"].max_tries, now))
        if begins:
            self._begin(context, ledger, now)
        policy = Policy(
            max_attempts=self.max_attempts,
            retry_on=frozenset(Outcome(outcome) for outcome in self.retry_on),
            raise_cap=self.on_incomplete == RAISE_CAP,
            backoff=self.row_retry_delay,
            restarted_at=now,
            at_deadline_rows=self.at_deadline_rows if self.at_deadline == "sync" else 0,
        )
        hook = BatchHook(conn_id=ledger.manifest.openai_conn_id)
        runner = Runner(ledger, hook, policy, self.log, stopping=lambda: self._kill.is_pulled)
        pause = runner.run(runner.observe())
        if isinstance(pause, Void):
            raise canary_error(pause)
        if isinstance(pause, Hold):
            raise JobHeldError(
                f"Job {ledger.manifest.job_uid} is held: {pause.message}. What was answered is kept in "
                f"{ledger.folder.uri}, batches that run go on. Mend the account or connection, then clear this task."
            )
        if isinstance(pause, Finish):
            runner.finish(pause)
        save_lessons(ledger, self.log, ended=isinstance(pause, Finish))
        return pause

    def _begin(self, context: Context, ledger: Ledger, now: datetime) -> None:
        """Set the deadline, unless a try of this task did so since it was last cleared.

        A clear sets max_tries to the tries made plus the task's retries (`airflow.models.taskinstance`); nothing else
        changes it. So it tells a person's clear from a retry after a crash.
        """
        clear = getattr(context["ti"], "max_tries", 0)
        deadline = deadline_to_record(ledger.state(), clear, self._ends(now), now)
        if deadline is not None and ledger.add(deadline) and deadline.resets_attempts:
            self.log.info(
                "The wait had ended and was cleared: rows without a usable answer may be asked %d times more, until %s",
                self.max_attempts,
                f"{deadline.ends_at:%Y-%m-%d %H:%M:%S} UTC",
            )

    def _ends(self, now: datetime) -> datetime:
        deadline = self.deadline
        if isinstance(deadline, timedelta):
            return now + deadline
        if isinstance(deadline, str):
            deadline = _moment(deadline)
        deadline = to_plain_datetime(deadline)
        return deadline if deadline.tzinfo else deadline.replace(tzinfo=UTC)

    def _result(self, ledger: Ledger) -> dict[str, Any]:
        result = wait_result(summarize(ledger))
        self.log.info(
            "The wait is over: %d batches, %d wave(s) asked again, requests paid twice: %d",
            result.batches,
            result.retry_rounds,
            result.paid_twice,
        )
        returned: dict[str, Any] = msgspec.to_builtins(result)
        return returned


def _moment(deadline: str) -> datetime:
    try:
        return datetime.fromisoformat(deadline)
    except ValueError as error:
        raise InputError(f"deadline: {deadline!r} is no ISO date and time.") from error
