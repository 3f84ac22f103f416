"""The final pass: when it happens, which rows it sends, and what it never does in any history of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger, seal
from airflow_provider_batch.core.ledger.records import (
    CancelRequested,
    Created,
    Deadline,
    Failure,
    Intent,
    JobCancelled,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import (
    CANCEL_GRACE,
    CLAIM_LIFETIME,
    FINAL_PASS_WINDOW,
    LOOK_UP_AFTER,
    Cancel,
    Collect,
    FinalPass,
    Finish,
    LookUp,
    Policy,
    SendSynchronously,
    Step,
    Upload,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing.final_pass import Allowance, describe_left_out, seal_final_pass
from tests.core.building import (
    NOW,
    chat_line,
    manifest_of,
    never_ran_line,
    plain_shard,
    request,
    seal_all,
    settle,
    temporary_folder,
)

POLICY = Policy(at_deadline_rows=100)
SECOND = timedelta(seconds=1)
#: without a span before it, the cut-off is the deadline itself
PASSED_DEADLINE = Deadline(NOW, NOW)


# When it happens


def job(*records: Record, shards: tuple[str, ...] = ("s0001",)) -> JobState:
    """Return the state of a job whose deadline has passed."""
    return fold(manifest_of([plain_shard(name) for name in shards]), [PASSED_DEADLINE, *records])


def intent(shard: str = "s0001", time: datetime = NOW) -> Intent:
    return Intent(shard, 1, "nonce", "file", time)


def live_records(shard: str = "s0001") -> list[Record]:
    return [intent(shard), Created(shard, 1, f"batch-{shard}", NOW), CancelRequested(shard, 1, "deadline", NOW)]


def settled_records(shard: str = "s0001", **outcomes: Any) -> list[Record]:
    transient = outcomes.pop("transient", 0)
    return [
        *live_records(shard),
        Settled(shard, 1, f"batch-{shard}", "cancelled", NOW, outcomes=dict(outcomes), transient=transient),
    ]


def final_pass(*records: Record, time: datetime = NOW, source: str = "s0001") -> list[Record]:
    """Return the records of a final pass with two shards, followed by these records."""
    shards = [plain_shard(f"f01-000{number}", attempt=2, lane=Lane.STANDARD) for number in (1, 2)]
    retry_round = RetryRound(1, [(source, 1)], shards, time, is_final_pass=True)
    return [*settled_records(source, cancelled=6), retry_round, *records]


def answered_record(shard: str) -> Settled:
    return Settled(shard, 1, "", "answered", NOW, outcomes={"succeeded": 3})


def plan(state: JobState, *, now: datetime = NOW, policy: Policy = POLICY) -> tuple[list[Any], Any]:
    return next_steps(state, {}, policy, now)


def test_after_the_deadline_rows_without_an_answer_go_to_the_final_pass() -> None:
    ((step,), _) = plan(job(*settled_records(cancelled=2, succeeded=1), shards=("s0001", "s0002")))

    assert isinstance(step, FinalPass)
    assert [shard.name for shard, _ in step.settled_sources] == ["s0001"]
    assert [shard.name for shard in step.unsent_shards] == ["s0002"]


def test_there_is_no_final_pass_before_the_deadline_or_if_it_is_disabled() -> None:
    state = job(*settled_records(cancelled=3))

    assert not any(isinstance(step, FinalPass) for step in plan(state, now=NOW - SECOND)[0])
    assert plan(state, policy=Policy()) == ([], Finish())


@pytest.mark.parametrize("outcomes", [{"succeeded": 3}, {"refused": 3}, {"incomplete": 3}, {"failed": 3}])
def test_rows_with_a_final_answer_are_never_sent_in_the_final_pass(outcomes: dict[str, Any]) -> None:
    assert plan(job(*settled_records(**outcomes))) == ([], Finish())


@pytest.mark.parametrize("outcomes", [{"expired": 1}, {"cancelled": 1}])
def test_rows_that_never_ran_are_sent_in_the_final_pass_independently_of_retry_on(outcomes: dict[str, Any]) -> None:
    no_retries = msgspec.structs.replace(POLICY, retry_on=frozenset(), max_attempts=1)

    assert plan(job(*settled_records(**outcomes)), policy=no_retries)[0]
    assert not plan(job(*settled_records(failed=1, transient=1, missing=1)), policy=no_retries)[0]


@pytest.mark.parametrize("unsettled_records", [live_records(), [intent()]], ids=["cancelling", "unanswered create"])
def test_nothing_is_sent_while_a_batch_may_still_answer(unsettled_records: list[Record]) -> None:
    state = job(*unsettled_records, *settled_records("s0002", cancelled=3), shards=("s0001", "s0002"))

    steps, pause = plan(state)
    assert (steps, type(pause)) == ([], Wait)
    assert pause.until > NOW

    steps, _ = plan(state, now=NOW + CANCEL_GRACE)
    final_step = next((step for step in steps if isinstance(step, FinalPass)), None)
    if final_step is None:  # An unanswered create is looked up first.
        assert isinstance(steps[0], LookUp)
    else:
        assert [shard.name for shard, _ in final_step.settled_sources] == ["s0002"]
        assert (final_step.unsent_shards, final_step.unsettled_rows) == ([], 3)


def test_nothing_is_sent_if_the_canary_has_no_verdict() -> None:
    canary = plain_shard("c0001", lane=Lane.STANDARD)
    state = fold(manifest_of([canary, plain_shard("s0001")]), [PASSED_DEADLINE, answered_record("c0001")])

    assert plan(state) == ([], Finish())


def test_every_shard_of_the_final_pass_is_sent_once() -> None:
    steps, _ = plan(job(*final_pass()))
    assert [(step.shard.name, step.is_canary) for step in steps] == [("f01-0001", False), ("f01-0002", False)]

    steps, _ = plan(job(*final_pass(answered_record("f01-0001"))))
    assert [step.shard.name for step in steps] == ["f01-0002"]

    failed = msgspec.structs.replace(answered_record("f01-0002"), outcomes={"failed": 3}, transient=3)
    assert plan(job(*final_pass(answered_record("f01-0001"), failed))) == ([], Finish())


def test_the_claim_of_another_worker_is_waited_for_and_then_expires() -> None:
    state = job(*final_pass(answered_record("f01-0001"), intent("f01-0002")))

    assert plan(state) == ([], Wait([], NOW + CLAIM_LIFETIME, False))
    ((step,), _) = plan(state, now=NOW + CLAIM_LIFETIME)
    assert isinstance(step, LookUp)
    lost = Refused("f01-0002", 1, Failure.LOST, "lost", NOW)
    ((step,), _) = plan(
        job(*final_pass(answered_record("f01-0001"), intent("f01-0002"), lost)), now=NOW + CLAIM_LIFETIME
    )
    assert (type(step), step.number) == (SendSynchronously, 2)


def test_a_claim_is_waited_for_beyond_the_grace_period_but_not_beyond_the_final_pass() -> None:
    state = job(*final_pass(answered_record("f01-0001"), intent("f01-0002", NOW + FINAL_PASS_WINDOW - SECOND)))

    assert plan(state, now=NOW + CANCEL_GRACE + SECOND)[1] == Wait([], NOW + FINAL_PASS_WINDOW, False)
    assert plan(state, now=NOW + FINAL_PASS_WINDOW) == ([], Finish())


def test_an_account_error_ends_the_final_pass_until_the_task_restarts() -> None:
    refused = Refused("f01-0001", 1, Failure.ACCOUNT, "no credit", NOW)
    state = job(*final_pass(intent("f01-0001"), refused))

    assert plan(state, now=NOW + SECOND) == ([], Finish())
    restarted = msgspec.structs.replace(POLICY, restarted_at=NOW + SECOND)
    assert len(plan(state, now=NOW + SECOND, policy=restarted)[0]) == 2


def test_the_final_pass_ends_half_an_hour_after_the_deadline() -> None:
    assert plan(job(*final_pass()), now=NOW + FINAL_PASS_WINDOW) == ([], Finish())
    assert plan(job(*settled_records(cancelled=3)), now=NOW + FINAL_PASS_WINDOW) == ([], Finish())


def test_shards_of_the_final_pass_are_not_canaries() -> None:
    assert job(*final_pass()).canary_shards == []


def test_after_a_clear_unsent_shards_of_the_final_pass_are_sent_and_the_others_uploaded() -> None:
    waiting_shard = plain_shard("r01-0001", attempt=2)
    (retry_round,) = [record for record in final_pass() if isinstance(record, RetryRound)]
    retry_round = msgspec.structs.replace(retry_round, shards=[*retry_round.shards, waiting_shard])
    new_deadline = Deadline(NOW + timedelta(hours=2), NOW + timedelta(hours=1), clear_epoch=1, resets_attempts=True)
    state = job(*settled_records(cancelled=9), retry_round, answered_record("f01-0001"), new_deadline)

    steps, _ = plan(state, now=NOW + timedelta(hours=1))

    assert [(type(step), step.shard.name) for step in steps] == [
        (SendSynchronously, "f01-0002"),
        (Upload, "r01-0001"),
    ]
    assert not steps[0].is_canary


def test_a_job_that_a_person_cancelled_has_no_final_pass() -> None:
    assert plan(job(*settled_records(cancelled=3), JobCancelled(1, NOW))) == ([], Finish())


def test_a_retry_round_never_reuses_the_number_of_a_void_one() -> None:
    state = fold(manifest_of([plain_shard("s0001")], void_retry_rounds=[2]), final_pass())

    assert state.next_retry_round == 3


# How many rows it sends


@given(
    rows=st.integers(0, 20),
    usd=st.none() | st.decimals(0, 10, places=2),
    costs=st.lists(st.none() | st.decimals(0, 3, places=2), max_size=30),
)
def test_allowed_rows_are_within_both_limits_and_the_others_are_counted(
    rows: int, usd: Decimal | None, costs: list[Decimal | None]
) -> None:
    allowance = Allowance(rows, usd)

    allowed_costs = [cost for cost in costs if allowance.take(cost)]

    assert len(allowed_costs) <= rows
    assert usd is None or sum((cost or Decimal(0) for cost in allowed_costs), Decimal(0)) <= usd
    assert usd is None or None not in allowed_costs
    assert len(allowed_costs) + sum(allowance.left_out.values()) == len(costs)
    assert allowance.closed == (len(allowed_costs) < len(costs))


def test_rows_that_were_left_out_are_described_with_the_reason() -> None:
    assert describe_left_out({"at_deadline_rows": 1200, "unsettled": 1}) == (
        "1,200 rows were not sent because at_deadline_rows allows no more; "
        "1 row was not sent because batches that had not ended may still return answers"
    )


# What always holds

#: results of a request: its line, and whether it is usable or final
LINES: dict[str, tuple[Callable[[str], bytes] | None, bool]] = {
    "succeeded": (chat_line, True),
    "permanent error": (lambda name: chat_line(name, status=400), True),
    "server error": (lambda name: chat_line(name, status=500), False),
    "expired": (never_ran_line, False),
    "cancelled": (lambda name: never_ran_line(name, "batch_cancelled"), False),
    "missing": (None, False),
}
#: when the batches end that were cancelled at the deadline
BATCHES_END = NOW + timedelta(minutes=5)
SHARD_STATES = ["sealed", "uploaded", "full queue", "unknown", "live", "settled"]


class Model:
    """A job at its deadline: a ledger in a folder, and the batches that the provider has."""

    def __init__(self, data: st.DataObject, folder: Folder) -> None:
        self.data, self.folder, self.now = data, folder, NOW
        requests = [request(f"row-{n}") for n in range(data.draw(st.integers(1, 12), label="rows"))]
        self.manifest = manifest_of(seal_all(folder, requests, limits=Limits(requests=4)), limits=Limits(requests=2))
        self.policy = Policy(at_deadline_rows=data.draw(st.integers(1, 10), label="at_deadline_rows"), restarted_at=NOW)
        self.ledgers = [seal(folder, self.manifest), seal(folder, self.manifest)]
        self.add(PASSED_DEADLINE)
        #: rows with a final answer in staging
        self.answered_rows: set[str] = set()
        #: number of times that each row was sent
        self.sends: Counter[str] = Counter()
        #: number of times that a row was sent without a known result, because the worker was killed
        self.lost_sends: Counter[str] = Counter()
        self.running: dict[str, Shard] = {}
        for shard in self.manifest.shards:
            self.set_up(shard, data.draw(st.sampled_from(SHARD_STATES), label=shard.name))

    def add(self, record: Record, worker: int = 0) -> bool:
        return self.ledgers[worker].add(record)

    def set_up(self, shard: Shard, state: str) -> None:
        name = shard.name
        if state == "sealed":
            return
        self.add(Uploaded(name, 1, "file", NOW))
        if state == "uploaded":
            return
        self.add(Intent(name, 1, "nonce", "file", NOW))
        if state == "full queue":
            self.add(Refused(name, 1, Failure.CAPACITY, "full", NOW))
            return
        if state == "unknown":
            if self.data.draw(st.booleans(), label="created"):
                self.running[f"batch-{name}"] = shard
            return
        self.add(Created(name, 1, f"batch-{name}", NOW))
        self.running[f"batch-{name}"] = shard
        if state == "settled":
            self.collect(shard, 1, f"batch-{name}", 0)

    def names(self, shard: Shard) -> list[str]:
        return [row.custom_id for row in read_rows(self.folder, shard)]

    def collect(self, shard: Shard, number: int, batch_id: str, worker: int) -> None:
        """Draw a result for each row, and record them as a runner does."""
        results = {name: self.data.draw(st.sampled_from(sorted(LINES)), label=name) for name in self.names(shard)}
        lines = [line_of(name) for name, result in results.items() if (line_of := LINES[result][0])]
        unique_shard = msgspec.structs.replace(shard, name=f"{shard.name}-{worker}-{len(self.sends)}-{self.now:%H%M%S}")
        settled = settle(self.folder, unique_shard, lines, number=number)
        settled = msgspec.structs.replace(settled, shard=shard.name, batch_id=batch_id)
        counts: Counter[str] = Counter()
        transient = 0
        rows = read_rows(self.folder, shard)
        for _, answer in read_answers(self.folder, shard, settled, rows, self.manifest.endpoint, None):
            counts[answer.outcome.value] += 1
            transient += answer.outcome is Outcome.FAILED and answer.transient
        if self.add(msgspec.structs.replace(settled, outcomes=dict(counts), transient=transient), worker):
            self.running.pop(batch_id, None)
            self.answered_rows |= {name for name, result in results.items() if LINES[result][1]}

    def plan(self, worker: int) -> tuple[list[Step], Any]:
        ended = self.now >= BATCHES_END
        status = Status.CANCELLED if ended else Status.CANCELLING
        batches = {batch_id: BatchView(batch_id, status, status.value) for batch_id in self.running}
        return next_steps(self.ledgers[worker].state(), batches, self.policy, self.now)

    def do(self, step: Step, worker: int, *, killed: bool = False) -> None:
        match step:
            case Cancel(shard=shard):
                self.add(CancelRequested(shard.name, step.submission.number, step.reason, self.now), worker)
            case Collect(shard=shard):
                self.collect(shard.spec, step.submission.number, step.batch.id, worker)
            case LookUp(shard=shard, submission=submission):
                batch_id = f"batch-{shard.name}"
                if not shard.spec.synchronous and batch_id in self.running and submission.number == 1:
                    self.add(Created(shard.name, 1, batch_id, self.now), worker)
                else:
                    self.add(Refused(shard.name, submission.number, Failure.LOST, "lost", self.now), worker)
            case FinalPass():
                seal_final_pass(
                    self.ledgers[worker],
                    step,
                    self.policy,
                    None,
                    lambda shard, number: self.claim(shard, number, worker),
                    self.now,
                )
            case SendSynchronously(shard=shard):
                if self.claim(shard, step.number, worker):
                    self.send(shard.spec, step.number, worker, killed=killed)
            case _:
                raise AssertionError(f"{type(step).__name__} after the deadline")

    def claim(self, shard: ShardState, number: int, worker: int) -> bool:
        return self.add(Intent(shard.name, number, "claim", "", self.now), worker)

    def send(self, shard: Shard, number: int, worker: int, *, killed: bool) -> None:
        assert self.now < NOW + FINAL_PASS_WINDOW
        waiting = {name for running in self.running.values() for name in self.names(running)}
        for name in self.names(shard):
            assert name not in self.answered_rows, "a row that was answered is sent again"
            assert name not in waiting, "a row whose batch may still answer is sent"
            self.sends[name] += 1
            assert self.sends[name] <= 1 + self.lost_sends[name]
            self.lost_sends[name] += killed
        if not killed:
            self.collect(shard, number, "", worker)

    def landing(self) -> Landing:
        ledger = open_ledger(self.folder)
        assert isinstance(ledger, Ledger)
        return Landing(self.folder, ledger.state(), key={}, columns={}, store_response=False, run_id="r", landed_at=NOW)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_answered_row_is_sent_again_and_every_row_lands_once_with_workers_killed_at_any_step(
    data: st.DataObject,
) -> None:
    with temporary_folder() as folder:
        model = Model(data, folder)
        plans: dict[int, list[Step]] = {0: [], 1: []}
        for _ in range(data.draw(st.integers(0, 15), label="actions")):
            worker = data.draw(st.integers(0, 1), label="worker")
            action = data.draw(st.sampled_from(["plan", "step", "step", "killed", "time"]), label="action")
            if action == "plan":
                plans[worker] = model.plan(worker)[0]
            elif action == "time":
                model.now += data.draw(st.sampled_from([timedelta(seconds=30), timedelta(minutes=6), LOOK_UP_AFTER]))
                plans = {0: [], 1: []}
            elif plans[worker]:
                model.do(plans[worker].pop(0), worker, killed=action == "killed")
                if action == "killed":
                    plans[worker] = []
        for _ in range(100):
            steps, pause = model.plan(0)
            if steps:
                model.do(steps[0], 0)
            elif isinstance(pause, Finish):
                break
            else:
                assert pause.until is not None
                assert pause.until > model.now
                model.now = max(model.now, BATCHES_END) if pause.batch_ids else pause.until
        else:
            raise AssertionError("the wait does not end")

        state = model.ledgers[0].state()
        assert len(model.sends) <= model.policy.at_deadline_rows
        assert sum(retry_round.is_final_pass for retry_round in state.retry_rounds) <= 1
        rows = list(model.landing())
        landing = model.landing()
        outcomes = {row[0]: row[1] for row in landing}
        assert set(outcomes) == {row[0] for row in rows}
        assert sum(landing.outcomes.values()) == model.manifest.requests == len(outcomes)
        final_rows = {name for name, outcome in outcomes.items() if outcome in ("succeeded", "failed")}
        assert model.answered_rows <= final_rows
        for retry_round in state.retry_rounds:
            retried_rows = {name for shard in retry_round.shards for name in model.names(shard)}
            sources = {name for source, _ in retry_round.sources for name in model.names(state.shards[source].spec)}
            assert retried_rows <= sources
            assert sources - retried_rows <= model.answered_rows, "a row is in no shard any more"
        assert all(shard.phase is not Phase.LIVE for shard in state.shards.values())
