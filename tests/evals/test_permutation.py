"""The permutation test agrees with exact figures, weighs cases by how steady they were, and tells tags apart."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.evals.permutation import permutation_test


def p_worse(scores: Sequence[Sequence[float]]) -> float:
    return permutation_test(scores, alpha=0.05).worse[0]


def p_better(scores: Sequence[Sequence[float]]) -> float:
    return permutation_test(scores, alpha=0.05).better[0]


@pytest.mark.parametrize(
    ("better", "worse", "expected"), [(0, 0, 1), (0, 1, 1 / 2), (0, 5, 1 / 32), (5, 5, 638 / 1024), (2, 10, 79 / 4096)]
)
def test_with_one_earlier_run_the_p_value_is_that_of_a_one_sided_mcnemar_test(
    better: int, worse: int, expected: float
) -> None:
    unchanged = [(1, 1), (0, 0)] * 25
    assert p_worse([(1, 0)] * better + [(0, 1)] * worse + unchanged) == pytest.approx(expected)
    assert p_better([(1, 0)] * worse + [(0, 1)] * better + unchanged) == pytest.approx(expected)


def test_with_many_changes_the_p_value_is_close_to_the_exact_one() -> None:
    assert p_worse([(1, 0)] * 20 + [(0, 1)] * 36) == pytest.approx(0.0222, abs=0.004)


def test_with_repeats_the_p_value_counts_the_permutations_that_are_as_extreme() -> None:
    # of the 2^3 combinations, one is as far down; of 2^10 as well
    assert p_worse([(1 / 3, 2 / 3)] * 3) == pytest.approx(1 / 8)
    assert p_worse([(2 / 3, 1)] * 5 + [(0, 2 / 3)] * 5) == pytest.approx(1 / 1024)


def test_with_several_earlier_runs_the_current_run_is_drawn_from_all_runs() -> None:
    # Each of 3 cases was wrong in one of 3 runs. That it was the current run all 3 times is 1 of 27 permutations.
    assert p_worse([(0, 1, 1)] * 3) == pytest.approx(1 / 27)
    assert p_worse([(1, 1, 1), *[(0, 1, 1)] * 3, *[(0, 0, 0)] * 19]) == pytest.approx(1 / 27)


def test_the_number_of_earlier_runs_may_differ_between_cases() -> None:
    assert p_worse([(0, 1), (0, 1, 1), (0, 1, 1, 1)]) == pytest.approx(1 / 24)


def test_a_steady_case_is_stronger_evidence_than_one_that_often_changes() -> None:
    rng = random.Random(3)

    def unsteady_cases(count: int, now: float) -> list[tuple[float, ...]]:
        return [(now, *rng.sample((1.0, 0.0) * 5, 10)) for _ in range(count)]

    steady: list[tuple[float, ...]] = [(1.0,) * 11] * 60
    broken_steady: list[tuple[float, ...]] = [(0.0,) + (1.0,) * 10] * 5
    assert p_worse(unsteady_cases(20, 1.0) + steady + broken_steady) < 0.001
    assert p_worse(unsteady_cases(20, 1.0) + steady + unsteady_cases(5, 0.0)) > 0.1


def test_cases_that_broke_are_found_even_if_as_many_others_were_fixed() -> None:
    broken = [(0.0,) + (1.0,) * 10] * 20
    fixed = [(1.0,) + (0.0,) * 10] * 20
    quiet = [(1.0,) * 11] * 60 + [(1.0, 0.0) * 5 + (1.0,)] * 10 + [(0.0, 1.0) * 5 + (0.0,)] * 10
    test = permutation_test(broken + fixed + quiet, alpha=0.05)
    assert max(test.worse[0], test.better[0]) < 0.001
    assert p_worse([(0.0, 1.0)] * 20 + [(1.0, 0.0)] * 20) > 0.3  # one earlier run cannot tell it from noise


def test_a_tag_that_broke_is_found_and_the_others_are_not() -> None:
    broken = [(0.0, 1.0)] * 10
    quiet = [(0.0, 1.0), (1.0, 0.0)] * 12
    tags = [range(10), range(10, 22), range(22, 34)]
    test = permutation_test(broken + quiet, [list(tag) for tag in tags], alpha=0.05)
    assert test.worse[1] < 0.01
    assert min(test.worse[2:]) > 0.5


def test_a_tag_in_which_too_few_cases_vary_costs_the_others_nothing() -> None:
    scores = [(0.0, 1.0)] * 10 + [(1.0, 1.0)] * 50
    small_tags = [[number, number + 10] for number in range(10)]
    assert permutation_test(scores, small_tags, alpha=0.05).worse[0] == p_worse(scores)


class TestOlderRuns:
    """Runs before an accepted change say how steady a case is, and are not exchanged with the current one."""

    STEADY = (1.0,) * 9
    UNSTEADY = (1.0, 0.0) * 4 + (1.0,)
    #: cases that broke, some that were fixed by chance, and quiet ones: the current run and the accepted one
    SCORES = [(0.0, 1.0)] * 10 + [(1.0, 0.0)] * 10 + [(1.0, 1.0)] * 100

    def p_worse(self, scores: Sequence[Sequence[float]], older: Sequence[Sequence[float]]) -> float:
        return permutation_test(scores, alpha=0.05, older=older).worse[0]

    def test_a_case_that_was_steady_before_the_change_is_stronger_evidence(self) -> None:
        quiet = [self.STEADY] * 80 + [self.UNSTEADY] * 20
        assert p_worse(self.SCORES) > 0.4
        assert self.p_worse(self.SCORES, [self.STEADY] * 10 + [self.UNSTEADY] * 10 + quiet) < 0.05
        assert self.p_worse(self.SCORES, [self.UNSTEADY] * 10 + [self.STEADY] * 10 + quiet) > 0.9

    def test_they_hardly_count_if_most_cases_behave_differently_since_the_change(self) -> None:
        scores = [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)] * 30
        older = [self.STEADY, self.UNSTEADY, (0.0,) * 9, self.STEADY] * 30
        assert p_worse(scores) == pytest.approx(self.p_worse(scores, older), abs=0.1)

    def test_equally_steady_cases_have_the_p_value_of_a_mcnemar_test(self) -> None:
        assert self.p_worse([(0, 1)] * 5, [self.STEADY] * 5) == pytest.approx(1 / 32)
        assert self.p_worse([(0, 1)] * 10 + [(1, 0)] * 2, [(1.0, 0.5)] * 12) == pytest.approx(79 / 4096)


class TestSpread:
    """If earlier totals varied more than those of independent cases, a loss has to be larger."""

    @staticmethod
    def groups(runs: int, *, together: bool) -> list[tuple[float, ...]]:
        """Return 20 groups of 10 cases. 8 groups are wrong now. The cases of a group flip together, or as often."""
        rng, shuffling = random.Random(3), random.Random(4)
        scores = []
        for group in range(20):
            earlier = [float(rng.random() < 0.7) for _ in range(runs)]
            for _ in range(10):
                scores.append((float(group >= 8), *(earlier if together else shuffling.sample(earlier, runs))))
        return scores

    def test_groups_of_cases_that_flip_together_are_not_counted_as_independent_cases(self) -> None:
        independent = permutation_test(self.groups(10, together=False), alpha=0.05)
        together = permutation_test(self.groups(10, together=True), alpha=0.05)
        assert together.worse[0] > 10 * independent.worse[0]
        assert together.smallest_drop is not None
        assert independent.smallest_drop is not None
        assert together.smallest_drop > 1.3 * independent.smallest_drop

    def test_fewer_than_five_earlier_runs_do_not_show_it(self) -> None:
        assert p_worse(self.groups(4, together=True)) == p_worse(self.groups(4, together=False))

    def test_cases_without_a_score_in_some_runs_do_not_hide_it(self) -> None:
        scores = self.groups(10, together=True)
        with_new_cases = [case[: 5 if number % 5 == 0 else 11] for number, case in enumerate(scores)]
        independent = [
            case[: 5 if number % 5 == 0 else 11] for number, case in enumerate(self.groups(10, together=False))
        ]
        assert p_worse(with_new_cases) > 10 * p_worse(independent)

    def test_the_order_of_the_earlier_runs_does_not_matter(self) -> None:
        scores = self.groups(10, together=True)
        assert p_worse([(now, *reversed(earlier)) for now, *earlier in scores]) == pytest.approx(p_worse(scores))


SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])
CASES = st.lists(st.lists(SCORES, min_size=2, max_size=5).map(tuple), min_size=1, max_size=30)


@settings(max_examples=30)
@given(CASES, st.randoms())
def test_a_p_value_is_a_share_and_does_not_depend_on_the_order_of_cases_and_earlier_runs(
    scores: list[tuple[float, ...]], rng: random.Random
) -> None:
    older = [rng.choices((0.0, 0.5, 1.0), k=rng.randrange(4)) for _ in scores]
    test = permutation_test(scores, alpha=0.05, older=older)
    order = rng.sample(range(len(scores)), len(scores))
    reordered = [(scores[case][0], *rng.sample(scores[case][1:], len(scores[case]) - 1)) for case in order]
    reordered_older = [rng.sample(older[case], len(older[case])) for case in order]
    assert 0 < test.worse[0] <= 1
    assert permutation_test(reordered, alpha=0.05, older=reordered_older)[:2] == test[:2]


@settings(max_examples=30)
@given(CASES)
def test_losses_are_gains_with_right_and_wrong_swapped(scores: list[tuple[float, ...]]) -> None:
    swapped = [tuple(1 - score for score in case) for case in scores]
    # Up to 10,000 random permutations each, in another order: five standard errors.
    assert p_worse(scores) == pytest.approx(p_better(swapped), abs=0.035)


@settings(max_examples=10)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.lists(st.sampled_from([0.0, 1.0]), max_size=3), min_size=4, max_size=4),
)
def test_if_nothing_changed_small_p_values_are_at_most_as_frequent_as_they_say(
    scores: list[list[float]], older: list[list[float]]
) -> None:
    # Each of its three scores may be the current one of a case: all combinations are equally likely.
    p_values = [
        permutation_test(
            [case[pick:] + case[:pick] for case, pick in zip(scores, picks, strict=True)],
            alpha=0.05,
            older=older[: len(scores)],
        ).worse[0]
        for picks in itertools.product(range(3), repeat=len(scores))
    ]
    for threshold in p_values:
        assert sum(p <= threshold for p in p_values) / len(p_values) <= threshold + 1e-9


def test_more_cases_and_more_earlier_runs_reveal_smaller_drops() -> None:
    def smallest_drop(cases: int, runs: int) -> float:
        rng = random.Random(5)
        scores = [
            tuple(float(rng.random() < (0.5 if case % 5 == 0 else 0.95)) for _ in range(runs + 1))
            for case in range(cases)
        ]
        drop = permutation_test(scores, alpha=0.05).smallest_drop
        assert drop is not None
        return drop

    assert 0.001 < smallest_drop(1_600, 10) < smallest_drop(400, 10) < smallest_drop(400, 1) < 0.2


def test_without_cases_that_could_break_no_drop_is_noticed() -> None:
    assert permutation_test([], alpha=0.05).smallest_drop is None
    assert permutation_test([(0.0, 0.0)] * 50, alpha=0.05).smallest_drop is None
    assert permutation_test([(1.0, 1.0)] * 3, alpha=0.05).smallest_drop is None
