"""The estimate of a job that is running: what was paid so far, and the range of the rest.

The rest is estimated as after the canary (`core.pricing.estimate`), whose rows come from all over the query. The
answers of settled batches count like those of earlier jobs: with a limited weight, and only if they are similar to the
canary's. A batch holds neighbouring rows, which may be longer or shorter than the others. The range becomes narrower
with every batch that settles, because less remains.
"""

from __future__ import annotations

from decimal import Decimal

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.pricing.estimate import CanaryUsage, RemainingRequests, estimate_after_canary
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.pricing.spread import with_earlier_answers

#: phases of a shard whose requests are still to be paid for
_OPEN_PHASES = (Phase.SEALED, Phase.UPLOADED, Phase.CREATING, Phase.LIVE)


def running_estimate(state: JobState) -> Estimate | None:
    """Return the estimate by all answers so far; None if no batch has settled yet, or a cost is unknown."""
    settled = state.settled_submissions()
    if all(shard.spec.synchronous for shard, _, _ in settled):
        return None
    if any(record.cost_usd is None for _, _, record in settled):
        return None
    prices, correction = Prices(state.manifest.prices, state.manifest.price_list), InputCorrection(state)
    models = {}
    for model in dict.fromkeys(shard.model for shard in state.shards.values()):
        records = [(shard, record) for shard, _, record in settled if shard.model == model]
        open_shards = [
            shard.spec for shard in state.shards.values() if shard.model == model and shard.phase in _OPEN_PHASES
        ]
        remaining = RemainingRequests(
            sum(shard.requests for shard in open_shards),
            correction.correct(model, sum(shard.tokens for shard in open_shards)),
            _outputs(state, model, records),
            sum((record.inputs for _, record in records), InputSample()),
            state.manifest.output_caps.get(model),
        )
        usage = CanaryUsage(
            sum(record.answers for _, record in records),
            sum(record.input_tokens for _, record in records),
            sum(record.output_tokens for _, record in records),
            sum((Decimal(record.cost_usd or 0) for _, record in records), Decimal(0)),
        )
        models[model] = (usage, remaining)
    return estimate_after_canary(state.manifest.estimate, prices, models, state.manifest.endpoint)


def _outputs(state: JobState, model: str, records: list[tuple[ShardState, Settled]]) -> OutputSample:
    """Return the answers by which the remaining requests are estimated."""
    canary, batches = OutputSample(), state.manifest.earlier_outputs.get(model, OutputSample())
    for shard, record in records:
        if shard.spec.synchronous:
            canary += record.outputs
        else:
            batches += record.outputs
    return with_earlier_answers(canary, batches)
