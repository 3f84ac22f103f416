"""Every rule of the lifecycle has an example in which it decides, and which fails without it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate, Shard
from airflow_provider_batch.core.ledger.records import (
    CanaryVerdict,
    CancelRequested,
    CollectionFailed,
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
    UploadRefused,
)
from airflow_provider_batch.core.ledger.state import Phase
from airflow_provider_batch.core.lifecycle import rules
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.rule import Rule, always
from airflow_provider_batch.core.lifecycle.shared_budget import Allowance
from airflow_provider_batch.core.lifecycle.situation import Stage
from airflow_provider_batch.core.lifecycle.steps import (
    CANCEL_GRACE,
    CLAIM_LIFETIME,
    FINAL_PASS_WINDOW,
    LOOK_UP_AFTER,
    Finish,
    Hold,
    Pause,
    Policy,
    Step,
    Void,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.building import NOW, manifest_of, plain_shard

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
POLICY = Policy(max_attempts=3, backoff=5 * MINUTE)
FINAL_PASS = Policy(max_attempts=3, backoff=5 * MINUTE, at_deadline_rows=100)
#: without a span before it, the cut-off is the deadline itself
PASSED_DEADLINE = Deadline(NOW, NOW)
CANCELLED = JobCancelled(1, NOW)
TABLES = ("SHARD_RULES", "STAGES", "JOB_RULES", "SEND_RULES", "FINAL_PASS_RULES", "PAUSES")
#: tables of which the first rule that holds applies
FIRST_OF = ("SHARD_RULES", "STAGES", "SEND_RULES", "FINAL_PASS_RULES", "PAUSES")
#: five minutes, and up to a fifth more, depending on the id of the batch
RETRY_DELAY = timedelta(seconds=336)
#: a row has one token and costs $1
PRICES = {"gpt-5-mini": {"input": 1_000_000, "output": 0}}


def uploaded(shard: str = "s0001") -> Record:
    return Uploaded(shard, 1, "file", NOW)


def intent(shard: str = "s0001", n: int = 1, time: datetime = NOW) -> Record:
    return Intent(shard, n, "nonce", "file", time)


def live(shard: str = "s0001") -> list[Record]:
    return [uploaded(shard), intent(shard), Created(shard, 1, f"batch-{shard}", NOW)]


def refused(failure: Failure, message: str = "no", n: int = 1, time: datetime = NOW) -> list[Record]:
    return [uploaded(), intent(n=n, time=time), Refused("s0001", n, failure, message, time)]


def collection_failures(count: int) -> list[Record]:
    return [CollectionFailed("s0001", 1, n, "batch-s0001", "cut off", NOW) for n in range(1, count + 1)]


def settled(shard: str = "s0001", **outcomes: int) -> list[Record]:
    return [*live(shard), Settled(shard, 1, f"batch-{shard}", "completed", NOW, outcomes=outcomes)]


def answered(shard: str) -> Record:
    return Settled(shard, 1, "", "answered", NOW, outcomes={"succeeded": 3})


def final_pass(*more: Record) -> list[Record]:
    """A final pass of two shards."""
    shards = [plain_shard(f"f01-000{n}", attempt=2, lane=Lane.STANDARD) for n in (1, 2)]
    return [
        *settled(cancelled=6),
        PASSED_DEADLINE,
        RetryRound(1, [("s0001", 1)], shards, NOW, is_final_pass=True),
        *more,
    ]


WITH_CANARY = (plain_shard("c0001", lane=Lane.STANDARD), plain_shard("s0001"))
TWO = (plain_shard("s0001"), plain_shard("s0002"))
PRICED = (plain_shard("s0001", requests=10, tokens=10),)
LARGE = (plain_shard("s0001", tokens=20),)
LARGE_ROW = (plain_shard("s0001", requests=1, tokens=20),)
UNWANTED = (msgspec.structs.replace(plain_shard("s0001"), unneeded_rows=3),)
VOID = CanaryVerdict(Estimate(), NOW, "wrong", over_budget=True)
RUNNING = BatchView("batch-s0001", Status.RUNNING, "in_progress")
ENDED = BatchView("batch-s0001", Status("completed"), "completed")
NAMED_LIMIT = "Limit: 10 enqueued tokens"


class Example(NamedTuple):
    """A job, and what happens next to it."""

    records: Iterable[Record]
    steps: list[str]
    pause: Pause
    now: datetime = NOW
    policy: Policy = POLICY
    shards: tuple[Shard, ...] = (plain_shard("s0001"),)
    batch: BatchView = RUNNING
    ceiling: float | None = None
    allowance: Allowance | None = None
    lane: Lane = Lane.BATCH

    def play(self) -> tuple[list[str], Pause]:
        manifest = manifest_of(list(self.shards), max_cost_usd=self.ceiling, prices=PRICES, lane=self.lane)
        state = fold(manifest, self.records)
        steps, pause = next_steps(state, {self.batch.id: self.batch}, self.policy, self.now, self.allowance)
        return [describe(step) for step in steps], pause


def describe(step: Step) -> str:
    """Describe a step: its type, its shard, and its other fields."""
    shard = getattr(step, "shard", None)
    last = "canary" if getattr(step, "is_canary", False) else ""
    words = [type(step).__name__, shard.name if shard else "", getattr(step, "reason", ""), last]
    return " ".join(word for word in words if word)


def rule_names(table: str) -> list[tuple[str, str, str]]:
    return [(table, ", ".join(rule.scope), rule.condition.__name__) for rule in getattr(rules, table)]


UNSENT, SENDING = "sealed, uploaded", Stage.SENDING.value
WAIT_FOR_GRACE_PERIOD = Wait(["batch-s0001"], NOW + CANCEL_GRACE, False)
WAIT_FOR_THE_BATCH = Wait(["batch-s0001"], None, False)
CANCEL_REQUEST = CancelRequested("s0001", 1, "deadline", NOW)
RESEALED = [intent(), RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001")], NOW)]
CLEARED = Deadline(NOW + 2 * HOUR, NOW + HOUR, clear_epoch=1, resets_attempts=True)

EXAMPLES: dict[tuple[str, str, str], Example] = {
    ("SHARD_RULES", UNSENT, "wait_is_ending"): Example([*refused(Failure.ACCOUNT), CANCELLED], [], Finish()),
    ("SHARD_RULES", UNSENT, "account_failed"): Example(refused(Failure.ACCOUNT, "pay"), [], Hold("pay")),
    ("SHARD_RULES", UNSENT, "file_was_missing_just_now"): Example(
        refused(Failure.FILE), [], Wait([], NOW + 30 * SECOND, False)
    ),
    ("SHARD_RULES", UNSENT, "batch_failed_just_now"): Example(
        refused(Failure.UNKNOWN), [], Wait([], NOW + 5 * MINUTE, False)
    ),
    ("SHARD_RULES", UNSENT, "always"): Example([], ["Upload s0001"], Finish()),
    ("SHARD_RULES", "creating", "claim_is_recent"): Example(
        final_pass(answered("f01-0001"), intent("f01-0002")),
        [],
        Wait([], NOW + CLAIM_LIFETIME, False),
        now=NOW + 3 * MINUTE,
    ),
    ("SHARD_RULES", "creating", "intent_is_recent"): Example(
        [uploaded(), intent()], [], Wait([], NOW + LOOK_UP_AFTER, False), now=NOW + SECOND
    ),
    ("SHARD_RULES", "creating", "always"): Example(
        [uploaded(), intent()], ["LookUp s0001"], Finish(), now=NOW + LOOK_UP_AFTER
    ),
    ("SHARD_RULES", "live", "batch_is_held"): Example(
        [*live(), *collection_failures(7)], [], Finish(), batch=ENDED, now=NOW + HOUR
    ),
    ("SHARD_RULES", "live", "files_failed_just_now"): Example(
        [*live(), *collection_failures(2)], [], Wait([], NOW + 60 * SECOND, False), batch=ENDED
    ),
    ("SHARD_RULES", "live", "batch_has_ended"): Example(live(), ["Collect s0001"], Finish(), batch=ENDED),
    ("SHARD_RULES", "live", "cancel_was_sent"): Example(
        [*live(), PASSED_DEADLINE, CANCEL_REQUEST], [], WAIT_FOR_GRACE_PERIOD
    ),
    ("SHARD_RULES", "live", "person_cancelled"): Example(
        [*live(), CANCELLED], ["Cancel s0001 person"], WAIT_FOR_THE_BATCH
    ),
    ("SHARD_RULES", "live", "cutoff_has_passed"): Example(
        [*live(), PASSED_DEADLINE], ["Cancel s0001 deadline"], WAIT_FOR_GRACE_PERIOD
    ),
    ("SHARD_RULES", "live", "no_row_is_wanted"): Example(
        live(),
        ["Cancel s0001 no row needs it any more"],
        WAIT_FOR_THE_BATCH,
        shards=UNWANTED,
    ),
    ("SHARD_RULES", "live", "always"): Example(live(), [], WAIT_FOR_THE_BATCH),
    ("SHARD_RULES", "settled", "always"): Example(settled(succeeded=3), [], Finish()),
    ("SHARD_RULES", "resealed", "always"): Example(RESEALED, ["Upload r01-0001"], Finish()),
    ("STAGES", "", "canary_is_void"): Example([answered("c0001"), VOID], [], Void("wrong", True), shards=WITH_CANARY),
    ("STAGES", "", "job_is_cancelled"): Example([*settled(expired=3), CANCELLED], [], Finish(), now=NOW + HOUR),
    ("STAGES", "", "cutoff_has_passed"): Example(
        [*settled(cancelled=3), PASSED_DEADLINE], ["FinalPass"], Finish(), policy=FINAL_PASS
    ),
    ("STAGES", "", "verdict_is_due"): Example([answered("c0001")], ["JudgeCanary"], Finish(), shards=WITH_CANARY),
    ("STAGES", "", "job_is_held"): Example(refused(Failure.ACCOUNT, "pay"), [], Hold("pay"), shards=TWO),
    ("STAGES", "", "canary_is_open"): Example([], ["SendSynchronously c0001 canary"], Finish(), shards=WITH_CANARY),
    ("STAGES", "", "person_decides_first"): Example(
        [answered("c0001"), CanaryVerdict(Estimate(), NOW)],
        [],
        Finish(),
        shards=WITH_CANARY,
        policy=Policy(stop_after_canary=True),
    ),
    ("STAGES", "", "always"): Example([], ["Upload s0001"], Finish()),
    ("JOB_RULES", "past the cut-off", "always"): Example(
        [*settled(cancelled=3), PASSED_DEADLINE], ["FinalPass"], Finish(), policy=FINAL_PASS
    ),
    ("JOB_RULES", "verdict", "always"): Example([answered("c0001")], ["JudgeCanary"], Finish(), shards=WITH_CANARY),
    ("JOB_RULES", "canary", "always"): Example([], ["SendSynchronously c0001 canary"], Finish(), shards=WITH_CANARY),
    ("SEND_RULES", "", "shard_is_synchronous"): Example(
        final_pass(answered("f01-0001"), CLEARED), ["SendSynchronously f01-0002"], Finish(), now=NOW + HOUR
    ),
    ("JOB_RULES", SENDING, "job_is_sent_on_flex"): Example([], ["Reseal s0001"], Finish(), lane=Lane.FLEX),
    ("JOB_RULES", SENDING, "shard_is_too_large"): Example(
        refused(Failure.CAPACITY, NAMED_LIMIT), ["Reseal s0001"], Finish(), shards=LARGE
    ),
    ("JOB_RULES", SENDING, "row_is_too_large"): Example(
        [*refused(Failure.CAPACITY, NAMED_LIMIT), *refused(Failure.CAPACITY, NAMED_LIMIT, 2, NOW + 5 * MINUTE)],
        ["GiveUp s0001"],
        Finish(),
        now=NOW + HOUR,
        shards=LARGE_ROW,
    ),
    ("JOB_RULES", SENDING, "shard_is_affordable"): Example([], ["Upload s0001"], Finish()),
    ("JOB_RULES", SENDING, "queue_is_full"): Example(
        refused(Failure.CAPACITY), [], Wait([], NOW + 5 * MINUTE, any_end=True)
    ),
    ("JOB_RULES", SENDING, "budget_is_short"): Example([], [], Finish(("s0001",)), shards=PRICED, ceiling=0),
    ("JOB_RULES", SENDING, "retry_is_due"): Example(settled(expired=3), ["Retry"], Finish(), now=NOW + HOUR),
    ("JOB_RULES", SENDING, "retry_is_delayed"): Example(settled(expired=3), [], Wait([], NOW + RETRY_DELAY, False)),
    ("JOB_RULES", SENDING, "only_the_budget_is_in_the_way"): Example(
        [], ["Reseal s0001"], Finish(("s0001",)), shards=PRICED, ceiling=5
    ),
    ("SEND_RULES", "", "file_is_uploaded"): Example([uploaded()], ["Create s0001"], Finish()),
    ("SEND_RULES", "", "uploads_are_refused"): Example(
        [UploadRefused(1, "HTTP 429", NOW)], [], Wait([], NOW + 5 * MINUTE, False)
    ),
    ("SEND_RULES", "", "always"): Example([], ["Upload s0001"], Finish()),
    ("FINAL_PASS_RULES", "", "a_step_is_due"): Example(
        [*live(), PASSED_DEADLINE], ["Collect s0001"], Finish(), policy=FINAL_PASS, shards=TWO, batch=ENDED
    ),
    ("FINAL_PASS_RULES", "", "author_wants_no_final_pass"): Example(
        [*settled(cancelled=3), PASSED_DEADLINE], [], Finish()
    ),
    ("FINAL_PASS_RULES", "", "final_pass_is_over"): Example(
        [*settled(cancelled=3), PASSED_DEADLINE], [], Finish(), policy=FINAL_PASS, now=NOW + FINAL_PASS_WINDOW
    ),
    ("FINAL_PASS_RULES", "", "canary_has_no_verdict"): Example(
        [answered("c0001"), PASSED_DEADLINE], [], Finish(), policy=FINAL_PASS, shards=WITH_CANARY
    ),
    ("FINAL_PASS_RULES", "", "account_refused_the_final_pass"): Example(
        final_pass(intent("f01-0001"), Refused("f01-0001", 1, Failure.ACCOUNT, "pay", NOW)),
        [],
        Finish(),
        policy=FINAL_PASS,
    ),
    ("FINAL_PASS_RULES", "", "final_pass_is_sealed"): Example(
        final_pass(),
        ["SendSynchronously f01-0001", "SendSynchronously f01-0002"],
        Finish(),
        policy=FINAL_PASS,
    ),
    ("FINAL_PASS_RULES", "", "answers_may_still_come"): Example(
        [*live(), CANCEL_REQUEST, *settled("s0002", cancelled=3), PASSED_DEADLINE],
        [],
        WAIT_FOR_GRACE_PERIOD,
        policy=FINAL_PASS,
        shards=TWO,
    ),
    ("FINAL_PASS_RULES", "", "rows_have_no_answer"): Example(
        [PASSED_DEADLINE], ["FinalPass"], Finish(), policy=FINAL_PASS
    ),
    ("FINAL_PASS_RULES", "", "always"): Example(
        [*settled(succeeded=3), PASSED_DEADLINE], [], Finish(), policy=FINAL_PASS
    ),
    ("PAUSES", "", "canary_is_void"): Example([answered("c0001"), VOID], [], Void("wrong", True), shards=WITH_CANARY),
    ("PAUSES", "", "claim_is_awaited"): Example(
        final_pass(answered("f01-0001"), intent("f01-0002", time=NOW + FINAL_PASS_WINDOW - SECOND)),
        [],
        Wait([], NOW + FINAL_PASS_WINDOW, False),
        now=NOW + CANCEL_GRACE + SECOND,
    ),
    ("PAUSES", "", "end_is_awaited"): Example([*live(), PASSED_DEADLINE, CANCEL_REQUEST], [], WAIT_FOR_GRACE_PERIOD),
    ("PAUSES", "", "cutoff_has_passed"): Example(
        [*live(), PASSED_DEADLINE, CANCEL_REQUEST], [], Finish(), now=NOW + CANCEL_GRACE
    ),
    ("PAUSES", "", "something_is_awaited"): Example(live(), [], WAIT_FOR_THE_BATCH),
    ("PAUSES", "", "job_is_held"): Example(refused(Failure.ACCOUNT, "pay"), [], Hold("pay")),
    ("PAUSES", "", "shared_budget_may_have_more"): Example(
        [],
        [],
        Wait([], NOW + SECOND, False, ("s0001",)),
        shards=PRICED,
        allowance=Allowance(Decimal(0), NOW + SECOND, "Other jobs hold it."),
    ),
    ("PAUSES", "", "always"): Example([], ["Upload s0001"], Finish()),
}
NAMES = [name for table in TABLES for name in rule_names(table)]
IDS = [" ".join(part for part in name if part) for name in EXAMPLES]


def test_every_rule_has_an_example() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert sorted(EXAMPLES) == sorted(NAMES)


@pytest.mark.parametrize("name", EXAMPLES, ids=IDS)
def test_a_rule_decides_its_example(name: tuple[str, str, str]) -> None:
    example = EXAMPLES[name]
    assert example.play() == (example.steps, example.pause)


@pytest.mark.parametrize("name", EXAMPLES, ids=IDS)
def test_the_example_fails_without_the_rule(name: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule is needed: without it, its example has another result."""
    table: tuple[Rule[Any, Any, Any], ...] = getattr(rules, name[0])
    remaining_rules = tuple(
        rule for rule, other_name in zip(table, rule_names(name[0]), strict=True) if other_name != name
    )
    assert len(remaining_rules) == len(table) - 1
    monkeypatch.setattr(rules, name[0], remaining_rules)
    example = EXAMPLES[name]
    try:
        result = example.play()
    except AssertionError:  # no rule holds
        return
    assert result != (example.steps, example.pause)


@pytest.mark.parametrize("table", FIRST_OF)
def test_some_rule_of_a_table_always_holds(table: str) -> None:
    entries: tuple[Rule[Any, Any, Any], ...] = getattr(rules, table)
    for scope in Phase if table == "SHARD_RULES" else [None]:
        (*earlier_rules, last) = [rule for rule in entries if scope is None or scope in rule.scope]
        assert last.condition is always
        assert all(rule.condition is not always for rule in earlier_rules)


def test_no_rule_applies_to_both_phases_and_stages() -> None:
    assert {type(scope) for rule in rules.SHARD_RULES for scope in rule.scope} == {Phase}
    assert {type(scope) for rule in rules.JOB_RULES for scope in rule.scope} == {Stage}
    assert all(rule.scope for rule in rules.SHARD_RULES)
    assert all(rule.scope for rule in rules.JOB_RULES)
