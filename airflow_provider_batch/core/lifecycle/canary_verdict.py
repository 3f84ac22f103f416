"""What the canary's answers say of the requests that are not asked yet.

The first requests of each model are asked synchronously before the first file is uploaded. If a model refused all of
them for what they have in common (a parameter, the schema, the model's name), it would refuse the rest too; and the
output of those that were answered tells what the rest will cost.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.records import CanaryVerdict
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.pricing.estimate import CanaryUsage, RemainingRequests, estimate_after_canary
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: requests of each model that are asked first, unless the author says otherwise; and the most that may be
DEFAULT_REQUESTS = 2
MAX_REQUESTS = 20

#: refusals that speak of one row's content, and not of what all rows have in common
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
    """What is recorded, and what a log may tell besides."""

    verdict: CanaryVerdict
    #: requests of the canary, and how many of them came back with an answer
    requests: int
    answered: int
    #: mean output tokens of an answer, by model
    mean_output: dict[str, int]
    #: requests by outcome
    outcomes: dict[str, int]


def judge_canary(
    state: JobState, folder: Folder, schema: SchemaJudge | None, prices: Prices, now: datetime
) -> CanaryResult:
    """Read the answers of every canary, all of which are settled.

    :raises StagingError: if an answer is not in staging as it was collected.
    """
    manifest = state.manifest
    outcomes: Counter[str] = Counter()
    models: dict[str, tuple[CanaryUsage, RemainingRequests]] = {}
    refused: list[str] = []
    for state_of in state.canary_shards:
        shard = state_of.spec
        settled = state_of.submissions[-1].settled
        assert settled is not None
        rows = read_rows(folder, shard)
        answers = [one for _, one in read_answers(folder, shard, settled, rows, manifest.endpoint, schema)]
        outcomes.update(answer.outcome.value for answer in answers)
        others = [one for one in manifest.shards if one.model == shard.model and not one.synchronous]
        # Where no request to the model is left to be refused, its few rows fail alone, and the others of the job go on.
        protects = bool(others) or shard.requests == manifest.requests
        if protects and all(_is_refusal_of_all(answer) for answer in answers):
            refused.append(f"{shard.model}: {_said(answers)}")
        rest = RemainingRequests(sum(one.requests for one in others), sum(one.tokens for one in others))
        models[shard.model] = (_measured(shard.model, answers, prices), rest)
    estimate = estimate_after_canary(manifest.estimate, prices, models, manifest.endpoint)
    asked = sum(outcomes.values())
    void, over_budget = _refusal(refused, asked), False
    ceiling = state.ceiling
    if not void and ceiling is not None and estimate.low_usd is not None and estimate.low_usd > ceiling:
        void, over_budget = _too_dear(estimate.low_usd, estimate.high_usd or 0.0, ceiling, asked), True
    return CanaryResult(
        CanaryVerdict(estimate, now, void, over_budget),
        asked,
        asked - sum(outcomes[name] for name in (Outcome.FAILED, Outcome.EXPIRED, Outcome.MISSING)),
        {model: m.output_tokens // m.answers for model, (m, _) in models.items() if m.answers},
        {name.value: outcomes[name] for name in Outcome if outcomes[name]},
    )


def _measured(model: str, answers: list[Answer], prices: Prices) -> CanaryUsage:
    told = [answer for answer in answers if answer.usage.input_tokens or answer.usage.output_tokens]
    cost: Decimal | None = Decimal(0)
    for answer in told:
        one = prices.cost(model, answer.usage, answered_by=answer.model, batch=False)
        cost = None if cost is None or one is None else cost + one
    return CanaryUsage(len(told), sum(answer.usage.output_tokens for answer in told), cost)


def _is_refusal_of_all(answer: Answer) -> bool:
    """Whether a request was refused for good, and not for what is in its row alone."""
    if answer.outcome is not Outcome.FAILED or answer.transient:
        return False
    said = (answer.error_message or "").lower()
    return answer.error_code not in _CODES_OF_A_ROW and not any(word in said for word in _WORDS_OF_A_ROW)


def _said(answers: list[Answer]) -> str:
    words = dict.fromkeys(f"{answer.error_code}: {(answer.error_message or '')[:300]}" for answer in answers)
    return "; ".join(list(words)[:3])


def _refusal(refused: list[str], asked: int) -> str:
    if not refused:
        return ""
    return (
        f"The canary, {asked} request(s) asked before all others, was refused by {'; by '.join(refused[:3])}. Nothing "
        "was uploaded: every other request to the model would be refused too. Mend what the message names (the model, "
        "body, output_schema, endpoint) and clear this task: the rows are then read and rendered anew. If the server "
        "answers batches alone, set canary=0."
    )


def _too_dear(low: float, high: float, ceiling: float, asked: int) -> str:
    return (
        f"By the answers to the canary ({asked} request(s) asked before all others) the job would cost at least "
        f"{low:,.2f} US dollars (at most about {high:,.2f}), max_cost_usd is {ceiling:,.2f}. Nothing was uploaded. "
        "Raise it, ask fewer rows, cap the answers or take a smaller model, then clear this task: the rows are read "
        "and rendered anew."
    )
