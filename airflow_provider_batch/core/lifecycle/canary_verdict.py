"""The verdict on the canary: what its answers show about the requests that have not been sent.

The first requests of each model are sent synchronously before the first file is uploaded. If the provider refused all
of them for a reason that they have in common (a parameter, the schema, the name of the model), it would refuse the
rest too. If they were answered, their output shows what the rest will cost.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.records import CanaryVerdict
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.pricing.estimate import CanaryUsage, RemainingRequests, estimate_after_canary
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: default and maximum number of requests per model in the canary
DEFAULT_REQUESTS = 2
MAX_REQUESTS = 20

#: error codes and phrases of refusals that concern the content of one row, and not what all rows have in common
_CODES_OF_A_ROW = frozenset(
    {
        "context_length_exceeded",
        "string_above_max_length",
        "content_filter",
        "content_policy_violation",
        "invalid_prompt",
        "invalid_image_url",
        "invalid_image",
        "image_parse_error",
    }
)
_WORDS_OF_A_ROW = (
    "context length",
    "context window",
    "content management policy",
    "content policy",
    "usage policy",
    "safety system",
    "string too long",
    "error while downloading",
)


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
    #: number of requests by outcome
    outcomes: dict[str, int]


def judge_canary(
    state: JobState, folder: Folder, schema: SchemaJudge | None, prices: Prices, now: datetime
) -> CanaryResult:
    """Return the verdict on the answers of all canary shards, which must be settled.

    :raises StagingError: if a result file in staging is not the one that was collected.
    """
    manifest = state.manifest
    outcomes: Counter[str] = Counter()
    usage_by_model: dict[str, tuple[CanaryUsage, RemainingRequests]] = {}
    refusals: list[str] = []
    correction = InputCorrection(state)
    for shard_state in state.canary_shards:
        shard = shard_state.spec
        settled = shard_state.submissions[-1].settled
        assert settled is not None
        rows = read_rows(folder, shard)
        answers = [answer for _, answer in read_answers(folder, shard, settled, rows, manifest.endpoint, schema)]
        outcomes.update(answer.outcome.value for answer in answers)
        batch_shards = [spec for spec in manifest.shards if spec.model == shard.model and not spec.synchronous]
        # If no other request to this model is left, the refused rows fail and the rows of the other models continue.
        can_stop_job = bool(batch_shards) or shard.requests == manifest.requests
        if can_stop_job and all(_is_shared_refusal(answer) for answer in answers):
            refusals.append(f"{shard.model}: {_messages(answers)}")
        # the estimate stays in place for answers that do not report their usage
        unmeasured = sum(not answer.usage.is_known for answer in answers)
        estimated_tokens = sum(spec.tokens for spec in batch_shards) + shard.tokens * unmeasured // max(
            shard.requests, 1
        )
        remaining = RemainingRequests(
            sum(spec.requests for spec in batch_shards) + unmeasured,
            correction.correct(shard.model, estimated_tokens),
        )
        usage_by_model[shard.model] = (_usage(shard.model, answers, prices), remaining)
    estimate = estimate_after_canary(manifest.estimate, prices, usage_by_model, manifest.endpoint)
    requests = sum(outcomes.values())
    void, over_budget = _refusal_message(refusals, requests), False
    ceiling = state.ceiling
    if not void and ceiling is not None and estimate.low_usd is not None and estimate.low_usd > ceiling:
        void, over_budget = _budget_message(estimate.low_usd, estimate.high_usd or 0.0, ceiling, requests), True
    return CanaryResult(
        CanaryVerdict(estimate, now, void, over_budget),
        requests,
        requests - sum(outcomes[name] for name in (Outcome.FAILED, Outcome.EXPIRED, Outcome.MISSING)),
        {model: usage.output_tokens // usage.answers for model, (usage, _) in usage_by_model.items() if usage.answers},
        {model: correction.factor(model) for model in usage_by_model},
        {name.value: outcomes[name] for name in Outcome if outcomes[name]},
    )


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
        cost = prices.cost(model, usage, answered_by=answer.model, batch=False)
        total = None if total is None or cost is None else total + cost
    return CanaryUsage(count, input_tokens, output_tokens, total)


def _is_shared_refusal(answer: Answer) -> bool:
    """Return whether a request was refused permanently, for a reason that other rows share."""
    if answer.outcome is not Outcome.FAILED or answer.transient:
        return False
    message = (answer.error_message or "").lower()
    return answer.error_code not in _CODES_OF_A_ROW and not any(words in message for words in _WORDS_OF_A_ROW)


def _messages(answers: list[Answer]) -> str:
    messages = dict.fromkeys(f"{answer.error_code}: {(answer.error_message or '')[:300]}" for answer in answers)
    return "; ".join(list(messages)[:3])


def _refusal_message(refusals: list[str], requests: int) -> str:
    if not refusals:
        return ""
    return (
        f"The canary ({format_count(requests, 'request')} sent before all others) was refused by "
        f"{'; by '.join(refusals[:3])}. Nothing was uploaded, because the other requests to the model would be refused "
        "too. Fix what the message names (the model, body, output_schema or endpoint) and clear this task: it then "
        "reads and renders the rows again. If the server answers only batches, set canary=0."
    )


def _budget_message(low: float, high: float, ceiling: float, requests: int) -> str:
    return (
        f"Judging by the answers to the canary ({format_count(requests, 'request')} sent before all others), the job "
        f"would cost at least {format_usd(low)} (at most about {format_usd(high)}), but max_cost_usd is "
        f"{format_usd(ceiling)}. Nothing was uploaded. Raise max_cost_usd, send fewer rows, limit the length of the "
        "answers or use a cheaper model. Then clear this task: it reads and renders the rows again."
    )
