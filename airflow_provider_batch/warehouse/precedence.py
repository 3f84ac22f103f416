"""The rule that decides which of two rows with the same key stays in a results table. This file holds all of it.

Every row has a rank. An incoming row replaces the existing one if its rank is equal or higher:

1. A row with an outcome beats one without (`pending`, `withheld`). A row without an outcome never replaces anything;
   it is only inserted if its key is new.
2. With `keep_last_success`, a success beats every other outcome.
3. The later `sealed_at` wins, whatever the outcome. If they are equal, the row written last wins.

Ranks are totally ordered. Rows with outcomes therefore end up the same regardless of the order in which they land, how
they are divided into chunks and how often they land, even if two landings run concurrently. That is why rules 1 and 2
come before `sealed_at`: if a row that is merely pending could replace an older answer, the result would depend on which
of the two landed first.

A row whose `sealed_at` is NULL, such as one that the table's owner entered by hand, counts as older than all others.
"""

from __future__ import annotations

from datetime import UTC, datetime

#: outcomes of rows that have no answer yet
WITHOUT_OUTCOME = ("pending", "withheld")
SUCCEEDED = "succeeded"

#: (has an outcome, is a success under `keep_last_success`, sealed_at)
Rank = tuple[bool, bool, datetime]

_EARLIEST = datetime.min.replace(tzinfo=UTC)


def rank(outcome: str | None, sealed_at: datetime | None, *, keep_last_success: bool) -> Rank:
    """Return a row's rank, for comparisons in Python. `sealed_at` is in UTC."""
    return (
        outcome not in WITHOUT_OUTCOME,
        keep_last_success and outcome == SUCCEEDED,
        _EARLIEST if sealed_at is None else sealed_at,
    )


def outranks(incoming: Rank, existing: Rank) -> bool:
    """Return whether a row of rank `incoming` replaces one of rank `existing`."""
    has_outcome, had_outcome = incoming[0], existing[0]
    return has_outcome and (not had_outcome or incoming >= existing)


def has_outcome(outcome: str) -> str:
    """Return SQL that tests whether a row, given its outcome as an expression, has an outcome."""
    outcomes = ", ".join(f"'{name}'" for name in WITHOUT_OUTCOME)
    return f"coalesce({outcome}, '') NOT IN ({outcomes})"


def succeeded(outcome: str) -> str:
    """Return SQL that tests whether a row, given its outcome as an expression, is a success."""
    return f"coalesce({outcome}, '') = '{SUCCEEDED}'"


def replaces(incoming: str, existing: str, outcome: str, sealed_at: str, *, keep_last_success: bool) -> str:
    """Return SQL that tests whether the row aliased `incoming` replaces the row aliased `existing`.

    `outcome` and `sealed_at` are the quoted names of those columns.
    """
    return replaces_values(
        (f"{incoming}.{outcome}", f"{incoming}.{sealed_at}"),
        (f"{existing}.{outcome}", f"{existing}.{sealed_at}"),
        keep_last_success=keep_last_success,
    )


def replaces_values(incoming: tuple[str, str], existing: tuple[str, str], *, keep_last_success: bool) -> str:
    """Return the same SQL as `replaces`, given each row as a pair of expressions: outcome and sealed_at."""
    new_outcome, new_sealed_at = incoming
    old_outcome, old_sealed_at = existing
    later = f"({old_sealed_at} IS NULL OR {new_sealed_at} >= {old_sealed_at})"
    if keep_last_success:
        new_success, old_success = succeeded(new_outcome), succeeded(old_outcome)
        later = f"(({new_success} AND NOT {old_success}) OR (({new_success} OR NOT {old_success}) AND {later}))"
    return f"{has_outcome(new_outcome)} AND (NOT ({has_outcome(old_outcome)}) OR {later})"


def order_by_rank(outcome: str, sealed_at: str, number: str, *, keep_last_success: bool) -> str:
    """Return SQL that orders rows with the same key so that the one to keep comes first.

    `outcome`, `sealed_at` and `number` are expressions of a row; `number` counts the rows in the order of arrival.
    """
    is_ranked = has_outcome(outcome)
    order = [f"({is_ranked}) DESC"]
    if keep_last_success:
        order.append(f"({succeeded(outcome)}) DESC")
    order.append(f"CASE WHEN {is_ranked} THEN {sealed_at} END DESC NULLS LAST")
    # Among rows of equal rank the last one wins. A row without an outcome never replaces another, so the first stays.
    order.append(f"CASE WHEN {is_ranked} THEN -{number} ELSE {number} END")
    return ", ".join(order)
