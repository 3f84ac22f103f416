"""Computes what happens next to a job from its recorded state, the batches as the provider shows them, and the time.

    state, batch views, policy, now, allowance
        │
        ├─ SHARD_RULES    one rule per shard: a step, something to wait for, or "ready to send"
        ├─ STAGES         one rule: the stage of the job
        ├─ JOB_RULES      all rules of the stage: what to do with the shards that are ready, and with rows to retry;
        │                 they apply SEND_RULES to each shard that is sent, and FINAL_PASS_RULES after the deadline
        └─ PAUSES         one rule: how the job pauses if no step changes anything
        │
    steps, pause

The tables are in `rules.py`. `next_steps` is a pure function. A worker calls it, does the steps, records their results,
and calls it again until no steps are left. Then the job pauses.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle import rules
from airflow_provider_batch.core.lifecycle.rule import accumulate, choose
from airflow_provider_batch.core.lifecycle.shared_budget import Allowance
from airflow_provider_batch.core.lifecycle.situation import Job, Plan, Situation
from airflow_provider_batch.core.lifecycle.steps import Pause, Policy, Step
from airflow_provider_batch.core.provider.batch import BatchView


def next_steps(
    state: JobState,
    batch_views: Mapping[str, BatchView],
    policy: Policy,
    now: datetime,
    allowance: Allowance | None = None,
) -> tuple[list[Step], Pause]:
    """Return the steps to do now, and how the job pauses if none of them changes anything.

    :param batch_views: the batches as just read from the provider, by id. A missing one was not read, and counts as
        running.
    :param allowance: what the budgets that the job shares with others leave for it; None if there are none.
    """
    situation = Situation(state, batch_views, policy, now, allowance)
    by_phase = {phase: [rule for rule in rules.SHARD_RULES if phase in rule.scope] for phase in Phase}
    shards = Plan.sum([choose(by_phase[shard.phase], situation, shard) for shard in state.shards.values()])
    job = Job(situation, shards.ready)
    stage = choose(rules.STAGES, job, shards)
    plan = accumulate([rule for rule in rules.JOB_RULES if stage in rule.scope], job, shards)
    return list(plan.steps), choose(rules.PAUSES, job, plan)
