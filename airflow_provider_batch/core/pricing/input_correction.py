"""Correction of estimated input tokens by what the provider reports.

An estimate does not know every rule: images, files, tools and some languages are counted wrongly. The answers collected
so far show by how much. Their reported input tokens, divided by the estimate for the same requests, are a factor that
corrects the estimate of all other requests to the model. Until the first answer of the job reports its tokens, the
factor is the one that earlier jobs of the task learned (`Manifest.input_factors`).

Tokens in shards, in indexes and in `Settled.estimated_input_tokens` are never corrected. Whatever compares tokens with
a limit or a price corrects them first.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil

from airflow_provider_batch.core.ledger.state import JobState

#: Smallest and largest factor that is believed. A server that reports one token for every request does not show that
#: requests are nearly free.
MIN_FACTOR, MAX_FACTOR = 0.05, 10_000.0


class InputCorrection:
    """By model, the factor by which the input tokens of a job were estimated too low."""

    def __init__(self, state: JobState) -> None:
        """Compute the factors from all settled submissions of the job, and from earlier jobs before there are any."""
        reported: defaultdict[str, int] = defaultdict(int)
        estimated: defaultdict[str, int] = defaultdict(int)
        for shard, _, settled in state.settled_submissions():
            reported[shard.model] += settled.input_tokens
            estimated[shard.model] += settled.estimated_input_tokens
        #: by model, reported divided by estimated input tokens
        self.factors = dict(state.manifest.input_factors)
        for model, tokens in reported.items():
            factor = input_factor(tokens, estimated[model])
            if factor is not None:
                self.factors[model] = factor

    def factor(self, model: str) -> float:
        """Return reported divided by estimated input tokens; 1 as long as no answer of the model reports any."""
        return self.factors.get(model, 1.0)

    def correct(self, model: str, tokens: int) -> int:
        """Return the corrected number for this many estimated input tokens, rounded up."""
        return correct(tokens, self.factor(model))

    def estimated_limit(self, model: str, limit: int) -> int:
        """Return the most estimated tokens, at least 1, whose corrected number is within a limit."""
        return max(int(limit / self.factor(model)), 1)


def correct(tokens: int, factor: float) -> int:
    """Return the corrected number for this many estimated input tokens, rounded up."""
    return ceil(round(tokens * factor, 6))  # 10 * 1.1 is 11 and not 12


def input_factor(reported: float, estimated: float) -> float | None:
    """Return reported divided by estimated input tokens, within what is believed; None if nothing was reported."""
    if reported <= 0 or estimated <= 0:
        return None
    return min(max(reported / estimated, MIN_FACTOR), MAX_FACTOR)
