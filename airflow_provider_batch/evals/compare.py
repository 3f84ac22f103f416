"""The grades of two runs of one model, case by case: better, worse, and whether that can be chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from airflow_provider_batch.evals.statistics import corrected, p_value

#: accepted runs that say how steady a case is
HISTORY = 10


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
    #: mean scores over the repeats that were answered
    score_before: float
    score_now: float
    tags: str
    #: accepted runs, the baseline and up to `HISTORY` in all, in which the same case was answered; in how many right
    runs_before: int
    right_before: int

    @property
    def regressed(self) -> bool:
        """Right before and wrong now; with repeats, most of the time."""
        return self.score_before > 0.5 > self.score_now

    @property
    def word(self) -> str:
        """better or worse"""
        return "better" if self.score_now > self.score_before else "worse"


class Comparison(msgspec.Struct, frozen=True):
    """One row of `eval_comparisons`, but for the run and the time; see `tables.COMPARISONS`."""

    variant: str
    baseline_run: str | None
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
        """Cases whose score is higher than it was."""
        return sum(change.word == "better" for change in self.changes)

    @property
    def worse(self) -> int:
        """Cases whose score is lower than it was."""
        return len(self.changes) - self.better

    @property
    def regressions(self) -> list[str]:
        """The case_ids that were right and are wrong now, the least likely to be chance first: those that were right
        in all of the accepted runs before, then those that lost the most."""
        found = [change for change in self.changes if change.regressed]
        found.sort(
            key=lambda change: (-change.right_before / change.runs_before, change.score_now - change.score_before)
        )
        return [change.case_id for change in found]


class Baseline(msgspec.Struct, frozen=True):
    """An accepted run of one variant."""

    run: str
    scores: Sequence[Scored]
    #: the grades of accepted runs before it, at most `HISTORY` less this one
    earlier: Sequence[Sequence[Scored]] = ()


def compare(
    now: Mapping[str, Sequence[Scored]], baselines: Mapping[str, Baseline], *, alpha: float
) -> list[Comparison]:
    """A comparison per variant of `now`, in the order of their names.

    Cases are compared that are in both, with the same question, expected answer and grader, and that were answered in
    both. `verdict` goes by the p-value that is corrected for the number of variants that have a baseline.
    """
    pairs = {
        variant: _changes(now[variant], baselines[variant]) if variant in baselines else None for variant in sorted(now)
    }
    # Thirds do not add up to the same number in every order; sorted they do.
    steps = {
        variant: sorted(change.score_now - change.score_before for change in pair[1]) if pair else None
        for variant, pair in pairs.items()
    }
    p_values = [None if each is None else p_value(each) for each in steps.values()]
    found = []
    for variant, p, p_of_all in zip(pairs, p_values, corrected(p_values), strict=True):
        cases = len({scored.case_id for scored in now[variant]})
        pair, differences = pairs[variant], steps[variant]
        if pair is None or differences is None:
            found.append(Comparison(variant, None, 0, cases, None, None, None, Verdict.NO_HISTORY))
            continue
        compared, changes = pair
        difference = sum(differences) / compared if compared else 0.0
        verdict = Verdict.SAME
        if p_of_all is not None and p_of_all <= alpha and difference:
            verdict = Verdict.IMPROVED if difference > 0 else Verdict.REGRESSED
        run = baselines[variant].run
        found.append(Comparison(variant, run, compared, cases - compared, difference, p, p_of_all, verdict, changes))
    return found


def _changes(now: Sequence[Scored], baseline: Baseline) -> tuple[int, tuple[Change, ...]]:
    """How many cases can be compared, and those of them whose score changed."""
    new, old = _means(now), _means(baseline.scores)
    runs = [old, *map(_means, baseline.earlier)]
    tags = {scored.case_id: scored.tags for scored in now}
    both = sorted(new.keys() & old.keys())
    changes = []
    for key in both:
        if new[key] != old[key]:
            before = [run[key] for run in runs if key in run]
            right = sum(score > 0.5 for score in before)
            changes.append(Change(key[0], old[key], new[key], tags[key[0]], len(before), right))
    return len(both), tuple(changes)


def _means(scores: Iterable[Scored]) -> dict[tuple[str, str], float]:
    """The mean score of each case that was answered, by its id and its hash."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for scored in scores:
        if scored.answered:
            found[scored.case_id, scored.case_sha256].append(scored.score)
    return {key: sum(each) / len(each) for key, each in found.items()}
