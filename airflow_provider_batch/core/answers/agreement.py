"""Decides whether downloaded result files are believed, by what the provider says about the batch and about the files.

A download can end without an error and still not be the file: an error as JSON with status 200, a page of a gateway, an
empty body, or a file that was cut off at the end of a line. Only a comparison shows it. The provider says how many
requests it has answered (`request_counts` of the batch) and how large each file is (`bytes` of the file):

    the files have a line for as many rows as the counts say      believed
    every file has its size, and at least one row has a line      believed: a row without a line has none
    counts or sizes are known, and neither agrees                 not believed

Some servers give neither. Their files are believed if every row of the shard has a line. If the batch expired or was
cancelled, some rows may have none: such files are believed once a second download is identical.

Even files of the right size are suspicious if they have no line for any row, or have something else in place of the
lines of some rows, such as garbage or a first half that was sent twice. They are not believed either.

A person has the last word. If the wait was cleared since the last download and the files are still the same, they are
believed, unless their size is wrong, or they have no line for any row and their size is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.records import CollectedFile
from airflow_provider_batch.core.provider.batch import BatchView, Status


class Agreement(Enum):
    """Whether the files agree with a figure of the provider."""

    CONFIRMED = auto()
    CONTRADICTED = auto()
    #: the provider does not give the figure, or it says nothing about these files
    UNKNOWN = auto()


class Lines(NamedTuple):
    """The lines of the result files of a batch."""

    #: number of rows of the shard that have a line
    rows: int
    #: number of further lines for such rows
    repeated: int = 0
    #: number of lines that begin like a result line but cannot be read
    broken: int = 0
    #: number of all other lines
    foreign: int = 0

    def are_suspicious(self, expected: int) -> bool:
        """Return whether something else may be in place of the lines of rows.

        One broken or foreign line for each row without a line is a line that the provider damaged.

        :param expected: number of rows that should have a line.
        """
        is_explained = self.rows + self.broken >= expected or self.rows + self.broken + self.foreign == expected
        return not self.rows or (not is_explained and (self.repeated > 0 or self.foreign > 0))


def compare_with_counts(batch: BatchView, rows: int, requests: int) -> Agreement:
    """Compare the rows that have a line in either file with the batch's `request_counts`.

    The lines of requests that never ran are not in the counts, so there may be more rows than that. A batch that
    expired or was cancelled before anything ran has no output file.

    :param rows: number of rows of the shard that have a line.
    :param requests: number of rows of the shard.
    """
    answered = min(batch.completed + batch.failed, requests)
    if not answered:
        is_open = batch.status is Status.COMPLETED or batch.output_file_id or (batch.error_file_id and not batch.total)
        return Agreement.UNKNOWN if is_open else Agreement.CONFIRMED
    if rows < answered:
        return Agreement.CONTRADICTED
    # counts of a completed batch that do not add up may be those of an earlier time
    total = min(batch.total, requests) if batch.status is Status.COMPLETED else 0
    return Agreement.CONFIRMED if rows >= total else Agreement.UNKNOWN


def compare_with_sizes(batch: BatchView, files: Sequence[CollectedFile], sizes: Sequence[int | None]) -> Agreement:
    """Compare the files with the sizes that the provider states for them.

    :param sizes: size of each file in bytes, None if the provider does not state it. Some servers state 0 for every
        file, so 0 says nothing about a file with content.
    """
    pairs = [(file.bytes, size) for file, size in zip(files, sizes, strict=True)]
    if any(size and size != actual for actual, size in pairs):
        return Agreement.CONTRADICTED
    has_every_file = batch.output_file_id or not batch.completed
    is_confirmed = pairs and has_every_file and all(size == actual for actual, size in pairs)
    return Agreement.CONFIRMED if is_confirmed else Agreement.UNKNOWN


def are_believed(
    batch: BatchView,
    counts: Agreement,
    sizes: Agreement,
    lines: Lines,
    requests: int,
    *,
    is_repeated: bool,
    is_accepted: bool,
) -> bool:
    """Return whether the files settle their batch.

    :param is_repeated: whether the download before had the same content.
    :param is_accepted: whether a person has cleared the wait since then.
    """
    if counts is Agreement.CONFIRMED:
        return True
    if sizes is Agreement.CONTRADICTED:
        return False
    if is_repeated and is_accepted and (lines.rows or sizes is Agreement.CONFIRMED):
        return True
    if sizes is Agreement.CONFIRMED:
        answered = min(batch.completed + batch.failed, requests)
        return not lines.are_suspicious(answered or (requests if batch.status is Status.COMPLETED else 0))
    if counts is Agreement.CONTRADICTED or not lines.rows:
        return False
    return lines.rows == requests or (is_repeated and batch.status is not Status.COMPLETED)


def describe_disagreement(
    batch: BatchView, files: Sequence[CollectedFile], sizes: Sequence[int | None], rows: int, requests: int
) -> str:
    """Return how the files contradict the provider, in one sentence."""
    counts = (
        f"reports {format_count(batch.completed, 'completed request')} and {batch.failed:,} failed"
        if batch.completed or batch.failed
        else f"gives no counts for its {format_count(requests, 'request')}"
    )
    descriptions = [
        f"{file.file_id} ({format_count(file.bytes, 'byte')}"
        + (f" instead of {size:,})" if size and size != file.bytes else ")")
        for file, size in zip(files, sizes, strict=True)
    ]
    where = f"its result files {' and '.join(descriptions)} have" if files else "it names no result file, so there is"
    lines = f"a line for {format_count(rows, 'row')}" if rows else "no line for any row"
    return f"Batch {batch.id} is {batch.raw_status} and {counts}, but {where} {lines} of the shard."
