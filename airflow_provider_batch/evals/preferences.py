"""Which of two variants a judge prefers, case by case, when it sees both answers next to each other.

A judge often favours the answer that it reads first. So it sees each pair of answers twice, in both orders. A variant
wins a case if it is preferred in both. If the judge prefers one position in both orders, it contradicts itself, and the
case is a tie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from airflow_provider_batch.evals.statistics import interval, sign_test

#: verdicts of a judge on a pair of answers
FIRST, SECOND = "first", "second"


class PairVerdict(msgspec.Struct, frozen=True):
    """One row of `eval_preferences`: what a judge says of two answers in one order."""

    case_id: str
    #: the variants whose answers the judge read first and second
    first: str
    second: str
    #: first, second, or anything else for a tie
    preference: str

    @property
    def winner(self) -> str | None:
        """The preferred variant, or None."""
        return {FIRST: self.first, SECOND: self.second}.get(self.preference.strip().casefold())


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """How two variants compare over all cases that were judged in both orders."""

    variant: str
    other: str
    #: number of cases that each of them wins, and of ties
    wins: int
    losses: int
    ties: int
    #: number of the ties in which the judge preferred the same position in both orders
    contradictions: int
    #: share of the cases that `variant` wins, of those that are not a tie, and its 95 % interval; None if all are ties
    share: float | None
    low: float | None
    high: float | None
    #: how often chance alone would make a difference this large, in either direction
    p_value: float


def preferences(verdicts: Iterable[PairVerdict]) -> list[Preference]:
    """Return the comparison of each pair of variants, sorted by their names. Cases judged in one order do not count."""
    by_pair: defaultdict[tuple[str, str], defaultdict[str, dict[str, PairVerdict]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for verdict in verdicts:
        variant, other = sorted((verdict.first, verdict.second))
        by_pair[variant, other][verdict.case_id][verdict.first] = verdict
    return [
        _preference(variant, other, [orders for orders in cases.values() if len(orders) > 1])
        for (variant, other), cases in sorted(by_pair.items())
    ]


def _preference(variant: str, other: str, cases: list[dict[str, PairVerdict]]) -> Preference:
    wins = losses = contradictions = 0
    for orders in cases:
        winners = [verdict.winner for verdict in orders.values()]
        wins += winners == [variant, variant]
        losses += winners == [other, other]
        contradictions += None not in winners and winners[0] != winners[1]
    decided = wins + losses
    share = wins / decided if decided else None
    low, high = (None, None) if share is None else interval(share, decided)
    return Preference(
        variant=variant,
        other=other,
        wins=wins,
        losses=losses,
        ties=len(cases) - decided,
        contradictions=contradictions,
        share=share,
        low=low,
        high=high,
        p_value=sign_test(wins, losses),
    )
