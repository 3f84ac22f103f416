"""Rows that only the database could judge: which of them it refused, and what the landing reports about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.landing.storage_limits import STORAGE
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


def refusal_message(refusals: Sequence[Refusal], rows: int, location: str) -> str:
    """Return the error message of a landing in which the database refused rows.

    :param rows: number of rows of the landing.
    """
    by_reason: dict[str, list[Refusal]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(refusal)
    groups = sorted(by_reason.items(), key=lambda group: len(group[1]), reverse=True)
    lines = [f"The table {location!r} refused a value of {format_count(len(refusals), 'row')} out of {rows:,}."]
    for reason, group in groups[:_NAMED_REASONS]:
        names = ", ".join(refusal.custom_id for refusal in group[:_NAMED_ROWS])
        more = ", …" if len(group) > _NAMED_ROWS else ""
        lines.append(f"{format_count(len(group), 'row')}, {reason}. custom_id: {names}{more}.")
    if len(groups) > _NAMED_REASONS:
        lines.append(f"There are {len(groups) - _NAMED_REASONS:,} more reasons.")
    absent = sum(not refusal.landed for refusal in refusals)
    others = "All other rows landed."
    if absent < len(refusals):
        others += (
            f" {format_count(len(refusals) - absent, 'refused row')} landed without the value, with the code {STORAGE}."
        )
    if absent:
        others += f" {format_count(absent, 'refused row')} could not land at all."
    lines.append(
        f"{others} All answers are kept in staging. Change the table so that it takes these values, then clear this "
        "task: the rows land without being sent again."
    )
    return "\n".join(lines)
