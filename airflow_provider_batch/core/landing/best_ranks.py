"""The rank of the best answer to each row so far, from which the outcomes of all rows follow.

A retried row counts where it was first sealed (`RowIndex.origin` and `line`), so that all its attempts are compared
with each other. One byte is held for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.job import Manifest, RowIndex

_BEST = Outcome.SUCCEEDED.rank
#: ranks of rows without an answer
_UNANSWERED = frozenset({0, Outcome.WITHHELD.rank})


class BestRanks:
    """The best ranks of the rows of a job."""

    def __init__(self, manifest: Manifest) -> None:
        #: by shard: the rank of the best answer to each of its rows so far, 0 for none
        self._ranks = {shard.name: bytearray(shard.requests) for shard in manifest.shards}
        #: number of duplicates by the rank of the last row yielded for them
        self._duplicates: Counter[int] = Counter()
        #: number of rows by rank that do not land themselves, although their answer may be needed
        self._omitted: Counter[int] = Counter()
        self._invalid_rows = manifest.invalid

    def update(
        self, shard: str, rows: Sequence[RowIndex], lines: Sequence[int], answers: Sequence[Answer]
    ) -> dict[int, int]:
        """Compare answers with the best ones so far. Return those that are better, each with the rank before it.

        The keys are positions in `answers`.

        :param lines: the line of each row in the input file of the shard, from 0.
        """
        earlier_ranks: dict[int, int] = {}
        ranks_of_shard = self._ranks.get(shard)
        for position, (row, line, answer) in enumerate(zip(rows, lines, answers, strict=True)):
            ranks, index = (self._ranks.get(row.origin), row.line) if row.origin else (ranks_of_shard, line)
            rank = _BEST if answer.outcome is Outcome.SUCCEEDED else answer.outcome.rank
            if ranks is None or not row.needed or rank <= ranks[index]:
                continue
            earlier_ranks[position] = ranks[index]
            if not row.lands:
                self._omitted[ranks[index]] -= 1
                self._omitted[rank] += 1
            ranks[index] = rank
        return earlier_ranks

    def answer_unanswered(
        self, shard: str, rows: Sequence[RowIndex], withheld: Answer, pending: Answer
    ) -> Iterator[tuple[RowIndex, Answer]]:
        """Yield the rows of a sealed shard that have no answer and need one, each with the answer that lands for it."""
        ranks = self._ranks[shard]
        for line, row in enumerate(rows):
            earlier_rank = ranks[line]
            if earlier_rank in _UNANSWERED and row.needed:
                answer = withheld if earlier_rank else pending
                ranks[line] = answer.outcome.rank
                if not row.lands and not earlier_rank:
                    self._omitted[answer.outcome.rank] += 1
                yield row, answer

    def has_unanswered(self, shard: str) -> bool:
        """Return whether rows of a sealed shard have no answer."""
        return any(rank in self._ranks[shard] for rank in _UNANSWERED)

    def replace_duplicate(self, earlier_rank: int, outcome: Outcome) -> None:
        """Count a row yielded for a duplicate.

        :param earlier_rank: the rank of the row yielded for it before, 0 for none.
        """
        self._duplicates[earlier_rank] -= 1
        self._duplicates[outcome.rank] += 1

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of rows by outcome, best first."""
        counts = Counter(rank for ranks in self._ranks.values() for rank in ranks)
        counts.update(self._duplicates)
        counts.subtract(self._omitted)
        counts[Outcome.INVALID_INPUT.rank] += self._invalid_rows
        return {outcome.value: counts[outcome.rank] for outcome in Outcome if counts[outcome.rank]}
