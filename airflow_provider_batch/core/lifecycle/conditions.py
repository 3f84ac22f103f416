"""The conditions of the rules: small pure functions of the situation and one shard, or of the job and the plan."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import Phase, ShardState
from airflow_provider_batch.core.lifecycle.attempts import is_unwanted
from airflow_provider_batch.core.lifecycle.collection import collect_again_at, is_held
from airflow_provider_batch.core.lifecycle.situation import Job, Plan, Situation
from airflow_provider_batch.core.lifecycle.steps import CANCEL_GRACE, CLAIM_LIFETIME, FINAL_PASS_WINDOW, LOOK_UP_AFTER

# Conditions of one shard


def wait_is_ending(situation: Situation, shard: ShardState) -> bool:
    """The cut-off has passed, or a person cancelled the job."""
    return situation.is_ending


def account_failed(situation: Situation, shard: ShardState) -> bool:
    """The account refused the shard, and no task has started since."""
    rejection, restarted_at = shard.latest.rejection if shard.latest else None, situation.policy.restarted_at
    if rejection is None or rejection.failure is not Failure.ACCOUNT:
        return False
    return restarted_at is None or rejection.time >= restarted_at


def file_was_missing_just_now(situation: Situation, shard: ShardState) -> bool:
    """The provider did not find the input file a short time ago. A new file may become visible with a delay."""
    rejection = shard.latest.rejection if shard.latest else None
    if rejection is None or rejection.failure is not Failure.FILE:
        return False
    return situation.now < rejection.time + situation.policy.backoff / 10


def batch_failed_just_now(situation: Situation, shard: ShardState) -> bool:
    """The batch failed a short time ago, for a reason that is not known."""
    rejection = shard.latest.rejection if shard.latest else None
    if rejection is None or rejection.failure is not Failure.UNKNOWN:
        return False
    return situation.now < rejection.time + situation.policy.backoff


def claim_is_recent(situation: Situation, shard: ShardState) -> bool:
    """A worker may still be sending the synchronous shard that it claimed."""
    return shard.spec.synchronous and _intent_is_younger(situation, shard, CLAIM_LIFETIME)


def intent_is_recent(situation: Situation, shard: ShardState) -> bool:
    """The worker that recorded the intent may still be creating the batch."""
    return _intent_is_younger(situation, shard, LOOK_UP_AFTER)


def _intent_is_younger(situation: Situation, shard: ShardState, age: timedelta) -> bool:
    intent = shard.submissions[-1].intent
    assert intent is not None
    return situation.now < intent.time + age


def batch_is_held(situation: Situation, shard: ShardState) -> bool:
    """The batch has ended, and its result files failed so often that a person must act."""
    return is_held(situation.state, shard.submissions[-1])


def files_failed_just_now(situation: Situation, shard: ShardState) -> bool:
    """The batch has ended, and it is too early to download its result files again."""
    again_at = collect_again_at(situation.state, shard.submissions[-1], situation.policy.backoff)
    return again_at is not None and situation.now < again_at


def batch_has_ended(situation: Situation, shard: ShardState) -> bool:
    """The batch was just read, and it has ended. A batch that was not read counts as running."""
    batch = situation.batch_views.get(shard.submissions[-1].batch_id)
    return batch is not None and batch.status.ended


def cancel_was_sent(situation: Situation, shard: ShardState) -> bool:
    """The provider was asked to cancel the batch."""
    return shard.submissions[-1].cancel is not None


def person_cancelled(situation: Situation, shard: ShardState) -> bool:
    """A person cancelled the job, and none of its tasks has been cleared since."""
    return situation.is_cancelled


def cutoff_has_passed(situation: Situation, part: object) -> bool:
    """The wait is past its cut-off."""
    return situation.is_past_cutoff


def no_row_is_wanted(situation: Situation, shard: ShardState) -> bool:
    """Every row of the shard changed or disappeared after it was sealed."""
    return is_unwanted(shard)


def file_is_uploaded(situation: Situation, shard: ShardState) -> bool:
    """The provider still has an input file of the shard."""
    return bool(reusable_file(shard))


def reusable_file(shard: ShardState) -> str:
    """Return the id of the newest input file that the provider may still have, or an empty string if it has none."""
    for submission in reversed(shard.submissions):
        if submission.rejection and submission.rejection.failure in (Failure.FILE, Failure.UNKNOWN):
            return ""
        if submission.file_id:
            return submission.file_id
    return ""


def uploads_are_refused(situation: Situation, shard: ShardState) -> bool:
    """The provider accepts no input files for now (HTTP 429)."""
    return situation.uploads_resume_at is not None and situation.now < situation.uploads_resume_at


# Conditions of the job: its stage


def canary_is_void(job: Job, plan: Plan) -> bool:
    """The canary's verdict says that this generation must not be uploaded."""
    return job.state.canary_verdict is not None and bool(job.state.canary_verdict.void)


def job_is_cancelled(job: Job, plan: Plan) -> bool:
    """A person cancelled the job."""
    return job.is_cancelled


def verdict_is_due(job: Job, plan: Plan) -> bool:
    """Every canary is answered, and there is no verdict yet."""
    return bool(job.state.canary_shards) and job.state.canary_verdict is None and not canary_is_open(job, plan)


def job_is_held(job: Job, plan: Plan) -> bool:
    """The account refused a shard, so a person must act."""
    return bool(plan.hold_messages)


def canary_is_open(job: Job, plan: Plan) -> bool:
    """A canary is not answered yet."""
    return any(shard.phase is not Phase.SETTLED for shard in job.state.canary_shards)


def person_decides_first(job: Job, plan: Plan) -> bool:
    """Submit stops after the canary, because a person decides about the rest."""
    return job.policy.stop_after_canary


# Conditions of the job: what to send


def shard_is_synchronous(situation: Situation, shard: ShardState) -> bool:
    """The requests of the shard are sent synchronously."""
    return shard.spec.synchronous


def job_is_sent_on_flex(job: Job, plan: Plan) -> bool:
    """A ready shard holds rows that are to be sent on flex."""
    return bool(job.flex_shards)


def shard_is_too_large(job: Job, plan: Plan) -> bool:
    """A shard of several rows does not fit the queue capacity."""
    return bool(job.batch_shards and job.admission.reseal)


def row_is_too_large(job: Job, plan: Plan) -> bool:
    """A shard of one row does not fit the queue capacity."""
    return bool(job.batch_shards and job.admission.give_up)


def shard_is_affordable(job: Job, plan: Plan) -> bool:
    """A shard is within queue capacity and budget."""
    return bool(job.affordable[0])


def queue_is_full(job: Job, plan: Plan) -> bool:
    """A shard waits for queue capacity."""
    return bool(job.batch_shards and (job.admission.wake_times or job.admission.is_queue_full))


def budget_is_short(job: Job, plan: Plan) -> bool:
    """A shard is within queue capacity, but not within the budget."""
    return bool(job.affordable[1])


def retry_is_due(job: Job, plan: Plan) -> bool:
    """Rows are to be retried now."""
    return bool(job.retries.due)


def retry_is_delayed(job: Job, plan: Plan) -> bool:
    """Rows are to be retried later."""
    return job.retries.next_due_at is not None


def only_the_budget_is_in_the_way(job: Job, plan: Plan) -> bool:
    """Shards are withheld, and nothing is due or running whose cost could still turn out lower."""
    return bool(plan.withheld) and not (plan.steps or plan.running_batch_ids or plan.wake_times)


def shared_budget_may_have_more(job: Job, plan: Plan) -> bool:
    """Shards are withheld, and a shared budget may cover them before the deadline."""
    return bool(plan.withheld) and job.more_is_free_at is not None and job.exceeds_shared_budget


# Conditions of the job: the final pass


def a_step_is_due(job: Job, plan: Plan) -> bool:
    """Another step must be done first."""
    return bool(plan.steps)


def author_wants_no_final_pass(job: Job, plan: Plan) -> bool:
    """No row may be sent after the deadline."""
    return not job.policy.at_deadline_rows


def final_pass_is_over(job: Job, plan: Plan) -> bool:
    """The time of the final pass has passed."""
    return job.now >= job.deadline + FINAL_PASS_WINDOW


def canary_has_no_verdict(job: Job, plan: Plan) -> bool:
    """The cut-off passed before the canary was judged."""
    return bool(job.state.canary_shards) and job.state.canary_verdict is None


def account_refused_the_final_pass(job: Job, plan: Plan) -> bool:
    """The final pass is sealed, and the account refused a shard of it."""
    return job.is_final_pass_sealed and any(account_failed(job, shard) for shard in job.state.final_pass_shards)


def final_pass_is_sealed(job: Job, plan: Plan) -> bool:
    """The rows of the final pass are sealed."""
    return job.is_final_pass_sealed


def answers_may_still_come(job: Job, plan: Plan) -> bool:
    """A batch or an unanswered creation is not settled, and the grace period is not over."""
    return _is_awaited(plan) and job.now < job.past_cutoff + CANCEL_GRACE


def rows_have_no_answer(job: Job, plan: Plan) -> bool:
    """There are rows without a usable answer."""
    return bool(job.unanswered.settled_sources or job.unanswered.unsent_shards)


# Conditions of the plan: what to wait for


def claim_is_awaited(job: Job, plan: Plan) -> bool:
    """After the cut-off a worker may still be sending a shard of the final pass."""
    is_claimed = any(shard.phase is Phase.CREATING for shard in job.state.final_pass_shards)
    return job.is_past_cutoff and is_claimed and _is_awaited(plan) and job.now < job.deadline + FINAL_PASS_WINDOW


def end_is_awaited(job: Job, plan: Plan) -> bool:
    """After the cut-off a cancelled batch or an unanswered creation may still be settled."""
    return job.is_past_cutoff and _is_awaited(plan) and job.now < job.past_cutoff + CANCEL_GRACE


def something_is_awaited(job: Job, plan: Plan) -> bool:
    """A batch is running, or a time is set at which to plan again."""
    return _is_awaited(plan)


def _is_awaited(plan: Plan) -> bool:
    return bool(plan.running_batch_ids or plan.wake_times)
