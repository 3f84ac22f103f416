"""Simulate the nights of a scenario, and compare them as `EvalGradeOperator` does, without a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from airflow_provider_batch.evals.compare import AnswerScore, Baseline, Comparison, Verdict, compare
from benchmarks.eval_nights.models import SPARE_NIGHTS, Nights
from benchmarks.eval_nights.scenarios import SMALL_TAG, Scenario, tag_of

#: numbers of cases
Numbers = NDArray[np.int_]

REGRESSED = (Verdict.REGRESSED, Verdict.MIXED)
IMPROVED = (Verdict.IMPROVED, Verdict.MIXED)


@dataclass
class Counts:
    """What a scenario gave, over all nights."""

    nights: int = 0
    #: quiet nights on which a model or one of its tags is called regressed, or improved
    false_alarms: int = 0
    false_improvements: int = 0
    #: nights with broken cases on which they were found; with fixed cases as well, in both directions
    detections: int = 0
    #: nights on which the tag of the broken cases was named
    tags_named: int = 0
    #: broken cases on the nights on which they were found, and those among the first cases that the gate names
    broken: int = 0
    named_first: int = 0


def simulate(scenario: Scenario, nights: int, seed: int, alpha: float) -> Counts:
    """Simulate quiet nights, and the same nights with broken cases. Every night has a model of its own."""
    counts = Counts()
    for number in range(nights):
        rng = np.random.default_rng([seed, number])
        Night(scenario, rng, alpha).add_to(counts)
    return counts


class Night:
    """One night with its history, quiet and with broken cases."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator, alpha: float) -> None:
        self.scenario, self.alpha, self.rng = scenario, alpha, rng
        #: for each model: the nights, the current one last, each with `repeats` answers per case
        self.right = [self._nights() for _ in range(scenario.variants)]
        self.judges = [Judges(scenario, right.shape, rng) for right in self.right]
        self.broken, self.fixed = self._changes(self.right[0])

    def add_to(self, counts: Counts) -> None:
        """Compare the night, quiet and with broken cases."""
        counts.nights += 1
        quiet = compare(*self.scores(broken=False), alpha=self.alpha)
        counts.false_alarms += any(comparison.verdict in REGRESSED for comparison in quiet)
        counts.false_improvements += any(comparison.verdict in IMPROVED for comparison in quiet)
        comparisons = compare(*self.scores(broken=True), alpha=self.alpha)
        first = comparisons[0]
        if first.verdict in REGRESSED and (not len(self.fixed) or first.verdict in IMPROVED):
            counts.detections += 1
            counts.broken += len(self.broken)
            broken = {_case_id(number) for number in self.broken}
            counts.named_first += len(broken & set(first.regressions[: len(broken)]))
            counts.tags_named += _has(comparisons, tag_of(0))

    def _nights(self) -> Nights:
        scenario = self.scenario
        after_change = scenario.runs + 1
        if not scenario.older_runs:
            return self._draw(after_change)
        nights = self._draw(scenario.older_runs + SPARE_NIGHTS + after_change)
        before, after = np.split(nights, [scenario.older_runs])
        changed = scenario.accepted_change(after, self._draw(len(after)), self.rng)
        return np.concatenate([before, changed[-after_change:]])

    def _draw(self, count: int) -> Nights:
        scenario = self.scenario
        nights = scenario.model(scenario.cases, count * scenario.repeats, self.rng)
        return nights.reshape(count, scenario.repeats, scenario.cases)

    def _changes(self, right: Nights) -> tuple[Numbers, Numbers]:
        """Choose the cases to break and to fix: cases that the model mostly answers right, or wrong."""
        scenario = self.scenario
        share = right[scenario.older_runs :].mean(axis=(0, 1))
        candidates = np.flatnonzero(share > 0.5)
        if scenario.in_small_tag:
            candidates = candidates[candidates < SMALL_TAG]
        broken = self.rng.choice(candidates, min(scenario.broken, len(candidates)), replace=False)
        candidates = np.flatnonzero(share < 0.5)
        fixed = self.rng.choice(candidates, min(scenario.fixed, len(candidates)), replace=False)
        return broken, fixed

    def scores(self, *, broken: bool) -> tuple[Mapping[str, Sequence[AnswerScore]], Mapping[str, Baseline]]:
        """Return the scores of the night and its baseline, for each model. The first model has the broken cases."""
        scores, baselines = {}, {}
        for number, (right, judges) in enumerate(zip(self.right, self.judges, strict=True)):
            nights = right.copy()
            if broken and number == 0:
                nights[-1][:, self.broken] = False
                nights[-1][:, self.fixed] = True
            verdicts = judges.verdicts(nights)
            is_sent = flipped_before(verdicts) if self.scenario.repeats_only_flipped else np.ones_like(verdicts)
            *earlier, current = map(_answers, verdicts, is_sent)
            older, comparable = earlier[: self.scenario.older_runs], earlier[self.scenario.older_runs :]
            scores[f"model-{number}"] = current
            if not self.scenario.uses_older_runs:
                older = []
            baselines[f"model-{number}"] = Baseline("last", comparable[::-1], older[::-1])
        return scores, baselines


class Judges:
    """The errors of the judges of one model: their verdicts on texts that are new, and on those that are not."""

    def __init__(self, scenario: Scenario, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        def errors(*shape: int) -> Nights:
            wrong_verdicts = (rng.random((scenario.judges, *shape)) < scenario.judge_errors).sum(axis=0)
            return np.asarray(wrong_verdicts > scenario.judges / 2)

        self._on_new_texts = errors(*shape)
        if scenario.new_texts < 1:
            self._is_new = rng.random(shape) < scenario.new_texts
            #: by case, for its wrong answer and for its right one
            self._on_other_texts = errors(2, shape[-1])
        else:
            self._is_new, self._on_other_texts = np.ones(shape, dtype=bool), np.zeros((2, shape[-1]), dtype=bool)

    def verdicts(self, right: Nights) -> Nights:
        """Return whether the judges call each answer right."""
        on_wrong, on_right = self._on_other_texts
        errors = np.where(self._is_new, self._on_new_texts, np.where(right, on_right, on_wrong))
        return np.asarray(right ^ errors)


def _has(comparisons: Sequence[Comparison], tag: str) -> bool:
    return any(comparison.tag == tag and comparison.verdict in REGRESSED for comparison in comparisons)


def flipped_before(verdicts: Nights) -> Nights:
    """Return which answers exist if a case is sent more than once only after it flipped."""
    is_sent = np.zeros_like(verdicts)
    is_sent[:, 0] = True
    for number in range(1, len(verdicts)):
        earlier, was_sent = verdicts[:number], is_sent[:number]
        is_sent[number, 1:] = (earlier & was_sent).any(axis=(0, 1)) & (~earlier & was_sent).any(axis=(0, 1))
    return is_sent


def _answers(night: Nights, is_sent: Nights) -> list[AnswerScore]:
    return [
        AnswerScore(_case_id(number), "", float(is_right), is_right, True, tag_of(number))
        for answers, sent in zip(night, is_sent, strict=True)
        for number, is_right in enumerate(answers)
        if sent[number]
    ]


def _case_id(number: int) -> str:
    return f"case-{number:04}"
