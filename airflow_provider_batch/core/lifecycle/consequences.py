"""The consequences of the rules: small pure functions that return a part of the plan, or how the job pauses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from airflow_provider_batch.core.ledger.records import BY_PERSON, Failure, Settled
from airflow_provider_batch.core.ledger.state import Phase, ShardState
from airflow_provider_batch.core.lifecycle.attempts import forgiven_attempts_after
from airflow_provider_batch.core.lifecycle.collection import collect_again_at
from airflow_provider_batch.core.lifecycle.conditions import reusable_file
from airflow_provider_batch.core.lifecycle.situation import Job, Plan, Situation
from airflow_provider_batch.core.lifecycle.steps import (
    CANCEL_GRACE,
    CLAIM_LIFETIME,
    FINAL_PASS_WINDOW,
    LOOK_UP_AFTER,
    SHARD_REQUESTS,
    Cancel,
    Collect,
    Create,
    FinalPass,
    Finish,
    GiveUp,
    Hold,
    JudgeCanary,
    LookUp,
    Reseal,
    Retry,
    SendSynchronously,
    Upload,
    Void,
    Wait,
)
from airflow_provider_batch.core.provider.lane import Lane

_EMPTY_PLAN = Plan()


def do_nothing(situation: Situation, part: object) -> Plan:
    """Add nothing to the plan."""
    return _EMPTY_PLAN


# Consequences for one shard


def mark_ready(situation: Situation, shard: ShardState) -> Plan:
    """Mark the shard as ready. The rules for the job decide when it is sent."""
    return Plan(ready=(shard,))


def hold_for_a_person(situation: Situation, shard: ShardState) -> Plan:
    """Hold the job with the provider's message."""
    rejection = shard.latest.rejection if shard.latest else None
    return Plan(hold_messages=(rejection.message if rejection else "",))


def wait_for_the_file(situation: Situation, shard: ShardState) -> Plan:
    """Wait until a tenth of the backoff has passed."""
    rejection = shard.latest.rejection if shard.latest else None
    return Plan(wake_times=(rejection.time + situation.policy.backoff / 10,)) if rejection else _EMPTY_PLAN


def wait_after_the_failure(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the backoff has passed."""
    rejection = shard.latest.rejection if shard.latest else None
    return Plan(wake_times=(rejection.time + situation.policy.backoff,)) if rejection else _EMPTY_PLAN


def wait_for_the_claim(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the worker has sent the shard, or may no longer do so."""
    return Plan(wake_times=(_end_of_intent(shard, CLAIM_LIFETIME),))


def wait_for_the_intent(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the worker has created the batch, or may no longer do so."""
    return Plan(wake_times=(_end_of_intent(shard, LOOK_UP_AFTER),))


def _end_of_intent(shard: ShardState, age: timedelta) -> datetime:
    intent = shard.submissions[-1].intent
    assert intent is not None
    return intent.time + age


def look_up(situation: Situation, shard: ShardState) -> Plan:
    """Find out whether there is a batch before a second one is created."""
    return Plan(steps=(LookUp(shard, shard.submissions[-1]),))


def collect(situation: Situation, shard: ShardState) -> Plan:
    """Download the result files of the batch."""
    submission = shard.submissions[-1]
    return Plan(steps=(Collect(shard, submission, situation.batch_views[submission.batch_id]),))


def wait_to_collect(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the files may be downloaded again."""
    again_at = collect_again_at(situation.state, shard.submissions[-1], situation.policy.backoff)
    return Plan(wake_times=(again_at,)) if again_at else _EMPTY_PLAN


def wait_for_the_batch(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the batch ends."""
    return Plan(running_batch_ids=(shard.submissions[-1].batch_id,))


def cancel_for_a_person(situation: Situation, shard: ShardState) -> Plan:
    """Cancel the batch, because a person cancelled the job."""
    return _cancel(shard, BY_PERSON)


def cancel_at_the_cutoff(situation: Situation, shard: ShardState) -> Plan:
    """Cancel the batch, because its answers would come too late."""
    return _cancel(shard, "deadline")


def cancel_unwanted(situation: Situation, shard: ShardState) -> Plan:
    """Cancel the batch, because no row needs its answers."""
    return _cancel(shard, "no row needs it any more")


def _cancel(shard: ShardState, reason: str) -> Plan:
    submission = shard.submissions[-1]
    return Plan(steps=(Cancel(shard, submission, reason),), running_batch_ids=(submission.batch_id,))


def create(situation: Situation, shard: ShardState) -> Plan:
    """Create the batch from the input file that the provider has."""
    return Plan(steps=(Create(shard, shard.next_number, reusable_file(shard)),))


def wait_for_uploads(situation: Situation, shard: ShardState) -> Plan:
    """Wait until the provider accepts input files again."""
    assert situation.uploads_resume_at is not None
    return Plan(wake_times=(situation.uploads_resume_at,))


def send_synchronously(situation: Situation, shard: ShardState) -> Plan:
    """Send the requests synchronously."""
    return Plan(steps=(SendSynchronously(shard, shard.next_number),))


def upload(situation: Situation, shard: ShardState) -> Plan:
    """Upload the input file."""
    return Plan(steps=(Upload(shard, shard.next_number),))


# Consequences for the job


def judge_the_canary(job: Job, plan: Plan) -> Plan:
    """Judge the answers of the canaries."""
    return Plan(steps=(JudgeCanary(),))


def send_the_canary(job: Job, plan: Plan) -> Plan:
    """Send the requests of every canary that is ready."""
    affordable, unaffordable = job.split_by_allowance(
        [shard for shard in job.synchronous_shards if shard in job.state.canary_shards]
    )
    return Plan(
        steps=tuple(SendSynchronously(shard, shard.next_number, is_canary=True) for shard in affordable),
        withheld=tuple(unaffordable),
    )


def reseal_for_flex(job: Job, plan: Plan) -> Plan:
    """Divide shards into small ones, whose requests are sent synchronously."""
    return Plan(
        steps=tuple(
            Reseal(shard, shard.next_number, max(shard.spec.tokens, 1), SHARD_REQUESTS, lane=Lane.FLEX)
            for shard in job.flex_shards
        )
    )


def reseal_smaller(job: Job, plan: Plan) -> Plan:
    """Divide shards. Since tokens are only estimated, each part also gets at most half of the requests."""
    return Plan(
        steps=tuple(
            Reseal(shard, shard.next_number, max(tokens, 1), -(-shard.requests // 2))
            for shard, tokens in job.admission.reseal
        )
    )


def give_up(job: Job, plan: Plan) -> Plan:
    """Give the shards up. Their rows fail with the message of the provider's last refusal."""
    rejections = [shard.latest.rejection if shard.latest else None for shard in job.admission.give_up]
    return Plan(
        steps=tuple(
            GiveUp(shard, shard.next_number, rejection.message if rejection else "")
            for shard, rejection in zip(job.admission.give_up, rejections, strict=True)
        )
    )


def wait_for_capacity(job: Job, plan: Plan) -> Plan:
    """Plan again when the backoff is over, or when any batch ends."""
    bottlenecks = ("queue capacity",) if job.admission.is_queue_full else ()
    return Plan(wake_times=tuple(job.admission.wake_times), bottlenecks=bottlenecks)


def withhold(job: Job, plan: Plan) -> Plan:
    """Withhold the shards that exceed the budget until a batch ends, which may cost less than was reserved for it.

    While a batch runs, also plan again when a shared budget may have more. Without one, the pause sees to that.
    """
    free_at = job.more_is_free_at if plan.running_batch_ids and job.exceeds_shared_budget else None
    return Plan(withheld=tuple(job.affordable[1]), bottlenecks=("budget",), wake_times=(free_at,) if free_at else ())


def retry(job: Job, plan: Plan) -> Plan:
    """Seal the rows into new shards, in one retry round for each number of forgiven attempts."""
    sources = [(forgiven_attempts_after(job.state, *source), source) for source in job.retries.due]
    rounds: dict[int, list[tuple[ShardState, Settled]]] = {}
    for forgiven_attempts, source in sources:
        rounds.setdefault(forgiven_attempts, []).append(source)
    return Plan(steps=tuple(Retry(rounds[forgiven], forgiven) for forgiven in sorted(rounds)))


def wait_to_retry(job: Job, plan: Plan) -> Plan:
    """Plan again when the retry delay is over."""
    return Plan(wake_times=(job.retries.next_due_at,)) if job.retries.next_due_at else _EMPTY_PLAN


def divide_by_budget(job: Job, plan: Plan) -> Plan:
    """Divide the first shard of each model of which the budget covers a part."""
    return Plan(
        steps=tuple(
            Reseal(shard, shard.next_number, max(shard.spec.tokens, 1), shard.requests, first_part=requests)
            for shard, requests in job.parts_to_send_first
        )
    )


def send_the_final_pass(job: Job, plan: Plan) -> Plan:
    """Send the shards of the final pass that have not been sent, as far as the budget covers them."""
    unsent = [shard for shard in job.state.final_pass_shards if shard.phase is Phase.SEALED]
    covered, _ = job.split_by_allowance(job.budget.next_synchronous(unsent))
    return Plan(steps=tuple(SendSynchronously(shard, shard.next_number) for shard in covered))


def seal_the_final_pass(job: Job, plan: Plan) -> Plan:
    """Seal as many rows as the author allows into synchronous shards."""
    return Plan(steps=(FinalPass(job.state.next_retry_round, *job.unanswered),))


# How the job pauses


def end_as_void(job: Job, plan: Plan) -> Void:
    """End the job with the canary's verdict."""
    canary_verdict = job.state.canary_verdict
    assert canary_verdict is not None
    return Void(canary_verdict.void, canary_verdict.over_budget, canary_verdict.may_pass)


def wait_for_the_final_pass(job: Job, plan: Plan) -> Wait:
    """Wait until the end of the final pass at the latest."""
    return Wait(list(plan.running_batch_ids), min([*plan.wake_times, job.deadline + FINAL_PASS_WINDOW]), any_end=False)


def wait_for_the_end(job: Job, plan: Plan) -> Wait:
    """Wait until the end of the grace period at the latest."""
    return Wait(list(plan.running_batch_ids), min([*plan.wake_times, job.past_cutoff + CANCEL_GRACE]), any_end=False)


def finish(job: Job, plan: Plan) -> Finish:
    """End the wait, and name the shards that a shared budget did not cover until the end."""
    unsent = [
        shard
        for shard in job.state.shards.values()
        if shard.phase in (Phase.SEALED, Phase.UPLOADED) and not _was_refused(shard)
    ]
    return Finish(_names(job.split_by_allowance(unsent)[1]))


def _was_refused(shard: ShardState) -> bool:
    """Return whether the provider refused the newest submission of a shard, so that no budget kept it from running."""
    rejection = shard.latest.rejection if shard.latest else None
    return rejection is not None and rejection.failure is not Failure.BUDGET


def wait(job: Job, plan: Plan) -> Wait:
    """Wait until the cut-off at the latest."""
    ends = [job.cutoff] if job.cutoff else []
    return Wait(
        list(plan.running_batch_ids),
        min([*plan.wake_times, *ends], default=None),
        bool(plan.bottlenecks),
        _names(plan.withheld) if job.allowance is not None else (),
    )


def wait_for_the_shared_budget(job: Job, plan: Plan) -> Wait:
    """Wait until the shared budget may have more."""
    return Wait([], job.more_is_free_at, any_end=False, withheld=_names(plan.withheld))


def hold(job: Job, plan: Plan) -> Hold:
    """Hold the job with the first message."""
    return Hold(plan.hold_messages[0])


def finish_and_name_withheld_shards(job: Job, plan: Plan) -> Finish:
    """End the wait, and name the shards that exceed the budget."""
    return Finish(_names(plan.withheld))


def _names(shards: Iterable[ShardState]) -> tuple[str, ...]:
    return tuple(shard.name for shard in shards)
