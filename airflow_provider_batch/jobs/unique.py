"""Proof that every custom_id of a job is unique, in 8 bytes a row.

An 8-byte digest per row is kept; equal digests are only a suspicion, which is settled on the exact custom_ids.
"""

from __future__ import annotations

import hashlib
from array import array

_BUCKETS = 256


class UniqueIds:
    """Collects custom_ids; afterwards tells which digests occurred more than once."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_BUCKETS)]

    def add(self, custom_id: str) -> None:
        """Remember one custom_id."""
        digest = digest_of(custom_id)
        self._buckets[digest % _BUCKETS].append(digest)

    def suspects(self) -> set[int]:
        """Digests seen more than once. Empty means: proven unique. Ends the collection."""
        found: set[int] = set()
        for index, bucket in enumerate(self._buckets):
            self._buckets[index] = array("Q")
            if len(set(bucket)) == len(bucket):
                continue
            seen: set[int] = set()
            for digest in bucket:
                if digest in seen:
                    found.add(digest)
                seen.add(digest)
        return found


def digest_of(custom_id: str) -> int:
    """The 8-byte digest of a custom_id."""
    return int.from_bytes(hashlib.blake2b(custom_id.encode(), digest_size=8).digest(), "little")
