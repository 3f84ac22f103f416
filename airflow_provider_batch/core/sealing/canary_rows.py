"""Chooses the requests of each model's canary from all over the query, in one pass and with bounded memory.

The first rows of a query are often alike: the oldest ones, one customer, one language. So each request draws a lot: a
number that depends on its content and its custom_id alone. The canary of a model consists of the requests with the
lowest numbers. That is as good as a random choice, and it is the same whenever the same rows are read, in any order.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar
from zlib import crc32

import msgspec

from airflow_provider_batch.core.sealing.errors import MAX_MODELS, too_many_models_error
from airflow_provider_batch.core.sealing.open_shard import Line

#: at most one of this many requests of a model is in its canary
MIN_RATIO = 4
#: bytes from which the candidates for the canaries become fewer, down to one for each model
CANDIDATE_BYTES = 32 * 1024 * 1024

T = TypeVar("T")


def lot_of(sha256: str, custom_id: str) -> int:
    """Return the number of a request by which it is chosen.

    The custom_id distinguishes equal requests, so that copies of one request do not fill the canary.
    """
    return crc32(custom_id.encode(), int(sha256[:8], 16))


def canary_size(maximum: int, requests: int) -> int:
    """Return how many of a model's requests are in its canary: at most a quarter, rounded up."""
    return min(maximum, -(-requests // MIN_RATIO))


class CanaryRows(Generic[T]):
    """The requests of one model with the lowest lots so far."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._requests = 0
        #: a heap of (negative lot, negative number of the request, request), so that the highest lot comes first
        self._heap: list[tuple[int, int, T]] = []

    def __len__(self) -> int:
        """Return the number of requests that are in the canary so far."""
        return len(self._heap)

    def admits(self, lot: int) -> bool:
        """Count a request, and return whether it belongs to the canary. If so, `add` it."""
        self._requests += 1
        return len(self._heap) < self._maximum or -lot > self._heap[0][0]

    def add(self, lot: int, request: T) -> T | None:
        """Add a request, and return the one that no longer belongs to the canary, if any."""
        heappush(self._heap, (-lot, -self._requests, request))
        return heappop(self._heap)[2] if len(self._heap) > self._maximum else None

    def shrink(self) -> T:
        """Make the canary smaller by one request, and return that request."""
        self._maximum = len(self._heap) - 1
        return heappop(self._heap)[2]

    def finish(self) -> tuple[list[T], list[T]]:
        """Return the requests of the canary and those that are too many for it, in the order they were added."""
        size = canary_size(self._maximum, self._requests)
        entries = sorted(self._heap, reverse=True)
        canary, others = (sorted(part, key=lambda entry: -entry[1]) for part in (entries[:size], entries[size:]))
        return [request for *_, request in canary], [request for *_, request in others]


class Canaries:
    """The candidates for the canaries of all models.

    They are kept in memory until the end, because a row that is read later may displace them.
    """

    def __init__(self, maximum: int) -> None:
        """`maximum` is the number of requests in the canary of a model."""
        self._maximum = maximum
        self._models: dict[str, CanaryRows[Line]] = {}
        self._candidates = self._bytes = 0

    def exchange(self, line: Line) -> tuple[Line | None, list[Line]]:
        """Count a line. Return it as a candidate, or None if it is none, and the lines that belong into a shard.

        The latter are the line itself if it is not a candidate, otherwise those that it displaces.

        :raises InputError: if the lines belong to more than 100 models.
        """
        canary = self._models.get(line.model)
        if canary is None:
            if len(self._models) >= MAX_MODELS:
                raise too_many_models_error()
            canary = self._models[line.model] = CanaryRows(self._maximum)
        lot = lot_of(line.row.sha256, line.row.custom_id)
        if not canary.admits(lot):
            return None, [line]
        self._candidates += 1
        candidate = msgspec.structs.replace(line, candidate=f"candidate-{self._candidates}")
        self._bytes += len(line.line)
        displaced = canary.add(lot, candidate)
        lines = [] if displaced is None else [displaced]
        self._bytes -= sum(len(line.line) for line in lines)
        while self._bytes > CANDIDATE_BYTES and len(canary) > 1:
            lines.append(canary.shrink())
            self._bytes -= len(lines[-1].line)
        return candidate, lines

    def finish(self) -> tuple[dict[str, list[Line]], list[Line]]:
        """Return the lines of each model's canary, and the candidates that are too many."""
        chosen, others = {}, []
        for model, canary in self._models.items():
            chosen[model], remaining = canary.finish()
            others += remaining
        return chosen, others
