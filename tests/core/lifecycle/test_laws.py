"""The laws of the lifecycle, checked on random histories against a model of everything around it.

The model consists of:

* two workers. Each plans with `next_steps` and does its plan step by step, on records that are created exclusively.
  Either one may be killed between any two steps, or continue with an outdated plan;
* the provider, which validates, runs batches, refuses them for a full queue or a lack of credit, loses responses, shows
  lists that are out of date, and ends batches in any way;
* a person, who clears tasks and raises the ceiling;
* the clock.

Their actions happen in any order. Then one worker completes the job, and the laws must hold: every row lands in exactly
one place; no row is sent more often than allowed, paid for twice, or sent beyond the ceiling; every batch belongs to a
record; and the job ends. Only a list that is out of date can lead to a duplicate batch, which is then found and
counted.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate, RowIndex, Shard
from airflow_provider_batch.core.ledger.records import (
    Budget,
    CanaryVerdict,
    CancelRequested,
    CollectionFailed,
    Created,
    Deadline,
    DuplicateBatch,
    Failure,
    Finished,
    Intent,
    JobCancelled,
    Landed,
    Record,
    Refused,
    ResubmitRequested,
    RetryRound,
    Settled,
    Submitted,
    TaskStarted,
    Uploaded,
    UploadRefused,
)
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.attempts import forgiven_attempts_before, is_retryable, next_attempt
from airflow_provider_batch.core.lifecycle.collection import held_batches
from airflow_provider_batch.core.lifecycle.deadline import deadline_to_record
from airflow_provider_batch.core.lifecycle.duplicate_batches import find_stray_batches
from airflow_provider_batch.core.lifecycle.failures import classify_batch_failure
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.phases import TRANSITIONS
from airflow_provider_batch.core.lifecycle.steps import (
    CANCEL_GRACE,
    Cancel,
    Collect,
    Create,
    Finish,
    GiveUp,
    Hold,
    JudgeCanary,
    LookUp,
    Pause,
    Policy,
    Reseal,
    Retry,
    SendSynchronously,
    Step,
    Upload,
    Void,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchProblem, BatchView, Status
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.building import CHAT, NOW, manifest_of, plain_shard

ROWS = 3
DIAGRAM = {(transition.before, transition.record, transition.after) for transition in TRANSITIONS}
#: problems that the provider may report for a batch that failed validation
PROBLEMS = [
    [BatchProblem("token_limit_exceeded", "full")],
    [BatchProblem("token_limit_exceeded", "Limit: 2 enqueued tokens")],
    [BatchProblem("insufficient_quota", "pay")],
    [BatchProblem("invalid_request", "Cannot find file file-x")],
    [BatchProblem("invalid_url", "no", 1)],
    [BatchProblem("invalid_url", "no", 2), BatchProblem("invalid_url", "no", 3)],
    [BatchProblem("invalid_url", "no such line", 99)],
    [BatchProblem("never_seen_before", "hm")],
]
#: how the provider ends every batch in the end: with answers, or with the same problem forever
IN_THE_END: list[list[BatchProblem]] = [[], [], PROBLEMS[4], PROBLEMS[6], PROBLEMS[7]]
#: a row has one token and costs $1
PRICES = {"gpt-5-mini": {"input": 1_000_000, "output": 0}}
#: outcomes that are paid for
PAID = frozenset({Outcome.SUCCEEDED, Outcome.INCOMPLETE, Outcome.INVALID_OUTPUT})
#: possible answers to a row of a batch that ran
ANSWERS = [
    Answer(Outcome.SUCCEEDED),
    Answer(Outcome.INCOMPLETE),
    Answer(Outcome.INVALID_OUTPUT),
    Answer(Outcome.FAILED, transient=True),
    Answer(Outcome.FAILED, transient=False),
    Answer(Outcome.EXPIRED),
    Answer(Outcome.CANCELLED),
    Answer(Outcome.MISSING),
]


class Batch:
    """A batch of the provider."""

    def __init__(self, number: int, shard: str, nonce: str, rows: list[str], job_uid: str) -> None:
        self.job_uid = job_uid
        self.id, self.shard, self.nonce, self.rows = f"batch-{number}", shard, nonce, rows
        self.raw_status = "in_progress"
        self.problems: list[BatchProblem] = []
        self.answers: list[Answer] = []

    @property
    def cost(self) -> int:
        """Cost in US dollars; the maximum while it runs."""
        if self.raw_status in ("in_progress", "cancelling"):
            return len(self.rows)
        return sum(answer.outcome in PAID for answer in self.answers) if self.ran else 0

    @property
    def ran(self) -> bool:
        """Whether its answers are paid for, or may be."""
        return self.raw_status != "failed"

    def view(self) -> BatchView:
        status = {"in_progress": Status.RUNNING, "cancelling": Status.CANCELLING}.get(self.raw_status)
        return BatchView(
            self.id,
            status or Status(self.raw_status),
            self.raw_status,
            problems=self.problems,
            completed=self.cost if self.raw_status not in ("in_progress", "cancelling") else 0,
            metadata={"job_uid": self.job_uid, "nonce": self.nonce, "shard": self.shard},
        )


class Lifecycle(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.records: dict[tuple[Any, ...], Record] = {}
        self.batches: list[Batch] = []
        self.plans: dict[int, list[Step]] = {0: [], 1: []}
        self.uploads = 0
        #: answers of each settled canary
        self.canary_answers: dict[str, list[Answer]] = {}
        #: number of clears of the wait, and of those that gave a fresh allowance of attempts
        self.deadline_epochs = 0
        #: whether a batch was considered lost because a list was out of date; its requests may then be paid for twice
        self.was_list_outdated = False
        self.allowances = 0

    @initialize(
        shards=st.integers(0, 3),
        canaries=st.integers(0, 2),
        void=st.sampled_from(["", "", "refused"]),
        attempts=st.integers(1, 3),
        minutes=st.sampled_from([None, 1, 2, 10, 60, 300]),
        ceiling=st.sampled_from([None, None, 0.5, 2, 3, 4, 7, 30]),
        final_problems=st.sampled_from(IN_THE_END),
        last_creations=st.sampled_from(["goes well", "unsure"]),
    )
    def seal(
        self,
        shards: int,
        canaries: int,
        void: str,
        attempts: int,
        minutes: int | None,
        ceiling: float | None,
        final_problems: list[BatchProblem],
        last_creations: str,
    ) -> None:
        first = [
            plain_shard(f"c{n:04d}", requests=ROWS, tokens=ROWS, lane=Lane.STANDARD) for n in range(1, canaries + 1)
        ]
        others = [plain_shard(f"s{n:04d}", requests=ROWS, tokens=ROWS) for n in range(1, shards + 1)]
        self.manifest, self.void = manifest_of(first + others, max_cost_usd=ceiling, prices=PRICES), void
        self.rows = {shard.name: [f"{shard.name}/{n}" for n in range(ROWS)] for shard in self.manifest.shards}
        self.policy = Policy(max_attempts=attempts, restarted_at=self.now)
        self.final_problems, self.last_creations = final_problems, last_creations
        if minutes is not None:
            self.add(Deadline(NOW + timedelta(minutes=minutes), NOW))

    def add(self, record: Record) -> bool:
        """Create a record exclusively, as a ledger does."""
        match record:
            case RetryRound():
                key: tuple[Any, ...] = (RetryRound, record.number)
            case CanaryVerdict():
                key = (type(record),)
            case Deadline():
                key = (Deadline, record.clear_epoch)
            case DuplicateBatch():
                key = (DuplicateBatch, record.batch_id, record.ended)
            case Budget() | Finished() | UploadRefused():
                key = (type(record), record.number)
            case CollectionFailed():
                key = (CollectionFailed, record.shard, record.number, record.failures)
            case ResubmitRequested() | TaskStarted() | Landed() | JobCancelled() | Submitted():
                raise AssertionError(f"{record} belongs to an operator, not to a worker")
            case _:
                key = (type(record), record.shard, record.number)
        if key in self.records:
            return False
        phases_before = self.phases()
        self.records[key] = record
        self.phases_change_only_as_the_diagram_shows(phases_before, record)
        return True

    def phases(self) -> dict[str, Phase]:
        return {name: shard.phase for name, shard in self.state().shards.items()}

    def phases_change_only_as_the_diagram_shows(self, phases_before: dict[str, Phase], record: Record) -> None:
        for name, phase in self.phases().items():
            if phases_before.get(name, phase) is not phase:
                assert (phases_before[name], type(record), phase) in DIAGRAM

    def state(self) -> JobState:
        return fold(self.manifest, self.records.values())

    def is_past_deadline(self, state: JobState) -> bool:
        return state.deadline is not None and self.now >= state.deadline

    # The workers

    def plan(self, reads_list: bool = True) -> tuple[list[Step], Pause]:
        """Return the result of `next_steps`, and check what must always hold for it."""
        state = self.state()
        batch_views = {batch.id: batch.view() for batch in self.batches} if reads_list else {}
        steps, pause = next_steps(state, batch_views, self.policy, self.now)
        for step in steps:
            match step:
                case Create(shard=shard):
                    last = shard.latest
                    assert last is None or last.intent is None or last.rejection
                    assert shard.phase in (Phase.SEALED, Phase.UPLOADED)
                case LookUp(submission=submission):
                    assert not submission.batch_id
                case Cancel():
                    assert self.is_past_deadline(state)
            if isinstance(step, (Create, Upload, Retry, SendSynchronously, JudgeCanary)):
                assert not self.is_past_deadline(state)
            if isinstance(step, (Create, Upload, Retry)):
                assert all(shard.phase is Phase.SETTLED for shard in state.canary_shards)
                assert not state.canary_shards or (state.canary_verdict is not None and not state.canary_verdict.void)
            if isinstance(step, JudgeCanary):
                assert state.canary_verdict is None
        if not steps and state.canary_verdict is not None and state.canary_verdict.void:
            assert pause == Void(self.void, False)
        if isinstance(pause, Wait) and pause.until is not None and not steps:
            assert pause.until > self.now
        if isinstance(pause, Wait) and not steps:
            assert pause.until is not None or pause.batch_ids
        return steps, pause

    @rule(worker=st.integers(0, 1), reads_list=st.booleans())
    def a_worker_plans(self, worker: int, reads_list: bool) -> None:
        self.plans[worker], pause = self.plan(reads_list)
        if isinstance(pause, Finish) and not self.plans[worker]:
            finished = self.state().finished
            self.add(Finished(finished.number + 1 if finished else 1, self.now, list(pause.withheld)))

    @precondition(lambda self: any(self.plans.values()))
    @rule(data=st.data())
    def a_worker_does_its_next_step(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker, plan in self.plans.items() if plan]))
        self.do(
            self.plans[worker].pop(0), data.draw(st.sampled_from(["goes well", *Failure, "unsure", "late", "killed"]))
        )

    @precondition(lambda self: any(self.plans.values()))
    @rule(worker=st.integers(0, 1))
    def a_worker_is_killed(self, worker: int) -> None:
        self.plans[worker] = []

    @rule()
    def a_person_clears_the_task(self) -> None:
        self.policy = msgspec.structs.replace(self.policy, restarted_at=self.now)

    @rule(minutes=st.sampled_from([1, 10, 300]))
    def a_person_clears_the_wait(self, minutes: int) -> None:
        """Airflow increments max_tries, and the task starts."""
        self.deadline_epochs += 1
        self.the_wait_starts(minutes)

    @rule(minutes=st.sampled_from([1, 10, 300]))
    def the_wait_is_retried(self, minutes: int) -> None:
        """After a crash, nothing may change, regardless of what was recorded in the meantime."""
        is_recorded = self.deadline_epochs in self.state().deadline_epochs
        assert (
            not is_recorded
            or deadline_to_record(self.state(), self.deadline_epochs, self.now + timedelta(minutes=minutes), self.now)
            is None
        )

    def the_wait_starts(self, minutes: int) -> None:
        state_before = self.state()
        deadline = deadline_to_record(
            state_before, self.deadline_epochs, self.now + timedelta(minutes=minutes), self.now
        )
        assert deadline is not None
        self.add(deadline)
        self.allowances += deadline.resets_attempts
        is_running = (
            state_before.deadline is not None and self.now < state_before.deadline and state_before.finished is None
        )
        assert not is_running or self.state().deadline == state_before.deadline

    @rule(more=st.sampled_from([1, 3, 10]))
    def a_person_raises_the_ceiling(self, more: int) -> None:
        state = self.state()
        if state.ceiling is not None:
            self.add(Budget(state.budget.number + 1 if state.budget else 1, state.ceiling + more, self.now))

    @rule(minutes=st.sampled_from([0.5, 1, 3, 6, 20, 90]))
    def time_passes(self, minutes: float) -> None:
        """A step takes at most 60 s, as long as the paid call. Older plans are dropped."""
        self.now += timedelta(minutes=minutes)
        if minutes > 1:
            self.plans = {0: [], 1: []}

    def do(self, step: Step, fate: str) -> None:
        match step:
            case SendSynchronously():
                self.send_synchronously(step, fate)
            case JudgeCanary():
                self.add(CanaryVerdict(Estimate(), self.now, self.void))
            case Upload() if fate == Failure.CAPACITY:
                number = len(self.state().upload_refusals) + 1
                self.add(UploadRefused(number, "HTTP 429", self.now))
            case Upload():
                self.uploads += 1
                self.add(Uploaded(step.shard.name, step.number, f"file-{self.uploads}", self.now))
            case Create():
                self.create(step, fate)
            case LookUp():
                self.look_up(step, late=fate == "late")
            case Collect() if fate == "unsure":
                number = step.submission.number
                failures = len(step.submission.collection_failures) + 1
                self.add(CollectionFailed(step.shard.name, number, failures, step.batch.id, "cut off", self.now))
            case Collect():
                self.collect(step)
            case Cancel():
                batch = self.batch(step.submission.batch_id)
                batch.raw_status = "cancelling" if batch.raw_status == "in_progress" else batch.raw_status
                self.add(CancelRequested(step.shard.name, step.submission.number, step.reason, self.now))
            case Retry():
                self.retry_rows(step)
            case Reseal():
                if self.claim(step.shard, step.number) and fate != "killed":
                    self.reseal(step)
            case GiveUp():
                if self.claim(step.shard, step.number) and fate != "killed":
                    name, rows = step.shard.name, step.shard.requests
                    settled = Settled(name, step.number, "", "given up", self.now, message=step.message)
                    lines, outcomes = dict.fromkeys(range(rows), step.message), {"failed": rows}
                    failed = {"failure": Failure.LINES, "line_errors": lines, "outcomes": outcomes}
                    self.add(msgspec.structs.replace(settled, **failed))

    def claim(self, shard: ShardState, n: int) -> bool:
        return self.add(Intent(shard.name, n, f"claim-{len(self.records)}", "", self.now))

    def reseal(self, step: Reseal) -> None:
        name, number = step.shard.name, len(self.state().retry_rounds) + 1
        rows, shards = self.rows[name], list[Shard]()
        size = step.first_part or min(step.requests, step.tokens)
        assert 0 < size < len(rows)
        starts = [0, size] if step.first_part else range(0, len(rows), size)
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            part, part_name = rows[start:end], f"r{number:02d}-{len(shards) + 1:04d}"
            self.rows[part_name] = part
            attempt = step.shard.spec.attempt
            shards.append(plain_shard(part_name, requests=len(part), tokens=len(part), attempt=attempt))
        self.add(
            RetryRound(
                number, [(name, step.number)], shards, self.now, forgiven_attempts_before(self.state(), step.shard)
            )
        )

    def send_synchronously(self, step: SendSynchronously, fate: str) -> None:
        """Record good answers, transient failures or a refusal of the account, or nothing if the worker is killed."""
        name = step.shard.name
        if fate == Failure.ACCOUNT:
            self.add(Refused(name, step.number, Failure.ACCOUNT, "pay", self.now))
        elif fate != "killed":
            is_transient = fate in (Failure.CAPACITY, "unsure")
            answers = [ANSWERS[3] if is_transient else ANSWERS[0]] * ROWS
            counts = Counter(answer.outcome.value for answer in answers)
            settled = Settled(name, step.number, "", "answered", self.now, outcomes=dict(counts))
            if self.add(msgspec.structs.replace(settled, transient=ROWS if is_transient else 0)):
                self.canary_answers[name] = answers

    def create(self, step: Create, fate: str) -> None:
        name, nonce = step.shard.name, f"nonce-{len(self.records)}"
        if not self.add(Intent(name, step.number, nonce, step.file_id, self.now)) or fate == "killed":
            return
        if fate in (Failure.CAPACITY, Failure.ACCOUNT, Failure.FILE):
            self.add(Refused(name, step.number, Failure(fate), f"{fate} said no", self.now))
            return
        batch = Batch(len(self.batches), name, nonce, self.rows[name], self.manifest.job_uid)
        self.batches.append(batch)
        if fate != "unsure":
            self.add(Created(name, step.number, batch.id, self.now))

    def look_up(self, step: LookUp, *, late: bool) -> None:
        """Look the batch up in a list, which does not show it yet if it is out of date."""
        intent = cast(Intent, step.submission.intent)
        matches = [batch for batch in self.batches if batch.nonce == intent.nonce]
        assert len(matches) <= 1
        if matches and late:
            self.was_list_outdated = True
        if matches and not late:
            self.add(Created(intent.shard, intent.number, matches[0].id, self.now))
        else:
            self.add(Refused(intent.shard, intent.number, Failure.LOST, "lost", self.now))

    def collect(self, step: Collect) -> None:
        batch, shard, n = self.batch(step.batch.id), step.shard.spec, step.submission.number
        settled = Settled(shard.name, n, batch.id, batch.raw_status, self.now)
        if batch.raw_status == "failed":
            failure, message, lines = classify_batch_failure(batch.view(), step.shard)
            settled = msgspec.structs.replace(settled, failure=failure, message=message, line_errors=lines)
        if settled.failure in (None, Failure.LINES):
            answers = self.answers(shard, settled)
            counts = Counter(answer.outcome.value for answer in answers)
            transient = sum(answer.transient for answer in answers)
            settled = msgspec.structs.replace(
                settled, outcomes=dict(counts), transient=transient, cost_usd=str(batch.cost), answers=batch.cost
            )
        self.add(settled)

    def answers(self, shard: Shard, settled: Settled) -> list[Answer]:
        if shard.synchronous:
            return self.canary_answers[shard.name]
        if settled.failure is None:
            return self.batch(settled.batch_id).answers
        rows = [RowIndex(name, "0") for name in self.rows[shard.name]]
        by_line = dict(read_answers(cast(Any, None), shard, settled, rows, CHAT, None))
        return [by_line[line] for line in range(len(rows))]

    def retry_rows(self, step: Retry) -> None:
        """Seal a retry round with the rows merged by attempt, unless another worker was faster."""
        state = self.state()
        sources = [
            (shard, settled)
            for shard, settled in step.sources
            if (shard.name, settled.number) not in state.retried_submissions
        ]
        if not sources:
            return
        number = len(state.retry_rounds) + 1
        names_by_attempt: dict[int, list[str]] = {}
        for shard, settled in sources:
            names = self.rows[shard.name]
            for name, answer in zip(names, self.answers(shard.spec, settled), strict=True):
                if is_retryable(answer, settled, self.policy):
                    names_by_attempt.setdefault(next_attempt(shard, settled), []).append(name)
        shards: list[Shard] = []
        for attempt, names in names_by_attempt.items():
            shard_name = f"r{number:02d}-{len(shards) + 1:04d}"
            self.rows[shard_name] = names
            shards.append(plain_shard(shard_name, requests=len(names), tokens=len(names), attempt=attempt))
        assert shards
        self.add(
            RetryRound(
                number,
                [(shard.name, settled.number) for shard, settled in sources],
                shards,
                self.now,
                step.forgiven_attempts,
            )
        )

    def batch(self, batch_id: str) -> Batch:
        return next(batch for batch in self.batches if batch.id == batch_id)

    # The provider

    @precondition(lambda self: any(not batch.view().status.ended for batch in self.batches))
    @rule(data=st.data())
    def a_batch_ends(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from([batch for batch in self.batches if not batch.view().status.ended]))
        raw_status = data.draw(st.sampled_from(["completed", "expired", "cancelled", "failed"]))
        if raw_status == "failed":
            batch.problems = data.draw(st.sampled_from(PROBLEMS))
        else:
            count = len(batch.rows)
            batch.answers = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=count, max_size=count))
        batch.raw_status = raw_status

    # What always holds

    @invariant()
    def no_shard_is_paid_for_twice(self) -> None:
        paid = Counter(batch.shard for batch in self.batches if batch.ran)
        if self.was_list_outdated:
            return
        assert not paid or max(paid.values()) == 1

    @invariant()
    def no_more_is_spent_than_the_ceiling(self) -> None:
        ceiling = self.state().ceiling if self.batches and not self.was_list_outdated else None
        assert ceiling is None or sum(batch.cost for batch in self.batches) <= ceiling

    @invariant()
    def no_row_is_sent_more_often_than_allowed_or_twice_at_the_same_time(self) -> None:
        if self.was_list_outdated:
            return
        sent = Counter(row for batch in self.batches if batch.ran for row in batch.rows)
        sent.update(row for canary in self.canary_answers for row in self.rows[canary])
        assert not sent or max(sent.values()) <= self.policy.max_attempts * (1 + self.allowances)
        running_rows = Counter(row for batch in self.batches if not batch.view().status.ended for row in batch.rows)
        assert not running_rows or max(running_rows.values()) == 1

    @invariant()
    def no_shard_is_submitted_again_twice_for_an_unknown_reason(self) -> None:
        failures = Counter(
            record.shard for record in self.records if isinstance(record, Settled) and record.failure is Failure.UNKNOWN
        )
        assert not failures or max(failures.values()) == 1

    # How it ends

    def teardown(self) -> None:
        """Let one worker complete the job, and check that nothing is left behind."""
        if not hasattr(self, "manifest"):
            return
        for _ in range(400):
            steps, pause = self.plan()
            for step in steps:
                self.do(step, self.last_creations)
            if steps:
                continue
            match pause:
                case Void():
                    break
                case Finish():
                    if not self.adopt_and_cancel_stray_batches():
                        break
                case Hold():
                    self.policy = msgspec.structs.replace(self.policy, restarted_at=self.now + timedelta(seconds=1))
                    self.now += timedelta(seconds=1)
                case Wait(batch_ids=live, until=until):
                    self.now = min(until, self.now + timedelta(minutes=10)) if until and live else until or self.now
                    for batch in self.batches:
                        if not batch.view().status.ended:
                            batch.problems = self.final_problems
                            batch.answers = [Answer(Outcome.EXPIRED)] * len(batch.rows)
                            batch.raw_status = "failed" if self.final_problems else "expired"
        else:
            raise AssertionError("the job does not end")
        self.no_shard_is_paid_for_twice()
        self.no_row_is_sent_more_often_than_allowed_or_twice_at_the_same_time()
        self.no_more_is_spent_than_the_ceiling()
        state = self.state()
        withheld = set(pause.withheld) if isinstance(pause, Finish) else set()
        held = held_batches(state)
        if state.canary_verdict is not None and state.canary_verdict.void:
            assert self.uploads == 0
            assert not self.batches
        elif not self.is_past_deadline(state):
            unsettled = {
                shard.name for shard in state.shards.values() if shard.phase not in (Phase.SETTLED, Phase.RESEALED)
            }
            assert unsettled == withheld | {shard.name for shard, _ in held}
        paid = {batch.id for batch in self.batches if batch.ran}
        self.every_row_is_in_exactly_one_shard(state)
        self.every_batch_is_recorded(state)
        collected = {settled.batch_id for _, _, settled in state.settled_submissions()}
        unsure = {
            batch.id for batch in self.batches if self.is_past_deadline(state) and self.now >= self.end_of_grace(state)
        }
        assert paid <= collected | unsure | state.duplicate_batches.keys() | {failure.batch_id for _, failure in held}

    def adopt_and_cancel_stray_batches(self) -> bool:
        """Handle stray batches as a worker does at the end, with a current list. Return whether the job continues."""
        stray = find_stray_batches(self.state(), [batch.view() for batch in self.batches])
        for shard, submission, view in stray.to_adopt:
            self.add(Created(shard.name, submission.number, view.id, self.now))
        for view in [*stray.to_cancel, *stray.ended]:
            batch = self.batch(view.id)
            if not view.status.ended:
                batch.raw_status, batch.answers = "cancelled", [Answer(Outcome.CANCELLED)] * len(batch.rows)
            self.add(DuplicateBatch(view.id, batch.shard, batch.raw_status, True, batch.view().completed, self.now))
        return bool(stray.to_adopt)

    def every_batch_is_recorded(self, state: JobState) -> None:
        """Every batch belongs to a submission or is a duplicate that has ended, and double payments are counted."""
        recorded_ids = {submission.batch_id for shard in state.shards.values() for submission in shard.submissions}
        assert {batch.id for batch in self.batches} <= recorded_ids | state.duplicate_batches.keys()
        duplicate_batches = [batch for batch in self.batches if batch.id in state.duplicate_batches]
        assert not {batch.id for batch in duplicate_batches} & recorded_ids
        assert all(batch.view().status.ended for batch in duplicate_batches)
        assert state.paid_twice == sum(batch.cost for batch in duplicate_batches)
        assert self.was_list_outdated or not duplicate_batches

    def every_row_is_in_exactly_one_shard(self, state: JobState) -> None:
        """From seal to seal, no row is lost, and none continues in two shards."""
        shards_by_row = Counter(
            row
            for shard in state.shards.values()
            if not shard.is_resealed and shard.spec.attempt == 1
            for row in self.rows[shard.name]
        )
        retried = {
            row
            for shard, _, settled in state.settled_submissions()
            if settled.failure is Failure.LINES and (shard.name, settled.number) in state.retried_submissions
            for row in self.rows[shard.name]
        }
        assert set(shards_by_row) == {row for shard in self.manifest.shards for row in self.rows[shard.name]}
        assert all(count == 1 or row in retried for row, count in shards_by_row.items())

    def end_of_grace(self, state: JobState) -> datetime:
        assert state.deadline is not None
        return state.deadline + CANCEL_GRACE


Lifecycle.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLifecycle = Lifecycle.TestCase
