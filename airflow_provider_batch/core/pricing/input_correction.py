"""Correction of estimated input tokens by what the provider reports.

An estimate does not know every rule: images, files, tools and some languages are counted wrongly. The answers collected
so far show by how much. Their reported input tokens, divided by the estimate for the same requests, are a factor that
corrects the estimate of all other requests to the model.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil

from airflow_provider_batch.core.ledger.state import JobState


class InputCorrection:
    """By model, the factor by which the input tokens of a job were estimated too low."""

    def __init__(self, state: JobState) -> None:
        """Compute the factors from all settled submissions of the job."""
        reported: defaultdict[str, int] = defaultdict(int)
        estimated: defaultdict[str, int] = defaultdict(int)
        for shard, _, settled in state.settled_submissions():
            reported[shard.model] += settled.input_tokens
            estimated[shard.model] += settled.estimated_input_tokens
        self._factors = {model: reported[model] / estimated[model] for model in estimated if estimated[model]}

    def factor(self, model: str) -> float:
        """Return reported divided by estimated input tokens; 1 as long as no answer of the model reports any."""
        return self._factors.get(model, 1.0)

    def correct(self, model: str, tokens: int) -> int:
        """Return the corrected number for this many estimated input tokens, rounded up."""
        return ceil(tokens * self.factor(model))
