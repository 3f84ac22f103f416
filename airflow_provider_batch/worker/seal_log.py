"""What submit logs about a job that it sealed, or only previewed."""

from __future__ import annotations

from airflow_provider_batch.worker.build import Build
from airflow_provider_batch.worker.log import Log


def log_build(log: Log, made: Build, *, compared: bool = False) -> None:
    """Log what is sent, how large it is, and what it may cost.

    :param compared: whether the rows were compared with an earlier generation.
    """
    manifest = made.manifest
    estimate = manifest.estimate
    if manifest.duplicates or manifest.reuse_from:
        log.info("%s rows: %s", f"{manifest.requests:,}", manifest.sources)
    log.info(
        "%s requests in %d shard(s), %s bytes",
        f"{manifest.sent:,}",
        len(manifest.shards),
        f"{sum(shard.bytes for shard in manifest.shards):,}",
    )
    canary = sum(shard.requests for shard in manifest.shards if shard.synchronous)
    if canary:
        log.info("%d of them are the canary: asked before anything is uploaded, at the standard price", canary)
    if estimate.counted_requests:
        how = f"tiktoken counted {estimate.counted_requests:,} of the requests, which corrects the estimate"
    else:
        how = "estimated: tiktoken or its vocabulary is not at hand"
    log.info("About %s input tokens (%s)", f"{estimate.input_tokens:,}", how)
    models = {shard.model for shard in manifest.shards}
    for model, tokens in manifest.learned_tokens.items():
        if model not in models:
            continue
        log.info(
            "learned: the provider told an earlier job that %s may have %s enqueued tokens, so a file holds no "
            'more. limits={"tokens": …} comes before that.',
            model,
            f"{tokens:,}",
        )
    if estimate.earlier_answers:
        log.info(
            "learned: the output is taken from %s answers of earlier jobs of this task: between %s and %s tokens",
            f"{estimate.earlier_answers:,}",
            f"{estimate.output_tokens_low:,}",
            f"{estimate.output_tokens_high:,}",
        )
    if estimate.low_usd is None:
        log.warning("No price is known for %s: the cost is unknown.", ", ".join(estimate.unknown_models))
    else:
        log.info(
            "Estimate: between %.4f and %.4f US dollars at batch prices",
            estimate.low_usd,
            estimate.high_usd,
        )
    if estimate.standard_price_models:
        log.warning(
            "No batch price is known for %s: the standard price stands in, the batch price may be half of it.",
            ", ".join(estimate.standard_price_models),
        )
    if compared:
        asked = manifest.requests - made.kept - manifest.duplicates - manifest.reused
        log.info(
            "%s rows are as they were and keep batch and answer, %s are new, changed or not sent yet and are asked",
            f"{made.kept:,}",
            f"{asked:,}",
        )
