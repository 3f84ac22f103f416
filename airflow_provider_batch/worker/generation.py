"""Opens the generation of a job that a submit task works on, and seals it if necessary.

`core.lifecycle.generation` decides whether the task continues, compares or starts over. This module carries that out:
it reads the rows and seals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from airflow.triggers.base import BaseTrigger

from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.ledger import (
    Ledger,
    earlier_lineages,
    open_ledger,
    previous_valid_generation,
    seal,
)
from airflow_provider_batch.core.ledger.records import RESUBMITTED, Budget
from airflow_provider_batch.core.lifecycle.budget import ceilings_of
from airflow_provider_batch.core.lifecycle.generation import Action, Decision, choose_generation
from airflow_provider_batch.core.provider.limits import Limits, describe_limits
from airflow_provider_batch.core.sealing.reuse_generation import PreviousGeneration
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.sources.source import RowSource
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.build import Build, Plan, build, check_budget
from airflow_provider_batch.worker.cancel import cancel_job
from airflow_provider_batch.worker.lessons import load_lessons
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.seal_log import log_build

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook


@dataclass(frozen=True)
class Source:
    """Where the rows of a job come from, and everything that is decided before they are read."""

    plan: Plan
    #: what the rows are read from, for the log
    origin: str
    #: returns the rows; called only if they are read
    open_rows: Callable[[], RowSource]
    #: returns the table of `reuse_from`; called only if its answers may be used
    reused_table: Callable[[], ReusedTable | None]
    #: root of staging, where earlier jobs left what they learned
    root: str
    #: whether the author stated how many tokens an input file may hold
    has_explicit_token_limit: bool

    def build(
        self, folder: Folder, decision: Decision, hook: BatchHook, log: Log, previous: Ledger | None = None
    ) -> Build:
        """Read the rows and build the input files in the folder, without sealing them."""
        plan = self.plan
        if plan.limits != Limits():
            log.info("An input file for %s may hold at most %s", hook.host, describe_limits(plan.limits))
        learned = load_lessons(self.root, plan.openai_conn_id, plan.key, log)
        if self.has_explicit_token_limit:
            learned = msgspec.structs.replace(learned, limits={})
        log.info("Reading rows from %s", self.origin)
        result = build(
            msgspec.structs.replace(plan, learned=learned),
            self.open_rows(),
            folder,
            decision.generation,
            reuse=self.reused_table() if decision.reuse else None,
            previous=PreviousGeneration(previous) if previous is not None else None,
        )
        if result.has_more_rows:
            log.info("There are more than max_rows=%s rows; the rest are not sent", plan.max_rows)
        return result


@dataclass(frozen=True)
class Sealing:
    """Opens the generation that a submit task works on, and seals it if necessary."""

    source: Source
    folder: Folder
    hook: BatchHook
    log: Log
    #: called before sealing; returns the `table_dimensions`, or raises an error if a table that the job will land in
    #: does not fit
    check_tables: Callable[[Manifest], list[int]]

    def open(self, clear_epoch: int, *, resubmit: bool) -> Ledger:
        """Return the generation to work on.

        :param clear_epoch: the task instance's `max_tries`.
        :param resubmit: whether every row is to be sent again after a clear.
        """
        newest = open_ledger(self.folder)
        state = newest.state() if newest is not None else None
        decision = choose_generation(state, clear_epoch, resubmit=resubmit)
        if newest is None:
            return self._seal(decision, None)
        manifest = newest.manifest
        match decision.action:
            case Action.START_OVER:
                self.log.warning(
                    "Resubmitting every row, as requested. The answers of job %s stay in %s but are not used.",
                    manifest.job_uid,
                    self.folder.uri,
                )
                return self._seal(decision, None)
            case Action.COMPARE_WITH_VALID:
                self.log.info(
                    "The canary stopped job %s; reading the rows again and sealing a new generation", manifest.job_uid
                )
                return self._seal(decision, previous_valid_generation(self.folder, manifest))
            case Action.COMPARE:
                self.log.info(
                    "Job %s was already submitted; comparing its rows with the current ones", manifest.job_uid
                )
                return self._seal(decision, newest)
        self.log.info(
            "Continuing with job %s, sealed at %s; the rows are not read again",
            manifest.job_uid,
            manifest.sealed_at.isoformat(timespec="seconds"),
        )
        return newest

    def _seal(self, decision: Decision, previous: Ledger | None) -> Ledger:
        """Read the rows and seal.

        :param previous: the generation whose unchanged rows are kept.
        """
        conn_id = self.source.plan.openai_conn_id
        if previous is not None and previous.manifest.openai_conn_id != conn_id:
            raise InputError(
                f"openai_conn_id is now {conn_id!r}, but the batches of job {previous.manifest.job_uid} belong to "
                f"{previous.manifest.openai_conn_id!r}. Nothing was uploaded. Restore the connection id, or set "
                "resubmit=True to send every row from scratch and pay for it."
            )
        result = self.source.build(self.folder, decision, self.hook, self.log, previous)
        if previous is not None and result.is_unchanged:
            self.log.info(
                "%s unchanged; there is nothing new to send",
                format_count(result.manifest.requests, "row is", "rows are"),
            )
            return previous
        log_build(self.log, result, compared=previous is not None)
        manifest = result.manifest
        if manifest.requests:
            manifest = msgspec.structs.replace(manifest, table_dimensions=self.check_tables(manifest))
        ledger = seal(self.folder, manifest)
        if not hasattr(BaseTrigger, "on_kill"):
            self.log.info(
                "This version of Airflow does not notify a deferred task when it is killed (3.3 does), so "
                "cancel_on_kill covers running tasks only. If a wait is marked failed while it is deferred, its "
                "batches keep running."
            )
        self.log.info(
            "Sealed as job %s, generation %d, in %s",
            ledger.manifest.job_uid,
            ledger.manifest.generation,
            self.folder.uri,
        )
        return ledger


def change_budget(ledger: Ledger, max_cost_usd: float | None, max_run_cost_usd: float | None, log: Log) -> None:
    """Record the ceilings of the job and of its DAG run if they differ from those in force, higher or lower.

    :raises BudgetError: if there is a ceiling but no price is known.
    """
    state = ledger.state()
    if (max_cost_usd, max_run_cost_usd) == (state.ceiling, state.run_ceiling):
        return
    if ledger.manifest.estimate.low_usd is None:
        check_budget(ledger.manifest.estimate, ceilings_of(max_cost_usd, max_run_cost_usd, None))
    number = state.budget.number + 1 if state.budget else 1
    if ledger.add(Budget(number, max_cost_usd, datetime.now(UTC), max_run_cost_usd)):
        for name, before, after in (
            ("max_cost_usd", state.ceiling, max_cost_usd),
            ("max_run_cost_usd", state.run_ceiling, max_run_cost_usd),
        ):
            if before != after:
                log.info("%s changed from %s to %s", name, _describe_ceiling(before), _describe_ceiling(after))


def _describe_ceiling(ceiling: float | None) -> str:
    return "no limit" if ceiling is None else format_usd(ceiling)


def cancel_earlier(ledger: Ledger, log: Log) -> None:
    """Cancel the batches of generations whose answers are no longer needed, because every row was resubmitted."""
    for earlier in earlier_lineages(ledger.folder, ledger.manifest):
        hook = open_hook(earlier.manifest.openai_conn_id)
        cancel_job(earlier, hook, RESUBMITTED, log.warning)
