"""Does the steps that the lifecycle decides on: the only module that makes paid calls.

Each step is recorded when it is done; then the lifecycle is asked again. Submit and wait run the same runner, each
until there is nothing to do now. Files go up and down several at once; everything else, above all what is paid, goes
one by one, and every record is written by the calling thread.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
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
    UploadsHeld,
)
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle import duplicate_batches
from airflow_provider_batch.core.lifecycle import steps as lifecycle_steps
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.canary_verdict import judge
from airflow_provider_batch.core.lifecycle.capacity import uploads_from
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import (
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
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing import final_pass
from airflow_provider_batch.exceptions import (
    AwayError,
    CapacityError,
    ProviderError,
    StagingError,
    StoppedError,
)
from airflow_provider_batch.hooks.batch import BatchHook, CreateRefusedError, CreateUnconfirmedError
from airflow_provider_batch.worker import synchronous
from airflow_provider_batch.worker.cancel import cancel_batches
from airflow_provider_batch.worker.collect import AT_ONCE, Collector
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.parallel import at_once
from airflow_provider_batch.worker.reseal import Resealer

#: how long until a cancel is asked for again that the provider did not take
CANCEL_AGAIN = timedelta(seconds=60)


class Runner:
    """One worker's go at a job."""

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
        self._stopping, self._clock = stopping, clock
        #: set when a batch was refused: what else was planned may only be refused too, so it is planned anew
        self._held = False
        #: batches whose cancel the provider did not take just now
        self._unheard: set[str] = set()
        schema = ledger.manifest.output_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        self._prices = Prices(ledger.manifest.prices)
        self._collector = Collector(ledger, hook, self._judge, log, clock)
        self._waves = Resealer(ledger, policy, self._judge, log, clock, self._claim)

    def look(self) -> dict[str, BatchView]:
        """The live batches as the provider has them now; one that cannot be read just now is waited for.

        :raises ProviderError: if the provider refuses to show one.
        """
        seen: dict[str, BatchView] = {}
        for shard, submission in self.ledger.state().live():
            try:
                seen[submission.batch_id] = self.hook.retrieve(submission.batch_id)
            except AwayError as error:
                self.log.warning("%s: %s It is read again later.", shard.name, error)
        return seen

    def run(self, seen: Mapping[str, BatchView]) -> Pause:
        """Do every step that can be done now; say what the job then waits for.

        :raises StoppedError: before a paid call, once `stopping` says so.
        :raises ProviderError: if a call failed; everything done before is recorded.
        """
        seen = dict(seen)
        self._unheard.clear()
        if duplicate_batches.may_have_lost_batches(self.ledger.state()):
            seen.update(self._look_for_duplicate_batches())
        looked = False
        while True:
            steps, pause = next_steps(self.ledger.state(), seen, self.policy, self._clock())
            if not steps and isinstance(pause, Finish) and not looked:
                looked = True
                adopted = self._look_for_duplicate_batches()
                seen.update(adopted)
                if adopted:
                    continue
            steps = [one for one in steps if not (isinstance(one, Cancel) and one.submission.batch_id in self._unheard)]
            if not steps:
                return self._soon(pause)
            self._held = False
            for _, alike in groupby(steps, type):
                self._do(list(alike))
                if self._held:
                    break

    def _soon(self, pause: Pause) -> Pause:
        """The same pause, but short if a cancel was not taken."""
        if not self._unheard or not isinstance(pause, Wait):
            return pause
        again = self._clock() + CANCEL_AGAIN
        return pause._replace(until=min(again, pause.until) if pause.until else again)

    def finish(self, pause: Finish) -> JobState:
        """Record that the wait came to its end, and tell what the budget did not reach. The state then."""
        state = self.ledger.state()
        number = state.finished.number + 1 if state.finished else 1
        self.ledger.append(Finished(number, self._clock(), list(pause.withheld)))
        self.tell_withheld(pause)
        return self.ledger.state()

    def tell_withheld(self, pause: Finish) -> None:
        """Say what was not asked, as the budget does not reach, and what to do about it."""
        if not pause.withheld:
            return
        state = self.ledger.state()
        budget = BudgetTracker(state)
        self.log.warning(
            "%s requests in %d shard(s) are withheld: max_cost_usd is %s US dollars, %.4f are spent, and they may cost "
            "up to %.4f. What was answered is kept. Raise max_cost_usd and clear submit to go on.",
            f"{sum(state.shards[name].requests for name in pause.withheld):,}",
            len(pause.withheld),
            budget.ceiling,
            budget.spent,
            sum(budget.cost(state.shards[name].spec) for name in pause.withheld),
        )

    def _look_for_duplicate_batches(self) -> dict[str, BatchView]:
        """Find the job's batches that it does not keep; those that it goes on with, by id.

        A list that cannot be read changes nothing: what was paid for is landed all the same.
        """
        manifest = self.ledger.manifest
        try:
            batches = self.hook.list_job_batches(
                manifest.job_uid, not_before=manifest.sealed_at - lifecycle_steps.LOOK_UP_AFTER
            )
        except ProviderError as error:
            self.log.warning("Whether batches of this job were created twice is not known: %s", error)
            return {}
        found = duplicate_batches.look(self.ledger.state(), batches)
        for shard, submission, batch in found.adopt:
            self.ledger.add(Created(shard.name, submission.number, batch.id, self._clock()))
            self.log.info("%s: its unanswered creation had made batch %s; going on with it", shard.name, batch.id)
        self._cancel_duplicate_batches(found.cancel)
        for batch in found.ended:
            self._add_duplicate_batch(batch)
            tell = self.log.warning if batch.completed else self.log.info
            tell("Batch %s, a twin of one that is kept, ended with %d requests answered", batch.id, batch.completed)
        return {batch.id: batch for _, _, batch in found.adopt}

    def _cancel_duplicate_batches(self, batches: Iterable[BatchView]) -> None:
        """Cancel batches that run beside the ones that are kept. One that cannot be cancelled now is found again."""
        for batch in batches:
            try:
                self._cancel_duplicate_batch(batch)
            except ProviderError as error:
                self.log.warning("Batch %s is a twin that should not run: %s", batch.id, error)

    def _cancel_duplicate_batch(self, duplicate: BatchView) -> None:
        self._add_duplicate_batch(self.hook.cancel(duplicate.id) or self.hook.retrieve(duplicate.id))
        self.log.warning(
            "%s: cancelled batch %s, a twin of the one it keeps", duplicate.metadata.get("shard"), duplicate.id
        )

    def _add_duplicate_batch(self, duplicate: BatchView) -> None:
        shard = duplicate.metadata.get("shard", "")
        self.ledger.add(
            DuplicateBatch(
                duplicate.id, shard, duplicate.raw_status, duplicate.status.ended, duplicate.completed, self._clock()
            )
        )

    def _do(self, steps: list[Step]) -> None:
        """Do steps of one kind."""
        match steps[0]:
            case SendSynchronously(is_final_pass=True) as first:
                # one, and the time is looked at again before the next
                self._ask_last(first)
            case SendSynchronously():
                asks = [step for step in steps if isinstance(step, SendSynchronously)]
                synchronous.ask_all(self.ledger, self.hook, asks, self._answered, self._stopping)
            case Upload():
                self._upload([step for step in steps if isinstance(step, Upload)])
            case Collect():
                self._collector.collect([step for step in steps if isinstance(step, Collect)])
            case Cancel():
                self._cancel([step for step in steps if isinstance(step, Cancel)])
            case _:
                for step in steps:
                    self._do_one(step)
                    if self._held:
                        return

    def _do_one(self, step: Step) -> None:
        match step:
            case JudgeCanary():
                self._judge_canary()
            case Create():
                self._create(step)
            case LookUp():
                self._look_up(step)
            case Retry():
                self._waves.ask_again(step)
            case Reseal():
                self._waves.reseal(step)
            case GiveUp():
                self._give_up(step)
            case FinalPass():
                self._seal_finish_line(step)

    def _answered(self, answers: synchronous.Answers) -> None:
        """Keep what came back for a shard, unless the account is what refused it."""
        shard, n = answers.step.shard, answers.step.number
        message = answers.account_says
        if message is not None:
            self.ledger.add(Refused(shard.name, n, Failure.ACCOUNT, message, self._clock()))
            kept = "What was answered before lands" if answers.step.is_final_pass else "Nothing was uploaded"
            self.log.warning("%s: the account was refused: %s. %s.", shard.name, message, kept)
            return
        settled = Settled(shard.name, n, "", "answered", self._clock(), files=[synchronous.write(self.ledger, answers)])
        self.ledger.add(self._collector.count(shard, settled))

    def _ask_last(self, step: SendSynchronously) -> None:
        """Ask a shard of the finish line, which no other worker is at: a claim is recorded before."""
        if self._stopping():
            raise StoppedError(
                f"This worker was told to end, so {step.shard.name} of the finish line was not asked. Everything "
                "done before is recorded; the next attempt goes on from there."
            )
        if self._claim(step.shard, step.number):
            synchronous.ask_all(self.ledger, self.hook, [step], self._answered, self._stopping, synchronous.FINISH_LINE)

    def _seal_finish_line(self, step: FinalPass) -> None:
        retry_round = final_pass.seal_final_pass(
            self.ledger, step, self.policy, self._judge, self._claim, self._clock()
        )
        if retry_round is None:
            return
        asked = sum(shard.requests for shard in retry_round.shards if shard.synchronous)
        self.log.info("Finish line: asking %s rows synchronously, at the standard price", f"{asked:,}")
        if retry_round.left_out:
            self.log.warning(
                "Finish line: %s. They land as they are.", final_pass.describe_left_out(retry_round.left_out)
            )

    def _judge_canary(self) -> None:
        verdict = judge(self.ledger.state(), self.ledger.folder, self._judge, self._prices, self._clock())
        if not self.ledger.add(verdict.canary_verdict):
            return
        tokens = ", ".join(f"{mean:,} tokens ({model})" for model, mean in verdict.mean_output.items())
        estimate = verdict.canary_verdict.estimate
        self.log.info(
            "canary: %d of %d answered%s; the estimate is now %s",
            verdict.answered,
            verdict.sent,
            f"; mean output {tokens}" if tokens else "",
            "unknown, as no price is known"
            if estimate.low_usd is None
            else f"between {estimate.low_usd:,.4f} and {estimate.high_usd:,.4f} US dollars",
        )
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in verdict.outcomes.items())
        if verdict.outcomes.get(Outcome.INVALID_OUTPUT) == verdict.sent:
            self.log.warning(
                "canary: no answer is valid against the output_schema; the rows are asked again in a batch"
            )
        elif verdict.outcomes.get(Outcome.SUCCEEDED) != verdict.sent:
            self.log.warning("canary: %s. What failed for a passing reason is asked again in a batch.", outcomes)

    def _upload(self, steps: list[Upload]) -> None:
        """Send the input files, several at once; each is recorded as soon as the provider has it.

        If the provider takes no more of them for now, that is recorded, and the others wait.

        :raises StoppedError: if `stopping` said so before all were sent. Those that were are recorded.
        """
        self.hook.warm_up()
        try:
            sent = at_once(steps, self._send, self._sent, AT_ONCE, stop=self._stopping)
        except CapacityError as error:
            self._hold_uploads(error)
            return
        if sent < len(steps):
            raise StoppedError(
                f"This worker was told to end, so {len(steps) - sent} of {len(steps)} input files were not uploaded, "
                f"{steps[0].shard.name} to {steps[-1].shard.name}. Everything done before is recorded; "
                "the next attempt goes on from there."
            )

    def _hold_uploads(self, error: CapacityError) -> None:
        state = self.ledger.state()
        number = max((one.number for one in state.uploads_refused), default=0) + 1
        self.ledger.append(UploadsHeld(number, str(error), self._clock(), error.retry_after))
        self._held = True
        until = uploads_from(self.ledger.state(), self.policy.backoff)
        self.log.warning(
            "%s No further input file is uploaded before %s UTC.",
            error,
            f"{until:%Y-%m-%d %H:%M:%S}" if until else "now",
        )

    def _sent(self, step: Upload, file_id: str) -> None:
        shard = step.shard.spec
        self.ledger.add(Uploaded(shard.name, step.number, file_id, self._clock()))
        self.log.info("%s: uploaded %s requests, %s bytes", shard.name, f"{shard.requests:,}", f"{shard.bytes:,}")

    def _send(self, step: Upload) -> str:
        """Stream a shard's input file to the provider; its file id there."""
        shard = step.shard.spec
        name = f"{self.ledger.manifest.job_uid}-{shard.name}.jsonl"
        with self.ledger.folder.reader(shard.file) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:  # type: ignore[arg-type]
                raise StagingError(
                    f"{self.ledger.folder.uri}/{shard.file} is not the file that was sealed: its checksum differs. It "
                    "was not uploaded. Put the file back, or start a new run, which reads the warehouse again."
                )
            file.seek(0)
            return self.hook.upload(file, name)

    def _create(self, step: Create) -> None:
        if self._stopping():
            raise StoppedError(
                f"This worker was told to end, so the batch of {step.shard.name} was not created. Everything "
                "done before is recorded; the next attempt goes on from there."
            )
        shard, manifest = step.shard.spec, self.ledger.manifest
        nonce, began = secrets.token_hex(16), self._clock()
        if not self.ledger.add(Intent(shard.name, step.number, nonce, step.file_id, began)):
            self.log.info("%s: another worker is creating this batch; leaving it to that one", shard.name)
            return
        if self._overslept(shard, began):
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
        except CreateRefusedError as refused:
            self.ledger.add(
                Refused(shard.name, step.number, refused.failure, refused.message, self._clock(), refused.retry_after)
            )
            self._held = refused.failure in (Failure.ACCOUNT, Failure.CAPACITY)
            self.log.warning("%s: not created (%s): %s", shard.name, refused.failure, refused.message)
        except CreateUnconfirmedError as unsure:
            self.log.warning(
                "%s: no sure answer to the creation (%s). It is looked up in %d s before anything is created again.",
                shard.name,
                unsure,
                lifecycle_steps.LOOK_UP_AFTER.total_seconds(),
            )
        else:
            self.ledger.add(Created(shard.name, step.number, batch.id, self._clock()))
            self.log.info("%s: batch %s created, %s requests", shard.name, batch.id, f"{shard.requests:,}")
            if any(
                submission.number == step.number for submission in self.ledger.state().shards[shard.name].superseded
            ):
                self._cancel_duplicate_batches([batch])

    def _look_up(self, step: LookUp) -> None:
        shard, intent = step.shard.spec, step.submission.intent
        assert intent is not None
        if shard.synchronous:
            message = "the worker that asked these requests never told what came of them"
            self.ledger.add(Refused(shard.name, step.submission.number, Failure.LOST, message, self._clock()))
            self.log.warning("%s: %s; at most %d were paid for in vain", shard.name, message, shard.requests)
            return
        found = self.hook.find_batches(
            intent.nonce, intent.file_id, not_before=intent.time - lifecycle_steps.LOOK_UP_AFTER
        )
        # A file is sent once for several tries: batches of earlier ones are not what this creation made.
        kept = {submission.batch_id for one in self.ledger.state().shards.values() for submission in one.submissions}
        found = [batch for batch in found if batch.id not in kept]
        if not found:
            message = "the creation was never answered, and the provider has no such batch"
            self.ledger.add(Refused(shard.name, step.submission.number, Failure.LOST, message, self._clock()))
            self.log.info("%s: %s; creating it", shard.name, message)
            return
        self.ledger.add(Created(shard.name, step.submission.number, found[0].id, self._clock()))
        self.log.info("%s: the unanswered creation had made batch %s; going on with it", shard.name, found[0].id)
        for duplicate in found[1:]:
            if duplicate.metadata.get("job_uid") != self.ledger.manifest.job_uid:
                continue
            if duplicate.status.ended:
                self._add_duplicate_batch(duplicate)
            else:
                self._cancel_duplicate_batch(duplicate)

    def _cancel(self, steps: list[Cancel]) -> None:
        """Cancel batches. What the provider does not take now holds up nothing else, and is tried again later."""
        not_taken = cancel_batches(self.ledger, self.hook, steps, self.log.warning, clock=self._clock)
        self._unheard.update(step.submission.batch_id for step in not_taken)
        if not_taken:
            self.log.warning("%d batch(es) are cancelled again in %d s.", len(not_taken), CANCEL_AGAIN.seconds)

    def _give_up(self, step: GiveUp) -> None:
        if not self._claim(step.shard, step.number):
            return
        name = step.shard.name
        settled = Settled(name, step.number, "", "given up", self._clock(), failure=Failure.LINES, message=step.message)
        lines = dict.fromkeys(range(step.shard.requests), step.message)
        self.ledger.add(self._collector.count(step.shard, msgspec.structs.replace(settled, lines=lines)))
        self.log.warning("%s: given up, as the provider will never have room for it: %s", name, step.message)

    def _claim(self, shard: ShardState, n: int) -> bool:
        """Take a try for oneself, as a creation does: no other worker creates its batch then."""
        began = self._clock()
        if self.ledger.add(Intent(shard.name, n, secrets.token_hex(16), "", began)):
            return not self._overslept(shard.spec, began)
        self.log.info("%s: another worker is at this shard; leaving it to that one", shard.name)
        return False

    def _overslept(self, shard: Shard, began: datetime) -> bool:
        now = self._clock()
        late = lifecycle_steps.claim_is_stale(began, now)
        if late:
            self.log.warning(
                "%s: this worker stood still for %d s before it could ask for the batch. It leaves that be: whether "
                "there is one is looked up first, as another worker may have taken it over.",
                shard.name,
                (now - began).total_seconds(),
            )
        return late
