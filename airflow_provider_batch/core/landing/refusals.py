"""Rows with a value that the results table does not take, and what the landing reports about them.

`storage_limits` finds some of them before they are written. Others are refused by the database, which alone knows its
constraints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from airflow_provider_batch.core.answers.outcome import STORAGE, Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.records import Reason

#: number of rows and of reasons that an error message names
_NAMED_ROWS, _NAMED_REASONS = 5, 3


class Refusal(msgspec.Struct, frozen=True):
    """A row with a value that the database refused."""

    custom_id: str
    #: whether the row was a success, and no longer is without its value
    lost_success: bool
    #: the column whose value was left out so that the row could land; '' if leaving out all values together was
    #: necessary, or if the row did not land
    column: str
    #: the database's words without values
    message: str
    #: whether the row landed without its value
    landed: bool

    @property
    def reason(self) -> str:
        """Why the row was refused, and in which column if that is known."""
        return f"column {self.column!r}: {self.message}" if self.column else self.message


def adjusted_outcomes(outcomes: Mapping[str, int], refusals: Sequence[Refusal]) -> dict[str, int]:
    """Return the number of rows by outcome, best first, after refused successes became invalid outputs."""
    counts = Counter(outcomes)
    moved = sum(refusal.lost_success for refusal in refusals)
    counts[Outcome.SUCCEEDED] -= moved
    counts[Outcome.INVALID_OUTPUT] += moved
    return {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]}


def refusal_reasons(refusals: Sequence[Refusal]) -> list[Reason]:
    """Return the reasons of the refusals, most frequent first."""
    counts = Counter(refusal.reason for refusal in refusals)
    return [Reason(Outcome.INVALID_OUTPUT, STORAGE, reason[:200], rows) for reason, rows in counts.most_common()]


class RefusalGroup(msgspec.Struct):
    """The rows whose value was refused for the same reason."""

    rows: int = 0
    #: number of them that could not land even without the value
    absent: int = 0
    #: the first few
    custom_ids: list[str] = []

    def add(self, custom_id: str, *, landed: bool = True) -> None:
        """Count a row."""
        self.rows += 1
        self.absent += not landed
        if len(self.custom_ids) < _NAMED_ROWS:
            self.custom_ids.append(custom_id)


def group_refusals(refusals: Sequence[Refusal]) -> dict[str, RefusalGroup]:
    """Return the rows that the database refused, by reason."""
    groups: dict[str, RefusalGroup] = {}
    for refusal in refusals:
        groups.setdefault(refusal.reason, RefusalGroup()).add(refusal.custom_id, landed=refusal.landed)
    return groups


def refusal_message(groups: Mapping[str, RefusalGroup], rows: int, location: str) -> str:
    """Return the error message of a landing in which some rows have a value that the table does not take.

    :param groups: these rows, by reason.
    :param rows: number of rows of the landing.
    """
    count, absent = sum(group.rows for group in groups.values()), sum(group.absent for group in groups.values())
    lines = [f"The table {location!r} does not take a value of {format_count(count, 'row')} out of {rows:,}."]
    for reason, group in sorted(groups.items(), key=lambda item: item[1].rows, reverse=True)[:_NAMED_REASONS]:
        more = ", …" if group.rows > len(group.custom_ids) else ""
        lines.append(f"{format_count(group.rows, 'row')}, {reason}. custom_id: {', '.join(group.custom_ids)}{more}.")
    if len(groups) > _NAMED_REASONS:
        lines.append(f"There are {len(groups) - _NAMED_REASONS:,} more reasons.")
    others = "All other rows landed."
    if absent < count:
        others += f" {format_count(count - absent, 'refused row')} landed without the value, with the code {STORAGE}."
    if absent:
        others += f" {format_count(absent, 'refused row')} could not land at all."
    lines.append(
        f"{others} All answers are kept in staging. Change the table so that it takes these values, then clear this "
        "task: the rows land without being sent again."
    )
    return "\n".join(lines)
