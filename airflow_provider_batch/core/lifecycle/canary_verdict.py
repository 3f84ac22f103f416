"""The verdict on the canary: what its answers show about the requests that have not been sent.

A few requests of each model are sent synchronously before the first file is uploaded. If none of them got a usable
answer, the rest would be paid for without success: `core.lifecycle.canary_answers` decides that. If they were answered,
their tokens show what the rest will cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.records import CanaryVerdict
from airflow_provider_batch.core.ledger.samples import OutputSample
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.budget import Ceiling
from airflow_provider_batch.core.lifecycle.canary_answers import (
    ModelCanary,
    check_dimensions,
    count_outcomes,
    describe_stop,
    first_messages,
)
from airflow_provider_batch.core.pricing.estimate import CanaryUsage, RemainingRequests, estimate_after_canary
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.pricing.spread import with_earlier_answers
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: default and maximum number of requests per model in the canary
DEFAULT_REQUESTS = 5
MAX_REQUESTS = 20


class CanaryResult(NamedTuple):
    """The verdict to record, and the figures for the log."""

    verdict: CanaryVerdict
    #: number of requests of the canary, and how many of them got an answer
    requests: int
    answered: int
    #: mean output tokens of an answer, by model
    mean_output: dict[str, int]
    #: reported divided by estimated input tokens, by model
    input_factors: dict[str, float]
    #: number of requests by outcome, and the first messages of those without a usable answer
    outcomes: str
    messages: str
    #: why the job would have been stopped, if its author had not set `ignore_canary`; else empty
    ignored: str


def judge_canary(
    state: JobState,
    folder: Folder,
    schema: SchemaJudge | None,
    prices: Prices,
    now: datetime,
    ceilings: Sequence[Ceiling],
) -> CanaryResult:
    """Return the verdict on the answers of all canary shards, which must be settled.

    :param ceilings: the ceilings that the job is under.
    :raises StagingError: if a result file in staging is not the one that was collected.
    """
    manifest = state.manifest
    canaries: list[ModelCanary] = []
    usage_by_model: dict[str, tuple[CanaryUsage, RemainingRequests]] = {}
    correction = InputCorrection(state)
    unmeasured_answers = 0
    for shard_state in state.canary_shards:
        shard = shard_state.spec
        settled = shard_state.submissions[-1].settled
        assert settled is not None
        rows = read_rows(folder, shard)
        lines = [
            (line, check_dimensions(answer, manifest.table_dimensions))
            for line, answer in read_answers(folder, shard, settled, rows, manifest.endpoint, schema)
        ]
        answers = [answer for _, answer in lines]
        batch_shards = [spec for spec in manifest.shards if spec.model == shard.model and not spec.synchronous]
        canaries.append(
            ModelCanary(
                shard.model,
                [(rows[line].custom_id, answer) for line, answer in sorted(lines, key=itemgetter(0))],
                sum(
                    spec.requests - spec.obsolete_rows
                    for spec in batch_shards
                    if not state.shards[spec.name].submissions
                ),
                bool(batch_shards) or shard.requests == manifest.requests,
                ", ".join(f"{folder.uri}/{file.name}" for file in settled.files),
            )
        )
        # the estimate stays in place for answers that do not report their usage
        unmeasured = sum(not answer.usage.is_known for answer in answers)
        estimated_tokens = sum(spec.tokens for spec in batch_shards) + shard.tokens * unmeasured // max(
            shard.requests, 1
        )
        unmeasured_answers += unmeasured
        remaining = RemainingRequests(
            sum(spec.requests for spec in batch_shards) + unmeasured,
            correction.correct(shard.model, estimated_tokens),
            with_earlier_answers(_outputs(answers), manifest.earlier_outputs.get(shard.model, OutputSample())),
            settled.inputs,
            manifest.output_caps.get(shard.model),
        )
        usage_by_model[shard.model] = (_usage(shard.model, answers, prices), remaining)
    estimate = estimate_after_canary(manifest.estimate, prices, usage_by_model, manifest.endpoint)
    all_answers = [answer for canary in canaries for _, answer in canary.answers]
    stopping = [canary for canary in canaries if canary.stops_job]
    usages = [usage for usage, _ in usage_by_model.values()]
    reason = describe_stop(stopping, _describe_cost(usages, unmeasured_answers)) if stopping else ""
    stop = "" if manifest.ignore_canary else reason
    over_budget = ""
    ceiling = min(ceilings, key=attrgetter("usd"), default=None)
    if ceiling is not None and estimate.low_usd is not None and estimate.low_usd > ceiling.usd:
        over_budget = _budget_message(estimate, ceiling, len(all_answers))
    verdict = CanaryVerdict(
        estimate,
        now,
        " ".join(filter(None, (over_budget, stop))),
        bool(over_budget),
        may_pass=bool(stop) and not over_budget and all(canary.may_pass for canary in stopping),
    )
    return CanaryResult(
        verdict,
        len(all_answers),
        sum(answer.outcome not in (Outcome.FAILED, Outcome.EXPIRED, Outcome.MISSING) for answer in all_answers),
        {model: usage.output_tokens // usage.answers for model, (usage, _) in usage_by_model.items() if usage.answers},
        {model: correction.factor(model) for model in usage_by_model},
        count_outcomes(all_answers),
        first_messages(all_answers),
        reason if manifest.ignore_canary else "",
    )


def _describe_cost(usages: list[CanaryUsage], unmeasured_answers: int) -> str:
    costs = [usage.cost for usage in usages if usage.cost is not None]
    if unmeasured_answers or len(costs) < len(usages):
        reason = "the provider did not report its tokens" if unmeasured_answers else "no price is known"
        return f"What the canary cost is unknown, because {reason}."
    return f"The canary cost {format_usd(float(sum(costs)))}."


def _outputs(answers: list[Answer]) -> OutputSample:
    usages = [answer.usage for answer in answers if answer.usage.is_known and not answer.usage.is_zero]
    return OutputSample.of(usage.output_tokens or 0 for usage in usages)


def _usage(model: str, answers: list[Answer], prices: Prices) -> CanaryUsage:
    count = input_tokens = output_tokens = 0
    total: Decimal | None = Decimal(0)
    for answer in answers:
        usage = answer.usage
        if usage.is_zero or not usage.is_known:
            continue
        count += 1
        input_tokens += usage.input_tokens or 0
        output_tokens += usage.output_tokens or 0
        cost = prices.cost(
            model,
            usage,
            answered_by=answer.model,
            lane=Lane.STANDARD.of_answer(answer.service_tier),
        )
        total = None if total is None or cost is None else total + cost
    return CanaryUsage(count, input_tokens, output_tokens, total)


def _budget_message(estimate: Estimate, ceiling: Ceiling, requests: int) -> str:
    likely = "" if estimate.likely_usd is None else f" (most likely {format_usd(estimate.likely_usd)})"
    return (
        f"Judging by the answers to the canary ({format_count(requests, 'request')} sent before all others), the job "
        f"would cost at least {format_usd(estimate.low_usd or 0.0)}{likely}, but {ceiling}. "
        f"Nothing was uploaded. Raise {ceiling.name}, send fewer rows, limit the length of the "
        "answers or use a cheaper model. Then clear this task: it reads and renders the rows again."
    )
