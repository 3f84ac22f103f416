"""The statistics of evals, computed by scipy: intervals for accuracies, and p-values for differences.

scipy comes with the extra `evals`. It is imported on first use, so that Airflow can parse DAG files without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.exceptions import InputError

#: Confidence level: 95 % of such intervals contain the accuracy over all cases that could have been sent.
CONFIDENCE = 0.95

#: number of random permutations in a permutation test that has too many permutations to try all of them
_RESAMPLES = 9_999
#: seed of these permutations; it is fixed so that grading a run again writes the same tables
_SEED = 20_000

#: A count of cases this close to a whole number is rounded to it, because sums of thirds, for example, are not exact.
_EPSILON = 1e-9

#: Scores are counted in whole units of 1/27,720 of an answer, because 27,720 is a multiple of every number of repeats
#: up to 12. The sum of whole numbers does not depend on their order, so permutations that are exactly as extreme as the
#: observed scores compare as equal.
_PARTS = 27_720


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


def p_value(scores: Sequence[Sequence[float]]) -> float:
    """Return how often chance alone makes a difference as large as the observed one, up or down.

    If nothing has changed, the current score of a case could as well have come from any of the earlier runs. A
    permutation test therefore swaps the scores of each case between the runs: all permutations if there are few cases,
    9,999 random ones otherwise. With one earlier run and one answer per case this is the same as McNemar's exact test
    (of the cases that changed, as many should get better as worse), which is used instead.

    :param scores: for each case its current score, then its score in each earlier run; the same number of runs for
        every case. The order of the cases does not matter.
    """
    parts = ([round(score * _PARTS) for score in case] for case in scores)
    changed = sorted(
        [current, *sorted(earlier)] for current, *earlier in parts if any(score != current for score in earlier)
    )
    if not changed:
        return 1.0
    runs = len(changed[0])
    if runs == 2 and all(abs(current - earlier) == _PARTS for current, earlier in changed):
        better = sum(current > earlier for current, earlier in changed)
        return float(_scipy().binomtest(better, len(changed)).pvalue)
    changed.append([0] * runs)  # scipy rejects a single case, and an unchanged one does not affect the result
    test = _scipy().permutation_test(
        tuple(zip(*changed, strict=True)),
        _current_total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=1_000,
        rng=_SEED,
    )
    return float(test.pvalue)


def correct_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values of several models, corrected for multiple testing (Holm, 1979).

    After the correction, the chance of even one false alarm among all models is at most alpha. None, for a model
    without history, stays None and is not counted.
    """
    order = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    corrected_p_values: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, position) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected_p_values[position] = largest
    return corrected_p_values


def _current_total(current: Any, *_: Any, axis: int) -> Any:
    # A permutation keeps the total over all runs, so the total of the current run alone tells permutations apart.
    return current.sum(axis=axis)


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise InputError(
            "Evals need scipy, which is not installed here. Install it on every worker with "
            "`pip install 'airflow-provider-batch[evals]'`. Nothing was graded."
        ) from None
    return stats
