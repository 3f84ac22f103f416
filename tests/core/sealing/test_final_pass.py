"""The finish line: when it comes, which rows it asks, and what it never does, whatever was recorded before."""

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
OVER = Deadline(NOW, NOW - timedelta(hours=1))


# When it comes


def job(*records: Record, shards: tuple[str, ...] = ("s0001",)) -> JobState:
    """A job whose deadline is over."""
    return fold(manifest_of([plain_shard(name) for name in shards]), [OVER, *records])


def intent(shard: str = "s0001", at: datetime = NOW) -> Intent:
    return Intent(shard, 1, "nonce", "file", at)


def live(shard: str = "s0001") -> list[Record]:
    return [intent(shard), Created(shard, 1, f"batch-{shard}", NOW), CancelRequested(shard, 1, "deadline", NOW)]


def settled(shard: str = "s0001", **outcomes: Any) -> list[Record]:
    transient = outcomes.pop("transient", 0)
    return [
        *live(shard),
        Settled(shard, 1, f"batch-{shard}", "cancelled", NOW, outcomes=dict(outcomes), transient=transient),
    ]


def line(*more: Record, at: datetime = NOW, of: str = "s0001") -> list[Record]:
    """A finish line of two shards."""
    shards = [plain_shard(f"f01-000{n}", attempt=2, synchronous=True) for n in (1, 2)]
    return [*settled(of, cancelled=6), RetryRound(1, [(of, 1)], shards, at, is_final_pass=True), *more]


def answered(shard: str) -> Settled:
    return Settled(shard, 1, "", "answered", NOW, outcomes={"succeeded": 3})


def plan(state: JobState, *, at: datetime = NOW, policy: Policy = POLICY) -> tuple[list[Any], Any]:
    return next_steps(state, {}, policy, at)


def test_after_the_deadline_rows_without_an_answer_are_sealed_for_the_finish_line() -> None:
    ((step,), _) = plan(job(*settled(cancelled=2, succeeded=1), shards=("s0001", "s0002")))

    assert isinstance(step, FinalPass)
    assert [shard.name for shard, _ in step.settled_sources] == ["s0001"]
    assert [shard.name for shard in step.unsent_shards] == ["s0002"]


def test_there_is_no_finish_line_before_the_deadline_or_where_nobody_wants_it() -> None:
    state = job(*settled(cancelled=3))

    assert not any(isinstance(step, FinalPass) for step in plan(state, at=NOW - SECOND)[0])
    assert plan(state, policy=Policy()) == ([], Finish())


@pytest.mark.parametrize("outcomes", [{"succeeded": 3}, {"refused": 3}, {"incomplete": 3}, {"failed": 3}])
def test_final_answers_are_never_asked_there(outcomes: dict[str, Any]) -> None:
    assert plan(job(*settled(**outcomes))) == ([], Finish())


@pytest.mark.parametrize("outcomes", [{"expired": 1}, {"cancelled": 1}])
def test_what_was_never_asked_is_asked_there_whatever_retry_on_says(outcomes: dict[str, Any]) -> None:
    nothing_again = msgspec.structs.replace(POLICY, retry_on=frozenset(), max_attempts=1)

    assert plan(job(*settled(**outcomes)), policy=nothing_again)[0]
    assert not plan(job(*settled(failed=1, transient=1, missing=1)), policy=nothing_again)[0]


@pytest.mark.parametrize("unsure", [live(), [intent()]], ids=["cancelling", "unanswered create"])
def test_while_a_batch_may_still_answer_nothing_is_asked(unsure: list[Record]) -> None:
    state = job(*unsure, *settled("s0002", cancelled=3), shards=("s0001", "s0002"))

    steps, pause = plan(state)
    assert (steps, type(pause)) == ([], Wait)
    assert pause.until > NOW

    steps, _ = plan(state, at=NOW + CANCEL_GRACE)
    last = next((step for step in steps if isinstance(step, FinalPass)), None)
    if last is None:  # an unanswered create is looked up first
        assert isinstance(steps[0], LookUp)
    else:
        assert [shard.name for shard, _ in last.settled_sources] == ["s0002"]
        assert (last.unsent_shards, last.unsettled_rows) == ([], 3)


def test_a_canary_without_a_verdict_lets_nothing_be_asked() -> None:
    canary = plain_shard("c0001", synchronous=True)
    state = fold(manifest_of([canary, plain_shard("s0001")]), [OVER, answered("c0001")])

    assert plan(state) == ([], Finish())


def test_every_shard_of_the_finish_line_is_asked_once() -> None:
    steps, _ = plan(job(*line()))
    assert [(step.shard.name, step.is_final_pass) for step in steps] == [("f01-0001", True), ("f01-0002", True)]

    steps, _ = plan(job(*line(answered("f01-0001"))))
    assert [step.shard.name for step in steps] == ["f01-0002"]

    bad = msgspec.structs.replace(answered("f01-0002"), outcomes={"failed": 3}, transient=3)
    assert plan(job(*line(answered("f01-0001"), bad))) == ([], Finish())


def test_a_shard_that_another_worker_is_at_is_waited_for_and_then_lost() -> None:
    state = job(*line(answered("f01-0001"), intent("f01-0002")))

    assert plan(state) == ([], Wait([], NOW + CLAIM_LIFETIME, False))
    ((step,), _) = plan(state, at=NOW + CLAIM_LIFETIME)
    assert isinstance(step, LookUp)
    lost = Refused("f01-0002", 1, Failure.LOST, "lost", NOW)
    ((again,), _) = plan(job(*line(answered("f01-0001"), intent("f01-0002"), lost)), at=NOW + CLAIM_LIFETIME)
    assert (type(again), again.number) == (SendSynchronously, 2)


def test_a_claim_is_waited_for_beyond_the_grace_and_not_beyond_the_end_of_the_finish_line() -> None:
    late = job(*line(answered("f01-0001"), intent("f01-0002", NOW + FINAL_PASS_WINDOW - SECOND)))

    assert plan(late, at=NOW + CANCEL_GRACE + SECOND)[1] == Wait([], NOW + FINAL_PASS_WINDOW, False)
    assert plan(late, at=NOW + FINAL_PASS_WINDOW) == ([], Finish())


def test_an_account_that_refused_ends_it_until_the_task_starts_again() -> None:
    refused = Refused("f01-0001", 1, Failure.ACCOUNT, "no credit", NOW)
    state = job(*line(intent("f01-0001"), refused))

    assert plan(state, at=NOW + SECOND) == ([], Finish())
    since = msgspec.structs.replace(POLICY, restarted_at=NOW + SECOND)
    assert len(plan(state, at=NOW + SECOND, policy=since)[0]) == 2


def test_it_is_over_half_an_hour_after_the_deadline() -> None:
    assert plan(job(*line()), at=NOW + FINAL_PASS_WINDOW) == ([], Finish())
    assert plan(job(*settled(cancelled=3)), at=NOW + FINAL_PASS_WINDOW) == ([], Finish())


def test_the_finish_line_is_no_canary() -> None:
    assert job(*line()).canary_shards == []


def test_after_a_clear_what_was_sealed_and_not_asked_is_asked_and_what_was_left_is_sent() -> None:
    left = plain_shard("r01-0001", attempt=2)
    (retry_round,) = [one for one in line() if isinstance(one, RetryRound)]
    retry_round = msgspec.structs.replace(retry_round, shards=[*retry_round.shards, left])
    anew = Deadline(NOW + timedelta(hours=2), NOW + timedelta(hours=1), clear_epoch=1, resets_attempts=True)
    state = job(*settled(cancelled=9), retry_round, answered("f01-0001"), anew)

    steps, _ = plan(state, at=NOW + timedelta(hours=1))

    assert [(type(step), step.shard.name) for step in steps] == [
        (SendSynchronously, "f01-0002"),
        (Upload, "r01-0001"),
    ]
    assert steps[0].is_final_pass


def test_a_job_that_a_person_cancelled_has_no_finish_line() -> None:
    assert plan(job(*settled(cancelled=3), JobCancelled(1, NOW))) == ([], Finish())


def test_a_wave_never_gets_the_number_of_one_that_is_void() -> None:
    state = fold(manifest_of([plain_shard("s0001")], void_retry_rounds=[2]), line())

    assert state.next_retry_round == 3


# How much it asks


@given(
    rows=st.integers(0, 20),
    usd=st.none() | st.decimals(0, 10, places=2),
    costs=st.lists(st.none() | st.decimals(0, 3, places=2), max_size=30),
)
def test_what_is_taken_is_within_both_bounds_and_what_is_not_is_counted(
    rows: int, usd: Decimal | None, costs: list[Decimal | None]
) -> None:
    allowance = Allowance(rows, usd)

    taken = [cost for cost in costs if allowance.take(cost)]

    assert len(taken) <= rows
    assert usd is None or sum((cost or Decimal(0) for cost in taken), Decimal(0)) <= usd
    assert usd is None or None not in taken
    assert len(taken) + sum(allowance.left_out.values()) == len(costs)
    assert allowance.closed == (len(taken) < len(costs))


def test_what_is_left_is_told_with_its_reason() -> None:
    assert describe_left_out({"at_deadline_rows": 1200, "unsettled": 3}) == (
        "1,200 rows are left: more than at_deadline_rows allows; "
        "3 rows are left: in batches that had not ended, so that their answers may yet come"
    )


# What always holds

#: how a row may come back: the line, and whether it is usable or final
LINES: dict[str, tuple[Callable[[str], bytes] | None, bool]] = {
    "fine": (chat_line, True),
    "refused for good": (lambda name: chat_line(name, status=400), True),
    "server error": (lambda name: chat_line(name, status=500), False),
    "expired": (never_ran_line, False),
    "cancelled": (lambda name: never_ran_line(name, "batch_cancelled"), False),
    "missing": (None, False),
}
#: when the batches that were cancelled at the deadline end
BATCHES_END = NOW + timedelta(minutes=5)
FATES = ["sealed", "uploaded", "full queue", "unsure", "live", "settled"]


class Model:
    """A job at its deadline: a ledger in a folder, and what the provider knows."""

    def __init__(self, data: st.DataObject, folder: Folder) -> None:
        self.data, self.folder, self.now = data, folder, NOW
        requests = [request(f"row-{n}") for n in range(data.draw(st.integers(1, 12), label="rows"))]
        self.manifest = manifest_of(seal_all(folder, requests, limits=Limits(requests=4)), limits=Limits(requests=2))
        self.policy = Policy(at_deadline_rows=data.draw(st.integers(1, 10), label="at_deadline_rows"), restarted_at=NOW)
        self.ledgers = [seal(folder, self.manifest), seal(folder, self.manifest)]
        self.add(OVER)
        #: rows with an answer that is final, in staging or still to be collected
        self.done: set[str] = set()
        self.asked: Counter[str] = Counter()
        #: rows whose asking nobody knows the end of, because a worker was killed
        self.lost: Counter[str] = Counter()
        self.running: dict[str, Shard] = {}
        for shard in self.manifest.shards:
            self.bring_about(shard, data.draw(st.sampled_from(FATES), label=shard.name))

    def add(self, record: Record, worker: int = 0) -> bool:
        return self.ledgers[worker].add(record)

    def bring_about(self, shard: Shard, fate: str) -> None:
        name = shard.name
        if fate == "sealed":
            return
        self.add(Uploaded(name, 1, "file", NOW))
        if fate == "uploaded":
            return
        self.add(Intent(name, 1, "nonce", "file", NOW))
        if fate == "full queue":
            self.add(Refused(name, 1, Failure.CAPACITY, "full", NOW))
            return
        if fate == "unsure":
            if self.data.draw(st.booleans(), label="made"):
                self.running[f"batch-{name}"] = shard
            return
        self.add(Created(name, 1, f"batch-{name}", NOW))
        self.running[f"batch-{name}"] = shard
        if fate == "settled":
            self.collect(shard, 1, f"batch-{name}", 0)

    def names(self, shard: Shard) -> list[str]:
        return [row.custom_id for row in read_rows(self.folder, shard)]

    def collect(self, shard: Shard, n: int, batch_id: str, worker: int) -> None:
        """Some answer for each row; the record counts them as a runner does."""
        lines = []
        fates = {name: self.data.draw(st.sampled_from(sorted(LINES)), label=name) for name in self.names(shard)}
        lines = [line_of(name) for name, fate in fates.items() if (line_of := LINES[fate][0])]
        place = msgspec.structs.replace(shard, name=f"{shard.name}-{worker}-{len(self.asked)}-{self.now:%H%M%S}")
        came = settle(self.folder, place, lines, number=n)
        came = msgspec.structs.replace(came, shard=shard.name, batch_id=batch_id)
        counts: Counter[str] = Counter()
        transient = 0
        rows = read_rows(self.folder, shard)
        for _, answer in read_answers(self.folder, shard, came, rows, self.manifest.endpoint, None):
            counts[answer.outcome.value] += 1
            transient += answer.outcome is Outcome.FAILED and answer.transient
        if self.add(msgspec.structs.replace(came, outcomes=dict(counts), transient=transient), worker):
            self.running.pop(batch_id, None)
            self.done |= {name for name, fate in fates.items() if LINES[fate][1]}

    def plan(self, worker: int) -> tuple[list[Step], Any]:
        ended = self.now >= BATCHES_END
        status = Status.CANCELLED if ended else Status.CANCELLING
        seen = {batch_id: BatchView(batch_id, status, status.value) for batch_id in self.running}
        return next_steps(self.ledgers[worker].state(), seen, self.policy, self.now)

    def do(self, step: Step, worker: int, *, killed: bool = False) -> None:
        match step:
            case Cancel(shard=shard):
                self.add(CancelRequested(shard.name, step.submission.number, step.reason, self.now), worker)
            case Collect(shard=shard):
                self.collect(shard.spec, step.submission.number, step.batch.id, worker)
            case LookUp(shard=shard, submission=submission):
                found = f"batch-{shard.name}"
                if not shard.spec.synchronous and found in self.running and submission.number == 1:
                    self.add(Created(shard.name, 1, found, self.now), worker)
                else:
                    self.add(Refused(shard.name, submission.number, Failure.LOST, "lost", self.now), worker)
            case FinalPass():
                seal_final_pass(
                    self.ledgers[worker], step, self.policy, None, lambda s, n: self.claim(s, n, worker), self.now
                )
            case SendSynchronously(shard=shard):
                if self.claim(shard, step.number, worker):
                    self.ask(shard.spec, step.number, worker, killed=killed)
            case _:
                raise AssertionError(f"{type(step).__name__} after the deadline")

    def claim(self, shard: ShardState, n: int, worker: int) -> bool:
        return self.add(Intent(shard.name, n, "claim", "", self.now), worker)

    def ask(self, shard: Shard, n: int, worker: int, *, killed: bool) -> None:
        assert self.now < NOW + FINAL_PASS_WINDOW
        waiting = {name for running in self.running.values() for name in self.names(running)}
        for name in self.names(shard):
            assert name not in self.done, "a row that was answered is asked again"
            assert name not in waiting, "a row whose batch may still answer is asked"
            self.asked[name] += 1
            assert self.asked[name] <= 1 + self.lost[name]
            self.lost[name] += killed
        if not killed:
            self.collect(shard, n, "", worker)

    def landing(self) -> Landing:
        opened = open_ledger(self.folder)
        assert isinstance(opened, Ledger)
        return Landing(self.folder, opened.state(), key={}, columns={}, store_response=False, run_id="r", landed_at=NOW)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_whoever_is_killed_whenever_no_answered_row_is_asked_and_every_row_lands_once(data: st.DataObject) -> None:
    with temporary_folder() as folder:
        model = Model(data, folder)
        plans: dict[int, list[Step]] = {0: [], 1: []}
        for _ in range(data.draw(st.integers(0, 15), label="actions")):
            worker = data.draw(st.integers(0, 1), label="worker")
            act = data.draw(st.sampled_from(["plan", "step", "step", "killed", "time"]), label="act")
            if act == "plan":
                plans[worker] = model.plan(worker)[0]
            elif act == "time":
                model.now += data.draw(st.sampled_from([timedelta(seconds=30), timedelta(minutes=6), LOOK_UP_AFTER]))
                plans = {0: [], 1: []}
            elif plans[worker]:
                model.do(plans[worker].pop(0), worker, killed=act == "killed")
                if act == "killed":
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
        assert len(model.asked) <= model.policy.at_deadline_rows
        assert sum(retry_round.is_final_pass for retry_round in state.retry_rounds) <= 1
        rows = list(model.landing())
        landing = model.landing()
        last = {row[0]: row[1] for row in landing}
        assert set(last) == {row[0] for row in rows}
        assert sum(landing.outcomes.values()) == model.manifest.requests == len(last)
        final = {name for name, outcome in last.items() if outcome in ("succeeded", "failed")}
        assert model.done <= final
        for retry_round in state.retry_rounds:
            sealed_again = {name for shard in retry_round.shards for name in model.names(shard)}
            sources = {name for source, _ in retry_round.sources for name in model.names(state.shards[source].spec)}
            assert sealed_again <= sources
            assert sources - sealed_again <= model.done, "a row has no place any more"
        assert all(shard.phase is not Phase.LIVE for shard in state.shards.values())
