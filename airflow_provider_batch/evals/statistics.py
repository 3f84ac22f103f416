"""The statistics of evals, from scipy: an interval for an accuracy, and whether a difference can be chance.

scipy comes with the extra `evals`. It is imported when it is first needed: Airflow parses DAG files without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.exceptions import InputError

#: of the interval: 95 % of such intervals hold the accuracy over all cases that could have been asked
CONFIDENCE = 0.95

#: draws of a permutation test where there are too many for all of them
_RESAMPLES = 9_999
#: fixed, so that grading a run again ends in the same tables
_SEED = 20_000

#: differences smaller than this come of adding thirds
_NOTHING = 1e-9


def interval(accuracy: float, cases: int) -> tuple[float, float]:
    """The 95 % interval (Wilson) of an accuracy over so many cases; it always holds the accuracy.

    With repeats a case is still one of `cases`, with a score between 0 and 1: answers to one question are no
    independent evidence. A count of cases that is not whole is rounded outward, so the interval is rather too wide: the
    scores of cases vary at most as much as those of single answers.
    """
    if not cases:
        return 0.0, 1.0
    right = accuracy * cases
    test = _scipy().binomtest
    low = test(math.floor(right + _NOTHING), cases).proportion_ci(CONFIDENCE, method="wilson").low
    high = test(math.ceil(right - _NOTHING), cases).proportion_ci(CONFIDENCE, method="wilson").high
    return min(float(low), accuracy), max(float(high), accuracy)


def p_value(differences: Sequence[float]) -> float:
    """How often chance alone makes a difference as large as this one, in either direction, if nothing has changed.

    :param differences: per case its score now less its score then; the order counts for nothing.

    With one answer each, that is the exact test of McNemar: of the cases that changed, as many get better as worse.
    With several, a permutation test that swaps now and then case by case: exact for few changes, else by 9,999 draws.
    """
    changed = sorted(difference for difference in differences if abs(difference) > _NOTHING)
    if len(changed) < 2:  # one change is as likely the one way as the other
        return 1.0
    if all(abs(difference) == 1 for difference in changed):
        better = sum(difference > 0 for difference in changed)
        return float(_scipy().binomtest(better, len(changed)).pvalue)
    test = _scipy().permutation_test(
        (changed, [0.0] * len(changed)),
        _mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=1_000,
        rng=_SEED,
    )
    return float(test.pvalue)


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of several models, such that one false alarm among all of them stays as rare as alpha (Holm, 1979).

    None, for a model without history, stays None and is not counted.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        found[place] = largest
    return found


def _mean_difference(now: Any, then: Any, axis: int) -> Any:
    return now.mean(axis=axis) - then.mean(axis=axis)


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise InputError(
            "Evals need scipy for their statistics: pip install 'airflow-provider-batch[evals]', on every worker. "
            "Nothing was graded."
        ) from None
    return stats
