"""What happens next to a job: applies the rules to what is recorded, what was just seen, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle import rules
from airflow_provider_batch.core.lifecycle.rule import accumulate, choose
from airflow_provider_batch.core.lifecycle.situation import Job, Plan, Situation
from airflow_provider_batch.core.lifecycle.steps import Pause, Policy, Step
from airflow_provider_batch.core.provider.batch import BatchView


def next_steps(
    state: JobState, batch_views: Mapping[str, BatchView], policy: Policy, now: datetime
) -> tuple[list[Step], Pause]:
    """Return the steps to do now, and how the job pauses if none of them changes anything.

    :param batch_views: the batches as just read from the provider, by id; one that is absent was not looked at.
    """
    situation = Situation(state, batch_views, policy, now)
    by_phase = {phase: [rule for rule in rules.SHARD_RULES if phase in rule.scope] for phase in Phase}
    shards = Plan.sum([choose(by_phase[shard.phase], situation, shard) for shard in state.shards.values()])
    job = Job(situation, shards.ready)
    stage = choose(rules.STAGES, job, shards)
    plan = accumulate([rule for rule in rules.JOB_RULES if stage in rule.scope], job, shards)
    return list(plan.steps), choose(rules.PAUSES, job, plan)
