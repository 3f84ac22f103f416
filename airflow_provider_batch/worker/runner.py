"""Carries out the steps that the lifecycle decides on. Every paid call of the package starts here.

    next_steps(state, observed batches, policy, now)  ->  steps  ->  provider  ->  records  ->  next_steps(...)

Each step is recorded as soon as it is done, then the lifecycle is consulted again. Submit and the sensor run the same
runner, each until nothing can be done right now. Files are transferred several at a time. Everything else, above all
the creation of batches, happens one at a time, and only the calling thread writes records.

Several workers may run the same job: a retry that starts while the first attempt is still alive, or a machine that
wakes up. They coordinate through the ledger alone. Before a batch is created, its intent is created exclusively; the
worker that loses leaves the shard to the other one. A worker that was suspended between the intent and the call no
longer makes the call (`claim_is_stale`), because another worker may have looked the batch up since.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_batch.core.formatting import format_count, format_usd, format_usd_range
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import (
    Created,
    DuplicateBatch,
    Failure,
    Finished,
    Intent,
    Refused,
    Settled,
    Uploaded,
    UploadRefused,
)
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle import duplicate_batches
from airflow_provider_batch.core.lifecycle import steps as lifecycle_steps
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker, ceilings_of
from airflow_provider_batch.core.lifecycle.canary_verdict import judge_canary
from airflow_provider_batch.core.lifecycle.capacity import uploads_resume_at
from airflow_provider_batch.core.lifecycle.collection import describe_held, held_batches
from airflow_provider_batch.core.lifecycle.deadline import cutoff
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.shared_budget import Allowance
from airflow_provider_batch.core.lifecycle.steps import (
    FINAL_PASS_WINDOW,
    Cancel,
    Collect,
    Create,
    FinalPass,
    Finish,
    GiveUp,
    JudgeCanary,
    LookUp,
    Pause,
    Policy,
    Reseal,
    Retry,
    SendSynchronously,
    Step,
    Upload,
    Wait,
)
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.requests.uploaded_files import references, with_file_ids
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing import final_pass
from airflow_provider_batch.exceptions import (
    AwayError,
    CapacityError,
    ProviderError,
    StoppedError,
)
from airflow_provider_batch.hooks.calls import CreateRefusedError, CreateUnconfirmedError, is_key_refused
from airflow_provider_batch.worker import synchronous
from airflow_provider_batch.worker.cancel import cancel_batches
from airflow_provider_batch.worker.collect import MAX_CONCURRENT_TRANSFERS, Collector
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.metrics import JobMetrics
from airflow_provider_batch.worker.parallel import run_concurrently
from airflow_provider_batch.worker.reseal import Resealer
from airflow_provider_batch.worker.shared_budgets import SharedBudgets, shared_budgets_of
from airflow_provider_batch.worker.uploaded_files import MAX_CONCURRENT_UPLOADS, UploadedFiles

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook

#: delay before a failed cancel request is repeated
CANCEL_RETRY_DELAY = timedelta(seconds=60)
#: how long before the deadline rows are no longer sent on flex if they may be sent at the standard price
FLEX_MARGIN = timedelta(minutes=10)


class Runner:
    """Drives a job forward in one worker.

    :param stopping: returns True once the worker is being stopped; no paid call is made from then on.
    """

    def __init__(
        self,
        ledger: Ledger,
        hook: BatchHook,
        policy: Policy,
        log: Log,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.ledger, self.hook, self.policy, self.log = ledger, hook, policy, log
        ledger.on_record = JobMetrics(ledger)
        self._stopping, self._clock = stopping, clock
        #: what the shared budgets leave for this job, and the budget of the job, as of the current plan
        self._allowance: Allowance | None = None
        self._tracker: BudgetTracker | None = None
        #: set when the provider refuses a batch: it would probably refuse the remaining steps too, so plan again
        self._must_plan_again = False
        #: by batch id, why the provider refused to show a batch when the batches were last observed
        self.refused_reads: dict[str, str] = {}
        #: batches whose cancel request failed during this run
        self._failed_cancels: set[str] = set()
        schema = ledger.manifest.author_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        self._prices = Prices(ledger.manifest.prices, ledger.manifest.price_list)
        self._collector = Collector(ledger, hook, self._judge, log, clock, policy.backoff)
        self._uploaded_files = UploadedFiles(ledger.folder, hook)
        self._resealer = Resealer(ledger, policy, self._judge, log, clock, self._claim)

    @cached_property
    def _shared_budgets(self) -> SharedBudgets:
        return shared_budgets_of(self.ledger, self.hook, self._clock)

    def observe(self) -> dict[str, BatchView]:
        """Return the live batches by id, as the provider reports them. A batch that cannot be read now is left out.

        This includes a batch that the provider refuses to show (401, 403, 404), because a new batch may become visible
        with a delay. The refusals are in `refused_reads`, and the sensor decides how many in a row are too many.
        """
        observed: dict[str, BatchView] = {}
        self.refused_reads = {}
        live = self.ledger.state().live_submissions()
        for shard, submission in live:
            try:
                observed[submission.batch_id] = self.hook.retrieve(submission.batch_id)
            except ProviderError as error:
                self.log.warning("%s: %s It will be read again later.", shard.name, error)
                if is_key_refused(error):
                    # the other batches would be refused too
                    unread = [other.batch_id for _, other in live if other.batch_id not in observed]
                    self.refused_reads = dict.fromkeys(unread, str(error))
                    break
                if not isinstance(error, AwayError):
                    self.refused_reads[submission.batch_id] = str(error)
        return observed

    def run(self, observed: Mapping[str, BatchView]) -> Pause:
        """Carry out every step that can be done now. Return what the job then waits for.

        :param observed: the live batches by id, as `observe` returns them.
        :raises StoppedError: before a paid call, if the worker is being stopped.
        :raises ProviderError: if a call failed. Everything done before is recorded.
        """
        observed = dict(observed)
        self._failed_cancels.clear()
        if duplicate_batches.may_have_lost_batches(self.ledger.state()):
            observed.update(self._look_for_duplicate_batches())
        has_looked = False
        while True:
            self._allowance, self._tracker = self._shared_budgets.settle(self.policy.backoff), None
            steps, pause = next_steps(self.ledger.known_state(), observed, self.policy, self._clock(), self._allowance)
            if not steps and isinstance(pause, Finish) and not has_looked:
                has_looked = True
                adopted_batches = self._look_for_duplicate_batches()
                observed.update(adopted_batches)
                if adopted_batches:
                    continue
            steps = [step for step in steps if not self._is_failed_cancel(step)]
            if not steps:
                self._log_wait(pause)
                return self._shorten(pause)
            self._must_plan_again = False
            for _, group in groupby(steps, type):
                self._carry_out(list(group))
                if self._must_plan_again:
                    break
            self.ledger.state()  # reads what other workers recorded meanwhile

    def _is_failed_cancel(self, step: Step) -> bool:
        return isinstance(step, Cancel) and step.submission.batch_id in self._failed_cancels

    def _shorten(self, pause: Pause) -> Pause:
        """Return the pause, shortened if a cancel request has to be repeated."""
        if not self._failed_cancels or not isinstance(pause, Wait):
            return pause
        retry_at = self._clock() + CANCEL_RETRY_DELAY
        return pause._replace(until=min(retry_at, pause.until) if pause.until else retry_at)

    def finish(self, pause: Finish) -> JobState:
        """Record that the wait has ended, and log what was withheld or held. Return the new state."""
        state = self.ledger.known_state()
        number = state.finished.number + 1 if state.finished else 1
        message = self._shared_message(pause.withheld)
        self.ledger.append(Finished(number, self._clock(), list(pause.withheld), message))
        self.log_withheld(pause)
        state = self.ledger.known_state()
        for shard, failure in held_batches(state):
            self.log.warning("%s: %s", shard.name, describe_held(failure))
        return state

    def log_withheld(self, pause: Finish) -> None:
        """Log the requests that were not sent because of the budget, and what to do about it."""
        if not pause.withheld:
            return
        state = self.ledger.known_state()
        message = self._shared_message(pause.withheld)
        if message:
            self.log.warning(
                "Withheld %s. %s All answers so far are kept. To continue, raise that budget or wait until more of it "
                "is free, then clear submit. `airflow-batch budget` shows it.",
                self._describe(pause.withheld),
                message,
            )
            return
        budget = BudgetTracker(state)
        self.log.warning(
            "Withheld %s, but %s of max_cost_usd=%s is already spent. All answers so far are kept. To continue, raise "
            "max_cost_usd and clear submit.",
            self._describe(pause.withheld),
            format_usd(budget.spent),
            "none" if budget.ceiling is None else format_usd(budget.ceiling),
        )

    def _log_wait(self, pause: Pause) -> None:
        """Log which requests wait for a shared budget."""
        if isinstance(pause, Wait) and pause.withheld and (message := self._shared_message(pause.withheld)):
            self.log.warning("Waiting for a shared budget: %s. %s", self._describe(pause.withheld), message)

    def _describe(self, withheld: Iterable[str]) -> str:
        state = self.ledger.known_state()
        shards = [state.shards[name] for name in withheld]
        budget = self._budget_tracker()
        cost = sum((budget.expected_cost(shard.spec) for shard in shards), Decimal(0))
        requests = format_count(sum(shard.requests for shard in shards), "request")
        usd = format_usd(cost) if cost.is_finite() else "an unknown amount"
        return f"{requests} in {format_count(len(shards), 'shard')}, which may cost up to {usd}"

    def _shared_message(self, withheld: Sequence[str]) -> str:
        """Return the description of the shared budget that shards exceed, or "" if their own ceiling is the reason."""
        if self._allowance is None or not withheld:
            return ""
        state = self.ledger.known_state()
        shards = [state.shards[name] for name in withheld]
        budget = self._budget_tracker()
        exceeds_own_ceiling = budget.ceiling is not None and budget.split_affordable(shards)[1]
        if exceeds_own_ceiling:
            return ""
        unpriced = sorted({shard.model for shard in shards if not budget.expected_cost(shard.spec).is_finite()})
        no_price = f" No price is known for {', '.join(unpriced)}, so nothing can be reserved." if unpriced else ""
        return f"{self._allowance.message}{no_price}"

    def _budget_tracker(self) -> BudgetTracker:
        """Return the budget of the job as of the current plan."""
        if self._tracker is None:
            self._tracker = BudgetTracker(self.ledger.known_state())
        return self._tracker

    def _look_for_duplicate_batches(self) -> dict[str, BatchView]:
        """Look for batches of the job that no record names. Return those that the job adopts, by id.

        If the batches cannot be listed, the job continues without them. Answers that were paid for land in any case.
        """
        manifest = self.ledger.manifest
        try:
            batches = self.hook.list_job_batches(
                manifest.job_uid, not_before=manifest.sealed_at - lifecycle_steps.LOOK_UP_AFTER
            )
        except ProviderError as error:
            self.log.warning("Could not check whether batches of this job were created twice: %s", error)
            return {}
        stray = duplicate_batches.find_stray_batches(self.ledger.state(), batches)
        for shard, submission, batch in stray.to_adopt:
            self.ledger.add(Created(shard.name, submission.number, batch.id, self._clock()))
            self.log.info(
                "%s: the unconfirmed create call did create batch %s; continuing with it", shard.name, batch.id
            )
        self._cancel_duplicate_batches(stray.to_cancel)
        for batch in stray.ended:
            self._add_duplicate_batch(batch)
            log = self.log.warning if batch.completed else self.log.info
            log("Duplicate batch %s ended with %s answered", batch.id, format_count(batch.completed, "request"))
        return {batch.id: batch for _, _, batch in stray.to_adopt}

    def _cancel_duplicate_batches(self, batches: Iterable[BatchView]) -> None:
        """Cancel duplicate batches. A batch that cannot be cancelled now is retried later."""
        for batch in batches:
            try:
                self._cancel_duplicate_batch(batch)
            except ProviderError as error:
                self.log.warning("Could not cancel duplicate batch %s: %s", batch.id, error)

    def _cancel_duplicate_batch(self, duplicate: BatchView) -> None:
        self._add_duplicate_batch(self.hook.cancel(duplicate.id) or self.hook.retrieve(duplicate.id))
        self.log.warning("%s: cancelled duplicate batch %s", duplicate.metadata.get("shard"), duplicate.id)

    def _add_duplicate_batch(self, duplicate: BatchView) -> None:
        shard = duplicate.metadata.get("shard", "")
        self.ledger.add(
            DuplicateBatch(
                duplicate.id, shard, duplicate.raw_status, duplicate.status.ended, duplicate.completed, self._clock()
            )
        )

    def _carry_out(self, steps: list[Step]) -> None:
        """Carry out steps of one kind."""
        match steps[0]:
            case SendSynchronously():
                self._send_synchronously([step for step in steps if isinstance(step, SendSynchronously)])
            case Upload():
                self._upload([step for step in steps if isinstance(step, Upload)])
            case Collect():
                self._collector.collect([step for step in steps if isinstance(step, Collect)])
            case Cancel():
                self._cancel([step for step in steps if isinstance(step, Cancel)])
            case _:
                for step in steps:
                    self._carry_out_one(step)
                    if self._must_plan_again:
                        return

    def _carry_out_one(self, step: Step) -> None:
        match step:
            case JudgeCanary():
                self._judge_canary()
            case Create():
                self._create(step)
            case LookUp():
                self._look_up(step)
            case Retry():
                self._resealer.retry(step)
            case Reseal():
                self._resealer.reseal(step)
            case GiveUp():
                self._give_up(step)
            case FinalPass():
                self._seal_final_pass(step)

    def _settle_responses(self, responses: synchronous.ShardResponses) -> None:
        """Settle a shard with its synchronous responses, unless the provider refused the account."""
        shard, number = responses.step.shard, responses.step.number
        message = responses.account_error
        if message is not None:
            self.ledger.add(Refused(shard.name, number, Failure.ACCOUNT, message, self._clock()))
            consequence = "Nothing was uploaded" if responses.step.is_canary else "Earlier answers will land"
            self.log.warning("%s: the provider refused the account: %s. %s.", shard.name, message, consequence)
            self._must_plan_again = True
            return
        if responses.flex_problem is not None:
            self.log.warning("%s: %s", shard.name, responses.flex_problem)
        if responses.unanswered:
            self.log.warning(
                "%s: %s no answer, but may have been billed. The cost is unknown.",
                shard.name,
                format_count(responses.unanswered, "request got", "requests got"),
            )
        file = synchronous.write_responses(self.ledger, responses)
        settled = Settled(shard.name, number, "", "answered", self._clock(), files=[file])
        self.ledger.add(self._collector.count(shard, settled))

    def _send_synchronously(self, steps: list[SendSynchronously]) -> None:
        """Send the canaries, or claim and send the other shards."""
        is_canary = steps[0].is_canary

        def start(step: SendSynchronously) -> bool:
            # the canary is sent directly after it was planned
            state = self.ledger.known_state() if is_canary else self.ledger.state()
            end = cutoff(state, self.policy)
            if state.deadline is not None and step.shard.name in {shard.name for shard in state.final_pass_shards}:
                end = state.deadline + FINAL_PASS_WINDOW
            is_over = end is not None and self._clock() >= end
            if self._must_plan_again or is_over or state.is_cancelled:
                return False
            claimed_at = None if is_canary else self._clock()
            is_claimed = claimed_at is None or self._claim(step.shard, step.number, claimed_at)
            return is_claimed and self._reserve(step, claimed_at)

        def flex_models() -> frozenset[str]:
            deadline = self.ledger.known_state().deadline
            is_urgent = deadline is not None and self._clock() > deadline - FLEX_MARGIN
            return frozenset() if is_urgent else self._flex_models

        if is_canary:
            self._log_canary(steps)
        policy = synchronous.CANARY if is_canary else synchronous.ROWS
        synchronous.send_all(
            self.ledger,
            self.hook,
            steps,
            self._settle_responses,
            self._stopping,
            policy,
            flex_models=flex_models,
            start=start,
        )

    def _log_canary(self, steps: list[SendSynchronously]) -> None:
        lanes = {True: "on flex, at the price of a batch", False: "at the standard price"}
        for has_flex, lane in lanes.items():
            shards = [step.shard for step in steps if (step.shard.model in self._flex_models) is has_flex]
            if not shards:
                continue
            without_flex = ", ".join(sorted(shard.model for shard in shards))
            self.log.info(
                "Canary: sending %s %s before anything is uploaded%s",
                format_count(sum(shard.requests for shard in shards), "request"),
                lane,
                f" ({without_flex} has no flex tier here)" if self.hook.has_flex and not has_flex else "",
            )

    @cached_property
    def _flex_models(self) -> frozenset[str]:
        return synchronous.find_flex_models(self.ledger.manifest, self.hook)

    def _seal_final_pass(self, step: FinalPass) -> None:
        retry_round = final_pass.seal_final_pass(
            self.ledger,
            step,
            self.policy,
            self._judge,
            self._claim,
            self._clock(),
            self._flex_models,
            None if self._allowance is None else self._allowance.usd,
        )
        if retry_round is None:
            return
        rows = sum(shard.requests for shard in retry_round.shards if shard.synchronous)
        self.log.info("Final pass: sending %s synchronously, %s", format_count(rows, "row"), self._describe_lane())
        if retry_round.left_out:
            self.log.warning(
                "Final pass: %s. They land as they are.", final_pass.describe_left_out(retry_round.left_out)
            )

    def _describe_lane(self) -> str:
        if self.policy.at_deadline_lane is Lane.FLEX:
            return "on flex, at the price of a batch"
        if not self._flex_models:
            return "at the standard price, because no model of the job has the flex tier"
        return "on flex if possible, otherwise at the standard price"

    def _judge_canary(self) -> None:
        state = self.ledger.known_state()
        ceilings = ceilings_of(state.ceiling, state.run_ceiling, self.hook.budget)
        result = judge_canary(state, self.ledger.folder, self._judge, self._prices, self._clock(), ceilings)
        if not self.ledger.add(result.verdict):
            return
        tokens = ", ".join(f"{mean:,} tokens ({model})" for model, mean in result.mean_output.items() if mean)
        factors = ", ".join(
            f"{factor:.2f} times the estimate ({model})" for model, factor in result.input_factors.items()
        )
        estimate = result.verdict.estimate
        low, high, likely = estimate.low_usd, estimate.high_usd, estimate.likely_usd
        self.log.info(
            "Canary: %d of %s answered%s%s. The estimated cost is now %s.",
            result.answered,
            format_count(result.requests, "request"),
            f", mean output {tokens}" if tokens else "",
            f", input {factors}" if result.mean_output else "",
            "unknown, because no price is known"
            if low is None or high is None
            else format_usd_range(low, high, likely),
        )
        ceiling = state.ceiling
        if not result.verdict.void and ceiling is not None and likely is not None and likely > ceiling:
            self.log.warning(
                "Canary: the job will probably cost more than max_cost_usd (%s). It sends what the budget covers; the "
                "other rows land as withheld.",
                format_usd(ceiling),
            )
        if result.ignored:
            self.log.warning("Canary: ignore_canary is set, so the job continues in spite of this: %s", result.ignored)
        elif result.messages:
            self.log.warning(
                "Canary: %s. %s Rows that failed for a transient reason will be retried in a batch.",
                result.outcomes,
                result.messages,
            )

    def _upload(self, steps: list[Upload]) -> None:
        """Upload input files, several at the same time. Each is recorded as soon as the provider has it.

        If the provider accepts no more files for now, that is recorded and the remaining files wait.

        :raises StoppedError: if the worker is being stopped before all files are uploaded.
        """
        self.hook.warm_up()
        try:
            uploaded_count = run_concurrently(
                steps, self._upload_file, self._record_upload, MAX_CONCURRENT_TRANSFERS, stop=self._stopping
            )
        except CapacityError as error:
            self._hold_uploads(error)
            return
        if uploaded_count < len(steps):
            raise StoppedError(
                f"This worker is being stopped, so {len(steps) - uploaded_count} of {len(steps)} input files between "
                f"{steps[0].shard.name} and {steps[-1].shard.name} were not uploaded. Everything done so far is "
                "recorded, and the next attempt continues from there."
            )

    def _hold_uploads(self, error: CapacityError) -> None:
        state = self.ledger.state()
        number = max((refusal.number for refusal in state.upload_refusals), default=0) + 1
        self.ledger.append(UploadRefused(number, str(error), self._clock(), error.retry_after))
        self._must_plan_again = True
        until = uploads_resume_at(self.ledger.state(), self.policy.backoff)
        self.log.warning(
            "%s The next upload %s.",
            error,
            f"starts after {until:%Y-%m-%d %H:%M:%S} UTC" if until else "starts now",
        )

    def _record_upload(self, step: Upload, file_id: str) -> None:
        shard = step.shard.spec
        self.ledger.add(Uploaded(shard.name, step.number, file_id, self._clock()))
        self.log.info(
            "%s: uploaded %s, %s",
            shard.name,
            format_count(shard.requests, "request"),
            format_count(shard.bytes, "byte"),
        )

    def _upload_file(self, step: Upload) -> str:
        """Stream the input file of a shard to the provider, and return its file id."""
        shard = step.shard.spec
        name = f"{self.ledger.manifest.job_uid}-{shard.name}.jsonl"
        with open_sealed(self.ledger.folder, shard.file, shard.sha256, "It was not uploaded.") as file:
            if not self.ledger.manifest.uploads_files:
                return self.hook.upload(file, name)
            with ThreadPoolExecutor(MAX_CONCURRENT_UPLOADS, "files") as pool, TemporaryFile() as copy:
                keys = {key for line in file for key in references(line)}
                list(pool.map(self._uploaded_files.file_id, keys))
                file.seek(0)
                for line in file:
                    copy.write(with_file_ids(line, self._uploaded_files.file_id))
                copy.seek(0)
                return self.hook.upload(copy, name)

    def _create(self, step: Create) -> None:
        if self._stopping():
            raise StoppedError(
                f"This worker is being stopped, so the batch of {step.shard.name} was not created. Everything done so "
                "far is recorded, and the next attempt continues from there."
            )
        shard, manifest = step.shard.spec, self.ledger.manifest
        nonce, claimed_at = secrets.token_hex(16), self._clock()
        if not self.ledger.add(Intent(shard.name, step.number, nonce, step.file_id, claimed_at)):
            self.log.info("%s: another worker is already creating this batch; skipping it", shard.name)
            return
        if self._claim_is_stale(shard, claimed_at) or not self._reserve(step, claimed_at):
            return
        metadata = {
            **manifest.metadata,
            "job_uid": manifest.job_uid,
            "shard": shard.name,
            "attempt": str(shard.attempt),
            "nonce": nonce,
        }
        try:
            batch = self.hook.create(
                step.file_id,
                endpoint=manifest.endpoint,
                completion_window=manifest.completion_window,
                metadata=metadata,
            )
        except CreateRefusedError as refusal:
            self.ledger.add(
                Refused(shard.name, step.number, refusal.failure, refusal.message, self._clock(), refusal.retry_after)
            )
            self._must_plan_again = refusal.failure in (Failure.ACCOUNT, Failure.CAPACITY)
            self.log.warning(
                "%s: the provider refused the batch (%s): %s", shard.name, refusal.failure, refusal.message
            )
        except CreateUnconfirmedError as error:
            self.log.warning(
                "%s: the provider did not confirm the creation of the batch (%s). It will be looked up in %d s, before "
                "anything is created again.",
                shard.name,
                error,
                lifecycle_steps.LOOK_UP_AFTER.total_seconds(),
            )
        else:
            self.ledger.add(Created(shard.name, step.number, batch.id, self._clock()))
            self.log.info("%s: created batch %s with %s", shard.name, batch.id, format_count(shard.requests, "request"))
            if lifecycle_steps.may_be_superseded(claimed_at, self._clock()) and any(
                submission.number == step.number
                for submission in self.ledger.state().shards[shard.name].superseded_submissions
            ):
                self._cancel_duplicate_batches([batch])

    def _reserve(self, step: Create | SendSynchronously, claimed_at: datetime | None = None) -> bool:
        """Reserve from the shared budgets what a submission may cost. Return False if it must not be sent.

        :param claimed_at: when the submission was claimed; None for a canary, which is not claimed.
        """
        if not self._shared_budgets:
            return True
        shard = step.shard.spec
        usd = self._budget_tracker().shared_reservation(shard)
        if claimed_at is None:
            is_reserved = self._shared_budgets.reserve(shard.name, step.number, usd, self._clock(), is_repeated=True)
        else:
            is_reserved = self._shared_budgets.reserve(shard.name, step.number, usd, claimed_at)
        if not is_reserved:
            self._must_plan_again = True
            message = "another job has taken what was left of a budget that both share"
            self.log.info("%s: %s, so it was not sent", shard.name, message)
            if claimed_at is not None:
                self.ledger.add(Refused(shard.name, step.number, Failure.BUDGET, message, self._clock()))
            return False
        if claimed_at is not None and self._claim_is_stale(shard, claimed_at):
            self._shared_budgets.release(shard.name, step.number, claimed_at)
            return False
        return True

    def _look_up(self, step: LookUp) -> None:
        shard, intent = step.shard.spec, step.submission.intent
        assert intent is not None
        if shard.synchronous:
            message = "the worker that sent these requests never recorded their responses"
            self.ledger.add(Refused(shard.name, step.submission.number, Failure.LOST, message, self._clock()))
            self.log.warning(
                "%s: %s, so up to %s may have been paid for without a result",
                shard.name,
                message,
                format_count(shard.requests, "request"),
            )
            return
        batches = self.hook.find_batches(
            intent.nonce, intent.file_id, not_before=intent.time - lifecycle_steps.LOOK_UP_AFTER
        )
        # several submissions can share an uploaded file, so leave out the batches of the others
        known_ids = {
            submission.batch_id for shard in self.ledger.state().shards.values() for submission in shard.submissions
        }
        batches = [batch for batch in batches if batch.id not in known_ids]
        if not batches:
            message = "the create call was never confirmed, and the provider has no such batch"
            self.ledger.add(Refused(shard.name, step.submission.number, Failure.LOST, message, self._clock()))
            self.log.info("%s: %s, so its requests are submitted again unless the wait is over", shard.name, message)
            return
        self.ledger.add(Created(shard.name, step.submission.number, batches[0].id, self._clock()))
        self.log.info(
            "%s: the unconfirmed create call did create batch %s; continuing with it", shard.name, batches[0].id
        )
        for duplicate in batches[1:]:
            if duplicate.metadata.get("job_uid") != self.ledger.manifest.job_uid:
                continue
            if duplicate.status.ended:
                self._add_duplicate_batch(duplicate)
            else:
                self._cancel_duplicate_batches([duplicate])

    def _cancel(self, steps: list[Cancel]) -> None:
        """Cancel batches. A failed request does not hold up anything else and is repeated later."""
        failed_steps = cancel_batches(self.ledger, self.hook, steps, self.log.warning, clock=self._clock)
        self._failed_cancels.update(step.submission.batch_id for step in failed_steps)
        if failed_steps:
            self.log.warning(
                "Cancelling %s again in %d s",
                format_count(len(failed_steps), "batch", "batches"),
                CANCEL_RETRY_DELAY.seconds,
            )

    def _give_up(self, step: GiveUp) -> None:
        if not self._claim(step.shard, step.number):
            return
        name = step.shard.name
        settled = Settled(name, step.number, "", "given up", self._clock(), failure=Failure.LINES, message=step.message)
        lines = dict.fromkeys(range(step.shard.requests), step.message)
        self.ledger.add(self._collector.count(step.shard, msgspec.structs.replace(settled, line_errors=lines)))
        self.log.warning("%s: giving up, because it can never fit in the provider's queue: %s", name, step.message)

    def _claim(self, shard: ShardState, number: int, claimed_at: datetime | None = None) -> bool:
        """Claim a submission with an intent, so that no other worker creates its batch. Return False if another has."""
        claimed_at = claimed_at or self._clock()
        if self.ledger.add(Intent(shard.name, number, secrets.token_hex(16), "", claimed_at)):
            return not self._claim_is_stale(shard.spec, claimed_at)
        self.log.info("%s: another worker is already working on this shard; skipping it", shard.name)
        return False

    def _claim_is_stale(self, shard: Shard, claimed_at: datetime) -> bool:
        now = self._clock()
        is_stale = lifecycle_steps.claim_is_stale(claimed_at, now)
        if is_stale:
            self.log.warning(
                "%s: this worker was suspended for %d s before it could create the batch, so another worker may have "
                "taken over. The batch will be looked up before anything is created.",
                shard.name,
                (now - claimed_at).total_seconds(),
            )
        return is_stale
