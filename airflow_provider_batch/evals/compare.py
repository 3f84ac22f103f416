"""The grades of two runs of one model, case by case: better, worse, and whether that can be chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

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
    #: mean scores over the repeats that were answered
    score_before: float
    score_now: float
    tags: str

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
        """The case_ids that got worse: those that were always right first, then by how much they lost."""
        worse = [change for change in self.changes if change.word == "worse"]
        worse.sort(key=lambda change: (change.score_now - change.score_before, change.case_id))
        return [change.case_id for change in worse]


class Baseline(msgspec.Struct, frozen=True):
    """An accepted run of one variant."""

    run: str
    scores: Sequence[Scored]


def compare(
    now: Mapping[str, Sequence[Scored]], baselines: Mapping[str, Baseline], *, alpha: float
) -> list[Comparison]:
    """A comparison per variant of `now`, in the order of their names.

    Cases are compared that are in both, with the same question, expected answer and grader, and that were answered in
    both. `verdict` goes by the p-value that is corrected for the number of variants that have a baseline.
    """
    pairs = {
        variant: _changes(now[variant], baselines[variant].scores) if variant in baselines else None
        for variant in sorted(now)
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


def _changes(now: Iterable[Scored], then: Iterable[Scored]) -> tuple[int, tuple[Change, ...]]:
    """How many cases can be compared, and those of them whose score changed."""
    new, old = _by_case(now), _by_case(then)
    both = sorted(key for key in new.keys() & old.keys())
    changes = [
        Change(key[0], _mean(old[key]), _mean(new[key]), new[key][0].tags)
        for key in both
        if _mean(old[key]) != _mean(new[key])
    ]
    return len(both), tuple(changes)


def _by_case(scores: Iterable[Scored]) -> dict[tuple[str, str], list[Scored]]:
    found: defaultdict[tuple[str, str], list[Scored]] = defaultdict(list)
    for scored in scores:
        if scored.answered:
            found[scored.case_id, scored.case_sha256].append(scored)
    return found


def _mean(scores: Sequence[Scored]) -> float:
    return sum(scored.score for scored in scores) / len(scores)
