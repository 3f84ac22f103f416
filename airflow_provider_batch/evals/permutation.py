"""A permutation test that finds cases, tags and models that changed by more than chance, in either direction.

If nothing has changed, the current score of a case could as well have come from any of the earlier runs it is compared
with. The test therefore draws the current score of every case from all scores of that case, thousands of times, and
counts how often this makes a loss as large as the observed one. It assumes that nothing else connects the runs of a
case, and that the cases vary independently of each other, unless the earlier runs show that they do not.

Not every case says equally much. A case that was right in ten runs and is wrong now is strong evidence, and a case that
is wrong every other night is none. A loss is therefore weighted by the likelihood ratio between "this case broke" and
"this case is as before". The ratio needs the chance that the case is wrong anyway. How such chances are distributed is
estimated from the scores of all cases, current ones included, so that the weights are the same for every permutation
and the test stays exact. With one earlier run all changed cases weigh the same, and the test is a one-sided McNemar
test. The same test with right and wrong swapped finds improvements.

Runs before an accepted change are not exchanged, because the model behaved differently then. They still say how steady
a case is, so they count in its weight, which no permutation changes. How much they count depends on how many cases
seem to have a new chance since then; this share is estimated too. If it is large, the older runs hardly matter.

Cases that ask nearly the same are right or wrong together, and a model may have a bad night. The total over all cases
then varies more from run to run than that of independent cases does. If the earlier runs show this, the observed loss
is divided by how much wider their totals spread. That only makes the test more careful, so it stays valid.

The tags are tested with the same permutations (minP of Westfall and Young, 1993). A tag that cannot reach a small
p-value because too few of its cases vary therefore costs the others nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

#: Number of permutations: all of them if there are fewer, otherwise as many random ones.
_PERMUTATIONS = 10_000
#: seed of these permutations; it is fixed so that grading a run again writes the same tables
_SEED = 20_000
#: number of permutations that are in memory together
_CHUNK = 500

#: Scores are counted in whole units of 1/27,720 of an answer, because 27,720 is a multiple of every number of repeats
#: up to 12, and weights in thousandths. The sum of whole numbers does not depend on their order, so permutations that
#: are exactly as extreme as the observed scores compare as equal.
_PARTS = 27_720
_WEIGHT_PARTS = 1_000

#: The share of broken cases that the weights are best for. They hardly depend on it.
_BROKEN_SHARE = 0.05
#: the possible chances that a case is wrong
_CHANCES = np.concatenate([[0.0005, 0.002, 0.005], np.linspace(0.01, 0.99, 50), [0.995, 0.998, 0.9995]])
_ITERATIONS = 100

#: The probability with which the smallest drop is found, as far as the normal distribution holds. In simulations,
#: drops of that size were found on 62 % to 83 % of nights.
_POWER = 0.8

#: The earlier runs show that their totals spread more than those of independent cases if there are at least this many,
#: and chance alone would make them spread as much with at most this probability.
_SPREAD_RUNS = 5
_SPREAD_ALPHA = 0.05

#: share of the significance level that belongs to all cases together; the tags divide the rest
_SHARE_OF_ALL_CASES = 0.7
#: A tag is tested if its p-value can be as low as this.
_ATTAINABLE = 0.01


class PermutationTest(NamedTuple):
    """The result of a test."""

    #: For all cases together, then for each tag: how often chance alone makes a loss as large as the observed one, and
    #: a gain. Corrected for the number of tags.
    worse: Sequence[float]
    better: Sequence[float]
    #: the smallest drop in accuracy that would be found on about three of four nights; None if none would
    smallest_drop: float | None


def permutation_test(
    scores: Sequence[Sequence[float]],
    tags: Sequence[Sequence[int]] = (),
    *,
    alpha: float,
    older: Sequence[Sequence[float]] | None = None,
) -> PermutationTest:
    """Test for a loss and a gain, over all cases and over the cases of each tag.

    :param scores: for each case its current score, then its scores in earlier runs. A case may lack some of the runs.
        The order of the cases and of the earlier runs does not matter, as long as all cases have the runs in the same
        order.
    :param tags: for each tag, the positions of its cases in `scores`.
    :param alpha: the significance level, which `smallest_drop` depends on.
    :param older: for each case, its scores in runs before an accepted change, in any order. None if there are none.
    """
    cases = _Cases(scores, tags, older if older is not None else [()] * len(scores))
    losses = cases.permute()
    columns = len(tags) + 1
    spread = cases.spread_of_earlier_runs()
    if spread > 1:
        expected = losses.mean(axis=0)
        losses[0] = expected + (losses[0] - expected) / spread
    return PermutationTest(
        worse=_corrected(losses[:, :columns]),
        better=_corrected(losses[:, columns:]),
        smallest_drop=cases.smallest_drop(losses[:, :columns], spread, alpha),
    )


class _History(NamedTuple):
    """For each case, the number of runs and how many times it was wrong."""

    #: sum of (1 - score) over the current run and the earlier ones, and their number
    wrong: _Floats
    runs: NDArray[np.int_]
    #: the same over the runs before an accepted change
    older_wrong: _Floats
    older_runs: NDArray[np.int_]

    def of(self, positions: Any) -> _History:
        """Return the history of some of the cases."""
        return _History(*(values[positions] for values in self))


class _Cases:
    """The cases as arrays. Only those whose score varied affect the test; the others say how steady the cases are."""

    def __init__(
        self, scores: Sequence[Sequence[float]], tags: Sequence[Sequence[int]], older: Sequence[Sequence[float]]
    ) -> None:
        member = np.zeros((len(scores), len(tags) + 1))
        member[:, 0] = 1
        for column, positions in enumerate(tags, start=1):
            member[list(positions), column] = 1
        parts, older_parts = _in_parts(scores), _in_parts(older)
        self._current = np.array([case[0] / _PARTS for case in parts])
        self._history = _History(*_count_wrong(parts), *_count_wrong(older_parts))
        self._weights = _Weights(self._history)
        varied = [position for position, case in enumerate(parts) if any(part != case[0] for part in case)]
        varied.sort(
            key=lambda position: (
                parts[position][0],
                sorted(parts[position]),
                sorted(older_parts[position]),
                member[position].tolist(),
            )
        )
        history = self._history.of(varied)
        self._varied_runs = history.runs
        #: varied cases x runs, the current run first
        self._scores = np.zeros((len(varied), int(self._history.runs.max(initial=1))))
        for row, position in enumerate(varied):
            current, *earlier = parts[position]
            self._scores[row, : len(earlier) + 1] = [current, *sorted(earlier)]
        #: Cases of these that have a score in every run, and their scores in the earlier runs.
        self._complete = [row for row, position in enumerate(varied) if len(parts[position]) == self._scores.shape[1]]
        self._earlier = np.array([scores[varied[row]][1:] for row in self._complete])
        losses, gains = self._weights.of_losses(history), self._weights.of_gains(history)
        #: what a score adds to the loss of each group of cases, then to the gain of each
        self._effects = np.hstack([-losses[:, None] * member[varied], gains[:, None] * member[varied]])

    def permute(self) -> _Floats:
        """Return the loss and gain of each group of cases, in each permutation. The first row has the observed ones."""
        runs = [int(count) for count in self._varied_runs]
        if not runs:
            return np.zeros((1, self._effects.shape[1]))
        if len(runs) < _PERMUTATIONS.bit_length() and (total := math.prod(runs)) <= _PERMUTATIONS:
            picks = np.array(np.unravel_index(np.arange(total), runs), dtype=np.intp)
            return self._totals(picks.reshape(len(runs), total).T)
        rng = np.random.default_rng(_SEED)
        totals = [self._totals(np.zeros((1, len(runs)), dtype=np.intp))]
        for start in range(1, _PERMUTATIONS, _CHUNK):
            size = min(_CHUNK, _PERMUTATIONS - start)
            totals.append(self._totals((rng.random((size, len(runs))) * self._varied_runs).astype(np.intp)))
        return np.concatenate(totals)

    def spread_of_earlier_runs(self) -> float:
        """Return how many times wider the losses of the earlier runs spread than those of independent cases.

        It is 1 if chance could explain the difference.
        """
        if not self._complete or self._earlier.shape[1] < _SPREAD_RUNS:
            return 1.0
        losses = self._earlier * self._effects[self._complete, :1]
        independent = losses.var(axis=1, ddof=1).sum()
        ratio = losses.sum(axis=0).var(ddof=1) / independent if independent else 1.0
        # The ratio times its degrees of freedom has a chi-squared distribution: the approximation of Wilson and
        # Hilferty, 1931.
        part = 2 / (9 * (self._earlier.shape[1] - 1))
        critical = (1 - part + NormalDist().inv_cdf(1 - _SPREAD_ALPHA) * math.sqrt(part)) ** 3
        return math.sqrt(ratio) if ratio > critical else 1.0

    def smallest_drop(self, losses: _Floats, spread: float, alpha: float) -> float | None:
        """Return the smallest drop in accuracy that would be found with a probability of `_POWER`. None if none would.

        Cases that were mostly right break. What one of them adds to the loss, and to its spread, follows from the
        weights. The spread of the loss on a quiet night is that of the permutations, or wider if it was before.
        """
        earlier_runs = self._history.runs - 1
        wrong_before = self._history.wrong - (1 - self._current)
        capable = wrong_before < earlier_runs / 2
        if not capable.any():
            return None
        runs, wrong = self._history.runs[capable], wrong_before[capable] + 1
        history = self._history.of(capable)._replace(wrong=wrong)
        weights = self._weights.of_losses(history) * _PARTS
        gain = np.mean(weights * (1 - wrong / runs))
        added_variance = np.mean(weights**2 * (1 - wrong / runs) * wrong / runs) * spread**2
        quiet_variance = losses[:, 0].var() * spread**2
        level = alpha * _shares_of_alpha(_p_values(losses).min(axis=0))[0]
        critical, power = NormalDist().inv_cdf(1 - level), NormalDist().inv_cdf(_POWER)
        # The loss of n cases has to reach n gains = critical sqrt(quiet + n added) + power sqrt(quiet): solved for n.
        half = (2 * gain * power * math.sqrt(quiet_variance) + critical**2 * added_variance) / (2 * gain**2)
        constant = (power**2 - critical**2) * quiet_variance / gain**2
        broken = max(half + math.sqrt(max(half**2 - constant, 0.0)), math.log(1 / level) / math.log(runs.max()))
        score_before = np.mean(1 - wrong_before[capable] / earlier_runs[capable])
        return float(broken * score_before / len(earlier_runs)) if broken <= len(runs) else None

    def _totals(self, picks: NDArray[np.intp]) -> _Floats:
        drawn = self._scores[np.arange(len(self._scores)), picks]
        totals: _Floats = drawn @ self._effects
        return totals


class _Weights:
    """The weight of a case: the log of the likelihood ratio between "it broke" and "it is as before".

    How the chances of being wrong are distributed, and the share of cases whose chance is a new one since the older
    runs, are those that best explain the scores, by expectation maximisation.
    """

    def __init__(self, history: _History) -> None:
        groups, counts = np.unique(np.stack(history, axis=1), axis=0, return_counts=True)
        history = _History(*groups.T)
        likelihood = _likelihood(history.wrong, history.runs)
        older_likelihood = _likelihood(history.older_wrong, history.older_runs)
        has_older = history.older_runs > 0
        self._shares = np.full(len(_CHANCES), 1 / len(_CHANCES))
        self._changed = 0.5
        for _ in range(_ITERATIONS):
            posterior = likelihood * self._of_older(older_likelihood) * self._shares
            total = posterior.sum(axis=1)
            if has_older.any():
                is_changed = self._changed * (older_likelihood @ self._shares) * (likelihood @ self._shares) / total
                self._changed = float(np.average(is_changed[has_older], weights=counts[has_older]))
            self._shares = counts @ (posterior / total[:, None]) / max(counts.sum(), 1)

    def of_losses(self, history: _History) -> _Floats:
        """Return the weights of cases that would be wrong in the current run."""
        return _weight(self._chance_of_wrong(np.maximum(history.wrong - 1, 0), history))

    def of_gains(self, history: _History) -> _Floats:
        """Return the weights of cases that would be right in the current run."""
        return _weight(1 - self._chance_of_wrong(np.minimum(history.wrong, history.runs - 1), history))

    def _chance_of_wrong(self, wrong: _Floats, history: _History) -> _Floats:
        """Return the chance that a case is wrong in a run, if it was wrong in so many of the other runs."""
        older = self._of_older(_likelihood(history.older_wrong, history.older_runs))
        posterior = _likelihood(wrong, history.runs - 1) * older * self._shares
        chances: _Floats = posterior @ _CHANCES / posterior.sum(axis=1)
        return chances

    def _of_older(self, likelihood: _Floats) -> _Floats:
        """Return the likelihood of the older runs if the chance may be a new one since, given that if it is not."""
        of_new_chance = (likelihood @ self._shares)[:, None]
        mixed: _Floats = (1 - self._changed) * likelihood + self._changed * of_new_chance
        return mixed


def _in_parts(scores: Sequence[Sequence[float]]) -> list[list[int]]:
    return [[round(score * _PARTS) for score in case] for case in scores]


def _count_wrong(parts: Sequence[Sequence[int]]) -> tuple[_Floats, NDArray[np.int_]]:
    """Return for each case how many times it was wrong, and the number of its scores."""
    wrong = np.array([sum(_PARTS - part for part in case) / _PARTS for case in parts])
    return wrong, np.array([len(case) for case in parts], dtype=int)


def _likelihood(wrong: _Floats, runs: Any) -> _Floats:
    wrong, right = wrong[:, None], (runs - wrong)[:, None]
    likelihood: _Floats = _CHANCES**wrong * (1 - _CHANCES) ** right
    return likelihood


def _weight(chance: _Floats) -> _Floats:
    weight: _Floats = np.round(_WEIGHT_PARTS * np.log1p(_BROKEN_SHARE / ((1 - _BROKEN_SHARE) * chance)))
    return weight


def _corrected(losses: _Floats) -> list[float]:
    """Return the p-value of the first row in each column, corrected for the number of columns."""
    p_values = _p_values(losses)
    shares = _shares_of_alpha(p_values.min(axis=0))
    is_tested = shares > 0
    result = np.ones(len(shares))
    result[is_tested] = _step_down(p_values[:, is_tested] / shares[is_tested])
    return [float(p) for p in result]


def _p_values(losses: _Floats) -> _Floats:
    """Return for each permutation and column how many of the permutations have such a loss, as a share."""
    p_values = np.empty_like(losses)
    for column, values in enumerate(losses.T):
        order = np.argsort(values)
        ordered = values[order]
        p_values[order, column] = 1 - np.searchsorted(ordered, ordered) / len(values)
    return p_values


def _step_down(p_values: _Floats) -> _Floats:
    """Return for each column how often the smallest p-value of a permutation is as small as the observed one.

    The columns with smaller observed p-values do not count, because they have been decided by then.
    """
    order = np.argsort(p_values[0], kind="stable")
    smallest = np.minimum.accumulate(p_values[:, order[::-1]], axis=1)[:, ::-1]
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.mean(smallest <= p_values[0, order], axis=0))
    return corrected


def _shares_of_alpha(attainable: _Floats) -> _Floats:
    """Return the share of the significance level of all cases, then of each tag. It is 0 for a tag that is not tested.

    :param attainable: the smallest p-value that each can have.
    """
    is_tested = attainable[1:] <= _ATTAINABLE
    if not is_tested.any():
        return np.array([1.0, *np.zeros(len(is_tested))])
    return np.array([_SHARE_OF_ALL_CASES, *is_tested * (1 - _SHARE_OF_ALL_CASES) / is_tested.sum()])
