"""A judge compares pairs of answers in both orders, and a variant wins a case only if it is preferred in both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.preferences import PairVerdict, preferences


def both_orders(case_id: str, in_order: str, swapped: str) -> list[PairVerdict]:
    """Return the verdicts on `a` and `b`, with `a` first and with `b` first."""
    return [PairVerdict(case_id, "a", "b", in_order), PairVerdict(case_id, "b", "a", swapped)]


@pytest.mark.parametrize(
    ("in_order", "swapped", "wins_losses_ties_contradictions"),
    [
        ("first", "second", (1, 0, 0, 0)),
        ("second", "first", (0, 1, 0, 0)),
        ("first", "first", (0, 0, 1, 1)),  # it prefers what it reads first
        ("second", "second", (0, 0, 1, 1)),
        ("tie", "tie", (0, 0, 1, 0)),
        ("first", "tie", (0, 0, 1, 0)),
        (" First", "SECOND", (1, 0, 0, 0)),
    ],
)
def test_a_variant_wins_a_case_if_it_is_preferred_in_both_orders(
    in_order: str, swapped: str, wins_losses_ties_contradictions: tuple[int, ...]
) -> None:
    (row,) = preferences(both_orders("c", in_order, swapped))
    assert (row.wins, row.losses, row.ties, row.contradictions) == wins_losses_ties_contradictions


def test_the_share_of_wins_has_an_interval_and_a_p_value() -> None:
    verdicts = [
        verdict
        for number in range(20)
        for verdict in both_orders(str(number), *(("first", "second") if number < 15 else ("second", "first")))
    ]
    (row,) = preferences(verdicts)
    assert (row.variant, row.other, row.share) == ("a", "b", 0.75)
    assert row.p_value == pytest.approx(0.0414, abs=1e-4)  # of 20 fair coins, 15 or more, or 5 or fewer, show heads
    assert row.low is not None
    assert row.high is not None
    assert 0.5 < row.low < 0.75 < row.high < 0.9


def test_ties_alone_have_no_share() -> None:
    (row,) = preferences(both_orders("c", "tie", "tie"))
    assert (row.share, row.p_value) == (None, 1)


def test_a_case_that_was_judged_in_one_order_does_not_count() -> None:
    (row,) = preferences([*both_orders("c", "first", "second"), PairVerdict("d", "a", "b", "second")])
    assert (row.wins, row.losses, row.ties) == (1, 0, 0)


def test_each_pair_of_variants_is_compared() -> None:
    verdicts = [PairVerdict("c", first, second, "first") for first in "abc" for second in "abc" if first != second]
    assert [(row.variant, row.other) for row in preferences(verdicts)] == [("a", "b"), ("a", "c"), ("b", "c")]


PREFERENCE = st.sampled_from(["first", "second", "tie"])


@given(st.lists(st.tuples(PREFERENCE, PREFERENCE), min_size=1, max_size=20))
def test_swapping_the_names_swaps_wins_and_losses(answers: list[tuple[str, str]]) -> None:
    verdicts = [verdict for number, pair in enumerate(answers) for verdict in both_orders(str(number), *pair)]
    renamed = {"a": "b", "b": "a"}
    swapped = [PairVerdict(v.case_id, renamed[v.first], renamed[v.second], v.preference) for v in verdicts]
    (one,), (other,) = preferences(verdicts), preferences(swapped)
    assert (one.wins, one.losses, one.ties, one.contradictions) == (
        other.losses,
        other.wins,
        other.ties,
        other.contradictions,
    )
