"""The situation that the rules of the lifecycle look at, and the plan that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.attempts import Retries, UnansweredRows, retries, rows_without_answer
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.capacity import Admission, admit, uploads_resume_at
from airflow_provider_batch.core.lifecycle.deadline import cutoff
from airflow_provider_batch.core.lifecycle.shared_budget import Allowance
from airflow_provider_batch.core.lifecycle.steps import Policy, Step
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.lane import Lane


class Stage(StrEnum):
    """The stage of a job as a whole. It is computed for each plan and never recorded."""

    VOID = "void"
    CANCELLED = "cancelled"
    OVER = "past the cut-off"
    VERDICT = "verdict"
    HELD = "held"
    CANARY = "canary"
    DECISION = "decision"
    SENDING = "sending"


class Plan(NamedTuple):
    """The steps to do now, and what to wait for. Each rule adds a part, and `Plan.sum` adds the parts up."""

    steps: tuple[Step, ...] = ()
    #: when to plan again
    wake_times: tuple[datetime, ...] = ()
    #: ids of the batches that the provider is running
    running_batch_ids: tuple[str, ...] = ()
    #: messages of the failures that a person must resolve
    hold_messages: tuple[str, ...] = ()
    #: unsent shards that no rule for a single shard holds back
    ready: tuple[ShardState, ...] = ()
    #: shards that exceed the budget
    withheld: tuple[ShardState, ...] = ()
    #: what shards are waiting for, if the end of any batch can relieve it: queue capacity or budget
    bottlenecks: tuple[str, ...] = ()

    @classmethod
    def sum(cls, plans: Iterable[Plan]) -> Plan:
        """Return the sum of plans, in their order."""
        return cls(*(tuple(chain.from_iterable(parts)) for parts in zip(*filter(any, plans), strict=True)))


class Situation:
    """A job at one time: the state of its ledger, the batches as the provider shows them, the policy, and the time."""

    def __init__(
        self,
        state: JobState,
        batch_views: Mapping[str, BatchView],
        policy: Policy,
        now: datetime,
        allowance: Allowance | None = None,
    ) -> None:
        self.state, self.batch_views, self.policy, self.now = state, batch_views, policy, now
        #: when batches are cancelled; None before a wait has started
        self.cutoff = cutoff(state, policy)
        self.is_past_cutoff = self.cutoff is not None and now >= self.cutoff
        #: what the budgets that the job shares with others leave for it; None if there are none
        self.allowance = allowance
        self.is_cancelled = state.is_cancelled
        #: whether nothing more is sent, except by the final pass
        self.is_ending = self.is_past_cutoff or self.is_cancelled

    @property
    def deadline(self) -> datetime:
        """The deadline, for rules that apply only after it was set."""
        assert self.state.deadline is not None
        return self.state.deadline

    @property
    def past_cutoff(self) -> datetime:
        """The cut-off, for rules that apply only after it."""
        assert self.cutoff is not None
        return self.cutoff

    @cached_property
    def uploads_resume_at(self) -> datetime | None:
        """When input files may be uploaded again; None if the provider accepts them."""
        return uploads_resume_at(self.state, self.policy.backoff)


class Job(Situation):
    """A job whose shards have been planned one by one. Values that several rules need are computed once, on demand."""

    def __init__(self, situation: Situation, ready: tuple[ShardState, ...]) -> None:
        super().__init__(situation.state, situation.batch_views, situation.policy, situation.now, situation.allowance)
        #: shards whose rows are to be resealed for the flex tier, shards to send as batches, and shards to send
        #: synchronously
        self.flex_shards = self._find_flex_shards(ready)
        self.batch_shards = [shard for shard in ready if not shard.spec.synchronous and shard not in self.flex_shards]
        self.synchronous_shards = [shard for shard in ready if shard.spec.synchronous]

    def _find_flex_shards(self, ready: tuple[ShardState, ...]) -> list[ShardState]:
        """Return the shards whose rows were never sent, if the job is sent on flex. Retries go to a batch."""
        manifest = self.state.manifest
        if manifest.lane is not Lane.FLEX:
            return []
        prices, names = Prices(manifest.prices, manifest.price_list), {shard.name for shard in manifest.shards}
        return [
            shard
            for shard in ready
            if shard.name in names and not shard.spec.synchronous and prices.has_flex(shard.model)
        ]

    @cached_property
    def admission(self) -> Admission:
        """The shards that the queue capacity of their models admits, and what happens to the others."""
        return admit(self.state, self.batch_shards, self.policy.backoff, self.now)

    @cached_property
    def budget(self) -> BudgetTracker:
        """The budget of the job."""
        return BudgetTracker(self.state)

    @cached_property
    def affordable(self) -> tuple[list[ShardState], list[ShardState]]:
        """The admitted shards that the budgets cover, and those that exceed them. Only batches need queue capacity."""
        covered, withheld = self._covered_by_ceiling
        affordable, unaffordable = self.split_by_allowance(covered)
        return affordable, [*withheld, *unaffordable]

    @cached_property
    def _covered_by_ceiling(self) -> tuple[list[ShardState], list[ShardState]]:
        shards = [*self.synchronous_shards, *self.admission.admitted]
        return (shards, []) if self.state.ceiling is None else self.budget.split_affordable(shards)

    def split_by_allowance(self, shards: list[ShardState]) -> tuple[list[ShardState], list[ShardState]]:
        """Return the shards that the shared budgets cover, taken in this order, and the others."""
        return (shards, []) if self.allowance is None else self.budget.split_by_amount(shards, self.allowance.usd)

    @property
    def parts_to_send_first(self) -> list[tuple[ShardState, int]]:
        """The shards to divide because a budget covers only a part, with the number of requests to send first."""
        covered, withheld = self._covered_by_ceiling
        parts = [] if self.state.ceiling is None else self.budget.affordable_parts(withheld)
        if parts or self.allowance is None:
            return parts
        for shard in self.split_by_allowance(covered)[1]:
            requests = self.budget.requests_within(shard.spec, self.allowance.usd)
            if requests:
                return [(shard, requests)]
        return []

    @property
    def more_is_free_at(self) -> datetime | None:
        """When the shared budgets may have more for the job, before its cut-off; None if that cannot happen."""
        free_at = None if self.allowance is None else self.allowance.free_at
        is_too_late = free_at is not None and self.cutoff is not None and free_at >= self.cutoff
        return None if is_too_late else free_at

    @property
    def exceeds_shared_budget(self) -> bool:
        """Whether a shared budget, and not the job's own ceiling, keeps shards or the canary from being sent."""
        canaries = [shard for shard in self.synchronous_shards if shard in self.state.canary_shards]
        return bool(self.split_by_allowance(canaries)[1] or self.split_by_allowance(self._covered_by_ceiling[0])[1])

    @cached_property
    def retries(self) -> Retries:
        """The rows to retry, now or later."""
        return retries(self.state, self.policy, self.now)

    @cached_property
    def unanswered(self) -> UnansweredRows:
        """The rows for the final pass."""
        return rows_without_answer(self.state, self.policy)

    @cached_property
    def is_final_pass_sealed(self) -> bool:
        """Whether the final pass of this deadline is sealed. A final pass of an earlier deadline does not count."""
        return any(
            retry_round.is_final_pass and retry_round.time >= self.past_cutoff
            for retry_round in self.state.retry_rounds
        )
