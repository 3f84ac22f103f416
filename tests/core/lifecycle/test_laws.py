"""Laws of the lifecycle, against a model of everything around it.

Two workers (each plans with `next_steps` and does its plan step by step, on a record that is created exclusively;
either may be killed between any two steps, or go on with an old plan), the provider (which validates, runs, refuses
for want of room or money, loses answers on the way, lists late, ends batches as it likes), a person (who clears tasks
and raises the ceiling) and the clock, in any order. Afterwards one worker brings the job to its end.

Every row has one place; none is asked more often than allowed, nor paid for twice, nor past the ceiling; no batch is
left without an owner; and it ends. Only a late list can make a batch twice: then it is found and told.
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
from tests.core.building import CHAT, NOW, manifest_of, plain_shard

ROWS = 3
DIAGRAM = {(transition.before, transition.record, transition.after) for transition in TRANSITIONS}
#: what the provider may say of a batch that failed validation
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
#: how the provider ends every batch in the end: with answers, or with the same problem for ever
IN_THE_END: list[list[BatchProblem]] = [[], [], PROBLEMS[4], PROBLEMS[6], PROBLEMS[7]]
#: a row has one token, and costs a dollar
PRICES = {"gpt-5-mini": {"input": 1_000_000, "output": 0}}
#: what is paid for
PAID = frozenset({Outcome.SUCCEEDED, Outcome.INCOMPLETE, Outcome.INVALID_OUTPUT})
#: what may become of a row of a batch that ran
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
    """A batch as the provider has it."""

    def __init__(self, number: int, shard: str, nonce: str, rows: list[str], job_uid: str) -> None:
        self.job_uid = job_uid
        self.id, self.shard, self.nonce, self.rows = f"batch-{number}", shard, nonce, rows
        self.said = "in_progress"
        self.problems: list[BatchProblem] = []
        self.answers: list[Answer] = []

    @property
    def cost(self) -> int:
        """Dollars; while it runs, the most that it may come to."""
        if self.said in ("in_progress", "cancelling"):
            return len(self.rows)
        return sum(answer.outcome in PAID for answer in self.answers) if self.ran else 0

    @property
    def ran(self) -> bool:
        """Whether it is, or may come to be, paid for."""
        return self.said != "failed"

    def view(self) -> BatchView:
        status = {"in_progress": Status.RUNNING, "cancelling": Status.CANCELLING}.get(self.said)
        return BatchView(
            self.id,
            status or Status(self.said),
            self.said,
            problems=self.problems,
            completed=self.cost if self.said not in ("in_progress", "cancelling") else 0,
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
        #: what came back for each canary that was settled
        self.answered: dict[str, list[Answer]] = {}
        #: how often a person cleared the wait, and how often that gave a fresh allowance of attempts
        self.deadline_epochs = 0
        #: set once a batch was taken for lost, as a list was late: then it may be paid for twice
        self.late_lists = False
        self.allowances = 0

    @initialize(
        shards=st.integers(0, 3),
        canaries=st.integers(0, 2),
        void=st.sampled_from(["", "", "refused"]),
        attempts=st.integers(1, 3),
        minutes=st.sampled_from([None, 1, 2, 10, 60, 300]),
        ceiling=st.sampled_from([None, None, 0.5, 2, 3, 4, 7, 30]),
        in_the_end=st.sampled_from(IN_THE_END),
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
        in_the_end: list[BatchProblem],
        last_creations: str,
    ) -> None:
        first = [plain_shard(f"c{n:04d}", requests=ROWS, tokens=ROWS, synchronous=True) for n in range(1, canaries + 1)]
        others = [plain_shard(f"s{n:04d}", requests=ROWS, tokens=ROWS) for n in range(1, shards + 1)]
        self.manifest, self.void = manifest_of(first + others, max_cost_usd=ceiling, prices=PRICES), void
        self.rows = {shard.name: [f"{shard.name}/{n}" for n in range(ROWS)] for shard in self.manifest.shards}
        self.policy = Policy(max_attempts=attempts, restarted_at=self.now)
        self.in_the_end, self.last_creations = in_the_end, last_creations
        if minutes is not None:
            self.add(Deadline(NOW + timedelta(minutes=minutes), NOW))

    def add(self, record: Record) -> bool:
        """As a ledger does it: created exclusively."""
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
            case ResubmitRequested() | TaskStarted() | Landed() | JobCancelled() | Submitted():
                raise AssertionError(f"{record} belongs to an operator, not to a worker")
            case _:
                key = (type(record), record.shard, record.number)
        if key in self.records:
            return False
        before = self.phases()
        self.records[key] = record
        self.no_phase_changes_but_as_the_diagram_says(before, record)
        return True

    def phases(self) -> dict[str, Phase]:
        return {name: shard.phase for name, shard in self.state().shards.items()}

    def no_phase_changes_but_as_the_diagram_says(self, before: dict[str, Phase], record: Record) -> None:
        for name, phase in self.phases().items():
            if before.get(name, phase) is not phase:
                assert (before[name], type(record), phase) in DIAGRAM

    def state(self) -> JobState:
        return fold(self.manifest, self.records.values())

    def over(self, state: JobState) -> bool:
        return state.deadline is not None and self.now >= state.deadline

    # The workers

    def plan(self, look: bool = True) -> tuple[list[Step], Pause]:
        """What `next_steps` says, and what must hold of it at any time."""
        state = self.state()
        seen = {batch.id: batch.view() for batch in self.batches} if look else {}
        steps, pause = next_steps(state, seen, self.policy, self.now)
        for step in steps:
            match step:
                case Create(shard=shard):
                    last = shard.latest
                    assert last is None or last.intent is None or last.rejection
                    assert shard.phase in (Phase.SEALED, Phase.UPLOADED)
                case LookUp(submission=submission):
                    assert not submission.batch_id
                case Cancel():
                    assert self.over(state)
            if isinstance(step, (Create, Upload, Retry, SendSynchronously, JudgeCanary)):
                assert not self.over(state)
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

    @rule(worker=st.integers(0, 1), look=st.booleans())
    def a_worker_plans(self, worker: int, look: bool) -> None:
        self.plans[worker], pause = self.plan(look)
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
        """Airflow's max_tries grows; then the task starts."""
        self.deadline_epochs += 1
        self.the_wait_starts(minutes)

    @rule(minutes=st.sampled_from([1, 10, 300]))
    def the_wait_is_retried(self, minutes: int) -> None:
        """After a crash: nothing may change, whatever was recorded meanwhile."""
        known = self.deadline_epochs in self.state().deadline_epochs
        assert (
            not known
            or deadline_to_record(self.state(), self.deadline_epochs, self.now + timedelta(minutes=minutes), self.now)
            is None
        )

    def the_wait_starts(self, minutes: int) -> None:
        before = self.state()
        deadline = deadline_to_record(before, self.deadline_epochs, self.now + timedelta(minutes=minutes), self.now)
        assert deadline is not None
        self.add(deadline)
        self.allowances += deadline.resets_attempts
        going_on = before.deadline is not None and self.now < before.deadline and before.finished is None
        assert not going_on or self.state().deadline == before.deadline

    @rule(more=st.sampled_from([1, 3, 10]))
    def a_person_raises_the_ceiling(self, more: int) -> None:
        state = self.state()
        if state.ceiling is not None:
            self.add(Budget(state.budget.number + 1 if state.budget else 1, state.ceiling + more, self.now))

    @rule(minutes=st.sampled_from([0.5, 1, 3, 6, 20, 90]))
    def time_passes(self, minutes: float) -> None:
        """A worker's step takes no longer than the paid call may: 60 s. So plans that are older are not done."""
        self.now += timedelta(minutes=minutes)
        if minutes > 1:
            self.plans = {0: [], 1: []}

    def do(self, step: Step, fate: str) -> None:
        match step:
            case SendSynchronously():
                self.ask(step, fate)
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
            case Collect():
                self.collect(step)
            case Cancel():
                batch = self.batch(step.submission.batch_id)
                batch.said = "cancelling" if batch.said == "in_progress" else batch.said
                self.add(CancelRequested(step.shard.name, step.submission.number, step.reason, self.now))
            case Retry():
                self.ask_again(step)
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
        size = min(step.requests, step.tokens)
        assert 0 < size < len(rows)
        for first in range(0, len(rows), size):
            part, new = rows[first : first + size], f"r{number:02d}-{len(shards) + 1:04d}"
            self.rows[new] = part
            attempt = step.shard.spec.attempt
            shards.append(plain_shard(new, requests=len(part), tokens=len(part), attempt=attempt))
        self.add(
            RetryRound(
                number, [(name, step.number)], shards, self.now, forgiven_attempts_before(self.state(), step.shard)
            )
        )

    def ask(self, step: SendSynchronously, fate: str) -> None:
        """The answers are good, or fail for a passing reason, or the account refuses; or nobody hears of them."""
        name = step.shard.name
        if fate == Failure.ACCOUNT:
            self.add(Refused(name, step.number, Failure.ACCOUNT, "pay", self.now))
        elif fate != "killed":
            passing = fate in (Failure.CAPACITY, "unsure")
            answers = [ANSWERS[3] if passing else ANSWERS[0]] * ROWS
            counts = Counter(answer.outcome.value for answer in answers)
            settled = Settled(name, step.number, "", "answered", self.now, outcomes=dict(counts))
            if self.add(msgspec.structs.replace(settled, transient=ROWS if passing else 0)):
                self.answered[name] = answers

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
        """In a list; which may be late, so that it does not show the batch yet."""
        intent = cast(Intent, step.submission.intent)
        found = [batch for batch in self.batches if batch.nonce == intent.nonce]
        assert len(found) <= 1
        if found and late:
            self.late_lists = True
        if found and not late:
            self.add(Created(intent.shard, intent.number, found[0].id, self.now))
        else:
            self.add(Refused(intent.shard, intent.number, Failure.LOST, "lost", self.now))

    def collect(self, step: Collect) -> None:
        batch, shard, n = self.batch(step.batch.id), step.shard.spec, step.submission.number
        settled = Settled(shard.name, n, batch.id, batch.said, self.now)
        if batch.said == "failed":
            failure, message, lines = classify_batch_failure(batch.view())
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
            return self.answered[shard.name]
        if settled.failure is None:
            return self.batch(settled.batch_id).answers
        rows = [RowIndex(name, "0") for name in self.rows[shard.name]]
        by_line = dict(read_answers(cast(Any, None), shard, settled, rows, CHAT, None))
        return [by_line[line] for line in range(len(rows))]

    def ask_again(self, step: Retry) -> None:
        """One wave: rows merged per attempt. A worker looks first whether another was faster."""
        state = self.state()
        sources = [(s, one) for s, one in step.sources if (s.name, one.number) not in state.retried_submissions]
        if not sources:
            return
        number = len(state.retry_rounds) + 1
        merged: dict[int, list[str]] = {}
        for shard, one in sources:
            names = self.rows[shard.name]
            for name, answer in zip(names, self.answers(shard.spec, one), strict=True):
                if is_retryable(answer, one, self.policy):
                    merged.setdefault(next_attempt(shard, one), []).append(name)
        shards: list[Shard] = []
        for attempt, names in merged.items():
            shard_name = f"r{number:02d}-{len(shards) + 1:04d}"
            self.rows[shard_name] = names
            shards.append(plain_shard(shard_name, requests=len(names), tokens=len(names), attempt=attempt))
        assert shards
        self.add(
            RetryRound(number, [(s.name, one.number) for s, one in sources], shards, self.now, step.forgiven_attempts)
        )

    def batch(self, batch_id: str) -> Batch:
        return next(batch for batch in self.batches if batch.id == batch_id)

    # The provider

    @precondition(lambda self: any(not batch.view().status.ended for batch in self.batches))
    @rule(data=st.data())
    def a_batch_ends(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from([batch for batch in self.batches if not batch.view().status.ended]))
        said = data.draw(st.sampled_from(["completed", "expired", "cancelled", "failed"]))
        if said == "failed":
            batch.problems = data.draw(st.sampled_from(PROBLEMS))
        else:
            count = len(batch.rows)
            batch.answers = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=count, max_size=count))
        batch.said = said

    # What always holds

    @invariant()
    def no_shard_is_paid_for_twice(self) -> None:
        paid = Counter(batch.shard for batch in self.batches if batch.ran)
        if self.late_lists:
            return
        assert not paid or max(paid.values()) == 1

    @invariant()
    def no_more_is_spent_than_the_ceiling(self) -> None:
        ceiling = self.state().ceiling if self.batches and not self.late_lists else None
        assert ceiling is None or sum(batch.cost for batch in self.batches) <= ceiling

    @invariant()
    def no_row_is_asked_more_often_than_the_author_said_nor_twice_at_once(self) -> None:
        if self.late_lists:
            return
        asked = Counter(row for batch in self.batches if batch.ran for row in batch.rows)
        asked.update(row for canary in self.answered for row in self.rows[canary])
        assert not asked or max(asked.values()) <= self.policy.max_attempts * (1 + self.allowances)
        open_ones = Counter(row for batch in self.batches if not batch.view().status.ended for row in batch.rows)
        assert not open_ones or max(open_ones.values()) == 1

    # How it ends

    def teardown(self) -> None:
        """One worker that nobody kills brings the job to its end, with nothing left behind."""
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
                    if not self.twins_are_found():
                        break
                case Hold():
                    self.policy = msgspec.structs.replace(self.policy, restarted_at=self.now + timedelta(seconds=1))
                    self.now += timedelta(seconds=1)
                case Wait(batch_ids=live, until=until):
                    self.now = min(until, self.now + timedelta(minutes=10)) if until and live else until or self.now
                    for batch in self.batches:
                        if not batch.view().status.ended:
                            batch.problems = self.in_the_end
                            batch.answers = [Answer(Outcome.EXPIRED)] * len(batch.rows)
                            batch.said = "failed" if self.in_the_end else "expired"
        else:
            raise AssertionError("the job does not come to its end")
        self.no_shard_is_paid_for_twice()
        self.no_row_is_asked_more_often_than_the_author_said_nor_twice_at_once()
        self.no_more_is_spent_than_the_ceiling()
        state = self.state()
        withheld = set(pause.withheld) if isinstance(pause, Finish) else set()
        if state.canary_verdict is not None and state.canary_verdict.void:
            assert self.uploads == 0
            assert not self.batches
        elif not self.over(state):
            left = {s.name for s in state.shards.values() if s.phase not in (Phase.SETTLED, Phase.RESEALED)}
            assert left == withheld
        paid = {batch.id for batch in self.batches if batch.ran}
        self.every_row_has_one_place(state)
        self.no_batch_is_without_an_owner(state)
        collected = {settled.batch_id for _, _, settled in state.settled_submissions()}
        unsure = {batch.id for batch in self.batches if self.over(state) and self.now >= self.end_of_grace(state)}
        assert paid <= collected | unsure | state.duplicate_batches.keys()

    def twins_are_found(self) -> bool:
        """As a worker does at the end, with a list that is not late any more; True if the job goes on."""
        found = find_stray_batches(self.state(), [batch.view() for batch in self.batches])
        for shard, submission, view in found.to_adopt:
            self.add(Created(shard.name, submission.number, view.id, self.now))
        for view in [*found.to_cancel, *found.ended]:
            batch = self.batch(view.id)
            if not view.status.ended:
                batch.said, batch.answers = "cancelled", [Answer(Outcome.CANCELLED)] * len(batch.rows)
            self.add(DuplicateBatch(view.id, batch.shard, batch.said, True, batch.view().completed, self.now))
        return bool(found.to_adopt)

    def no_batch_is_without_an_owner(self, state: JobState) -> None:
        """What ran is kept by a try, or known as a twin and not running any more; what was paid for twice is told."""
        kept = {submission.batch_id for shard in state.shards.values() for submission in shard.submissions}
        assert {batch.id for batch in self.batches} <= kept | state.duplicate_batches.keys()
        duplicate_batches = [batch for batch in self.batches if batch.id in state.duplicate_batches]
        assert not {batch.id for batch in duplicate_batches} & kept
        assert all(batch.view().status.ended for batch in duplicate_batches)
        assert state.paid_twice == sum(batch.cost for batch in duplicate_batches)
        assert self.late_lists or not duplicate_batches

    def every_row_has_one_place(self, state: JobState) -> None:
        """Followed from seal to seal, no row is lost on the way and none goes on in two shards."""
        places = Counter(
            row
            for shard in state.shards.values()
            if not shard.is_resealed and shard.spec.attempt == 1
            for row in self.rows[shard.name]
        )
        retried = {
            row
            for shard, _, one in state.settled_submissions()
            if one.failure is Failure.LINES and (shard.name, one.number) in state.retried_submissions
            for row in self.rows[shard.name]
        }
        assert set(places) == {row for shard in self.manifest.shards for row in self.rows[shard.name]}
        assert all(count == 1 or row in retried for row, count in places.items())

    def end_of_grace(self, state: JobState) -> datetime:
        assert state.deadline is not None
        return state.deadline + CANCEL_GRACE


Lifecycle.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLifecycle = Lifecycle.TestCase
