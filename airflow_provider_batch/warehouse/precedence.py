"""Which of two rows with the same key stays in a results table. All of it is in this one file.

Every row has a rank, and an incoming row replaces the one that is there if its rank is equal or higher:

1. a row with an outcome beats one without (`pending`, `withheld`). A row without an outcome never replaces
   anything: it is only inserted where its key is new.
2. with `keep_last_success`, a success beats everything else.
3. the later `sealed_at` wins, whatever the outcome. Equal: the one written last.

Ranks are ordered, so the table ends the same in whatever order, chunks and repetitions rows with outcomes are
landed, also when two landings run at once. That is why 1 and 2 stand above `sealed_at`: were a row that is
merely pending kept against an older answer, the end would depend on which of the two happened to land first.

A row whose `sealed_at` is NULL, such as one the table's owner entered by hand, is older than every other.
"""

from __future__ import annotations

from datetime import UTC, datetime

#: the outcomes of rows that have no answer to show yet
WITHOUT_OUTCOME = ("pending", "withheld")
SUCCEEDED = "succeeded"

#: (has an outcome, is a success that counts as one, sealed_at)
Rank = tuple[bool, bool, datetime]

_NEVER = datetime.min.replace(tzinfo=UTC)


def rank(outcome: str | None, sealed_at: datetime | None, *, keep_last_success: bool) -> Rank:
    """A row's rank, for comparing in Python. `sealed_at` is in UTC."""
    return (
        outcome not in WITHOUT_OUTCOME,
        keep_last_success and outcome == SUCCEEDED,
        _NEVER if sealed_at is None else sealed_at,
    )


def outranks(incoming: Rank, existing: Rank) -> bool:
    """Whether a row of rank `incoming` replaces one of rank `existing`."""
    has_outcome, had_outcome = incoming[0], existing[0]
    return has_outcome and (not had_outcome or incoming >= existing)


def has_outcome(outcome: str) -> str:
    """SQL: whether the row with the outcome expression `outcome` has one."""
    listed = ", ".join(f"'{name}'" for name in WITHOUT_OUTCOME)
    return f"coalesce({outcome}, '') NOT IN ({listed})"


def succeeded(outcome: str) -> str:
    """SQL: whether the row with the outcome expression `outcome` is a success."""
    return f"coalesce({outcome}, '') = '{SUCCEEDED}'"


def replaces(incoming: str, existing: str, outcome: str, sealed_at: str, *, keep_last_success: bool) -> str:
    """SQL: whether the row aliased `incoming` replaces the one aliased `existing`.

    `outcome` and `sealed_at` are those columns' quoted names.
    """
    return replaces_values(
        (f"{incoming}.{outcome}", f"{incoming}.{sealed_at}"),
        (f"{existing}.{outcome}", f"{existing}.{sealed_at}"),
        keep_last_success=keep_last_success,
    )


def replaces_values(incoming: tuple[str, str], existing: tuple[str, str], *, keep_last_success: bool) -> str:
    """SQL: whether the row with the expressions `incoming`, an outcome and a sealed_at, replaces that of `existing`."""
    new_outcome, new_sealed_at = incoming
    old_outcome, old_sealed_at = existing
    later = f"({old_sealed_at} IS NULL OR {new_sealed_at} >= {old_sealed_at})"
    if keep_last_success:
        new, old = succeeded(new_outcome), succeeded(old_outcome)
        later = f"(({new} AND NOT {old}) OR (({new} OR NOT {old}) AND {later}))"
    return f"{has_outcome(new_outcome)} AND (NOT ({has_outcome(old_outcome)}) OR {later})"


def best_first(outcome: str, sealed_at: str, number: str, *, keep_last_success: bool) -> str:
    """SQL: what to order rows with the same key by, so that the one that stays comes first.

    `outcome`, `sealed_at` and `number` are expressions of a row; `number` counts the rows as they arrived.
    """
    ranked = has_outcome(outcome)
    order = [f"({ranked}) DESC"]
    if keep_last_success:
        order.append(f"({succeeded(outcome)}) DESC")
    order.append(f"CASE WHEN {ranked} THEN {sealed_at} END DESC NULLS LAST")
    # Among rows of equal rank the last one wins. Rows without an outcome never replace any, so the first stays.
    order.append(f"CASE WHEN {ranked} THEN -{number} ELSE {number} END")
    return ", ".join(order)
