"""Compare a run with its baseline, case by case: what got better or worse, and whether chance explains it.

The baseline of a run is the last accepted run plus the accepted runs before it, as long as each of them was the `same`
as its own baseline. Several runs are a steadier baseline than one, whose answers vary by chance. The baseline does not
reach back beyond a run that was accepted as improved (or, by hand, as regressed): the model behaved differently before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import fsum

import msgspec

from airflow_provider_batch.evals.statistics import correct_p_values, p_value


class Verdict(StrEnum):
    """The result of a comparison."""

    #: there is no accepted run to compare with
    NO_HISTORY = "no_history"
    #: chance alone could explain the difference
    SAME = "same"
    IMPROVED = "improved"
    REGRESSED = "regressed"


class AnswerScore(msgspec.Struct, frozen=True):
    """The score of one answer, with the fields that a comparison needs."""

    case_id: str
    case_sha256: str
    score: float
    answered: bool
    tags: str = ""


class Change(msgspec.Struct, frozen=True):
    """One row of `eval_changes`, without run, variant and baseline."""

    case_id: str
    #: mean scores over the existing answers; above 0.5 the case counts as right, below as wrong
    score_before: float
    score_now: float
    tags: str
    #: number of baseline runs in which the case was answered, and in which it was right
    runs_before: int
    right_before: int

    @property
    def direction(self) -> str:
        """`better` if the case was wrong and is right now, `worse` if it was right and is wrong now."""
        return "better" if self.score_now > self.score_before else "worse"


class Comparison(msgspec.Struct, frozen=True):
    """One row of `eval_comparisons`, without the run and the time. `tables.COMPARISONS` documents the columns."""

    variant: str
    baseline_run: str | None
    baseline_runs: int
    cases: int
    left_out: int
    difference: float | None
    p_value: float | None
    p_corrected: float | None
    verdict: Verdict
    #: sorted by case_id
    changes: tuple[Change, ...] = ()

    @property
    def better(self) -> int:
        """Number of cases that were wrong and are right now."""
        return sum(change.direction == "better" for change in self.changes)

    @property
    def worse(self) -> int:
        """Number of cases that were right and are wrong now."""
        return len(self.changes) - self.better

    @property
    def regressions(self) -> list[str]:
        """The case_ids that were right and are wrong now, starting with those that are least likely to be chance.

        Cases that were right in the largest share of the baseline runs come first, then those that lost the most.
        """
        worse = [change for change in self.changes if change.direction == "worse"]
        worse.sort(
            key=lambda change: (-change.right_before / change.runs_before, change.score_now - change.score_before)
        )
        return [change.case_id for change in worse]


class Baseline(msgspec.Struct, frozen=True):
    """The accepted runs that a run of one variant is compared with."""

    #: the last accepted run
    run: str
    #: the scores of that run, then those of the earlier runs in the baseline
    runs: Sequence[Sequence[AnswerScore]]


def compare(
    scores: Mapping[str, Sequence[AnswerScore]], baselines: Mapping[str, Baseline], *, alpha: float
) -> list[Comparison]:
    """Return one comparison per variant of `scores`, sorted by variant.

    A case is compared if it was answered both now and in the baseline, with the same question, expected answer and
    grader. The verdict uses the p-value that is corrected for the number of variants with a baseline.
    """
    variants = sorted(scores)
    pairs = [_Pair(scores[variant], baselines[variant]) if variant in baselines else None for variant in variants]
    p_values = [None if pair is None else p_value(pair.scores) for pair in pairs]
    comparisons = []
    for variant, pair, p, p_corrected in zip(variants, pairs, p_values, correct_p_values(p_values), strict=True):
        cases = len({score.case_id for score in scores[variant]})
        if pair is None or p_corrected is None:
            comparisons.append(Comparison(variant, None, 0, 0, cases, None, None, None, Verdict.NO_HISTORY))
            continue
        verdict = Verdict.SAME
        if p_corrected <= alpha and pair.difference:
            verdict = Verdict.IMPROVED if pair.difference > 0 else Verdict.REGRESSED
        baseline = baselines[variant]
        comparable = len(pair.scores)
        comparisons.append(
            Comparison(
                variant=variant,
                baseline_run=baseline.run,
                baseline_runs=len(baseline.runs),
                cases=comparable,
                left_out=cases - comparable,
                difference=pair.difference,
                p_value=p,
                p_corrected=p_corrected,
                verdict=verdict,
                changes=tuple(pair.changes),
            )
        )
    return comparisons


class _Pair:
    """The cases of a run that can be compared with its baseline."""

    def __init__(self, scores: Sequence[AnswerScore], baseline: Baseline) -> None:
        current_means, baseline_means = _mean_scores(scores), [_mean_scores(run) for run in baseline.runs]
        tags = {score.case_id: score.tags for score in scores}
        #: for each case: its score now, then its score in each baseline run. If a run has no answer to the case, the
        #: mean of the other runs is used instead.
        self.scores: list[list[float]] = []
        self.changes: list[Change] = []
        differences = []
        for key in sorted(current_means):
            earlier_scores = [run[key] for run in baseline_means if key in run]
            if not earlier_scores:
                continue
            score, mean = current_means[key], fsum(earlier_scores) / len(earlier_scores)
            self.scores.append([score, *earlier_scores, *[mean] * (len(baseline_means) - len(earlier_scores))])
            differences.append(score - mean)
            if score < 0.5 < mean or mean < 0.5 < score:
                right_before = sum(earlier > 0.5 for earlier in earlier_scores)
                self.changes.append(Change(key[0], mean, score, tags[key[0]], len(earlier_scores), right_before))
        #: accuracy now minus accuracy before, over the comparable cases
        self.difference = fsum(differences) / len(differences) if differences else 0.0


def _mean_scores(scores: Iterable[AnswerScore]) -> dict[tuple[str, str], float]:
    """Return the mean score of each answered case, by case_id and case_sha256."""
    by_case: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        if score.answered:
            by_case[score.case_id, score.case_sha256].append(score.score)
    return {key: fsum(values) / len(values) for key, values in by_case.items()}
