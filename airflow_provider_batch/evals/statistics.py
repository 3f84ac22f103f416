"""The statistics of evals: intervals for accuracies, computed by scipy, and the correction of p-values for models.

scipy comes with the extra `evals`. It is imported on first use, so that Airflow can parse DAG files without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.exceptions import InputError

#: Confidence level: 95 % of such intervals contain the accuracy over all cases that could have been sent.
CONFIDENCE = 0.95

#: A count of cases this close to a whole number is rounded to it, because sums of thirds, for example, are not exact.
_EPSILON = 1e-9


def interval(accuracy: float, cases: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of an accuracy over this many cases. It always contains the accuracy.

    With repeats, a case still counts once, with a score between 0 and 1: several answers to one question are not
    independent evidence. If the number of right cases is not whole, it is rounded outward. That makes the interval
    slightly too wide, never too narrow, because scores of cases vary at most as much as those of single answers.
    """
    if not cases:
        return 0.0, 1.0
    right_cases = accuracy * cases
    test = _scipy().binomtest
    low = test(math.floor(right_cases + _EPSILON), cases).proportion_ci(CONFIDENCE, method="wilson").low
    high = test(math.ceil(right_cases - _EPSILON), cases).proportion_ci(CONFIDENCE, method="wilson").high
    return min(float(low), accuracy), max(float(high), accuracy)


def sign_test(wins: int, losses: int) -> float:
    """Return how often chance alone would make a difference this large, if a win were as likely as a loss."""
    return float(_scipy().binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def correct_for_models(p_values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the p-values of several models, corrected for the number of models (Holm, 1979).

    After the correction, the chance of even one false alarm among all models is at most alpha.

    :param p_values: for each model one or more p-values, already corrected for their number within the model.
    """
    corrected_p_values: list[list[float]] = [[]] * len(p_values)
    largest = 0.0
    for rank, (smallest, position) in enumerate(sorted((min(p), position) for position, p in enumerate(p_values))):
        factor = len(p_values) - rank
        largest = max(largest, min(1.0, smallest * factor))
        corrected_p_values[position] = [max(largest, min(1.0, p * factor)) for p in p_values[position]]
    return corrected_p_values


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise InputError(
            "Evals need scipy, which is not installed here. Install it on every worker with "
            "`pip install 'airflow-provider-batch[evals]'`. Nothing was graded."
        ) from None
    return stats
