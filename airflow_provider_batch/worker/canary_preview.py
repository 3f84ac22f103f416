"""What a person sees before approving a job: the requests of the canary with their answers, read from staging."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.requests.file_parts import compact
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: maximum number of requests in a preview
MAX_REQUESTS = 10


class _Line(msgspec.Struct):
    custom_id: str
    body: dict[str, Any]


def read_canary(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the first requests of a sealed job, as `{"custom_id": …, "body": …, "answer": …}`.

    These are requests of the canary, of each model if possible. Without a canary, they are the first requests, without
    answers.
    """
    state = ledger.state()
    canaries = state.canary_shards
    requests: list[dict[str, Any]] = []
    for number, shard in enumerate(canaries or state.shards.values()):
        left = MAX_REQUESTS - len(requests)
        # every model gets an equal share of what is left
        requests += _read_shard(ledger, state, shard, -(-left // (len(canaries) - number)) if canaries else left)
        if len(requests) >= MAX_REQUESTS:
            break
    return requests


def _read_shard(ledger: Ledger, state: JobState, shard: ShardState, count: int) -> list[dict[str, Any]]:
    answers = _answers_of(ledger, state, shard)
    requests = []
    with open_sealed(ledger.folder, shard.spec.file, shard.spec.sha256) as file:
        for number, text in enumerate(islice(file, count)):
            line = msgspec.json.decode(text, type=_Line)
            requests.append({"custom_id": line.custom_id, "body": compact(line.body)} | answers.get(number, {}))
    return requests


def _answers_of(ledger: Ledger, state: JobState, shard: ShardState) -> dict[int, dict[str, Any]]:
    """Return the answers to a settled shard by the line of their request."""
    settled = shard.latest.settled if shard.latest else None
    if settled is None:
        return {}
    manifest, folder = state.manifest, ledger.folder
    judge = SchemaJudge(manifest.author_schema) if manifest.author_schema is not None else None
    prices = Prices(manifest.prices, manifest.price_list)
    answers = read_answers(folder, shard.spec, settled, read_rows(folder, shard.spec), manifest.endpoint, judge)
    return {line: {"answer": _describe(answer, shard, prices)} for line, answer in answers}


def _describe(answer: Answer, shard: ShardState, prices: Prices) -> dict[str, Any]:
    """Return an answer in a form that fits into an XCom. Numbers that are unknown are None."""
    usage, lane = answer.usage, shard.spec.lane.of_answer(answer.service_tier)
    cost = prices.cost(shard.model, usage, answered_by=answer.model, lane=lane) if usage.is_known else None
    is_usable = answer.outcome is Outcome.SUCCEEDED
    message = None if is_usable else f"{answer.error_code}: {answer.error_message or 'no message'}"
    return {
        "outcome": answer.outcome.value,
        "text": answer.text if answer.text is not None or answer.value is None else _shorten(answer.value),
        "message": message,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": None if cost is None else float(cost),
    }


def _shorten(value: Any) -> str:
    """Return a value without a text, such as an embedding, as JSON."""
    if isinstance(value, list) and len(value) > 8:
        return f"{msgspec.json.encode(value[:8]).decode()[:-1]}, … {len(value):,} numbers]"
    return msgspec.json.encode(value).decode()
