"""Proof that every custom_id of a job is unique, with 8 bytes of memory per row.

`UniqueIds` keeps an 8-byte digest of each custom_id. Two equal digests are only a suspicion. To check it, the sealed
rows are read again and the custom_ids themselves are compared.

Memory stays bounded even if every row repeats another one's custom_id, because suspect digests are checked in portions.
The first portion that contains a custom_id which really is repeated ends the search.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

#: buckets of digests. They are searched one at a time, so that only a part of all digests is ever in a set.
_BUCKETS = 256
#: number of suspect digests that are checked together
PORTION = 10_000
#: maximum number of rows that are listed for each repeated custom_id
ROWS = 5


class RepeatedIds(msgspec.Struct, frozen=True):
    """The custom_ids that more than one row has."""

    #: up to `PORTION` custom_ids, each with the numbers of the first five rows that have it
    rows: dict[str, list[int]]
    #: whether these are all repeated custom_ids of the job
    complete: bool


def digest_of(custom_id: str) -> int:
    """Return the 8-byte digest of a custom_id: Python's own hash, which differs between processes."""
    return hash(custom_id) & (2**64 - 1)


class UniqueIds:
    """The custom_ids of a job, collected to find those that are not unique."""

    def __init__(self, digest: Callable[[str], int] = digest_of) -> None:
        """`digest` maps a custom_id to 8 bytes. Collisions make the proof slower, never wrong."""
        self._digest = digest
        self._buckets = [array("Q") for _ in range(_BUCKETS)]

    def add_all(self, custom_ids: Iterable[str]) -> None:
        """Collect custom_ids."""
        buckets = self._buckets
        for digest in map(self._digest, custom_ids):
            buckets[digest % _BUCKETS].append(digest)

    def find_repeated(self, read_ids: Callable[[], Iterable[tuple[str, int]]]) -> RepeatedIds | None:
        """Return the custom_ids that were added more than once, or None if every one is unique.

        This consumes the collection, so it can be called only once.

        :param read_ids: returns everything that was added once more, as pairs of custom_id and row number. It is called
            only if there are equal digests.
        """
        suspects = self._suspects()
        while portion := set(islice(suspects, PORTION)):
            rows: dict[str, list[int]] = {}
            for custom_id, number in read_ids():
                if self._digest(custom_id) in portion:
                    numbers = rows.setdefault(custom_id, [])
                    if len(numbers) < ROWS:
                        numbers.append(number)
            repeated_rows = {custom_id: numbers for custom_id, numbers in rows.items() if len(numbers) > 1}
            if repeated_rows:
                return RepeatedIds(repeated_rows, complete=len(portion) < PORTION)
        return None

    def _suspects(self) -> Iterator[int]:
        """Yield every digest that was added more than once, without repeating it."""
        for index, bucket in enumerate(self._buckets):
            self._buckets[index] = array("Q")
            if len(set(bucket)) == len(bucket):
                continue
            digests: set[int] = set()
            suspects: set[int] = set()
            for digest in bucket:
                if digest in digests and digest not in suspects:
                    suspects.add(digest)
                    yield digest
                digests.add(digest)
