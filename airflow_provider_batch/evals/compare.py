"""The grades of a run and of accepted runs before it, case by case: better, worse, and whether that can be chance.

What a run is held against is the last accepted one, and with it those accepted before of which it was the `same`: one
night alone has its luck, several have less. Back from a run that was accepted as improved (or, by hand, as regressed)
nothing counts any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import fsum

import msgspec

from airflow_provider_batch.evals.statistics import corrected, p_value


class Verdict(StrEnum):
    """What a comparison comes to."""

    #: there is no accepted run to compare with
    NO_HISTORY = "no_history"
    #: a difference that chance makes too
    SAME = "same"
    IMPROVED = "improved"
    REGRESSED = "regressed"


class Scored(msgspec.Struct, frozen=True):
    """One grade, as it is compared."""

    case_id: str
    case_sha256: str
    score: float
    answered: bool
    tags: str = ""


class Change(msgspec.Struct, frozen=True):
    """One row of `eval_changes`, but for the run, the variant and the baseline."""

    case_id: str
    #: mean scores over the answers there were: more than 0.5 is right, less is wrong
    score_before: float
    score_now: float
    tags: str
    #: in how many runs of the baseline the case was answered, and in how many right
    runs_before: int
    right_before: int

    @property
    def word(self) -> str:
        """better: was wrong and is right; worse: was right and is wrong."""
        return "better" if self.score_now > self.score_before else "worse"


class Comparison(msgspec.Struct, frozen=True):
    """One row of `eval_comparisons`, but for the run and the time; see `tables.COMPARISONS`."""

    variant: str
    baseline_run: str | None
    baseline_runs: int
    cases: int
    left_out: int
    difference: float | None
    p_value: float | None
    p_corrected: float | None
    verdict: Verdict
    #: by case_id
    changes: tuple[Change, ...] = ()

    @property
    def better(self) -> int:
        """Cases that were wrong and are right."""
        return sum(change.word == "better" for change in self.changes)

    @property
    def worse(self) -> int:
        """Cases that were right and are wrong."""
        return len(self.changes) - self.better

    @property
    def regressions(self) -> list[str]:
        """Return the case_ids that were right and are wrong now, the least likely to be chance first.

        First come those that were right in the largest share of the earlier runs, then those that lost the most.
        """
        found = [change for change in self.changes if change.word == "worse"]
        found.sort(key=lambda one: (-one.right_before / one.runs_before, one.score_now - one.score_before))
        return [change.case_id for change in found]


class Baseline(msgspec.Struct, frozen=True):
    """What a run of one variant is held against."""

    #: the last accepted run
    run: str
    #: its grades, and those of the accepted runs before it that stand for the same
    runs: Sequence[Sequence[Scored]]


def compare(
    now: Mapping[str, Sequence[Scored]], baselines: Mapping[str, Baseline], *, alpha: float
) -> list[Comparison]:
    """A comparison per variant of `now`, in the order of their names.

    Cases are compared that are in both, with the same question, expected answer and grader, and that were answered in
    both. `verdict` goes by the p-value that is corrected for the number of variants that have a baseline.
    """
    variants = sorted(now)
    pairs = [_Pair(now[name], baselines[name]) if name in baselines else None for name in variants]
    p_values = [None if pair is None else p_value(pair.scores) for pair in pairs]
    found = []
    for variant, pair, p, p_of_all in zip(variants, pairs, p_values, corrected(p_values), strict=True):
        cases = len({scored.case_id for scored in now[variant]})
        if pair is None or p_of_all is None:
            found.append(Comparison(variant, None, 0, 0, cases, None, None, None, Verdict.NO_HISTORY))
            continue
        verdict = Verdict.SAME
        if p_of_all <= alpha and pair.difference:
            verdict = Verdict.IMPROVED if pair.difference > 0 else Verdict.REGRESSED
        baseline = baselines[variant]
        compared = len(pair.scores)
        found.append(
            Comparison(
                variant=variant,
                baseline_run=baseline.run,
                baseline_runs=len(baseline.runs),
                cases=compared,
                left_out=cases - compared,
                difference=pair.difference,
                p_value=p,
                p_corrected=p_of_all,
                verdict=verdict,
                changes=tuple(pair.changes),
            )
        )
    return found


class _Pair:
    """The cases of a run that can be compared with its baseline."""

    def __init__(self, now: Sequence[Scored], baseline: Baseline) -> None:
        new, runs = _means(now), [_means(run) for run in baseline.runs]
        tags = {scored.case_id: scored.tags for scored in now}
        #: per case the score now, then those before; in place of an answer that one of those runs lacks the mean of the
        #: others
        self.scores: list[list[float]] = []
        self.changes: list[Change] = []
        differences = []
        for key in sorted(new):
            before = [run[key] for run in runs if key in run]
            if not before:
                continue
            mean = fsum(before) / len(before)
            self.scores.append([new[key], *before, *[mean] * (len(runs) - len(before))])
            differences.append(new[key] - mean)
            if new[key] < 0.5 < mean or mean < 0.5 < new[key]:
                right = sum(score > 0.5 for score in before)
                self.changes.append(Change(key[0], mean, new[key], tags[key[0]], len(before), right))
        #: accuracy now less accuracy before, over these cases
        self.difference = fsum(differences) / len(differences) if differences else 0.0


def _means(scores: Iterable[Scored]) -> dict[tuple[str, str], float]:
    """The mean score of each case that was answered, by its id and its hash."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for scored in scores:
        if scored.answered:
            found[scored.case_id, scored.case_sha256].append(scored.score)
    return {key: fsum(each) / len(each) for key, each in found.items()}
