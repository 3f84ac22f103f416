"""Everything known about a job, in one shape. It is read from the ledger alone, and holds no row data and no keys.

`JobSummary` is the only description of a job. What the command line and the page show, what the tasks return as XComs,
and what an asset event carries are views of it.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal

import msgspec

from airflow_provider_batch.core.formatting import format_usd, format_usd_range
from airflow_provider_batch.core.ledger.job import Estimate, Manifest, Reference, sources_of
from airflow_provider_batch.core.ledger.ledger import Ledger, earlier_lineages
from airflow_provider_batch.core.ledger.records import Landed, Reason
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Submission
from airflow_provider_batch.core.lifecycle.collection import held_batches
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far, rows_being_retried
from airflow_provider_batch.core.lifecycle.receipt import receipt
from airflow_provider_batch.core.lifecycle.running_estimate import running_estimate
from airflow_provider_batch.core.lifecycle.status import JobPhase, status_of


class SubmissionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One try at uploading a shard and creating its batch, as shown to people."""

    number: int
    #: uploaded, creating, live, cancelling, not collected, refused, or the provider's status of the ended batch
    status: str
    #: whether its batch has ended and was collected
    settled: bool = False
    batch_id: str | None = None
    #: time of its newest record
    time: datetime | None = None
    #: the provider's message, if it was refused or failed
    message: str | None = None
    outcomes: dict[str, int] = {}


class ShardSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One input file and its submissions."""

    name: str
    model: str
    requests: int
    #: number of times the provider has tried these rows, including this time
    attempt: int
    phase: str
    #: absolute address of the input file
    file: str
    submissions: list[SubmissionSummary] = []

    @property
    def status(self) -> str:
        """The provider's status of the newest batch if that has ended, else the phase."""
        return self.submissions[-1].status if self.submissions and self.submissions[-1].settled else self.phase

    @property
    def batch_id(self) -> str | None:
        """Id of the newest batch."""
        return self.submissions[-1].batch_id if self.submissions else None


class RetryRoundSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were retried together."""

    number: int
    time: datetime
    requests: int
    shards: list[str]


class FinalPassSummary(msgspec.Struct, frozen=True):
    """Rows that were sent synchronously after the deadline."""

    sent: int
    #: number of rows that were left out, by reason
    left_out: dict[str, int]


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a job. None is unknown, never 0."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    job_uid: str
    generation: int
    #: absolute address of the job's folder
    folder: str
    #: where the job is, in one word
    phase: JobPhase
    #: the same as a phrase, with numbers and reasons
    state: str
    #: what a person can do now, in full sentences
    next: str
    endpoint: str
    connection: str
    sealed_at: datetime
    #: time of the newest record
    last_at: datetime
    #: when the last batch was collected; None while rows are pending
    settled_at: datetime | None
    deadline: datetime | None
    #: days for which staging keeps the job after its last event, if the job sets them
    retention_days: float | None
    #: number of rows, and of these: rows that are sent, rows whose request equals that of another row, and rows whose
    #: answer came from the table `reuse_from`
    requests: int
    sent: int
    duplicates: int
    reused: int
    reuse_from: str
    #: number of rows that cannot be sent, because a file that they name is missing or cannot be used
    invalid: int = 0
    #: number of input files of the seal; rows that are retried are sealed into more
    sealed_shards: int
    #: number of batches that exist or existed; number of batches that are not recorded as ended, including those of
    #: earlier generations whose rows were all resubmitted
    batches: int
    live: int
    #: number of rows by outcome, best outcome first: of all rows once they have landed, before that of the rows that
    #: are sent
    outcomes: dict[str, int]
    #: number of the rows that are sent by outcome, regardless of any landing
    progress: dict[str, int]
    #: number of pending rows that have failed at least once, and are retried now or soon
    retrying: int = 0
    #: as measured by the canary, or as sealed if there is no verdict
    estimate: Estimate
    #: the same by all answers collected so far; None before the first batch has settled and after the landing
    running_estimate: Estimate | None
    #: US dollars; None before the rows have landed, and if the price or the usage of an answer is unknown
    cost_usd: str | None
    #: number of requests that were answered in more than one batch of the same attempt
    paid_twice: int
    #: number of requests that a worker was sending synchronously when it died; `cost_usd` does not include them
    lost_requests: int = 0
    #: ids of the batches that are held for a person, because their result files could not be collected
    held_batches: list[str]
    #: the newest landing
    landed: Landed | None
    shards: list[ShardSummary]
    retry_rounds: list[RetryRoundSummary]
    final_pass: FinalPassSummary | None

    @property
    def receipt(self) -> str:
        """What was paid and saved, and whether the deadline was met, in full sentences; empty before the rows land."""
        return receipt(self.landed) if self.landed else ""

    @property
    def sources(self) -> str:
        """Where the rows get their answers, such as "620 sent, 300 duplicates, 80 reused from labels"."""
        return sources_of(self.sent, self.duplicates, self.reused, self.reuse_from, self.invalid)


class WaitResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value that the sensor returns."""

    job_uid: str
    batches: int
    #: number of retry rounds
    retry_rounds: int
    paid_twice: int
    outcomes: dict[str, int]
    final_pass: FinalPassSummary | None = None
    #: ids of the batches that are held for a person, because their result files could not be collected
    held_batches: list[str] = []


class LandingResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value that the results operator returns. `BatchResultsOperator` describes the fields."""

    job_uid: str
    table: str | None
    requests: int
    sent: int
    duplicates: int
    reused: int
    outcomes: dict[str, int]
    tokens: dict[str, int]
    estimate: Estimate
    #: cost and estimate as text for people
    cost: str
    cost_usd: str | None
    standard_cost_usd: str | None
    retried: int
    retried_cost_usd: str | None
    paid_twice: int
    reasons: list[Reason]
    #: number of answers that used tokens, by lane
    lanes: dict[str, int]
    #: the list price, what was paid and saved, and whether the deadline was met, in full sentences
    receipt: str
    results_file: str | None = None
    without_usage: int = 0
    #: number of rows that were not sent, because a file that they name is missing or cannot be used
    invalid: int = 0


def summarize(ledger: Ledger, state: JobState | None = None) -> JobSummary:
    """Return the summary of one generation of a job.

    :param state: its state; read from staging by default.
    :raises LedgerError: if a record of it cannot be read.
    """
    state, manifest = state or ledger.state(), ledger.manifest
    status = status_of(state)
    submissions = [submission for shard in state.shards.values() for submission in shard.submissions]
    times = [time for submission in submissions for time in _times(submission)]
    settled = [record.time for _, _, record in state.settled_submissions()]
    progress, landed = outcomes_so_far(state), state.landed
    outcomes = landed.outcomes if landed else progress
    return JobSummary(
        dag_id=manifest.key.dag_id,
        task_id=manifest.key.task_id,
        run_id=manifest.key.run_id,
        map_index=manifest.key.map_index,
        job_uid=manifest.job_uid,
        generation=manifest.generation,
        folder=ledger.folder.uri,
        phase=status.phase,
        state=status.text,
        next=status.advice,
        endpoint=manifest.endpoint,
        connection=manifest.openai_conn_id,
        sealed_at=manifest.sealed_at,
        last_at=max([manifest.sealed_at, *times, *([landed.time] if landed else [])]),
        settled_at=max(settled) if settled and "pending" not in outcomes else None,
        deadline=state.deadline,
        retention_days=manifest.retention_days,
        requests=manifest.requests,
        sent=manifest.sent,
        duplicates=manifest.duplicates,
        reused=manifest.reused,
        invalid=manifest.invalid,
        reuse_from=manifest.reuse_from,
        sealed_shards=len(manifest.shards),
        batches=sum(1 for submission in submissions if submission.batch_id),
        live=len(state.live_submissions()) + _live_batches_of_earlier_lineages(ledger),
        outcomes=outcomes,
        progress=progress,
        retrying=rows_being_retried(state),
        estimate=state.estimate,
        running_estimate=None if landed else running_estimate(state),
        cost_usd=landed.cost_usd if landed else None,
        paid_twice=state.paid_twice,
        lost_requests=state.lost_requests,
        held_batches=[failure.batch_id for _, failure in held_batches(state)],
        landed=landed,
        shards=[_shard(ledger, shard) for shard in state.shards.values()],
        retry_rounds=[
            RetryRoundSummary(
                number=retry_round.number,
                time=retry_round.time,
                requests=sum(shard.requests for shard in retry_round.shards),
                shards=[shard.name for shard in retry_round.shards],
            )
            for retry_round in state.retry_rounds
        ],
        final_pass=_final_pass(state),
    )


def reference_of(summary: JobSummary, state: JobState) -> Reference:
    """Return the value that submit returns for a job that it sent, or of which it sent the canary."""
    canary = [shard for shard in state.canary_shards if shard.phase is Phase.SETTLED]
    settled = [record for shard in canary if (record := shard.submissions[-1].settled) is not None]
    costs = [record.cost_usd for record in settled]
    outcomes = Counter[str]()
    for record in settled:
        outcomes.update(record.outcomes)
    known_costs = [Decimal(cost) for cost in costs if cost is not None]
    canary_cost = float(sum(known_costs)) if len(known_costs) == len(costs) else None
    return Reference(
        job_uid=summary.job_uid,
        ledger=summary.folder,
        openai_conn_id=summary.connection,
        requests=summary.requests,
        shards=summary.sealed_shards,
        estimate=summary.estimate,
        canary_requests=sum(shard.requests for shard in canary),
        canary_cost_usd=canary_cost,
        canary_cost=format_usd(canary_cost),
        canary_outcomes=dict(outcomes),
        sent=summary.sent,
        duplicates=summary.duplicates,
        reused=summary.reused,
        invalid=summary.invalid,
        models=state.manifest.models,
    )


def preview_reference(manifest: Manifest) -> Reference:
    """Return the value that submit returns for a job that was rendered, checked and priced, but not sealed."""
    return Reference(
        job_uid="",
        ledger="",
        openai_conn_id=manifest.openai_conn_id,
        requests=manifest.requests,
        shards=len(manifest.shards),
        estimate=manifest.estimate,
        preview=True,
        sent=manifest.sent,
        duplicates=manifest.duplicates,
        reused=manifest.reused,
        invalid=manifest.invalid,
        models=manifest.models,
    )


def wait_result(summary: JobSummary) -> WaitResult:
    """Return the value that the sensor returns for a job whose wait is over."""
    return WaitResult(
        job_uid=summary.job_uid,
        batches=summary.batches,
        retry_rounds=len(summary.retry_rounds),
        paid_twice=summary.paid_twice,
        outcomes=summary.progress,
        final_pass=summary.final_pass,
        held_batches=summary.held_batches,
    )


def landing_result(summary: JobSummary, landed: Landed) -> LandingResult:
    """Return the value that the results operator returns for a landing of the job."""
    estimate = format_usd_range(summary.estimate.low_usd, summary.estimate.high_usd)
    return LandingResult(
        job_uid=summary.job_uid,
        table=landed.table,
        requests=summary.requests,
        sent=summary.sent,
        duplicates=summary.duplicates,
        reused=summary.reused,
        invalid=summary.invalid,
        outcomes=landed.outcomes,
        tokens=landed.tokens,
        estimate=summary.estimate,
        cost=f"{format_usd(landed.cost_usd)} (estimate: {estimate})",
        cost_usd=landed.cost_usd,
        standard_cost_usd=landed.standard_cost_usd,
        retried=landed.retried,
        retried_cost_usd=landed.retried_cost_usd,
        paid_twice=summary.paid_twice,
        reasons=landed.reasons,
        lanes=landed.lanes,
        receipt=receipt(landed),
        results_file=landed.file,
        without_usage=landed.without_usage,
    )


def _final_pass(state: JobState) -> FinalPassSummary | None:
    """Return what the newest final pass sent and left out, or None if there was none."""
    retry_round = next((retry_round for retry_round in reversed(state.retry_rounds) if retry_round.is_final_pass), None)
    if retry_round is None:
        return None
    shards = [state.shards[shard.name] for shard in retry_round.shards if shard.synchronous]
    sent = sum(shard.requests for shard in shards if shard.phase is Phase.SETTLED)
    unsent = sum(shard.requests for shard in shards) - sent
    return FinalPassSummary(sent, {**retry_round.left_out, **({"unsent": unsent} if unsent else {})})


def _live_batches_of_earlier_lineages(ledger: Ledger) -> int:
    """Return the number of live batches that nobody cancelled although all their rows were resubmitted."""
    return sum(
        submission.cancel is None
        for earlier in earlier_lineages(ledger.folder, ledger.manifest)
        for _, submission in earlier.state().live_submissions()
    )


def _times(submission: Submission) -> list[datetime]:
    records = (
        submission.intent,
        submission.refusal,
        submission.cancel,
        *submission.collection_failures,
        submission.settled,
    )
    times = [record.time for record in records if record is not None]
    return [*times, submission.created_at] if submission.created_at else times


def _shard(ledger: Ledger, state: ShardState) -> ShardSummary:
    shard = state.spec
    return ShardSummary(
        name=shard.name,
        model=shard.model,
        requests=shard.requests,
        attempt=shard.attempt,
        phase=state.phase.value,
        file=f"{ledger.folder.uri}/{shard.file}",
        submissions=[_submission(submission) for submission in state.submissions],
    )


def _submission(submission: Submission) -> SubmissionSummary:
    rejection, settled = submission.rejection, submission.settled
    if settled:
        status = settled.status
    elif rejection:
        status = "refused"
    elif submission.collection_failures:
        status = "not collected"
    elif submission.batch_id:
        status = "cancelling" if submission.cancel else "live"
    elif submission.intent:
        status = "creating"
    else:
        status = "uploaded"
    message = (rejection.message if rejection else "") or (settled.message if settled else "")
    if submission.collection_failures and not settled:
        message = submission.collection_failures[-1].message
    return SubmissionSummary(
        number=submission.number,
        status=status,
        settled=settled is not None,
        batch_id=submission.batch_id or None,
        time=max(_times(submission), default=None),
        message=message or None,
        outcomes=settled.outcomes if settled else {},
    )
