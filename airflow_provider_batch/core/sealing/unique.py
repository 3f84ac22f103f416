"""Proof that every custom_id of a job is unique, in 8 bytes a row.

An 8-byte digest per row is kept; equal digests are only a suspicion, which is settled on the exact custom_ids. Memory
stays bounded even if every row is a duplicate: suspicions are settled in portions, and the first portion in which
custom_ids are really shared ends it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

#: a digest's bucket is looked through alone, so that no more than a part of all digests is in a set at once
_BUCKETS = 256
#: suspicions settled at once
PORTION = 10_000
#: rows named of one custom_id
ROWS = 5


class RepeatedIds(msgspec.Struct, frozen=True):
    """custom_ids that more than one row has."""

    #: up to `PORTION` of them, with the numbers of the first five rows that were read of each
    rows: dict[str, list[int]]
    #: these are all there are
    complete: bool


def digest_of(custom_id: str) -> int:
    """The 8-byte digest of a custom_id: Python's own, which is another in every process."""
    return hash(custom_id) & (2**64 - 1)


class UniqueIds:
    """Collects custom_ids; afterwards tells which are not unique."""

    def __init__(self, digest: Callable[[str], int] = digest_of) -> None:
        """`digest` maps a custom_id to 8 bytes; how often it maps two to the same decides the speed alone."""
        self._digest = digest
        self._buckets = [array("Q") for _ in range(_BUCKETS)]

    def add(self, custom_id: str) -> None:
        """Remember one custom_id."""
        digest = self._digest(custom_id)
        self._buckets[digest % _BUCKETS].append(digest)

    def find_repeated(self, sealed: Callable[[], Iterable[tuple[str, int]]]) -> RepeatedIds | None:
        """The custom_ids that were added more than once. None: every one is proven unique. Ends the collection.

        :param sealed: reads again what was added: each custom_id with the number of its row. Called only on suspicion.
        """
        suspects = self._suspects()
        while portion := set(islice(suspects, PORTION)):
            rows: dict[str, list[int]] = {}
            for custom_id, number in sealed():
                if self._digest(custom_id) in portion:
                    numbers = rows.setdefault(custom_id, [])
                    if len(numbers) < ROWS:
                        numbers.append(number)
            found = {custom_id: numbers for custom_id, numbers in rows.items() if len(numbers) > 1}
            if found:
                return RepeatedIds(found, complete=len(portion) < PORTION)
        return None

    def _suspects(self) -> Iterator[int]:
        """Digests that were added more than once, each once."""
        for index, bucket in enumerate(self._buckets):
            self._buckets[index] = array("Q")
            if len(set(bucket)) == len(bucket):
                continue
            seen: set[int] = set()
            told: set[int] = set()
            for digest in bucket:
                if digest in seen and digest not in told:
                    told.add(digest)
                    yield digest
                seen.add(digest)
