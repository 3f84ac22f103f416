"""Logs what submit sealed, or what it would seal in a preview."""

from __future__ import annotations

from airflow_provider_batch.core.formatting import format_count, format_usd_range
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.schema.author_schema import schema_changes
from airflow_provider_batch.worker.build import Build
from airflow_provider_batch.worker.log import Log

#: number of changes to a schema that are logged
MAX_CHANGES = 20


def log_build(log: Log, build: Build, *, compared: bool = False) -> None:
    """Log what is sent, how large it is, and what it may cost.

    :param compared: whether the rows were compared with an earlier generation.
    """
    manifest = build.manifest
    estimate = manifest.estimate
    if manifest.invalid:
        log.warning(
            "%s of %s cannot be sent, because a file that they name is missing or cannot be used. They land with the "
            "outcome invalid_input and the reason. Once the files are there, clear this task to send these rows.",
            f"{manifest.invalid:,}",
            format_count(manifest.requests, "row"),
        )
    if build.rows_without_files:
        log.info(
            "%s of %s name no file, so they are sent without one",
            f"{build.rows_without_files:,}",
            format_count(manifest.requests, "row"),
        )
    if manifest.duplicates or manifest.reuse_from or manifest.invalid:
        log.info("%s: %s", format_count(manifest.requests, "row"), manifest.sources)
    log.info(
        "%s in %s, %s",
        format_count(manifest.sent, "request"),
        format_count(len(manifest.shards), "shard"),
        format_count(sum(shard.bytes for shard in manifest.shards), "byte"),
    )
    if manifest.lane is Lane.FLEX:
        prices = Prices(manifest.prices, manifest.price_list)
        for model in sorted({shard.model for shard in manifest.shards}):
            if not prices.has_flex(model):
                log.warning("Model %s has no flex tier, so its requests are sent in batches", model)
    changes = schema_changes(manifest.author_schema) if manifest.author_schema is not None else []
    if changes:
        first = " | ".join(changes[:MAX_CHANGES])
        more = f" | and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
        log.info("Changed in the output_schema, so that the provider accepts it: %s%s", first, more)
    if estimate.counted_requests:
        method = f"based on exact counts of {format_count(estimate.counted_requests, 'request')}"
    else:
        method = "estimated, because the extra `tokens` is not installed"
    log.info("About %s input tokens (%s)", f"{estimate.input_tokens:,}", method)
    models = {shard.model for shard in manifest.shards}
    for model, tokens in manifest.learned_tokens.items():
        if model in models:
            log.info(
                "Learned: an earlier job found that the provider limits model %s to %s enqueued tokens, so no input "
                'file holds more. limits={"tokens": …} takes precedence.',
                model,
                f"{tokens:,}",
            )
    for model, factor in manifest.input_factors.items():
        if model in models:
            log.info(
                "Learned: earlier jobs of this task had %.2f times the estimated input tokens with model %s, so the "
                "estimate is corrected by that. max_cost_usd is checked without it until the first answers are there.",
                factor,
                model,
            )
    if estimate.earlier_answers:
        log.info(
            "Learned: the output estimate of %s to %s tokens is based on %s from earlier jobs of this task",
            f"{estimate.output_tokens_low:,}",
            f"{estimate.output_tokens_high:,}",
            format_count(estimate.earlier_answers, "answer"),
        )
    if estimate.low_usd is None or estimate.high_usd is None:
        log.warning("The cost is unknown, because no price is known for %s", ", ".join(estimate.unknown_models))
    else:
        log.info(
            "Estimated cost: %s at batch prices",
            format_usd_range(estimate.low_usd, estimate.high_usd, estimate.likely_usd),
        )
    if estimate.standard_price_models:
        log.warning(
            "No batch price is known for %s. The estimate uses the standard price; the batch price may be half of it.",
            ", ".join(estimate.standard_price_models),
        )
    if compared:
        sent = manifest.requests - build.kept_rows - manifest.duplicates - manifest.reused - manifest.invalid
        log.info(
            "%s unchanged and keep their batch and answer. %s new, changed or not sent yet, and will be sent.",
            format_count(build.kept_rows, "row is", "rows are"),
            format_count(sent, "row is", "rows are"),
        )
