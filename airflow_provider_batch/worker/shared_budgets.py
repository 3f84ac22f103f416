"""The budgets that a job shares with others: its connection's and its DAG run's; see `core.lifecycle.shared_budget`.

Their accounts are in the staging folder of the deployment (config `[openai_batch] staging`), even if a job has a
staging folder of its own: a job elsewhere would otherwise not see what the others spend.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle import shared_budget
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.shared_budget import (
    Allowance,
    Balance,
    Change,
    Per,
    Period,
    SharedBudget,
    allowance_of,
    apply_changes,
    period_at,
)
from airflow_provider_batch.staging.layout import budget_folder, staging_root
from airflow_provider_batch.worker.budget_log import BudgetLog

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook


class SharedBudgets:
    """The shared budgets of one job, as one worker uses them."""

    def __init__(self, ledger: Ledger, budgets: list[SharedBudget], root: str, clock: Callable[[], datetime]) -> None:
        self._ledger, self._budgets, self._root, self._clock = ledger, budgets, root, clock
        self._logs: dict[tuple[SharedBudget, Period], BudgetLog] = {}

    def __bool__(self) -> bool:
        """Whether the job has a shared budget."""
        return bool(self._budgets)

    def settle(self, recheck: timedelta) -> Allowance | None:
        """Settle the reservations of the job whose cost is known by now. Return what the budgets leave for it.

        :param recheck: how long to wait for other jobs before the budgets are read again.
        :return: None if the job has no shared budget.
        """
        if not self._budgets:
            return None
        now, state = self._clock(), self._ledger.state()
        for budget in self._budgets:
            for period in _periods(budget, state, now):
                self._log(budget, period).update(partial(self._settle, budget, period))
        balances = [(budget, self._log(budget, period_at(budget.per, now)).balance) for budget in self._budgets]
        return allowance_of(balances, self._job_uid, now, recheck)

    def reserve(self, shard: str, number: int, usd: Decimal, time: datetime, *, is_repeated: bool = False) -> bool:
        """Reserve what a submission may cost, in every budget. Return False, without reserving, if one is too small.

        :param time: when the submission was claimed, which decides about the period.
        :param is_repeated: whether another worker may have paid for the same requests, so that they count once more.
        """
        name = shared_budget.name_reservation(shard, number)
        changed_logs: list[BudgetLog] = []
        for budget in self._budgets:
            log = self._log(budget, period_at(budget.per, time))
            if not log.update(partial(self._reserve, budget, name, usd, is_repeated)):
                for changed_log in changed_logs:
                    self._release(changed_log, name)
                return False
            changed_logs.append(log)
        return True

    def release(self, shard: str, number: int, time: datetime) -> None:
        """Release the reservation of a submission whose paid call was certainly not made.

        :param time: when the submission was claimed.
        """
        name = shared_budget.name_reservation(shard, number)
        for budget in self._budgets:
            self._release(self._log(budget, period_at(budget.per, time)), name)

    @property
    def _job_uid(self) -> str:
        return self._ledger.manifest.job_uid

    def _reserve(
        self, budget: SharedBudget, name: str, usd: Decimal, is_repeated: bool, balance: Balance
    ) -> Balance | None:
        key = self._ledger.manifest.key
        return shared_budget.reserve(balance, budget.usd, self._job_uid, key, name, usd, is_repeated=is_repeated)

    def _release(self, log: BudgetLog, name: str) -> None:
        key = self._ledger.manifest.key
        log.update(lambda balance: apply_changes(balance, self._job_uid, key, [Change(name, None)]))

    def _settle(self, budget: SharedBudget, period: Period, balance: Balance) -> Balance:
        # Read the state after the balance. An older state could show a batch as running whose cost is already settled.
        state = self._ledger.state()
        cost_of = BudgetTracker(state).expected_cost
        changes = shared_budget.changes_of(balance, state, cost_of)
        for shard, submission in shared_budget.unreserved_batches(balance, state):
            time = submission.intent.time if submission.intent else submission.created_at
            cost = cost_of(shard.spec)
            if time is not None and period_at(budget.per, time) == period and cost.is_finite():
                changes.append(Change(shared_budget.name_reservation(shard.name, submission.number), cost))
        return apply_changes(balance, self._job_uid, state.manifest.key, changes)

    def _log(self, budget: SharedBudget, period: Period) -> BudgetLog:
        log = self._logs.get((budget, period))
        if log is None:
            log = BudgetLog(budget_folder(self._root, budget, period.name), budget, period.name)
            log.read()
            self._logs[budget, period] = log
        return log


def shared_budgets_of(ledger: Ledger, hook: BatchHook, clock: Callable[[], datetime]) -> SharedBudgets:
    """Return the shared budgets of a job: those of its connection and of its DAG run, as far as they are set.

    The ledger was read before, so that a changed budget of the run is known.
    """
    state = ledger.known_state()
    budgets = [hook.budget, run_budget(state.manifest.key.dag_id, state.manifest.key.run_id, state.run_ceiling)]
    return SharedBudgets(ledger, [budget for budget in budgets if budget is not None], staging_root(), clock)


def run_budget(dag_id: str, run_id: str, usd: float | None) -> SharedBudget | None:
    """Return the budget of a DAG run, or None if it has no limit."""
    return None if usd is None else SharedBudget(Decimal(str(usd)), Per.RUN, dag_id=dag_id, run_id=run_id)


def _periods(budget: SharedBudget, state: JobState, now: datetime) -> list[Period]:
    """Return the periods in which a job may have made a reservation, and the current one."""
    times = [now]
    synchronous_ends: list[datetime] = []
    for shard in state.shards.values():
        for submission in shard.submissions:
            times += [submission.intent.time] if submission.intent else []
            times += [submission.created_at] if submission.created_at else []
            if shard.spec.synchronous and submission.settled:
                synchronous_ends.append(submission.settled.time)
    if state.canary_shards:
        # a canary has no claim, so it was reserved at any time from the seal until it was settled
        time, end = state.manifest.sealed_at, max(synchronous_ends, default=now)
        while time < end and budget.per is not Per.RUN:
            times.append(time)
            time += timedelta(hours=1)
        times.append(end)
    return sorted({period_at(budget.per, time) for time in times}, key=lambda period: period.name)
