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

#: a count that is this near to a whole number is one: thirds do not add up exactly
_NOTHING = 1e-9

#: scores are counted in these parts of an answer, a multiple of all numbers of repeats up to 12. Whole numbers add up
#: to the same in every order, so that as far off as the observed scores means just that
_PARTS = 27_720


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


def p_value(scores: Sequence[Sequence[float]]) -> float:
    """How often chance alone makes the scores of now as far from those of before, up or down, if nothing has changed.

    :param scores: per case its score now, then its scores in each of the runs before, as many for every case. The order
        of cases counts for nothing.

    If nothing has changed, the score of now could as well have been that of any of the runs before, case by case: a
    permutation test swaps them, exactly for few cases, else by 9,999 draws. With one run before and one answer each
    that is the exact test of McNemar (of the cases that changed, as many got better as worse), which is then taken.
    """
    parts = ([round(score * _PARTS) for score in case] for case in scores)
    changed = sorted([now, *sorted(before)] for now, *before in parts if any(other != now for other in before))
    if not changed:
        return 1.0
    runs = len(changed[0])
    if runs == 2 and all(abs(now - before) == _PARTS for now, before in changed):
        better = sum(now > before for now, before in changed)
        return float(_scipy().binomtest(better, len(changed)).pvalue)
    changed.append([0] * runs)  # scipy takes no single case; this one changes nothing
    test = _scipy().permutation_test(
        tuple(zip(*changed, strict=True)),
        _now,
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


def _now(now: Any, *_: Any, axis: int) -> Any:
    """What differs between two ways to swap: all runs together always add up to the same."""
    return now.sum(axis=axis)


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError:
        raise InputError(
            "Evals need scipy for their statistics: pip install 'airflow-provider-batch[evals]', on every worker. "
            "Nothing was graded."
        ) from None
    return stats
