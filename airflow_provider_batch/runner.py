"""Does the steps that the lifecycle decides on: the only module that makes paid calls.

Each step is recorded when it is done; then the lifecycle is asked again. Submit and wait run the same runner, each
until there is nothing to do now. Files go up and down several at once; everything else, above all what is paid, goes
one by one, and every record is written by the calling thread.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Protocol

import msgspec

from airflow_provider_batch import canary
from airflow_provider_batch.at_once import at_once
from airflow_provider_batch.exceptions import AwayError, BrokenDownloadError, ProviderError, StagingError, StoppedError
from airflow_provider_batch.hooks.batch import BatchHook, CreateRefused, CreateUnsure
from airflow_provider_batch.jobs import lifecycle
from airflow_provider_batch.jobs.answers import read_answers, read_rows
from airflow_provider_batch.jobs.batch import BatchView, Status
from airflow_provider_batch.jobs.canary import judge
from airflow_provider_batch.jobs.ledger import (
    CancelAsked,
    Collected,
    Created,
    Failure,
    Intent,
    JobState,
    Ledger,
    Refused,
    Settled,
    ShardState,
    Uploaded,
    Wave,
)
from airflow_provider_batch.jobs.lifecycle import (
    Ask,
    AskAgain,
    Cancel,
    Collect,
    Create,
    Judge,
    LookUp,
    Policy,
    Rest,
    Step,
    Upload,
    next_steps,
)
from airflow_provider_batch.jobs.outcome import Outcome
from airflow_provider_batch.jobs.price import Prices
from airflow_provider_batch.jobs.schema import SchemaJudge
from airflow_provider_batch.jobs.shard import Sealer

#: files on their way at the same time: each is streamed, so this bounds connections rather than memory
AT_ONCE = 4
#: how often a result file is asked for that broke off on its way
DOWNLOADS = 3


class Log(Protocol):
    """A task's logger, of the standard library or of structlog."""

    def info(self, event: str, *args: Any) -> Any:
        """Something happened."""

    def warning(self, event: str, *args: Any) -> Any:
        """Something that a person may want to look at."""


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
        #: set when the account refused a batch: what else was planned would only be refused too
        self._held = False
        schema = ledger.manifest.output_schema
        self._judge = SchemaJudge(schema) if schema is not None else None

    def look(self) -> dict[str, BatchView]:
        """The live batches as the provider has them now; one that cannot be read just now is waited for.

        :raises ProviderError: if the provider refuses to show one.
        """
        seen: dict[str, BatchView] = {}
        for shard, tried in self.ledger.state().live():
            try:
                seen[tried.batch_id] = self.hook.retrieve(tried.batch_id)
            except AwayError as error:
                self.log.warning("%s: %s It is read again later.", shard.shard.name, error)
        return seen

    def run(self, seen: Mapping[str, BatchView]) -> Rest:
        """Do every step that can be done now; say what the job then waits for.

        :raises StoppedError: before a paid call, once `stopping` says so.
        :raises ProviderError: if a call failed; everything done before is recorded.
        """
        while True:
            steps, rest = next_steps(self.ledger.state(), seen, self.policy, self._clock())
            if not steps:
                return rest
            self._held = False
            for _, alike in groupby(steps, type):
                self._do(list(alike))
                if self._held:
                    break

    def _do(self, steps: list[Step]) -> None:
        """Do steps of one kind."""
        match steps[0]:
            case Ask():
                asks = [step for step in steps if isinstance(step, Ask)]
                canary.ask_all(self.ledger, self.hook, asks, self._answered, self._stopping)
            case Upload():
                self._upload([step for step in steps if isinstance(step, Upload)])
            case Collect():
                self._collect([step for step in steps if isinstance(step, Collect)])
            case _:
                for step in steps:
                    self._do_one(step)
                    if self._held:
                        return

    def _do_one(self, step: Step) -> None:
        match step:
            case Judge():
                self._judge_canary()
            case Create():
                self._create(step)
            case LookUp():
                self._look_up(step)
            case Cancel():
                self._cancel(step)
            case AskAgain():
                self._ask_again(step)

    def _answered(self, answers: canary.Answers) -> None:
        """Keep what came back for a model's canary, unless the account is what refused it."""
        shard, n = answers.step.shard, answers.step.n
        message = answers.account_says
        if message is not None:
            self.ledger.add(Refused(shard.shard.name, n, Failure.ACCOUNT, message, self._clock()))
            self.log.warning("%s: the canary was refused: %s. Nothing was uploaded.", shard.shard.name, message)
            return
        settled = Settled(
            shard.shard.name, n, "", "answered", self._clock(), files=[canary.write(self.ledger, answers)]
        )
        self.ledger.add(self._count(shard, settled))

    def _judge_canary(self) -> None:
        prices = Prices(self.ledger.manifest.prices)
        verdict = judge(self.ledger.state(), self.ledger.folder, self._judge, prices, self._clock())
        if not self.ledger.add(verdict.judged):
            return
        tokens = ", ".join(f"{mean:,} tokens ({model})" for model, mean in verdict.mean_output.items())
        estimate = verdict.judged.estimate
        self.log.info(
            "canary: %d of %d answered%s; the estimate is now %s",
            verdict.answered,
            verdict.asked,
            f"; mean output {tokens}" if tokens else "",
            "unknown, as no price is known"
            if estimate.low_usd is None
            else f"between {estimate.low_usd:,.4f} and {estimate.high_usd:,.4f} US dollars",
        )
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in verdict.outcomes.items())
        if verdict.outcomes.get(Outcome.INVALID_OUTPUT) == verdict.asked:
            self.log.warning(
                "canary: no answer is valid against the output_schema; the rows are asked again in a batch"
            )
        elif verdict.outcomes.get(Outcome.SUCCEEDED) != verdict.asked:
            self.log.warning("canary: %s. What failed for a passing reason is asked again in a batch.", outcomes)

    def _upload(self, steps: list[Upload]) -> None:
        """Send the input files, several at once; each is recorded as soon as the provider has it.

        :raises StoppedError: if `stopping` said so before all were sent. Those that were are recorded.
        """
        self.hook.conn  # noqa: B018  # built here: connections are looked up by the task's own thread
        sent = at_once(steps, self._send, self._sent, AT_ONCE, stop=self._stopping)
        if sent < len(steps):
            raise StoppedError(
                f"This worker was told to end, so {len(steps) - sent} of {len(steps)} input files were not uploaded, "
                f"{steps[0].shard.shard.name} to {steps[-1].shard.shard.name}. Everything done before is recorded; "
                "the next attempt goes on from there."
            )

    def _sent(self, step: Upload, file_id: str) -> None:
        shard = step.shard.shard
        self.ledger.add(Uploaded(shard.name, step.n, file_id, self._clock()))
        self.log.info("%s: uploaded %s requests, %s bytes", shard.name, f"{shard.requests:,}", f"{shard.bytes:,}")

    def _send(self, step: Upload) -> str:
        """Stream a shard's input file to the provider; its file id there."""
        shard = step.shard.shard
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
                f"This worker was told to end, so the batch of {step.shard.shard.name} was not created. Everything "
                "done before is recorded; the next attempt goes on from there."
            )
        shard, manifest = step.shard.shard, self.ledger.manifest
        nonce = secrets.token_hex(16)
        if not self.ledger.add(Intent(shard.name, step.n, nonce, step.file_id, self._clock())):
            self.log.info("%s: another worker is creating this batch; leaving it to that one", shard.name)
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
        except CreateRefused as refused:
            self.ledger.add(Refused(shard.name, step.n, refused.failure, refused.message, self._clock()))
            self._held = refused.failure is Failure.ACCOUNT
            self.log.warning("%s: not created (%s): %s", shard.name, refused.failure, refused.message)
        except CreateUnsure as unsure:
            self.log.warning(
                "%s: no sure answer to the creation (%s). It is looked up in %d s before anything is created again.",
                shard.name,
                unsure,
                lifecycle.UNSURE.total_seconds(),
            )
        else:
            self.ledger.add(Created(shard.name, step.n, batch.id, self._clock()))
            self.log.info("%s: batch %s created, %s requests", shard.name, batch.id, f"{shard.requests:,}")

    def _look_up(self, step: LookUp) -> None:
        shard, intent = step.shard.shard, step.tried.intent
        assert intent is not None
        found = self.hook.find(intent.nonce, intent.file_id, not_before=intent.at - lifecycle.UNSURE)
        if not found:
            message = "the creation was never answered, and the provider has no such batch"
            self.ledger.add(Refused(shard.name, step.tried.n, Failure.LOST, message, self._clock()))
            self.log.info("%s: %s; creating it", shard.name, message)
            return
        self.ledger.add(Created(shard.name, step.tried.n, found[0].id, self._clock()))
        self.log.info("%s: the unanswered creation had made batch %s; going on with it", shard.name, found[0].id)
        for twin in found[1:]:
            if not twin.status.ended:
                self.hook.cancel(twin.id)
                self.log.warning("%s: cancelled its twin %s", shard.name, twin.id)

    def _cancel(self, step: Cancel) -> None:
        self.hook.cancel(step.tried.batch_id)
        self.ledger.add(CancelAsked(step.shard.shard.name, step.tried.n, step.reason, self._clock()))
        self.log.warning("%s: cancelling batch %s (%s)", step.shard.shard.name, step.tried.batch_id, step.reason)

    def _collect(self, steps: list[Collect]) -> None:
        """Fetch the files of ended batches, several at once; a batch settles once both its files lie in staging.

        A file that cannot be had holds up no other: those may be gone too before a person has come.

        :raises ProviderError: the first, once all others are settled.
        """
        failed: list[ProviderError] = []

        def fetch(step: Collect) -> list[Collected] | ProviderError:
            try:
                return self._fetch(step)
            except ProviderError as error:
                return error

        def settle(step: Collect, came: list[Collected] | ProviderError) -> None:
            if isinstance(came, ProviderError):
                failed.append(came)
                self.log.warning("%s: batch %s was not collected: %s", step.shard.shard.name, step.batch.id, came)
            else:
                self._settle(step, came)

        self.hook.conn  # noqa: B018  # as for uploads
        at_once(steps, fetch, settle, AT_ONCE)
        if failed:
            raise failed[0]

    def _settle(self, step: Collect, files: list[Collected]) -> None:
        shard, tried, batch = step.shard.shard, step.tried, step.batch
        settled = Settled(shard.name, tried.n, batch.id, batch.said, self._clock())
        # Azure gives a batch that failed validation both files, without a byte in them.
        if batch.status is Status.FAILED and not any(file.bytes for file in files):
            failure, message, at_lines = lifecycle.failure_of(batch)
            settled = msgspec.structs.replace(settled, failure=failure, message=message, lines=at_lines)
            self.log.warning("%s: batch %s failed validation (%s): %s", shard.name, batch.id, failure, message)
        else:
            settled = msgspec.structs.replace(settled, files=files)
        if settled.failure in (None, Failure.LINES):
            settled = self._count(step.shard, settled)
            self.log.info(
                "%s: batch %s %s: %s",
                shard.name,
                batch.id,
                batch.said,
                ", ".join(f"{count:,} {outcome}" for outcome, count in settled.outcomes.items()),
            )
        self.ledger.add(settled)

    def _fetch(self, step: Collect) -> list[Collected]:
        """Stream the result files of a batch into staging."""
        place = f"{self.ledger.prefix}/collected/{step.shard.shard.name}.{step.tried.n}"
        ids = (("output", step.batch.output_file_id), ("error", step.batch.error_file_id))
        return [self._download(f"{place}/{kind}", file_id) for kind, file_id in ids if file_id]

    def _download(self, place: str, file_id: str) -> Collected:
        """One result file, whole; each time that it breaks off it is asked for anew, into another file.

        :raises BrokenDownloadError: if it never came whole.
        """
        for times in range(1, DOWNLOADS + 1):
            name = f"{place}.{secrets.token_hex(4)}.jsonl"
            try:
                with self.ledger.folder.writer(name) as into:
                    size, digest = self.hook.download(file_id, into)
            except BrokenDownloadError as broken:
                if times == DOWNLOADS:
                    raise
                self.log.warning("%s Asking for it again.", broken)
            else:
                return Collected(name, size, digest)
        raise AssertionError("the last time returned or raised")

    def _count(self, shard: ShardState, settled: Settled) -> Settled:
        folder, manifest = self.ledger.folder, self.ledger.manifest
        rows = read_rows(folder, shard.shard)
        outcomes: Counter[Outcome] = Counter()
        transient = 0
        for _, answer in read_answers(folder, shard.shard, settled, rows, manifest.endpoint, self._judge):
            outcomes[answer.outcome] += 1
            transient += answer.outcome is Outcome.FAILED and answer.transient
        counts = {outcome.value: outcomes[outcome] for outcome in Outcome if outcomes[outcome]}
        return msgspec.structs.replace(settled, outcomes=counts, transient=transient)

    def _ask_again(self, step: AskAgain) -> None:
        """Merge the rows to ask again into as few shards per model as fit, and seal them as a wave."""
        state = self.ledger.state()
        # another worker may have sealed a wave of these rows since the step was decided on
        tries = [
            (shard, settled) for shard, settled in step.sources if (shard.shard.name, settled.n) not in state.drained
        ]
        if not tries:
            return
        number = len(state.waves) + 1
        prefix = f"{self.ledger.prefix}/wave-{number}-{secrets.token_hex(4)}"
        sealer = Sealer(
            self.ledger.folder,
            prefix,
            self.ledger.manifest.endpoint,
            self.ledger.manifest.limits,
            names=f"w{number:02d}-{{:04d}}",
        )
        try:
            for shard, settled in tries:
                self._pack(sealer, state, shard, settled)
            shards = sealer.finish()
        finally:
            sealer.abandon()
        sources = [(shard.shard.name, settled.n) for shard, settled in tries]
        if self.ledger.add(Wave(number, sources, shards, self._clock())):
            self.log.info("Asking %s rows again in %d shard(s), wave %d", f"{sealer.requests:,}", len(shards), number)

    def _pack(self, sealer: Sealer, state: JobState, shard: ShardState, settled: Settled) -> None:
        folder, one = self.ledger.folder, shard.shard
        rows = read_rows(folder, one)
        wanted = {
            line
            for line, answer in read_answers(folder, one, settled, rows, state.manifest.endpoint, self._judge)
            if lifecycle.is_askable(answer, settled, self.policy)
        }
        attempt = lifecycle.next_attempt(shard, settled)
        with folder.reader(one.file) as stream:
            for number, line in enumerate(stream):
                if number in wanted:
                    row = rows[number]
                    origin = row if row.origin else msgspec.structs.replace(row, origin=one.name, line=number)
                    sealer.pack(one.model, line, origin, inputs=row.inputs, tokens=row.tokens, attempt=attempt)
