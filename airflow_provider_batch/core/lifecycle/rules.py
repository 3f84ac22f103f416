"""The rules of the lifecycle: what happens next to a job.

The tables of this file decide every step of a job, and `docs/explanation/lifecycle.md` is rendered from them.
`next_steps` applies them. The functions that the rules name are in `conditions` and `consequences`, and all of them
are pure. The worker does a step, records the result, and calls `next_steps` again. So a worker can be killed at any
instruction, and the next one continues from the ledger.

A SHARD is in one phase, which follows from its records alone: sealed, uploaded, creating, live, settled or resealed.
`phases.py` lists the transitions. For each shard, the first rule of its phase that holds decides what to do. Some
failures (a full queue, a lost file, an account without credit and, once, an unknown reason) send a shard back to
sealed. No request of it ran then, so sending it again does not count as an attempt.

A JOB is in one stage, which is computed each time and never recorded: the first line of STAGES that holds. Then all
rules of that stage apply, in order, to the shards that are ready.

The CANARY comes first, because a mistake in a prompt or a schema is the same mistake in every row. A few requests are
sent synchronously, and the verdict on their answers can stop the job before the first upload, when it has cost next to
nothing. The answers also correct the estimate that is compared with the ceiling.

An unanswered CREATION is the dangerous case, because a batch that nobody recorded may exist and cost money. So the
intent is recorded before the call, and nobody creates a second batch before looking the first one up. The look-up waits
120 s: a worker that is still alive has created its batch by then, or may no longer create it. `steps.py` and
`duplicate_batches.py` explain this in detail.

The RESULT FILES of an ended batch settle its shard only if they agree with what the provider says of them. Otherwise
they are downloaded again, and in the end the batch is held for a person, while the rest of the job continues
(`collection.py`).

At the CUT-OFF, nothing more is sent and every running batch is cancelled. The answers so far are paid for, so the wait
continues for a grace period of 15 minutes to collect them: the provider may take ten minutes to cancel a batch. Then
the wait ends, except for the final pass. The cut-off is the deadline, or earlier if there is a final pass, so that it
can end by the deadline (see `deadline.py`).

A job can be sent on FLEX instead of in batches. Its rows are then resealed into small shards, and sent one by one. Rows
that flex does not take go to a batch, and so do rows that are retried.

The FINAL PASS, if the author allows one, runs once all batches are settled, or once the grace period is over. It sends
rows without a usable answer synchronously: on the flex tier, which costs as much as a batch, and only if the author
allows that at the standard price. It can start another shard until 30 minutes after the deadline. It never sends a row
whose batch is not settled, because that answer may still come, and the row would then be paid for twice.

When a person CANCELS the job, running batches are cancelled and collected too, but there is no final pass. Clearing a
task of the job ends this stage. Clearing the wait can also set a new deadline (see `deadline.py`).

`capacity.py` decides how many shards of a model are sent at a time, `budget.py` how many the ceiling allows,
`shared_budget.py` what other jobs leave of a connection's or a run's budget, and `attempts.py` which rows are retried.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_batch.core.ledger.state import Phase, ShardState
from airflow_provider_batch.core.lifecycle import conditions, consequences
from airflow_provider_batch.core.lifecycle.rule import Rule, always, choose
from airflow_provider_batch.core.lifecycle.situation import Job, Plan, Situation, Stage
from airflow_provider_batch.core.lifecycle.steps import Pause

ShardRule = Rule[Situation, ShardState, Plan]
StageRule = Rule[Job, Plan, Stage]
JobRule = Rule[Job, Plan, Plan]
PauseRule = Rule[Job, Plan, Pause]

UNSENT = (Phase.SEALED, Phase.UPLOADED)

#: for each shard, the first rule of its phase that holds
SHARD_RULES: tuple[ShardRule, ...] = (
    Rule(
        "the cut-off has passed, or a person cancelled the job",
        conditions.wait_is_ending,
        "Do nothing. Only the final pass may still send its rows.",
        consequences.do_nothing,
        UNSENT,
    ),
    Rule(
        "the account refused it (billing, quota, access), and no task of the job has started since",
        conditions.account_failed,
        "Hold the job with the provider's message until a person has acted.",
        consequences.hold_for_a_person,
        UNSENT,
    ),
    Rule(
        "less than a tenth of the retry delay ago, the provider did not find its input file",
        conditions.file_was_missing_just_now,
        "Wait until that time has passed.",
        consequences.wait_for_the_file,
        UNSENT,
    ),
    Rule(
        "less than the retry delay ago, its batch failed for an unknown reason and answered nothing",
        conditions.batch_failed_just_now,
        "Wait until that time has passed. This happens once: if the next batch fails like this, its rows fail.",
        consequences.wait_after_the_failure,
        UNSENT,
    ),
    Rule(
        "otherwise",
        always,
        "It is ready. The stage of the job decides when it is sent.",
        consequences.mark_ready,
        UNSENT,
    ),
    Rule(
        "it is a synchronous shard, and a worker claimed it less than 25 minutes ago",
        conditions.claim_is_recent,
        "Wait until the 25 minutes are over, because that worker may still be sending it.",
        consequences.wait_for_the_claim,
        (Phase.CREATING,),
    ),
    Rule(
        "the intent is less than 120 seconds old",
        conditions.intent_is_recent,
        "Wait until the 120 seconds are over, because the worker that recorded it may still be creating the batch.",
        consequences.wait_for_the_intent,
        (Phase.CREATING,),
    ),
    Rule(
        "otherwise",
        always,
        "Look the batch up at the provider before creating a second one. This also applies after the deadline.",
        consequences.look_up,
        (Phase.CREATING,),
    ),
    Rule(
        "its batch has ended, and its result files could not be collected 7 times since the wait was last cleared",
        conditions.batch_is_held,
        "Hold the batch for a person. The rest of the job continues, and the rows of this batch land as pending.",
        consequences.do_nothing,
        (Phase.LIVE,),
    ),
    Rule(
        "its batch has ended, and its result files could not be collected a short time ago",
        conditions.files_failed_just_now,
        "Wait before they are downloaded again: a tenth of the backoff, doubled with each failure, at most an hour.",
        consequences.wait_to_collect,
        (Phase.LIVE,),
    ),
    Rule(
        "its batch has ended",
        conditions.batch_has_ended,
        "Collect the result files. If they agree with what the provider says of them, settle the shard.",
        consequences.collect,
        (Phase.LIVE,),
    ),
    Rule(
        "the provider was already asked to cancel its batch",
        conditions.cancel_was_sent,
        "Wait for the batch to end.",
        consequences.wait_for_the_batch,
        (Phase.LIVE,),
    ),
    Rule(
        "a person cancelled the job",
        conditions.person_cancelled,
        "Cancel the batch, and wait for it to end.",
        consequences.cancel_for_a_person,
        (Phase.LIVE,),
    ),
    Rule(
        "the cut-off has passed",
        conditions.cutoff_has_passed,
        "Cancel the batch, and wait for it to end.",
        consequences.cancel_at_the_cutoff,
        (Phase.LIVE,),
    ),
    Rule(
        "every row of it has changed or disappeared since it was sealed",
        conditions.no_row_is_wanted,
        "Cancel the batch, and wait for it to end.",
        consequences.cancel_unwanted,
        (Phase.LIVE,),
    ),
    Rule("otherwise", always, "Wait for the batch to end.", consequences.wait_for_the_batch, (Phase.LIVE,)),
    Rule(
        "always",
        always,
        "Do nothing. Rows that failed for a transient reason are retried in new shards.",
        consequences.do_nothing,
        (Phase.SETTLED,),
    ),
    Rule("always", always, "Do nothing. Its rows are in other shards.", consequences.do_nothing, (Phase.RESEALED,)),
)


def _stage(stage: Stage) -> Callable[[Job, Plan], Stage]:
    return lambda job, plan: stage


#: the first line that holds is the stage of the job
STAGES: tuple[StageRule, ...] = (
    Rule(
        "the canary's verdict is that the other requests would be refused, or cost too much",
        conditions.canary_is_void,
        "Nothing of this generation is ever uploaded.",
        _stage(Stage.VOID),
    ),
    Rule(
        "a person cancelled the job, and none of its tasks has been cleared since",
        conditions.job_is_cancelled,
        "Nothing is sent or retried.",
        _stage(Stage.CANCELLED),
    ),
    Rule(
        "the cut-off has passed",
        conditions.cutoff_has_passed,
        "Nothing is sent or retried, except by the final pass.",
        _stage(Stage.OVER),
    ),
    Rule(
        "every canary is answered, and there is no verdict yet",
        conditions.verdict_is_due,
        "The verdict is computed from the answers.",
        _stage(Stage.VERDICT),
    ),
    Rule(
        "the account refused a shard, so a person must act",
        conditions.job_is_held,
        "Nothing is sent or retried. Running batches are still collected.",
        _stage(Stage.HELD),
    ),
    Rule(
        "a canary is not answered yet",
        conditions.canary_is_open,
        "Only canaries are sent.",
        _stage(Stage.CANARY),
    ),
    Rule(
        "submit runs with stop_after_canary",
        conditions.person_decides_first,
        "Nothing is sent or retried. The wait, which starts after a person's approval, sends the other requests.",
        _stage(Stage.DECISION),
    ),
    Rule("otherwise", always, "Shards are sent, and rows are retried.", _stage(Stage.SENDING)),
)

#: for each shard that queue capacity and budget admit, the first rule that holds
SEND_RULES: tuple[ShardRule, ...] = (
    Rule(
        "its requests are sent synchronously",
        conditions.shard_is_synchronous,
        "Send them. This is a paid step.",
        consequences.send_synchronously,
    ),
    Rule(
        "the provider still has its input file",
        conditions.file_is_uploaded,
        "Create the batch. This is the paid step.",
        consequences.create,
    ),
    Rule(
        "the provider accepts no input files for now (HTTP 429)",
        conditions.uploads_are_refused,
        "Wait until the backoff is over, or for the time that the provider asked for (Retry-After) if that is longer.",
        consequences.wait_for_uploads,
    ),
    Rule("otherwise", always, "Upload the input file.", consequences.upload),
)

#: after the cut-off, the first rule that holds
FINAL_PASS_RULES: tuple[JobRule, ...] = (
    Rule(
        "another step is due",
        conditions.a_step_is_due,
        "Do that step first.",
        consequences.do_nothing,
    ),
    Rule(
        "the author wants no final pass",
        conditions.author_wants_no_final_pass,
        "There is no final pass.",
        consequences.do_nothing,
    ),
    Rule(
        "the deadline passed at least 30 minutes ago",
        conditions.final_pass_is_over,
        "The final pass is over.",
        consequences.do_nothing,
    ),
    Rule(
        "there is a canary, and no verdict yet",
        conditions.canary_has_no_verdict,
        "There is no final pass, because nothing may be sent before the verdict.",
        consequences.do_nothing,
    ),
    Rule(
        "the final pass is sealed, and the account refused a shard of it",
        conditions.account_refused_the_final_pass,
        "The final pass is over, because the other shards would be refused too.",
        consequences.do_nothing,
    ),
    Rule(
        "the final pass is sealed",
        conditions.final_pass_is_sealed,
        "Send each of its shards once, synchronously, while the budget covers it.",
        consequences.send_the_final_pass,
    ),
    Rule(
        "a batch or an unanswered creation is not settled, and the grace period of 15 minutes is not over",
        conditions.answers_may_still_come,
        "Wait for it first.",
        consequences.do_nothing,
    ),
    Rule(
        "there are rows without a usable answer, because they failed or were never sent",
        conditions.rows_have_no_answer,
        "Seal as many of them as the author allows into synchronous shards.",
        consequences.seal_the_final_pass,
    ),
    Rule("otherwise", always, "There is nothing to send.", consequences.do_nothing),
)


def _send_each(job: Job, plan: Plan) -> Plan:
    return Plan.sum([choose(SEND_RULES, job, shard) for shard in job.affordable[0]])


def _apply_final_pass_rules(job: Job, plan: Plan) -> Plan:
    return choose(FINAL_PASS_RULES, job, plan)


#: all rules of the job's stage that hold, in this order; a stage without rules adds nothing
JOB_RULES: tuple[JobRule, ...] = (
    Rule("always", always, "Apply the rules of the final pass.", _apply_final_pass_rules, (Stage.OVER,)),
    Rule("always", always, "Record the verdict on the canary.", consequences.judge_the_canary, (Stage.VERDICT,)),
    Rule(
        "always",
        always,
        "Send every canary that is ready and that the shared budgets cover.",
        consequences.send_the_canary,
        (Stage.CANARY,),
    ),
    Rule(
        "the job is sent on flex, and a ready shard holds rows as they were sealed",
        conditions.job_is_sent_on_flex,
        "Reseal its rows into small shards, whose requests are sent synchronously.",
        consequences.reseal_for_flex,
        (Stage.SENDING,),
    ),
    Rule(
        "a ready shard of several rows is too large for the queue capacity of its model",
        conditions.shard_is_too_large,
        "Reseal its rows into smaller shards. This does not count as an attempt.",
        consequences.reseal_smaller,
        (Stage.SENDING,),
    ),
    Rule(
        "a ready shard of a single row is too large for the queue capacity of its model",
        conditions.row_is_too_large,
        "Give it up. The row fails with the provider's message.",
        consequences.give_up,
        (Stage.SENDING,),
    ),
    Rule(
        "ready shards are within the queue capacity and the budget",
        conditions.shard_is_affordable,
        "Send each of them.",
        _send_each,
        (Stage.SENDING,),
    ),
    Rule(
        "ready shards wait for queue capacity",
        conditions.queue_is_full,
        "Wait until the backoff is over, or until any batch has ended.",
        consequences.wait_for_capacity,
        (Stage.SENDING,),
    ),
    Rule(
        "a ready shard exceeds the budget",
        conditions.budget_is_short,
        "Withhold it. When a batch has ended, decide again with its real cost.",
        consequences.withhold,
        (Stage.SENDING,),
    ),
    Rule(
        "rows failed for a transient reason, have attempts left, and their retry delay is over",
        conditions.retry_is_due,
        "Seal them into new shards.",
        consequences.retry,
        (Stage.SENDING,),
    ),
    Rule(
        "rows failed for a transient reason and have attempts left, but their retry delay is not over",
        conditions.retry_is_delayed,
        "Wait until the last of them is ready.",
        consequences.wait_to_retry,
        (Stage.SENDING,),
    ),
    Rule(
        "shards are withheld, and there is nothing else to do or to wait for",
        conditions.only_the_budget_is_in_the_way,
        "Divide the first shard of each model of which the budget covers a part, and send that part.",
        consequences.divide_by_budget,
        (Stage.SENDING,),
    ),
)

#: how the job pauses if no step of the plan changes anything: the first rule that holds
PAUSES: tuple[PauseRule, ...] = (
    Rule(
        "the canary's verdict is void",
        conditions.canary_is_void,
        "End. Submit must seal a new generation.",
        consequences.end_as_void,
    ),
    Rule(
        "the cut-off has passed, and a worker has claimed a shard of the final pass",
        conditions.claim_is_awaited,
        "Wait for it, until 30 minutes after the deadline at the latest.",
        consequences.wait_for_the_final_pass,
    ),
    Rule(
        "the cut-off has passed, and a batch is running or a time is set at which to plan again",
        conditions.end_is_awaited,
        "Wait for it, until 15 minutes after the cut-off at the latest.",
        consequences.wait_for_the_end,
    ),
    Rule(
        "the cut-off has passed",
        conditions.cutoff_has_passed,
        "Finish. The landing judges the rows without an answer. Shards that exceed a shared budget are withheld.",
        consequences.finish,
    ),
    Rule(
        "a batch is running, or a time is set at which to plan again",
        conditions.something_is_awaited,
        "Wait for it, until the cut-off at the latest.",
        consequences.wait,
    ),
    Rule("a person must act", conditions.job_is_held, "Hold the job. Everything is kept.", consequences.hold),
    Rule(
        "shards exceed a budget that the job shares with others, and more of it may become free before the deadline",
        conditions.shared_budget_may_have_more,
        "Wait until its next period, or read it again after the backoff if other jobs hold reservations.",
        consequences.wait_for_the_shared_budget,
    ),
    Rule(
        "otherwise",
        always,
        "Finish. Shards that exceed the budget are withheld.",
        consequences.finish_and_name_withheld_shards,
    ),
)
