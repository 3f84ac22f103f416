"""Compare a run with its baseline, case by case: what got better or worse, and whether chance explains it.

The baseline of a run is the last accepted run plus the accepted runs before it, as long as each of them was the `same`
as its own baseline. Several runs are a steadier baseline than one, whose answers vary by chance. The baseline does not
reach back beyond a run that was accepted as improved (or, by hand, as regressed): the model behaved differently before.
The accepted runs before that only say how steady each case is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import StrEnum
from math import fsum
from typing import NamedTuple

import msgspec

from airflow_provider_batch.evals.statistics import correct_for_models
from airflow_provider_batch.evals.tables import ALL_CASES

#: the default significance level: at most one false alarm in 25 unchanged runs
DEFAULT_ALPHA = 0.04


class Verdict(StrEnum):
    """The result of a comparison."""

    #: there is no accepted run to compare with
    NO_HISTORY = "no_history"
    #: chance alone could explain the changes
    SAME = "same"
    IMPROVED = "improved"
    REGRESSED = "regressed"
    #: some cases got worse and others got better, both by more than chance explains
    MIXED = "mixed"

    @classmethod
    def of(cls, *, worse: bool, better: bool) -> Verdict:
        """Return the verdict on cases of which some got worse or better by more than chance explains."""
        if worse:
            return cls.MIXED if better else cls.REGRESSED
        return cls.IMPROVED if better else cls.SAME


#: the verdicts that stop a gate
STOPPING_VERDICTS = frozenset({Verdict.REGRESSED, Verdict.MIXED})


class AnswerScore(msgspec.Struct, frozen=True):
    """The score of one answer, or the mean over several answers to a case, with the fields that a comparison needs."""

    case_id: str
    case_sha256: str
    score: float
    #: whether the answer is right, or the share of several answers that are
    passed: float
    answered: bool
    tags: str = ""


class Change(msgspec.Struct, frozen=True):
    """One row of `eval_changes`, without run, variant and baseline: a case that changed, or was edited."""

    case_id: str
    #: `better` if the case was wrong and is right now, `worse` if it was right and is wrong now, or `edited`
    direction: str
    #: mean scores over the existing answers
    score_before: float
    score_now: float
    tags: str
    #: number of baseline runs in which the case was answered, and in which it was right; older runs count as well
    runs_before: int
    right_before: int


class Comparison(msgspec.Struct, frozen=True):
    """One row of `eval_comparisons`, without the run and the time. `tables.COMPARISONS` documents the columns."""

    variant: str
    tag: str
    baseline_run: str | None
    baseline_runs: int
    older_runs: int
    cases: int
    left_out: int
    difference: float | None
    p_worse: float | None
    p_better: float | None
    smallest_drop: float | None
    verdict: Verdict
    #: the cases that got better or worse, sorted by case_id
    changes: tuple[Change, ...] = ()
    #: the cases that are not compared because they were edited, and that were wrong before or are wrong now
    edited: tuple[Change, ...] = ()

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
        """The case_ids that were right and are wrong now, starting with those that are least likely to be chance."""
        return _least_likely_chance_first(change for change in self.changes if change.direction == "worse")

    @property
    def improvements(self) -> list[str]:
        """The case_ids that were wrong and are right now, starting with those that are least likely to be chance."""
        return _least_likely_chance_first(change for change in self.changes if change.direction == "better")


class Baseline(msgspec.Struct, frozen=True):
    """The accepted runs that a run of one variant is compared with."""

    #: the last accepted run
    run: str
    #: the scores of that run, then those of the earlier runs in the baseline
    runs: Sequence[Sequence[AnswerScore]]
    #: the scores of accepted runs before an accepted change, which only say how steady each case is
    older_runs: Sequence[Sequence[AnswerScore]] = ()


def compare(
    scores: Mapping[str, Sequence[AnswerScore]],
    baselines: Mapping[str, Baseline],
    *,
    alpha: float,
    named_before: Mapping[str, Set[str]] | None = None,
) -> list[Comparison]:
    """Return one comparison per variant of `scores` and per tag of its compared cases, sorted by variant and tag.

    A case is compared if it was answered both now and in the baseline, with the same question, expected answer and
    grader. The comparison over all cases of a variant comes first, with the tag ''. Its verdict counts the tags as
    well: it is `regressed` if a tag is.

    The p-values are corrected for the number of tags and of variants with a baseline.

    :param named_before: for each variant, the case_ids that got worse or were edited when this run was graded before.
    """
    # numpy and scipy come with the extra `evals`; Airflow parses DAG files without them.
    from airflow_provider_batch.evals.permutation import permutation_test

    compared = {variant: _Cases(scores[variant], baselines[variant]) for variant in sorted(baselines.keys() & scores)}
    tests = [
        permutation_test(cases.scores, list(cases.by_tag.values()), alpha=alpha / len(compared), older=cases.older)
        for cases in compared.values()
    ]
    worse = dict(zip(compared, correct_for_models([test.worse for test in tests]), strict=True))
    better = dict(zip(compared, correct_for_models([test.better for test in tests]), strict=True))
    comparisons = []
    drops = {variant: test.smallest_drop for variant, test in zip(compared, tests, strict=True)}
    for variant in sorted(scores):
        if variant not in compared:
            comparisons.append(_no_history(variant, len({score.case_id for score in scores[variant]})))
            continue
        cases, baseline = compared[variant], baselines[variant]
        total, *by_tag = _comparisons(variant, baseline, cases, worse[variant], better[variant], alpha)
        named_cases = (named_before or {}).get(variant, frozenset())
        edited = tuple(_edited_cases(scores[variant], baseline.runs[0], cases.case_ids, named_cases))
        comparisons += [msgspec.structs.replace(total, smallest_drop=drops[variant], edited=edited), *by_tag]
    return comparisons


def _no_history(variant: str, cases: int) -> Comparison:
    return Comparison(variant, ALL_CASES, None, 0, 0, 0, cases, None, None, None, None, Verdict.NO_HISTORY)


def _edited_cases(
    scores: Sequence[AnswerScore],
    last_accepted: Sequence[AnswerScore],
    compared: Set[str],
    named_before: Set[str],
) -> Iterator[Change]:
    """Yield the cases that are not compared because they were edited, if they were wrong before or are wrong now."""
    results_before = {case_id: mean for (case_id, _), mean in _mean_results(last_accepted).items()}
    tags = {score.case_id: score.tags for score in scores}
    for (case_id, _), now in sorted(_mean_results(scores).items()):
        if case_id in compared or case_id not in results_before:
            continue
        before = results_before[case_id]
        if min(now.passed, before.passed) < 0.5 or case_id in named_before:
            yield Change(case_id, "edited", before.score, now.score, tags[case_id], 1, int(before.passed > 0.5))


def _comparisons(
    variant: str,
    baseline: Baseline,
    cases: _Cases,
    p_worse: Sequence[float],
    p_better: Sequence[float],
    alpha: float,
) -> list[Comparison]:
    """Return the comparison over all cases of a variant, then those of its tags."""
    groups = {ALL_CASES: range(len(cases.scores)), **cases.by_tag}
    comparisons = []
    for (tag, positions), worse, better in zip(groups.items(), p_worse, p_better, strict=True):
        is_worse, is_better = worse <= alpha, better <= alpha
        if tag == ALL_CASES:
            is_worse, is_better = min(p_worse) <= alpha, min(p_better) <= alpha
        comparisons.append(
            Comparison(
                variant=variant,
                tag=tag,
                baseline_run=baseline.run,
                baseline_runs=len(baseline.runs),
                older_runs=len(baseline.older_runs),
                cases=len(positions),
                left_out=cases.left_out if tag == ALL_CASES else 0,
                difference=fsum(cases.differences[position] for position in positions) / max(len(positions), 1),
                p_worse=worse,
                p_better=better,
                smallest_drop=None,
                verdict=Verdict.of(worse=is_worse, better=is_better),
                changes=tuple(change for position in positions if (change := cases.changes[position]) is not None),
            )
        )
    return comparisons


class _Cases:
    """The cases of a run that can be compared with its baseline."""

    def __init__(self, scores: Sequence[AnswerScore], baseline: Baseline) -> None:
        current_results, baseline_results = _mean_results(scores), [_mean_results(run) for run in baseline.runs]
        older_run_results = [_mean_results(run) for run in baseline.older_runs]
        tags = {score.case_id: score.tags for score in scores}
        #: for each case: its score now, then its score in each baseline run that has an answer to it
        self.scores: list[list[float]] = []
        #: for each case: its score in each older run that has an answer to it
        self.older: list[list[float]] = []
        #: for each case: its score now minus its mean score in the baseline
        self.differences: list[float] = []
        #: for each case: its change, None if it is as right or as wrong as it was
        self.changes: list[Change | None] = []
        #: for each tag, sorted: the positions of its cases
        self.by_tag: dict[str, list[int]]
        self.case_ids: set[str] = set()
        by_tag: defaultdict[str, list[int]] = defaultdict(list)
        for key, now in sorted(current_results.items()):
            earlier_results = [run[key] for run in baseline_results if key in run]
            if not earlier_results:
                continue
            for tag in filter(None, tags[key[0]].split(",")):
                by_tag[tag].append(len(self.scores))
            self.case_ids.add(key[0])
            before = _mean(earlier_results)
            older_results = [run[key] for run in older_run_results if key in run]
            self.scores.append([now.score, *(earlier.score for earlier in earlier_results)])
            self.older.append([older.score for older in older_results])
            self.differences.append(now.score - before.score)
            self.changes.append(
                Change(
                    case_id=key[0],
                    direction="better" if now.passed > before.passed else "worse",
                    score_before=before.score,
                    score_now=now.score,
                    tags=tags[key[0]],
                    runs_before=len(earlier_results) + len(older_results),
                    right_before=sum(earlier.passed > 0.5 for earlier in (*earlier_results, *older_results)),
                )
                if now.passed < 0.5 < before.passed or before.passed < 0.5 < now.passed
                else None
            )
        self.by_tag = dict(sorted(by_tag.items()))
        self.left_out = len(tags) - len(self.scores)


def _least_likely_chance_first(changes: Iterable[Change]) -> list[str]:
    """Return the case_ids, starting with cases that were most often different, then those that changed the most."""

    def order(change: Change) -> tuple[float, float]:
        share_right = change.right_before / change.runs_before
        is_worse = change.direction == "worse"
        return -share_right if is_worse else share_right, -abs(change.score_now - change.score_before)

    return [change.case_id for change in sorted(changes, key=order)]


class _Result(NamedTuple):
    """The mean over several answers to a case, or over several runs."""

    score: float
    #: share of the answers that are right; above 0.5 the case counts as right, below as wrong
    passed: float


def _mean(results: Sequence[AnswerScore | _Result]) -> _Result:
    return _Result(
        fsum(result.score for result in results) / len(results),
        fsum(result.passed for result in results) / len(results),
    )


def _mean_results(scores: Iterable[AnswerScore]) -> dict[tuple[str, str], _Result]:
    """Return the mean of each answered case, by case_id and case_sha256."""
    by_case: defaultdict[tuple[str, str], list[AnswerScore]] = defaultdict(list)
    for score in scores:
        if score.answered:
            by_case[score.case_id, score.case_sha256].append(score)
    return {key: _mean(answers) for key, answers in by_case.items()}
