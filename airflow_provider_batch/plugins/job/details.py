"""Everything about one job that its page shows, from its ledger and from its task instances."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from airflow_provider_batch.links.airflow_pages import approval_path
from airflow_provider_batch.plugins.job.tasks import JobTask, Role
from airflow_provider_batch.worker.collected_answers import CollectedAnswers, ErrorGroup, RequestText
from airflow_provider_batch.worker.limited_folder import LimitedFolder, ReadLimitError

#: maximum number of shards that are shown
MAX_SHARDS = 200
#: limits for reading errors and the first request
_SECONDS, _BYTES = 4.0, 64 << 20


class ModelUse(msgspec.Struct, frozen=True):
    """What the answers of one model used so far. None is unknown."""

    model: str
    #: number of requests in settled batches
    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger and the collected files say about a job."""

    job: JobSummary
    more_shards: int
    #: what a person can do now
    next: str
    errors: list[ErrorGroup]
    #: why the errors may be incomplete
    errors_problem: str | None
    models: list[ModelUse]
    request: RequestText | None


def read_record(ledger: Ledger) -> Record:
    """Return what the ledger and the collected files say about a job.

    :raises BatchError: if the ledger or a file cannot be read.
    """
    summary, state = summarize(ledger), ledger.state()
    answers = CollectedAnswers(ledger, state, LimitedFolder(ledger.folder, seconds=_SECONDS, max_bytes=_BYTES))
    try:
        request = answers.first_request()
    except ReadLimitError:
        request = None
    errors = answers.errors()
    return Record(
        job=msgspec.structs.replace(summary, shards=summary.shards[:MAX_SHARDS]),
        more_shards=max(len(summary.shards) - MAX_SHARDS, 0),
        next=summary.next,
        errors=errors.groups,
        errors_problem=errors.problem,
        models=model_uses(state),
        request=request,
    )


def model_uses(state: JobState) -> list[ModelUse]:
    """Return what the answers of each model used so far."""
    records: dict[str, list[tuple[int, Settled]]] = {}
    for shard, _, settled in state.settled_submissions():
        records.setdefault(shard.model, []).append((shard.requests, settled))
    return [
        ModelUse(
            model,
            sum(requests for requests, _ in uses),
            sum(settled.input_tokens for _, settled in uses),
            sum(settled.output_tokens for _, settled in uses),
            _sum([settled.cost_usd for _, settled in uses]),
        )
        for model, uses in records.items()
    ]


def _sum(costs: Sequence[str | None]) -> float | None:
    known_costs = [Decimal(cost) for cost in costs if cost is not None]
    return float(sum(known_costs)) if len(known_costs) == len(costs) else None


def find_approval(dag_id: str, run_id: str, tasks: Sequence[JobTask]) -> str | None:
    """Return the path in Airflow's UI at which a person approves the job, or None if nothing waits for that."""
    for task in tasks:
        if task.role is Role.APPROVE and task.state in ("deferred", "awaiting_input"):
            return approval_path(dag_id, run_id, task.task_id, task.map_index)
    return None
